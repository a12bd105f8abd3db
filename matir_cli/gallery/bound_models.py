"""The models that a gallery's vectors are of: those of today, and those that vectors are being made for.

`matir reencode` exchanges all vectors in one transaction. Another process that has encoded a text or a photo
with the former model must not compare or mix them with the new ones: `confirm_models`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import apsw

from matir_cli.errors import GalleryChanged, GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.union import GalleryReader, members_of
from matir_cli.records import ModelIdentity

ENCODER = "encoder"


@dataclass(frozen=True, slots=True)
class NextEncoder:
    """The encoder that a gallery's vectors are being made anew with, beside those in use."""

    identity: ModelIdentity
    model_set: str
    """Name of its set, or path of the TOML file."""
    photos: int
    """Number of photos whose new vectors are stored."""


def confirm_models(gallery: GalleryReader) -> None:
    """Check that the gallery still has the models that this process has compared with it.

    Whoever reads or writes vectors calls it, in the same transaction or afterwards.

    Raises:
        GalleryChanged: its vectors have been made anew with another model.
    """
    for file in (member.file for member in members_of(gallery)):
        for role, weight_hash in file.relied_models.items():
            bound = file.model(role)
            if bound is not None and bound.weight_hash != weight_hash:
                raise GalleryChanged(file.path)


@contextmanager
def same_models(gallery: GalleryReader) -> Iterator[None]:
    """Confirm the models behind the block, and also where vectors of another length look like damage to it.

    Raises:
        GalleryChanged: as `confirm_models`.
    """
    try:
        yield
    except (GalleryDamaged, apsw.Error):
        confirm_models(gallery)
        raise
    confirm_models(gallery)


def next_encoder(gallery: GalleryFile) -> NextEncoder | None:
    """Return the encoder of half-made new vectors; None if there are none.

    Raises:
        GalleryDamaged: a stored value is not a text.
    """
    with gallery.snapshot():
        row = gallery.connection.execute(
            "select name, weight_hash, model_set from next_models where role = ?", (ENCODER,)
        ).fetchone()
        photos = gallery.connection.execute("select count(*) from next_vectors where true").get
    if row is None:
        return None
    name, weight_hash, model_set = (gallery.checked_text(text, "the next encoder") for text in row)
    return NextEncoder(ModelIdentity(name, weight_hash), model_set, gallery.checked_id(photos))
