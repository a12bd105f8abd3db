"""Records of search results for JSON output."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TypeAlias

from matir_cli import masks
from matir_cli.records import RegionOrigin
from matir_cli.search.explanation import Explanation
from matir_cli.search.results import GroundedObject, SearchResult

BoxRecord: TypeAlias = tuple[float, float, float, float]
"""x0, y0, x1, y1."""


@dataclass(frozen=True, slots=True)
class RleRecord:
    """A mask in COCO's compressed run-length encoding."""

    size: tuple[int, int]
    """Height and width, photo pixels."""
    counts: str
    """Run lengths, as pycocotools encodes them in ASCII."""


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """One object of a result; the fields are those of `ResultRecord`."""

    box: BoxRecord | None
    region: int | None
    iou: float | None
    origin: str | None
    label: str | None
    mask: RleRecord | None
    mask_file: str | None
    cutout_file: str | None


@dataclass(frozen=True, slots=True)
class WrittenFiles:
    """Paths of the files written for a result; per object in order, None for an object without a mask."""

    masks: tuple[Path | None, ...] = ()
    cutouts: tuple[Path | None, ...] = ()
    overlay: Path | None = None


@dataclass(frozen=True, slots=True)
class ResultRecord:
    """One result of a search."""

    rank: int
    path: str
    """Bytes of a file name that are not UTF-8 become lone surrogates, as with `os.fsdecode`."""
    score: float
    """`p_true` of a judged photo, otherwise `stage1_score`."""
    stage1_score: float
    """Cosine of the photo's best region and the query, -1..1 (eq. 1)."""
    judged: bool
    judge_failed: bool | None
    """True if the judge was asked and could not answer; else left out."""
    p_true: float | None
    """S' (eq. 2), 0..1."""
    logit_margin: float | None
    """zTrue - zFalse, by which judged photos are ranked."""
    grounding: str | None
    """Outcome of grounding: matched, refined, unmatched, no box, unreadable."""
    box: BoxRecord | None
    """Photo pixels, continuous edges: the judge's box if it gave one, otherwise the region's."""
    region: int | None
    """Ordinal of the stored region that fits best; 0 is the whole photo."""
    iou: float | None
    """IoU of that region's box and the judge's box, 0..1."""
    near_copies: int | None
    """Number of lower-ranked photos that were left out as near-copies of this one, if that was requested."""
    origin: str | None
    """Where that region comes from, if not from the proposer: human, data set."""
    label: str | None
    """What the region shows, in the words of its origin."""
    width: int
    """Photo pixels."""
    height: int
    other_paths: tuple[str, ...] | None
    """The other files that hold the photo, such as its raw file; left out if there is none."""
    rating: int | None
    """-1 (rejected) to 5; left out if the photo has none."""
    keywords: tuple[str, ...] | None
    """Left out if there is none."""
    latitude: float | None
    """Degrees, north positive; left out if the photo has no position."""
    longitude: float | None
    """Degrees, east positive; likewise."""
    mask: RleRecord | None
    """COCO compressed RLE at the photo's true size, if requested."""
    mask_file: str | None
    """Path of the mask, if requested."""
    cutout_file: str | None
    """Path of the cut-out, if requested."""
    overlay_file: str | None
    """Path of the photo with its objects drawn onto it, if requested."""
    instances: tuple[InstanceRecord, ...] | None
    """Every object that the judge pointed at, if requested."""
    explanation: Explanation | None
    """Where the score and the mask come from, if requested."""


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """The answer to one line of `matir find -`."""

    query: str
    """The line, spaces at its ends removed."""
    results: tuple[ResultRecord, ...]


def result_record(
    result: SearchResult, files: WrittenFiles, *, with_rle: bool, all_instances: bool
) -> ResultRecord:
    """Make the record of a result and of the files written for it.

    Args:
        with_rle: include masks as RLE.
        all_instances: include every object, not only the first.
    """
    size, verdict = result.photo.record, result.verdict
    instances = tuple(
        InstanceRecord(
            box=each.box.rounded(2),
            region=None if each.region is None else each.region.ordinal,
            iou=None if each.iou is None else round(each.iou, 4),
            origin=None if (origin := _origin(each)) is None else origin.kind.value,
            label=None if origin is None else origin.label,
            mask=_coco(result, each) if with_rle else None,
            mask_file=None if mask is None else str(mask),
            cutout_file=None if cutout is None else str(cutout),
        )
        for each, mask, cutout in zip_longest(
            result.objects if all_instances else result.objects[:1], files.masks, files.cutouts
        )
    )
    latitude, longitude = result.photo.position or (None, None)
    first = instances[0] if instances else InstanceRecord(*[None] * 8)
    return ResultRecord(
        rank=result.rank,
        path=str(result.path),
        score=round(result.score, 6),
        stage1_score=round(result.candidate.score, 6),
        judged=verdict is not None,
        judge_failed=result.judge_failed or None,
        p_true=None if verdict is None else round(verdict.p_true, 6),
        logit_margin=None if verdict is None else round(verdict.margin, 6),
        grounding=result.grounding,
        box=first.box,
        region=first.region,
        iou=first.iou,
        near_copies=result.candidate.near_copies,
        origin=first.origin,
        label=first.label,
        width=size.width,
        height=size.height,
        other_paths=tuple(str(path) for path in result.photo.paths if path != result.path) or None,
        rating=result.photo.metadata.rating,
        keywords=result.photo.metadata.keywords or None,
        latitude=latitude,
        longitude=longitude,
        mask=first.mask,
        mask_file=first.mask_file,
        cutout_file=first.cutout_file,
        overlay_file=None if files.overlay is None else str(files.overlay),
        instances=instances if all_instances else None,
        explanation=result.explanation,
    )


def _origin(grounded: GroundedObject) -> RegionOrigin | None:
    return None if grounded.region is None else grounded.region.region.origin


def _coco(result: SearchResult, grounded: GroundedObject) -> RleRecord | None:
    if grounded.mask is None:
        return None
    rle = masks.scale(grounded.mask, result.photo.record.height, result.photo.record.width)
    return RleRecord((rle.height, rle.width), rle.counts.decode("ascii"))
