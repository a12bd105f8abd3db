"""Results as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from matir_cli import masks
from matir_cli.answers import Answer, Found
from matir_cli.output.photo_masks import photo_mask
from matir_cli.records import Box

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
    instances: tuple[InstanceRecord, ...] | None
    """Every object that the judge pointed at, where asked for."""


def record(
    found: Found, mask_files: Sequence[Path | None], *, with_rle: bool, all_instances: bool
) -> ResultRecord:
    """The record of a result; `mask_files` has where each answer's mask was written, in order."""
    size, verdict = found.photo.record, found.verdict
    files = list(mask_files) + [None] * len(found.answers)
    instances = tuple(
        InstanceRecord(
            box=_rounded(answer.box),
            region=None if answer.region is None else answer.region.ordinal,
            iou=None if answer.iou is None else round(answer.iou, 4),
            mask=_coco(found, answer) if with_rle else None,
            mask_file=None if file is None else str(file),
        )
        for answer, file in zip(found.answers, files, strict=False)
    )
    first = instances[0] if instances else InstanceRecord(None, None, None, None, None)
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
        instances=instances if all_instances else None,
    )


def to_json(item: ResultRecord) -> str:
    """One line of ASCII, so that no file name upsets a terminal or a reader; absent fields are left out."""
    return json.dumps(asdict(item, dict_factory=lambda pairs: {k: v for k, v in pairs if v is not None}))


def _coco(found: Found, answer: Answer) -> RleRecord | None:
    if answer.mask is None:
        return None
    rle = masks.encode(photo_mask(found, answer.mask))
    return {"size": [rle.height, rle.width], "counts": rle.counts.decode("ascii")}


def _rounded(box: Box) -> BoxRecord:
    return round(box.x0, 2), round(box.y0, 2), round(box.x1, 2), round(box.y1, 2)
