"""Results as text, JSON and PNG masks. Nothing here prints: the commands do.

What comes from a stranger (file names, EXIF) is made harmless for where it goes:
`printable` for terminals, ASCII-only JSON, and file names that stay in their folder.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from matir_cli import masks
from matir_cli.errors import OutputError
from matir_cli.find import Answer, Found
from matir_cli.records import Box, MaskArray, Rle

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


def table(results: Sequence[Found]) -> list[str]:
    """Lines for people: rank, score, box and path in columns."""
    if not results:
        return []
    lines = [f"{'rank':>4}  {'score':>6}  {'box x0,y0,x1,y1':<23}  path"]
    for found in results:
        corners = _rounded(found.answers[0].box) if found.answers else ()
        box = ",".join(str(round(v)) for v in corners) or "-"
        lines.append(f"{found.rank:>4}  {found.score:6.3f}  {box:<23}  {printable(str(found.path))}")
    return lines


def printable(text: str) -> str:
    """`text` with everything that could steer a terminal or hide in it shown as an escape."""
    return "".join(
        c if _is_harmless(c) else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def _is_harmless(character: str) -> bool:
    # Controls, formatting (bidirectional overrides, zero width), surrogates, line separators.
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def photo_mask(found: Found, rle: Rle) -> MaskArray:
    """A mask of the photo at its true size, (height, width) bool."""
    size = found.photo.record
    return masks.resize(masks.decode(rle), size.height, size.width)


def write_masks(folder: Path, found: Found, all_instances: bool) -> tuple[Path | None, ...]:
    """Write the answer's mask, or every instance's, as 8-bit PNG (0 outside, 255 inside) at true size.

    A name is the photo's with the first hex digits of its SHA-256 and those of the mask's: it
    stays in `folder`, no other photo has it, and the same mask always gets the same name.

    Returns:
        Where each mask lies, in order; None for an answer without one.

    Raises:
        OutputError: one cannot be written.
    """
    wanted = found.answers if all_instances else found.answers[:1]
    return tuple(None if a.mask is None else _write_mask(folder, found, a.mask) for a in wanted)


def _write_mask(folder: Path, found: Found, rle: Rle) -> Path:
    photo, mask = found.photo.record.sha256.hex()[:12], sha256(rle.counts).hexdigest()[:6]
    target = folder / f"{_plain_stem(found.path)}-{photo}-{mask}.png"
    picture = Image.fromarray(photo_mask(found, rle).astype(np.uint8) * 255)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _save_png(picture, target)
    except OSError as error:
        raise OutputError(target, error.strerror or str(error)) from error
    return target


def _plain_stem(path: Path) -> str:
    """The file's stem with letters, digits, dots and dashes only, short enough for any file system."""
    plain = re.sub(r"[^\w.-]|^\.", "_", path.stem)
    return plain.encode("utf-8", "replace")[:120].decode("utf-8", "ignore")


def _save_png(picture: Image.Image, target: Path) -> None:
    """Write to a temporary name and rename, so that no half a file is ever seen."""
    temporary = target.with_name(f".{os.getpid()}-{target.name}")
    try:
        picture.save(temporary, "PNG")
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _coco(found: Found, answer: Answer) -> RleRecord | None:
    if answer.mask is None:
        return None
    rle = masks.encode(photo_mask(found, answer.mask))
    return {"size": [rle.height, rle.width], "counts": rle.counts.decode("ascii")}


def _rounded(box: Box) -> BoxRecord:
    return round(box.x0, 2), round(box.y0, 2), round(box.x1, 2), round(box.y1, 2)
