"""Photo files decoded to working size or true size, upright, in RGB.

The files are untrusted: a process of its own decodes them, see `decoder_process`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matir_cli.photos.decoder_process import DecoderProcess, shared_decoder
from matir_cli.photos.discover import absolute_path
from matir_cli.records import FileMetadata, FileRecord, ImageArray, Note, NoteKind, PhotoRecord

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class DecodedPhoto:
    """A photo decoded to working size, ready for the models."""

    file: FileRecord
    record: PhotoRecord
    image: ImageArray
    """(mask_height, mask_width, 3) uint8 RGB, working pixels, upright; converted to sRGB by its profile."""
    notes: tuple[Note, ...] = ()
    """What could not be read of the file; usually nothing."""
    metadata: FileMetadata = field(default_factory=FileMetadata)
    """Rating and keywords in the file itself; with its sidecar's once that has been read."""
    sidecar: FileRecord | None = None
    """The sidecar that was read."""


def start_decoder() -> None:
    """Start the process that decodes, so that it is ready when the first photo is.

    Raises:
        DecoderUnavailable: the system cannot start it.
    """
    shared_decoder.start()


def set_decode_timeout(seconds: float) -> None:
    """Set the time limit of each photo for this process, seconds."""
    shared_decoder.seconds = seconds


def decode_timeout() -> float:
    """Return the time limit of each photo in this process, seconds."""
    return shared_decoder.seconds


def decode_photo(file: FileRecord, digest: bytes, decoder: DecoderProcess = shared_decoder) -> DecodedPhoto:
    """Decode a photo to working size, upright, RGB; the first frame of an animation.

    Args:
        digest: SHA-256 of the file, 32 bytes.

    Raises:
        PhotoUnreadable: the file is not an image, damaged, too large or too small, or it takes more time
            or memory to decode than it may.
        DecoderUnavailable: the process that decodes does not start.
    """
    with decoder.ask("working", absolute_path(file.path)) as answer:
        image = answer.read_image()
    record = PhotoRecord(digest, *answer.header["record"], *answer.header["fields"])
    notes = tuple(Note(NoteKind(kind), text) for kind, text in answer.header["notes"])
    return DecodedPhoto(file, record, image, notes, _metadata(answer.header))


def read_metadata(path: Path, decoder: DecoderProcess = shared_decoder) -> FileMetadata:
    """Read rating and keywords in a photo's file itself, without its sidecar and without its pixels.

    Raises:
        PhotoUnreadable, DecoderUnavailable: as in `decode_photo`.
    """
    with decoder.ask("metadata", absolute_path(path)) as answer:
        return _metadata(answer.header)


def _metadata(header: Mapping[str, Any]) -> FileMetadata:
    return FileMetadata(header["rating"], tuple(header["keywords"]))


def decode_full_size(path: Path, decoder: DecoderProcess = shared_decoder) -> Image.Image:
    """Decode a photo at true size, upright, RGB; the first frame of an animation.

    Pixels and colour profile (`info["icc_profile"]`) are the file's, if its profile is one of RGB;
    greys and CMYK with a profile are converted to sRGB.

    Raises:
        PhotoUnreadable, DecoderUnavailable: as in `decode_photo`.
    """
    # Imported here: most commands decode no photo.
    from PIL import Image

    from matir_cli.photos.colour import bands

    with decoder.ask("full", absolute_path(path)) as answer:
        width, height = answer.header["width"], answer.header["height"]
        profile = answer.read(answer.header["profile"])
        picture = Image.new("RGB", (width, height))
        for top, bottom in bands(picture):
            size = width, bottom - top
            picture.paste(Image.frombytes("RGB", size, answer.read(size[0] * size[1] * 3)), (0, top))
    picture.info = {"icc_profile": profile} if profile else {}
    return picture
