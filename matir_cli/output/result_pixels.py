"""A result on its way into files: its photo's pixels, decoded when first asked for and no sooner."""

from __future__ import annotations

import os
import re
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from matir_cli.errors import PhotoUnreadable
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.working_image import load_working_image
from matir_cli.photos.decode import decode_full_size
from matir_cli.photos.discover import stat_file
from matir_cli.photos.preview import encode_preview
from matir_cli.records import Rle
from matir_cli.search.results import GroundedObject, SearchResult

_LONGEST_STEM = 120
"""Bytes: with the digits that follow it, a name fits any file system."""


class ResultPixels:
    """A result and the pixels of its photo, which live no longer than this object."""

    def __init__(self, gallery: GalleryFile, found: SearchResult, *, all_instances: bool) -> None:
        """`all_instances`: every object that the judge pointed at, not the first alone."""
        self.found = found
        self.answers: tuple[GroundedObject, ...] = found.answers if all_instances else found.answers[:1]
        self._gallery = gallery

    @property
    def masked(self) -> tuple[tuple[GroundedObject, Rle], ...]:
        """The answers that have a mask, each with it (working pixels)."""
        return tuple((answer, answer.mask) for answer in self.answers if answer.mask is not None)

    @property
    def label(self) -> str:
        """The score, as pictures have it."""
        return f"{self.found.score:.3f}"

    @cached_property
    def working(self) -> Image.Image | None:
        """The photo at working size, RGB; None where it is not to be had. Not to be drawn upon."""
        try:
            image = load_working_image(self._gallery, self.found.photo.id)
        except PhotoUnreadable:
            return None
        return None if image is None else Image.fromarray(image)

    def jpeg(self) -> bytes | None:
        """The photo at working size as JPEG; as it is stored, where it is."""
        if self.working is None:
            return None
        return self._gallery.preview(self.found.photo.id) or encode_preview(np.asarray(self.working))

    def original(self) -> Image.Image | None:
        """The photo at its true size, RGB, from a file that is as it was when indexed; None without one."""
        size = self.found.photo.record.width, self.found.photo.record.height
        for path in self.found.photo.paths:
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
        """A file name without its suffix: the photo's, with hex digits of its SHA-256 and of the `facts`.

        It stays in its folder whatever the photo is called, no other photo has it, and it is the
        same for the same facts: what lies under it already is what would be written.
        """
        name = f"{_plain(self.found.path)}-{self.found.photo.record.sha256.hex()[:12]}"
        if not facts:
            return name
        digest = sha256(b"\0".join(f if isinstance(f, bytes) else f.encode() for f in facts))
        return f"{name}-{digest.hexdigest()[:6]}"


def file_url(path: Path, host: str = "") -> str:
    """The file: URL of an absolute path: its raw bytes, percent-encoded."""
    return f"file://{quote(host)}{quote(os.fsencode(path))}"


def _plain(path: Path) -> str:
    """The file's stem with letters, digits, dots and dashes only, short enough for any file system."""
    plain = re.sub(r"[^\w.-]|^\.", "_", path.stem)
    return plain.encode("utf-8", "replace")[:_LONGEST_STEM].decode("utf-8", "ignore")
