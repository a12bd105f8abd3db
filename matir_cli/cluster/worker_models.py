"""The models of a worker: found on its node, or sent there, and always those of the gallery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import platformdirs
from filelock import FileLock
from numpy.typing import NDArray

from matir_cli.atomic_write import atomic_write
from matir_cli.engines.registry import (
    has_own_processor,
    load_proposer,
    load_region_encoder,
    proposals_at_once,
)
from matir_cli.errors import CheckpointInvalid
from matir_cli.indexing.pipeline import IndexingModels
from matir_cli.model_sets.catalogue import ModelSet, is_file_name, load_model_set
from matir_cli.model_sets.session import INDEXING_PARTS, locate_part
from matir_cli.model_sets.weights import sha256_of
from matir_cli.progress import no_progress
from matir_cli.records import EngineConfig


@dataclass(frozen=True, slots=True)
class ShippedFile:
    """A file of a model, to be fetched by the nodes that need it."""

    name: str
    sha256: str
    """Of the file, hex."""
    fetch: Callable[[], NDArray[np.uint8]]
    """Returns its bytes; the store of the node keeps them, so that a node fetches them once."""


@dataclass(frozen=True, slots=True)
class WorkerModels:
    """Loader of a worker's models; it is sent to the worker and called there."""

    models: ModelSet
    configs: Mapping[str, EngineConfig]
    """Part to its configuration where the gallery is; its files are on that machine."""
    device: str
    shipped: Mapping[Path, ShippedFile] | None
    """Path of each file on the gallery's machine to what is sent; None: it is looked for on the node."""

    def __call__(self) -> IndexingModels:
        """Locate and check the files.

        Raises:
            WeightsMissing, WeightsChanged, CheckpointInvalid: files are missing, or are wrong.
            ModelSetUnknown: this node has another version of the program.
        """
        here = {part: self._locate(part) for part in INDEXING_PARTS}
        return IndexingModels(
            partial(load_proposer, here["proposer"], self.device),
            partial(load_region_encoder, here["encoder"], self.device),
            partial(has_own_processor, self.device),
            partial(proposals_at_once, self.device),
        )

    def _locate(self, part: str) -> EngineConfig:
        wanted = self.configs[part]
        if self.shipped is not None:
            files = {role: store_shipped(self.shipped[path]) for role, path in wanted.files.items()}
            return replace(wanted, files=files)
        # A set of the catalogue has its files at places of this node; a file's are those it states.
        handle = self.models.handle
        models = self.models if is_file_name(handle) else load_model_set(handle)
        found = locate_part(models, part)
        if found.identity != wanted.identity:
            path = next(iter(found.files.values()))
            raise CheckpointInvalid(path, f"the {part} {found.identity.name} is another one than here")
        return found


def store_shipped(file: ShippedFile) -> Path:
    """Return the path of a file that was sent to this node, in the user's cache folder.

    Processes of one node take turns, so that one of them fetches it; a later run finds it there.

    Raises:
        CheckpointInvalid: what has arrived is not what was sent.
        OutputError: the folder cannot be written.
    """
    folder = platformdirs.user_cache_path("matir", appauthor=False) / "shipped" / file.sha256
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file.name
    with FileLock(folder / "lock"):
        if not path.exists() or sha256_of(path, file.name, no_progress) != file.sha256:
            with atomic_write(path, force=True) as temporary, temporary.open("wb") as stream:
                stream.write(file.fetch().data)
        if sha256_of(path, file.name, no_progress) != file.sha256:
            raise CheckpointInvalid(path, "it was damaged on its way")
    return path
