"""Image files decoded in this process: bounds, orientation, metadata, and files that are broken in part.

The files are untrusted, and decoders may hang or crash: see `decoder_process`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos import side_data
from matir_cli.photos.colour import BAND, rgb_conversion, tiff_tag, to_working_rgb
from matir_cli.photos.exif import UPRIGHT, Metadata, MetadataReader
from matir_cli.photos.formats import (
    DECODE_ERRORS,
    NEEDS_HEIF,
    WEBP_PIXELS,
    decode_reason,
    is_heif,
    readable_formats,
    refused_format,
    register_heif,
)
from matir_cli.photos.profiles import PROFILE, ColourProfile, ProfileBroken, read_profile
from matir_cli.photos.raw import load_raw, read_raw_exif
from matir_cli.photos.suffixes import RAW_SUFFIXES
from matir_cli.records import MAX_PIXELS, WORKING_SIDE, Note, NoteKind

MIN_SIDE = 8
"""Pixels: shortest side of a photo that can show an object."""

MAX_SCANS = 500
"""Scans of a progressive JPEG, each of which takes as long as the whole of another; cameras write ten."""

MAX_STRIPS = 400_000
"""Strips or tiles of a TIFF, each of which takes time of its own; the tallest scans have 65,535 rows."""

LEAST_LEFT = 0.5
"""Share of its rows that must be left of a JPEG that has been cut."""

CUT = Note(NoteKind.PICTURE, "the end of its file is missing, and the rest of the picture is blank or coarse")
"""Note on a JPEG that has been cut."""

LEFT_OUT = Note(NoteKind.METADATA, "metadata that kept the picture from being read was left out")
"""Note on a file that was decoded without its metadata."""

MOST_REPAIRED = 1 << 28
"""Bytes at the beginning of a file that cannot be decoded as it is, of which repaired copies are made."""

_START = 1 << 16
"""Bytes at the beginning of a file by which it is recognised."""

_TIFF_BITS, _TIFF_PLANES = 258, 284

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image with its pixels in memory, as the file stores them."""

    picture: Image.Image
    """Any mode; perhaps a reduced decoding."""
    width: int
    """True width as stored, pixels."""
    height: int
    """True height as stored, pixels."""
    orientation: int
    """Orientation that the file states, 1 to 8."""
    remaining: int
    """Orientation that still has to be undone, 1 to 8."""
    metadata: Metadata
    notes: tuple[Note, ...]
    """What could not be read of the file."""
    profile: ColourProfile | None = None
    """The colour profile; None if there is none that can be applied."""

    @property
    def kept_profile(self) -> bytes:
        """The profile of the pixels of `rgb_bands`; empty if they are in sRGB, or in no known colours."""
        return self.profile.content if self.profile is not None and self.profile.mode == "RGB" else b""

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the photo, upright, pixels."""
        return (self.height, self.width) if self.remaining >= 5 else (self.width, self.height)

    def working_rgb(self) -> Image.Image:
        """Return the photo at working size, upright, RGB; in sRGB if it has a colour profile."""
        convert = None if self.profile is None else self.profile.to_srgb
        working = to_working_rgb(self.picture, self.width, self.height, convert)
        return working.transpose(UPRIGHT[self.remaining]) if self.remaining > 1 else working

    def rgb_bands(self) -> Iterator[bytes]:
        """Yield the photo upright, RGB, 3 bytes per pixel, in bands of rows from the top.

        RGB pixels are as in the file; greys and CMYK with a profile, which RGB pixels cannot have, are
        converted to sRGB.
        """
        if self.profile is None or self.profile.mode == "RGB":
            convert = rgb_conversion(self.picture)
        else:
            convert = self.profile.to_srgb
        width, height = self.upright_size
        rows = max(1, BAND // width)
        for top in range(0, height, rows):
            part = convert(self.picture.crop(self._stored_box(top, min(top + rows, height)))).convert("RGB")
            yield (part.transpose(UPRIGHT[self.remaining]) if self.remaining > 1 else part).tobytes()

    def _stored_box(self, top: int, bottom: int) -> tuple[int, int, int, int]:
        """Return the box in the stored image of the rows `top` to `bottom` of the upright photo."""
        match self.remaining:
            case 3 | 4:
                return 0, self.height - bottom, self.width, self.height - top
            case 5 | 6:
                return top, 0, bottom, self.height
            case 7 | 8:
                return self.width - bottom, 0, self.width - top, self.height
            case _:
                return 0, top, self.width, bottom


@dataclass(frozen=True, slots=True)
class _Repair:
    """Another attempt to decode a file that cannot be decoded as it is."""

    content: bytes
    note: Note | None
    """Note on what is lost by it."""
    cut: bool = False
    """The end of the file may be missing."""
    reducible: bool = True
    """It may be decoded at a lower size."""


def load_image(path: Path, lines: Callable[[], str], *, reduced: bool) -> LoadedImage:
    """Load an image file; the first frame of an animation.

    A JPEG that has been cut, and files whose metadata keeps the decoder from the picture, are loaded
    without what is missing.

    Args:
        lines: returns what native libraries have written to standard error.
        reduced: decode at a lower size that is no less than the working size, if the format can.

    Raises:
        PhotoUnreadable: the file is not an image, damaged, too large or too small.
    """
    if path.suffix.lower() in RAW_SUFFIXES:
        return _load_camera_raw(path, reduced=reduced)
    try:
        with path.open("rb") as stream:
            try:
                return _load(stream, path, reduced=reduced)
            except DECODE_ERRORS as error:
                said = lines()
                saved = _load_repaired(stream, path, reduced=reduced)
                if saved is not None:
                    return saved
                if isinstance(error, UnidentifiedImageError):
                    raise PhotoUnreadable(path, _unidentified_reason(stream)) from error
                raise PhotoUnreadable(path, decode_reason(error, said)) from error
    except (OSError, ValueError) as error:  # of the file system, or a path that no file can have
        raise PhotoUnreadable(path, decode_reason(error)) from error


def load_metadata(path: Path) -> Metadata:
    """Read the metadata of an image file, without decoding its pixels if its format allows that.

    Raises:
        PhotoUnreadable: the file is not an image, or is damaged before its metadata.
    """
    if path.suffix.lower() in RAW_SUFFIXES:
        return MetadataReader(read_raw_exif(path)).metadata()
    try:
        with path.open("rb") as stream:
            start = stream.read(_START)
            stream.seek(0)
            if is_heif(start):
                register_heif()
            with Image.open(stream, formats=readable_formats()) as picture:
                if picture.format == "PNG":  # metadata may follow the pixels
                    _check_bounds(picture.width, picture.height, path)
                    picture.load()
                return MetadataReader(picture).metadata()
    except DECODE_ERRORS as error:
        raise PhotoUnreadable(path, decode_reason(error)) from error


def _load(stream: BinaryIO, path: Path, *, reduced: bool) -> LoadedImage:
    """Open an image, check its bounds and load its pixels and metadata; raises what decoders raise."""
    start = stream.read(_START)
    stream.seek(0)
    if is_heif(start):
        register_heif()
    if start.startswith(_TIFF_SIGNATURES):
        strips = side_data.tiff_strips(stream)  # Pillow lists them all when it opens the file
        stream.seek(0)
        if strips > MAX_STRIPS:
            raise PhotoUnreadable(path, f"TIFF of {strips:,} strips, more than {MAX_STRIPS:,}")
    picture = Image.open(stream, formats=readable_formats())
    _check_bounds(
        picture.width, picture.height, path, most=WEBP_PIXELS if picture.format == "WEBP" else MAX_PIXELS
    )
    _check_form(picture, stream, path)
    if picture.format == "TIFF":  # Pillow turns this format upright itself, and removes the tag
        reader = MetadataReader(picture)
        orientation = reader.orientation()
        reader.forget_broken_directories()
        picture.load()
        width, height = picture.size
        remaining = 1
    else:
        width, height = picture.size
        if reduced:
            _reduce_decoding(picture, start)
        picture.load()
        reader = MetadataReader(picture)
        orientation = remaining = reader.orientation()
    return _loaded(picture, (width, height), orientation, remaining, reader)


def _load_camera_raw(path: Path, *, reduced: bool) -> LoadedImage:
    """Load a camera's raw file; its EXIF is that of the file, not of the preview.

    Raises:
        PhotoUnreadable: as in `load_image`.
    """
    raw = load_raw(path, partial(_check_bounds, path=path), reduced=reduced)
    reader = MetadataReader(raw.exif)
    return _loaded(raw.picture, (raw.width, raw.height), raw.orientation, raw.remaining, reader)


def _loaded(
    picture: Image.Image, size: tuple[int, int], orientation: int, remaining: int, reader: MetadataReader
) -> LoadedImage:
    """Return an image with its metadata and colour profile, noting what cannot be read of them."""
    metadata = reader.metadata()
    unreadable = list(metadata.unreadable)
    try:
        profile = read_profile(picture)
    except ProfileBroken:
        profile = None
        unreadable.append(PROFILE)
    notes = tuple(
        Note(NoteKind.METADATA, f"its {part} cannot be read and was left out") for part in unreadable
    )
    return LoadedImage(picture, *size, orientation, remaining, metadata, notes, profile)


def _check_bounds(width: int, height: int, path: Path, most: int = MAX_PIXELS) -> None:
    if width * height > most:
        raise PhotoUnreadable(path, f"{width} x {height} pixels, more than {most // 10**6} million")
    if min(width, height) < MIN_SIDE:
        raise PhotoUnreadable(path, f"{width} x {height} pixels, too small to show an object")


def _check_form(picture: Image.Image, stream: BinaryIO, path: Path) -> None:
    """Refuse forms that take too long, or that Pillow decodes wrongly."""
    if picture.info.get("progressive"):
        place = stream.tell()
        stream.seek(0)
        scans = side_data.jpeg_scans(stream.read())
        stream.seek(place)
        if scans > MAX_SCANS:
            raise PhotoUnreadable(path, f"progressive JPEG of {scans:,} scans, more than {MAX_SCANS}")
    bits = tiff_tag(picture, _TIFF_BITS)
    if tiff_tag(picture, _TIFF_PLANES) == 2 and isinstance(bits, tuple) and len(bits) > 1 and max(bits) > 8:
        raise PhotoUnreadable(path, f"not supported: TIFF of {max(bits)} bits in separate planes")


def _reduce_decoding(picture: Image.Image, start: bytes) -> None:
    """Let the decoder reduce the image, with far less work; not below the working size."""
    if isinstance(picture, Jpeg2KImageFile):
        halvings = (max(picture.size) // WORKING_SIDE).bit_length() - 1
        halvings = min(halvings, side_data.jpeg2000_reductions(start))
        # Pillow rounds the reduced size, but the decoder rounds it up.
        while halvings > 0 and any(0 < side % 2**halvings < 2 ** (halvings - 1) for side in picture.size):
            halvings -= 1
        if halvings > 0:
            picture.reduce = halvings
    else:
        picture.draft("RGB", (WORKING_SIDE, WORKING_SIDE))


def _load_repaired(stream: BinaryIO, path: Path, *, reduced: bool) -> LoadedImage | None:
    """Load what can be loaded of a file that decoders refuse; None if that is nothing."""
    stream.seek(0)
    for repair in _repairs(stream.read(MOST_REPAIRED)):
        ImageFile.LOAD_TRUNCATED_IMAGES = repair.cut
        try:
            loaded = _load(io.BytesIO(repair.content), path, reduced=reduced and repair.reducible)
        except (PhotoUnreadable, *DECODE_ERRORS):
            continue
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        if repair.cut and not _is_mostly_there(loaded.picture):
            continue
        notes = (*((repair.note,) if repair.note else ()), *loaded.notes, *((CUT,) if repair.cut else ()))
        return replace(loaded, notes=notes)
    return None


def _repairs(content: bytes) -> Iterator[_Repair]:
    """Yield what to try with a file that cannot be decoded, what loses least first."""
    if content.startswith(side_data.JPEG_SIGNATURE):
        yield _Repair(content, None, cut=True)
        for keep_exif in (True, False):
            bare = side_data.jpeg_without_metadata(content, keep_exif=keep_exif)
            if bare is not None:
                yield _Repair(bare, LEFT_OUT)
                yield _Repair(bare, LEFT_OUT, cut=True)
    elif content.startswith(side_data.PNG_SIGNATURE):
        sound = side_data.png_without_broken_chunks(content)
        if sound is not None:
            yield _Repair(sound, LEFT_OUT)
    elif side_data.jpeg2000_reductions(content[:_START]):
        yield _Repair(content, None, reducible=False)
    elif content[4:8] == b"ftyp":
        yield _Repair(side_data.without_exif_item(content), LEFT_OUT)


def _is_mostly_there(picture: Image.Image) -> bool:
    """Return True for a JPEG that has been cut, but not before `LEAST_LEFT` of its rows.

    libjpeg fills the rest with one colour.
    """
    if not getattr(picture, "_ended", False):  # Pillow has not added the end: something else is wrong
        return False
    pixels = np.asarray(picture)
    pixels = pixels.reshape(len(pixels), pixels.shape[1], -1)
    differs = np.flatnonzero((pixels != pixels[-1, 0]).any(axis=(1, 2)))
    return bool(differs.size and differs[-1] + 1 >= LEAST_LEFT * len(pixels))


def load_preview(jpeg: bytes) -> Image.Image:
    """Load a stored preview, RGB.

    Raises:
        PhotoUnreadable: the bytes are not a JPEG, are damaged, or exceed the working size.
    """
    path = Path("preview")
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as picture:
            if max(picture.size) > WORKING_SIDE:
                raise ValueError(f"{picture.size[0]} x {picture.size[1]} pixels")
            _check_form(picture, io.BytesIO(jpeg), path)
            return picture.convert("RGB")
    except DECODE_ERRORS as error:
        raise PhotoUnreadable(path, decode_reason(error)) from error


def _unidentified_reason(stream: BinaryIO) -> str:
    """Return the reason why no decoder takes a file: its format, or what is wrong with it."""
    stream.seek(0)
    start = stream.read(_START)
    if is_heif(start) and not register_heif():
        return NEEDS_HEIF
    if (name := refused_format(start)) is not None:
        return f"{name}: a format that is not read"
    for name in readable_formats():
        factory, accept = Image.OPEN[name]
        accepted = accept(start[:16].ljust(16, b"\0")) if accept is not None else False
        if isinstance(accepted, str):
            return f"not supported: {accepted}"
        if not accepted:
            continue
        stream.seek(0)
        try:
            factory(stream, "")
        except DECODE_ERRORS as error:
            kind, _, words = decode_reason(error).partition(": ")
            return f"{kind}: {name}: {words}" if words else kind
    return "not an image"
