"""Photo files: found, hashed, decoded to working size, turned upright.

Files come from strangers. Only formats that Pillow decodes by itself are read (EPS
would start Ghostscript), and sizes are bounded before a pixel is decoded.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from matir_cli.errors import PhotoUnknown, PhotoUnreadable
from matir_cli.gallery import GalleryFile
from matir_cli.records import MAX_PIXELS, ImageArray
from matir_cli.stored import FileRecord, PhotoRecord

WORKING_SIDE = 1024
"""Pixels: the long side of the image that models see and masks are kept in."""

MIN_SIDE = 8
"""Pixels: anything with a shorter side shows no object."""

STRIP = 1 << 20
"""Pixels of a grey picture that are brought to 8 bits at a time."""

LONGEST_CAMERA = 200
"""Characters of a camera's name; EXIF would let it be of any length."""

PREVIEW_QUALITY = 85
"""JPEG quality of the stored preview; 85 keeps a 1024-pixel photo at some 100 to 200 KB."""

FORBIDDEN_FORMATS = frozenset({"EPS", "BUFR", "GRIB", "HDF5", "WMF", "MPEG"})
"""EPS runs another program; Pillow only identifies the others."""

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})

RAW_SUFFIXES = frozenset(
    {
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos"),
        *(".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw"),
        ".x3f",
    }
)
"""Cameras' own formats, which Pillow does not read. Beside each there often is a JPEG of the same photo."""

SKIPPED_FOLDERS = frozenset({"@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information"})
"""What network drives and operating systems strew among photos; hidden folders are skipped as well."""

# `_open` checks first, but a format may hold another picture inside, which only Pillow sees. Its limit
# is one global, at which it warns; it refuses from twice that on.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

_LATEST = 2**63 - 1

# EXIF orientation to what turns the picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# All that decoders were seen to raise on damaged files.
_DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError),
    *(EOFError, MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
)


@dataclass(frozen=True, slots=True)
class DecodedPhoto:
    """A photo ready for the models."""

    file: FileRecord
    record: PhotoRecord
    image: ImageArray
    """(mask_height, mask_width, 3) uint8 RGB, working pixels, upright."""


def find_files(paths: Iterable[Path], passed_over: Counter[str] | None = None) -> Iterator[Path]:
    """The photo files that `paths` name: files as given, folders recursively, in order of name.

    In folders, hidden entries and `SKIPPED_FOLDERS` are passed over, and so is any file
    whose name does not end like a picture's. A folder is entered once however many links
    lead to it. Paths are absolute; a path that does not exist is yielded like any other,
    for the reader to report.

    Args:
        passed_over: counts the files that have one of `RAW_SUFFIXES`, by that.
    """
    raw = Counter[str]() if passed_over is None else passed_over
    _register_heif()
    readable = set(_readable_formats())
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in readable}
    suffixes |= HEIF_SUFFIXES  # without the package they are reported, not passed over
    entered: set[tuple[int, int]] = set()
    for path in paths:
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would replace links by targets
        if absolute.is_dir():
            yield from _walk(absolute, suffixes, entered, raw)
        else:
            yield absolute


def _walk(
    folder: Path, suffixes: set[str], entered: set[tuple[int, int]], raw: Counter[str]
) -> Iterator[Path]:
    try:
        status = folder.stat()
        if (identity := (status.st_dev, status.st_ino)) in entered:
            return
        entered.add(identity)
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        yield folder  # its reader reports what is wrong with it
        return
    for entry in found:
        if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS:
            continue
        path = folder / entry.name
        if path.is_dir():
            yield from _walk(path, suffixes, entered, raw)
        elif (suffix := path.suffix.lower()) in suffixes:
            yield path
        elif suffix in RAW_SUFFIXES:
            raw[suffix] += 1


