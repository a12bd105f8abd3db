"""The steps of one photo from its file to its vectors, in this process or in one that works for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from matir_cli import masks
from matir_cli.engines.protocols import RegionEncoder, RegionProposer
from matir_cli.errors import PhotoInaccessible, PhotoUnreadable
from matir_cli.indexing.in_progress import EncodedPhoto, NewFile, ProposedPhoto, RefusedFile
from matir_cli.photos.decode import DecodedPhoto, decode_photo
from matir_cli.photos.preview import encode_preview
from matir_cli.photos.siblings import describe_file
from matir_cli.records import FileRecord, Region

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


def encode_regions(proposed: ProposedPhoto, encoder: RegionEncoder) -> EncodedPhoto | RefusedFile:
    """Encode the regions of a photo. Vectors with NaN or infinity are refused: they would outrank all."""
    vectors = encoder.encode(proposed.photo.image, [region.rle for region in proposed.regions])
    if np.isfinite(vectors).all():
        return EncodedPhoto(proposed, vectors)
    file = proposed.photo.file
    reason = "the encoder gave a vector that is not a number"
    return RefusedFile(file.path, file, reason, proposed.photo.record.sha256)
