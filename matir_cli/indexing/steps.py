"""The steps of one photo from its file to its vectors, in this process or in one that works for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from matir_cli import masks
from matir_cli.engines.protocols import MaskedPhoto, RegionEncoder, RegionProposer
from matir_cli.errors import PhotoInaccessible, PhotoUnreadable
from matir_cli.indexing.in_progress import EncodedPhoto, NewFile, ProposedPhoto, RefusedFile
from matir_cli.photos.decode import DecodedPhoto, decode_photo
from matir_cli.photos.preview import encode_preview
from matir_cli.photos.siblings import describe_file
from matir_cli.records import FileRecord, FloatArray, Region

MOST_PHOTOS, MOST_REGIONS = 8, 256
"""Photos, and regions before the last photo, that are encoded together at most."""

ProposeRegions: TypeAlias = Callable[[DecodedPhoto, Callable[[], RegionProposer]], list[Region]]
"""Returns the regions of a photo, without the whole photo; the proposer is loaded when it is called."""


def propose_all(photo: DecodedPhoto, proposer: Callable[[], RegionProposer]) -> list[Region]:
    """Return the regions that the proposer finds."""
    return proposer().propose(photo.image)


def refuse(path: Path, file: FileRecord | None, error: PhotoUnreadable) -> RefusedFile:
    """Return the note about a file that cannot be read; `file` is None if even its status is not known."""
    if isinstance(error, PhotoInaccessible):
        return RefusedFile(path, None, error.reason)
    return RefusedFile(path, file or FileRecord(path, 0, 0), error.reason)


def decode_new_file(new: NewFile, place: Path | None = None) -> DecodedPhoto | RefusedFile:
    """Decode the photo in a new file, without the metadata of its sidecar.

    Args:
        place: of a copy of the file, which is read instead.

    Raises:
        DecoderUnavailable: the process that decodes does not start.
    """
    try:
        photo = decode_photo(replace(new.file, path=place or new.file.path), new.sha256)
    except PhotoUnreadable as error:
        return refuse(new.file.path, new.file, error)
    return replace(photo, file=new.file)


def describe_photo(photo: DecodedPhoto, sidecar: FileRecord | None) -> DecodedPhoto:
    """Add what the sidecar says of a photo to what its file says."""
    described = describe_file(photo.metadata, sidecar)
    notes = (*photo.notes, *described.notes)
    return replace(photo, metadata=described.metadata, sidecar=described.sidecar, notes=notes)


def propose_regions(
    photo: DecodedPhoto,
    proposer: Callable[[], RegionProposer],
    previews: bool,
    propose: ProposeRegions = propose_all,
) -> ProposedPhoto:
    """Propose the regions of a photo, and make its preview.

    The whole photo becomes a region too, so that scenes are found as well as objects.
    """
    height, width = photo.image.shape[:2]
    rle = masks.whole(height, width)
    whole = Region(rle, masks.box(rle), height * width, 1.0, 1.0)
    preview = encode_preview(photo.image) if previews else None
    before: list[int] = []

    def counted() -> RegionProposer:
        loaded = proposer()
        if not before:
            before.append(loaded.prompts_asked)
        return loaded

    regions = [whole, *propose(photo, counted)]
    prompts = proposer().prompts_asked - before[0] if before else 0
    return ProposedPhoto(photo, preview, regions, prompts)


def are_enough(regions: Sequence[int]) -> bool:
    """Return True if photos with these numbers of regions are as many as are encoded together."""
    return len(regions) >= MOST_PHOTOS or sum(regions) >= MOST_REGIONS


def encode_together(photos: Sequence[MaskedPhoto], encoder: RegionEncoder) -> Iterator[FloatArray]:
    """Yield the vectors of each photo's masks, from one call of the encoder.

    If that fails, each photo is encoded alone, so that an error comes at its own photo, after the vectors of
    those before it.
    """
    vectors: Iterable[FloatArray]
    try:
        vectors = encoder.encode_photos(photos)
    except Exception:
        if len(photos) == 1:
            raise
        vectors = (alone for photo in photos for alone in encoder.encode_photos([photo]))
    yield from vectors


def encode_regions(
    photos: Sequence[ProposedPhoto], encoder: RegionEncoder
) -> Iterator[EncodedPhoto | RefusedFile]:
    """Encode the regions of photos together; yields each photo, in order, as it is encoded.

    Vectors with NaN or infinity are refused, with their photo alone: they would outrank all.
    """
    masked = [
        MaskedPhoto(proposed.photo.image, [region.rle for region in proposed.regions]) for proposed in photos
    ]
    for proposed, vectors in zip(photos, encode_together(masked, encoder), strict=True):
        if np.isfinite(vectors).all():
            yield EncodedPhoto(proposed, vectors)
            continue
        file = proposed.photo.file
        reason = "the encoder gave a vector that is not a number"
        yield RefusedFile(file.path, file, reason, proposed.photo.record.sha256)