def status(path: Path) -> FileRecord:
    """Size and time of change of a file.

    Raises:
        PhotoUnreadable: it is not there, not a plain file, or may not be looked at.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise PhotoUnreadable(path, _system_reason(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise PhotoUnreadable(path, "cannot be listed" if stat.S_ISDIR(found.st_mode) else "not a plain file")
    # SQLite's integers end in 2262; a wrong clock may be beyond.
    return FileRecord(path, found.st_size, max(-_LATEST, min(found.st_mtime_ns, _LATEST)))


def sha256(file: FileRecord) -> bytes:
    """SHA-256 of the file's bytes, 32 bytes.

    Raises:
        PhotoUnreadable: it cannot be read, or is empty.
    """
    if file.bytes == 0:
        raise PhotoUnreadable(file.path, "zero bytes")
    try:
        with file.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise PhotoUnreadable(file.path, _system_reason(error)) from error


def decode(file: FileRecord, digest: bytes) -> DecodedPhoto:
    """Decode to working size, upright, RGB; of an animation, the first frame.

    Raises:
        PhotoUnreadable: not a picture, damaged, too large or too small.
    """
    _register_heif()
    try:
        with file.path.open("rb") as stream, _open(file.path, stream) as picture:
            orientation, turned = _orientation(picture)
            width, height = picture.size
            # A JPEG decodes to a half, a quarter or an eighth for a fraction of the work.
            picture.draft("RGB", (WORKING_SIDE, WORKING_SIDE))
            working = _scaled(picture, width, height)
            if turned > 1:
                working = working.transpose(_UPRIGHT[turned])
            if turned >= 5:  # on its side
                width, height = height, width
            image = np.array(working)  # a copy: torch takes no read-only array
            record = _record(digest, width, height, image, orientation, picture.getexif())
    except PhotoUnreadable:
        raise
    except _DECODE_ERRORS as error:
        raise PhotoUnreadable(file.path, _decode_reason(error)) from error
    return DecodedPhoto(file, record, image)


def decode_whole(path: Path) -> Image.Image:
    """Decode at true size, upright, RGB, with the colour profile where it still fits; of an
    animation, the first frame.

    Raises:
        PhotoUnreadable: not a picture, damaged, too large or too small.
    """
    _register_heif()
    try:
        with path.open("rb") as stream, _open(path, stream) as picture:
            _, turned = _orientation(picture)
            profile = picture.info.get("icc_profile") if picture.mode in ("RGB", "RGBA") else None
            whole = _to_rgb(picture)
            whole.load()
    except PhotoUnreadable:
        raise
    except _DECODE_ERRORS as error:
        raise PhotoUnreadable(path, _decode_reason(error)) from error
    whole = whole.transpose(_UPRIGHT[turned]) if turned > 1 else whole
    whole.info = {} if profile is None else {"icc_profile": profile}
    return whole


def _orientation(picture: Image.Image) -> tuple[int, int]:
    """How EXIF says the file's pixels are turned (1: not at all), and which of that is left to undo."""
    stated = _turn(picture)
    if picture.format == "TIFF":
        picture.load()  # Pillow turns this format upright itself, and takes the tag away
    return stated, _turn(picture)


def _turn(picture: Image.Image) -> int:
    stated = picture.getexif().get(ExifTags.Base.Orientation)
    return stated if isinstance(stated, int) and stated in _UPRIGHT else 1


def _record(
    digest: bytes, width: int, height: int, image: ImageArray, orientation: int, exif: Image.Exif
) -> PhotoRecord:
    """What to store of a photo of `width` x `height` pixels upright; `orientation` is its file's."""
    return PhotoRecord(
        *(digest, width, height, image.shape[1], image.shape[0], orientation),
        *(_taken_at(exif), _camera(exif), *_position(exif)),
    )


def encode_preview(image: ImageArray) -> bytes:
    """The working image as JPEG."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=PREVIEW_QUALITY)
    return stream.getvalue()


def decode_preview(jpeg: bytes) -> ImageArray:
    """The working image that `encode_preview` was given, as near as JPEG keeps it.

    Raises:
        PhotoUnreadable: the gallery holds something else there.
    """
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as picture:
            if max(picture.size) > WORKING_SIDE:
                raise ValueError(f"{picture.size[0]} x {picture.size[1]} pixels")
            return np.array(picture.convert("RGB"))
    except _DECODE_ERRORS as error:
        raise PhotoUnreadable(Path("preview"), _decode_reason(error)) from error


def working_image(gallery: GalleryFile, photo_id: int) -> ImageArray | None:
    """A stored photo at working size: its preview, else its file if that is as it was; else None.

    None, too, for a photo that is not stored any more.

    Raises:
        PhotoUnreadable: its preview is not one.
    """
    preview = gallery.preview(photo_id)
    if preview is not None:
        return decode_preview(preview)
    try:
        stored = gallery.photo(photo_id)
    except PhotoUnknown:
        return None
    for path in stored.paths:
        try:
            file = status(path)
            if gallery.is_unchanged(file):
                return decode(file, stored.record.sha256).image
        except PhotoUnreadable:
            continue
    return None


def _open(path: Path, stream: io.BufferedReader) -> Image.Image:
    try:
        picture = Image.open(stream, formats=_readable_formats())
    except UnidentifiedImageError as error:
        heic_unreadable = path.suffix.lower() in HEIF_SUFFIXES and not _register_heif()
        reason = "HEIC: needs pip install 'matir-cli[heic]'" if heic_unreadable else "not an image"
        raise PhotoUnreadable(path, reason) from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise PhotoUnreadable(path, f"{width} x {height} pixels, more than {MAX_PIXELS // 10**6} million")
    if min(width, height) < MIN_SIDE:
        raise PhotoUnreadable(path, f"{width} x {height} pixels, too small to show an object")
    return picture


def _scaled(picture: Image.Image, width: int, height: int) -> Image.Image:
    """RGB with a long side of at most `WORKING_SIDE`; `width` x `height` is the photo's true size."""
    factor = min(1.0, WORKING_SIDE / max(width, height))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    # Palettes, bits and 16-bit greys do not average; they become 8 bits before the scaling.
    smooth = picture if picture.mode in ("L", "RGB", "CMYK", "YCbCr") else _eight_bit(picture)
    if picture.size != size:
        smooth = smooth.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return _to_rgb(smooth)


