"""Masks as PNG files at the photo's true size."""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli import masks
from matir_cli.answers import Found
from matir_cli.errors import OutputError
from matir_cli.records import MaskArray, Rle


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
