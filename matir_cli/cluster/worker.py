"""The worker: holds the models in a process of its own, and indexes one photo after the other.

It runs on nodes of a cluster; the process that writes the gallery calls it through `ray_workers`.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from matir_cli.cluster.dispatch import Answer, Unseen
from matir_cli.engines.options import PRECISION_VARIABLE
from matir_cli.errors import MatirError, PhotoUnreadable
from matir_cli.indexing.in_progress import EncodedPhoto, NewFile, RefusedFile
from matir_cli.indexing.pipeline import IndexingModels
from matir_cli.indexing.steps import decode_new_file, encode_regions, propose_regions
from matir_cli.photos.decode import set_decode_timeout
from matir_cli.photos.discover import hash_file, stat_file


def installed_version() -> str:
    """Return the version of this program; "from source" if it is not installed."""
    try:
        return metadata.version("matir-cli")
    except metadata.PackageNotFoundError:
        return "from source"


@dataclass(frozen=True, slots=True)
class Fault:
    """An error that ends the run: one of the worker or its node, not of a photo."""

    reason: str


class PhotoWorker:
    """Indexes photos. Several threads may call it: they take turns at each model."""

    def __init__(
        self,
        version: str,
        load_models: Callable[[], IndexingModels],
        decode_seconds: float,
        precision: str | None,
    ) -> None:
        """Prepare the worker; nothing is loaded yet.

        Args:
            version: of the program that calls it.
            load_models: locates and checks the models on this node.
            decode_seconds: time limit of decoding a photo.
            precision: `PRECISION_VARIABLE` of the process that calls it, None if it is not set; it counts
                here, too, so that all workers compute alike.
        """
        self._version = version
        self._load = load_models
        self._proposing = threading.Lock()
        self._encoding = threading.Lock()
        set_decode_timeout(decode_seconds)
        if precision is None:
            os.environ.pop(PRECISION_VARIABLE, None)
        else:
            os.environ[PRECISION_VARIABLE] = precision

    def start(self) -> Fault | None:
        """Load the models; return the reason why this worker must not be used, if there is one."""
        if (version := installed_version()) != self._version:
            return Fault(f"it has matir-cli {version}, not {self._version}")
        try:
            self._models = self._load()
            self._proposer, self._encoder = self._models.proposer(), self._models.encoder()
            if not self._models.side_by_side():
                self._encoding = self._proposing
        except MatirError as error:
            return Fault(str(error).rstrip("."))
        return None

    def index(self, new: NewFile, content: bytes | None, previews: bool) -> Answer | Fault:
        """Index a photo: from the bytes `content`, or from its file if that is None."""
        try:
            if content is None:
                return self._index(new, None, previews) if _sees(new) else Unseen()
            with tempfile.TemporaryDirectory(prefix="matir-") as folder:
                # Its name counts: some formats are known by it.
                place = Path(folder, f"photo{new.file.path.suffix}")
                place.write_bytes(content)
                return self._index(new, place, previews)
        except OSError as error:
            return Fault(f"its temporary folder cannot be written: {(error.strerror or str(error)).lower()}")
        except MatirError as error:
            return Fault(str(error).rstrip("."))

    def _index(self, new: NewFile, place: Path | None, previews: bool) -> EncodedPhoto | RefusedFile:
        photo = decode_new_file(new, place)
        if isinstance(photo, RefusedFile):
            return photo
        with self._proposing:
            proposed = propose_regions(photo, lambda: self._proposer, previews)
        with self._encoding:
            encoded = encode_regions(proposed, self._encoder)
        if isinstance(encoded, RefusedFile):
            return encoded
        blank = np.empty((0, 0, 3), np.uint8)  # nobody needs the pixels any more
        return replace(encoded, proposed=replace(proposed, photo=replace(photo, image=blank)))


def _sees(new: NewFile) -> bool:
    """Return True if the file's path leads to the same bytes here."""
    try:
        here = stat_file(new.file.path)
        return here.bytes == new.file.bytes and hash_file(here) == new.sha256
    except PhotoUnreadable:
        return False
