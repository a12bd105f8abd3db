"""A search result with its photo's pixels, which are decoded when first used."""

from __future__ import annotations

import os
import re
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from matir_cli.errors import PhotoUnreadable
from matir_cli.gallery.rows import StoredRegion
from matir_cli.gallery.union import GalleryReader, own_region_id
from matir_cli.gallery.working_image import load_working_image
from matir_cli.photos.decode import decode_full_size
from matir_cli.photos.discover import stat_file
from matir_cli.photos.preview import encode_preview
from matir_cli.records import Rle
from matir_cli.search.results import GroundedObject, SearchResult

if TYPE_CHECKING:
    from PIL import Image

_LONGEST_STEM = 120
"""Bytes: with the digits and suffix that follow, the name still fits any file system."""


class ResultPixels:
    """A search result to write, with the pixels of its photo, which live no longer than this object."""

    def __init__(self, gallery: GalleryReader, result: SearchResult, *, all_instances: bool) -> None:
        """Wrap a result; nothing is decoded yet.

        Args:
            all_instances: keep every object that the judge pointed at, not only the first.
        """
        self.result = result
        self.objects: tuple[GroundedObject, ...] = result.objects if all_instances else result.objects[:1]
        """The objects to write."""
        self._gallery = gallery

    @property
    def masked_objects(self) -> tuple[tuple[GroundedObject, Rle], ...]:
        """The objects that have a mask, each with its mask (working pixels)."""
        return tuple((each, each.mask) for each in self.objects if each.mask is not None)

    def region_id(self, region: StoredRegion) -> int | None:
        """Return the id of a region in the gallery file that holds it; None if several hold the photo."""
        return own_region_id(self._gallery, region.id)

    @property
    def label(self) -> str:
        """The score, as it is written on pictures."""
        return f"{self.result.score:.3f}"

    @cached_property
    def working(self) -> Image.Image | None:
        """The photo at working size, RGB, shared: copy it before drawing. None if it is unavailable."""
        try:
            image = load_working_image(self._gallery, self.result.photo.id)
        except PhotoUnreadable:
            return None
        # Imported here: results without pictures need no Pillow.
        from PIL import Image

        return None if image is None else Image.fromarray(image)

    def jpeg(self) -> bytes | None:
        """Return the photo at working size as JPEG, as stored if there is a preview; None if unavailable."""
        if self.working is None:
            return None
        return self._gallery.preview(self.result.photo.id) or encode_preview(np.asarray(self.working))

    def original(self) -> Image.Image | None:
        """Decode the photo at true size, RGB, from a file unchanged since indexing; None if there is none."""
        size = self.result.photo.record.width, self.result.photo.record.height
        for path in self.result.photo.paths:
            try:
                if not self._gallery.is_unchanged(stat_file(path)):
                    continue
                picture = decode_full_size(path)
            except PhotoUnreadable:
                continue
            if picture.size == size:
                return picture
        return None

    def file_stem(self, *facts: bytes | str) -> str:
        """Return a file name without suffix: the photo's, with hex digits of its SHA-256 and of the `facts`.

        It names no other folder, whatever the photo is called. Different photos have different names, and
        the same photo with the same facts has the same name: an existing file of that name already has the
        content that would be written.
        """
        name = f"{_plain(self.result.path)}-{self.result.photo.record.sha256.hex()[:12]}"
        if not facts:
            return name
        digest = sha256(b"\0".join(f if isinstance(f, bytes) else f.encode() for f in facts))
        return f"{name}-{digest.hexdigest()[:6]}"


def file_url(path: Path, host: str = "") -> str:
    """Return the file: URL of an absolute path, its raw bytes percent-encoded."""
    return f"file://{quote(host)}{quote(os.fsencode(path))}"


def _plain(path: Path) -> str:
    """Return the file's stem, of word characters, dots and dashes only, short enough for any file system."""
    plain = re.sub(r"[^\w.-]|^\.", "_", path.stem)
    return plain.encode("utf-8", "replace")[:_LONGEST_STEM].decode("utf-8", "ignore")