def _to_rgb(picture: Image.Image) -> Image.Image:
    """8-bit RGB: 16-bit and float greys by their range, transparency over white."""
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    return _eight_bit(picture).convert("RGB")


def _eight_bit(picture: Image.Image) -> Image.Image:
    """RGB, or L for greys of more bits; a few bytes a pixel beside the picture's own."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _grey(picture)
    if picture.has_transparency_data:
        clear = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        opaque = Image.new("RGB", clear.size, "white")
        opaque.paste(clear, mask=clear.getchannel("A"))
        return opaque
    return picture.convert("RGB")


def _grey(picture: Image.Image) -> Image.Image:
    """The picture in L, its range spread over it; strip by strip, for it takes eight bytes a pixel."""
    values = np.asarray(picture)
    rows = max(1, STRIP // values.shape[1])

    def strips() -> Iterator[tuple[slice, NDArray[np.float64]]]:
        for top in range(0, len(values), rows):
            there = slice(top, top + rows)
            yield there, np.nan_to_num(values[there].astype(np.float64), posinf=0.0, neginf=0.0)

    low = min(float(strip.min()) for _, strip in strips())
    high = max(float(strip.max()) for _, strip in strips())
    if picture.mode.startswith("I") and low >= 0 and 255 < high <= 65535:
        low, high = 0.0, 65535.0
    grey = np.empty(values.shape, np.uint8)
    for there, strip in strips():
        grey[there] = ((strip - low) * (255.0 / max(high - low, 1e-12))).round()
    return Image.fromarray(grey)


def _readable_formats() -> list[str]:
    Image.init()
    return sorted(set(Image.OPEN) - FORBIDDEN_FORMATS)


@cache
def _register_heif() -> bool:
    """Let Pillow read HEIC where the optional package is installed; say whether it is."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _taken_at(exif: Image.Exif) -> str | None:
    details = exif.get_ifd(ExifTags.IFD.Exif)
    written = details.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
    try:
        return datetime.strptime(str(written).strip("\0 "), "%Y:%m:%d %H:%M:%S").isoformat()
    except ValueError:
        return None


def _camera(exif: Image.Exif) -> str | None:
    maker, model = (
        " ".join(str(exif.get(tag) or "").replace("\0", " ").split())
        for tag in (ExifTags.Base.Make, ExifTags.Base.Model)
    )
    name = model if model.startswith(maker) else f"{maker} {model}"
    return name.strip()[:LONGEST_CAMERA] or None


def _position(exif: Image.Exif) -> tuple[float | None, float | None]:
    """Latitude and longitude in degrees, both or neither."""
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    latitude = _degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "S", 90.0)
    longitude = _degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "W", 180.0)
    return (None, None) if latitude is None or longitude is None else (latitude, longitude)


def _degrees(gps: dict[int, object], tag: int, ref: int, negative: str, limit: float) -> float | None:
    try:
        degrees, minutes, seconds = (float(part) for part in gps[tag])  # type: ignore[attr-defined]
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    value = degrees + minutes / 60 + seconds / 3600
    if not 0 <= value <= limit:  # false for NaN too
        return None
    return -value if str(gps.get(ref, "")).strip("\0 ").upper() == negative else value


def _system_reason(error: OSError | ValueError) -> str:
    """The system's word for it, without the path."""
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error) or "cannot be read").lower()


def _decode_reason(error: BaseException) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS // 10**6} million pixels"
    words = " ".join(str(error).split())[:120]
    return f"damaged: {words}" if words else f"damaged: {type(error).__name__}"
