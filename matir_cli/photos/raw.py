"""Cameras' raw files: the embedded preview for models, a development for full size; needs the extra `raw`.

LibRaw reads them, in the process that decodes. Pixels are those of the developed photo, upright.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import ExifTags, Image

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos.exif import UPRIGHT
from matir_cli.photos.formats import DECODE_ERRORS, decode_reason
from matir_cli.photos.suffixes import NEEDS_RAW
from matir_cli.records import WORKING_SIDE

if TYPE_CHECKING:
    import rawpy

_ORIENTATIONS = {0: 1, 3: 3, 5: 8, 6: 6}
"""LibRaw's flip to the orientation of EXIF."""

_STRETCH = 0.02
"""Share by which the shapes of a preview and of the developed photo may differ."""

_EXIF_BYTES = 1 << 20
"""Bytes at the beginning of a file in which EXIF is looked for."""

_TIFF_STARTS = {
    b"II*\0": b"II*\0",
    b"MM\0*": b"MM\0*",
    b"IIRO": b"II*\0",
    b"IIRS": b"II*\0",
    b"IIU\0": b"II*\0",
}
"""First bytes of raw files in TIFF's form, and TIFF's own: Olympus and Panasonic change them."""


@dataclass(frozen=True, slots=True)
class RawImage:
    """A raw file with its pixels in memory."""

    picture: Image.Image
    """RGB or L; the preview as stored, or the development, upright."""
    width: int
    """Width of the developed photo, oriented like `picture`, pixels."""
    height: int
    """Height of the developed photo, oriented like `picture`, pixels."""
    orientation: int
    """Orientation that the file states, 1 to 8."""
    remaining: int
    """Orientation that still has to be undone, 1 to 8."""
    exif: Image.Image
    """An image with the file's EXIF."""


def load_raw(path: Path, check: Callable[[int, int], None], *, reduced: bool) -> RawImage:
    """Load a raw file.

    Args:
        check: called with width and height of the photo; raises `PhotoUnreadable` if it must not be decoded.
        reduced: load the largest embedded JPEG, if it reaches working size and has the shape of the photo,
            else a development at half size; otherwise a development at full size.

    Raises:
        PhotoUnreadable: it cannot be read, or `check` refuses it.
    """
    try:
        import rawpy
    except ImportError as error:
        raise PhotoUnreadable(path, NEEDS_RAW) from error
    try:
        with path.open("rb") as stream:
            start = stream.read(_EXIF_BYTES)
            stream.seek(0)
            with rawpy.imread(stream) as raw:
                return _load(raw, start, check, reduced=reduced)
    except (rawpy.LibRawError, rawpy.NotSupportedError) as error:
        raise PhotoUnreadable(path, _reason(error)) from error
    except DECODE_ERRORS as error:
        raise PhotoUnreadable(path, decode_reason(error)) from error


def read_raw_exif(path: Path) -> Image.Image:
    """Return an image with a raw file's EXIF, without its pixels; without EXIF if it cannot be read.

    Raises:
        PhotoUnreadable: the system fails to read the file.
    """
    preview = None
    try:
        with path.open("rb") as stream:
            start = stream.read(_EXIF_BYTES)
            stream.seek(0)
            with suppress(ImportError):
                import rawpy

                with suppress(rawpy.LibRawError, rawpy.NotSupportedError), rawpy.imread(stream) as raw:
                    preview = _preview(raw)
    except DECODE_ERRORS as error:
        raise PhotoUnreadable(path, decode_reason(error)) from error
    return _exif([start, b"" if preview is None else preview.info.get("exif", b"")])


def _load(raw: rawpy.RawPy, start: bytes, check: Callable[[int, int], None], *, reduced: bool) -> RawImage:
    width, height = raw.sizes.iwidth, raw.sizes.iheight
    check(width, height)
    orientation = _ORIENTATIONS.get(raw.sizes.flip, 1)
    size = (height, width) if orientation >= 5 else (width, height)
    preview = _preview(raw)
    exif = _exif([start, b"" if preview is None else preview.info.get("exif", b"")])
    remaining = None if preview is None or not reduced else _fitting(preview, size, orientation)
    if preview is not None and remaining is not None:
        stored = (size[1], size[0]) if remaining >= 5 else size
        return RawImage(preview, *stored, orientation, remaining, exif)
    half = reduced and max(size) >= 2 * WORKING_SIDE
    pixels = raw.postprocess(use_camera_wb=True, half_size=half)
    developed = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return RawImage(developed, *(size if half else developed.size), orientation, 1, exif)


def _preview(raw: rawpy.RawPy) -> Image.Image | None:
    """Return the largest embedded JPEG, opened but not decoded; None if there is none."""
    import rawpy

    try:
        thumbnail = raw.extract_thumb()
        if thumbnail.format == rawpy.ThumbFormat.JPEG:
            return Image.open(io.BytesIO(bytes(thumbnail.data)), formats=["JPEG"])
    except (rawpy.LibRawError, *DECODE_ERRORS):
        pass  # the photo is developed then
    return None


def _fitting(preview: Image.Image, size: tuple[int, int], orientation: int) -> int | None:
    """Decode a preview if it shows the photo of this upright size; return its orientation.

    That is the one that it states, or else the file's. None if it is of another shape, too small or damaged.
    """
    try:
        stated = preview.getexif().get(ExifTags.Base.Orientation, orientation)
        stated = stated if stated in UPRIGHT else 1
        width, height = preview.size[::-1] if stated >= 5 else preview.size
        alike = abs(width * size[1] - height * size[0]) <= _STRETCH * width * size[1]
        if not alike or max(width, height) < min(WORKING_SIDE, max(size)):
            return None
        preview.draft("RGB", (WORKING_SIDE, WORKING_SIDE))
        preview.load()
    except DECODE_ERRORS:
        return None
    return int(stated)


def _exif(candidates: list[bytes]) -> Image.Image:
    """Return an image with the first EXIF: the file's if it has the form of a TIFF, else the preview's."""
    carrier = Image.new("L", (1, 1))
    for content in candidates:
        tiff = _TIFF_STARTS.get(content[:4])
        if tiff is not None or content.startswith(b"Exif\0\0"):
            carrier.info["exif"] = content if tiff is None else tiff + content[4:]
            break
    return carrier


def _reason(error: Exception) -> str:
    words = error.args[0] if error.args else ""
    text = words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
    said = " ".join(text.split()).lower()
    if said == "unsupported file format or not raw file":
        return "not supported: not a raw file that LibRaw reads"
    return decode_reason(ValueError(said or "LibRaw cannot read it"))
