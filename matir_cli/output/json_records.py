"""Results as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TypeAlias

from matir_cli import masks
from matir_cli.search.results import GroundedObject, SearchResult

BoxRecord: TypeAlias = tuple[float, float, float, float]

RleRecord: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """One object in a result, as JSON has it."""

    box: BoxRecord | None
    region: int | None
    iou: float | None
    mask: RleRecord | None
    mask_file: str | None
    cutout_file: str | None


@dataclass(frozen=True, slots=True)
class WrittenFiles:
    """What was written of a result; for each answer in order, None where it has no mask."""

    masks: tuple[Path | None, ...] = ()
    cutouts: tuple[Path | None, ...] = ()
    overlay: Path | None = None


@dataclass(frozen=True, slots=True)
class ResultRecord:
    """One result as JSON has it; fields that do not apply are left out."""

    rank: int
    path: str
    """Bytes of a file name that are not UTF-8 stand as lone surrogates, as `os.fsdecode` has them."""
    score: float
    """`p_true` of a judged photo, else `stage1_score`."""
    stage1_score: float
    judged: bool
    p_true: float | None
    """S' (eq. 2), 0..1."""
    logit_margin: float | None
    """zTrue - zFalse, what judged photos are ranked by."""
    grounding: str | None
    """How the judge's box became a mask: matched, refined, unmatched, no box, unreadable."""
    box: BoxRecord | None
    """x0, y0, x1, y1, photo pixels, continuous edges: the judge's where it gave one, else the region's."""
    region: int | None
    """Position in the photo of the stored region that fits best; 0 is the whole photo."""
    iou: float | None
    """Of that region's box with the judge's."""
    width: int
    """Photo pixels."""
    height: int
    mask: RleRecord | None
    """COCO compressed RLE at the photo's true size, where asked for."""
    mask_file: str | None
    """Where the PNG mask was written, where asked for."""
    cutout_file: str | None
    """Where the cut-out was written, where asked for."""
    overlay_file: str | None
    """Where the photo with its answers drawn onto it was written, where asked for."""
    instances: tuple[InstanceRecord, ...] | None
    """Every object that the judge pointed at, where asked for."""


def result_record(
    found: SearchResult, files: WrittenFiles, *, with_rle: bool, all_instances: bool
) -> ResultRecord:
    """The record of a result and of what was written of it."""
    size, verdict = found.photo.record, found.verdict
    instances = tuple(
        InstanceRecord(
            box=answer.box.rounded(2),
            region=None if answer.region is None else answer.region.ordinal,
            iou=None if answer.iou is None else round(answer.iou, 4),
            mask=_coco(found, answer) if with_rle else None,
            mask_file=None if mask is None else str(mask),
            cutout_file=None if cutout is None else str(cutout),
        )
        for answer, mask, cutout in zip_longest(
            found.answers if all_instances else found.answers[:1], files.masks, files.cutouts
        )
    )
    first = instances[0] if instances else InstanceRecord(*[None] * 6)
    return ResultRecord(
        rank=found.rank,
        path=str(found.path),
        score=round(found.score, 6),
        stage1_score=round(found.candidate.score, 6),
        judged=verdict is not None,
        p_true=None if verdict is None else round(verdict.p_true, 6),
        logit_margin=None if verdict is None else round(verdict.margin, 6),
        grounding=found.grounding,
        box=first.box,
        region=first.region,
        iou=first.iou,
        width=size.width,
        height=size.height,
        mask=first.mask,
        mask_file=first.mask_file,
        cutout_file=first.cutout_file,
        overlay_file=None if files.overlay is None else str(files.overlay),
        instances=instances if all_instances else None,
    )


def _coco(found: SearchResult, answer: GroundedObject) -> RleRecord | None:
    if answer.mask is None:
        return None
    rle = masks.encode(found.photo.at_true_size(answer.mask))
    return {"size": [rle.height, rle.width], "counts": rle.counts.decode("ascii")}
