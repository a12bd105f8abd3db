"""Provenance of an evaluation: settings, models and package versions."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import msgspec

from matir_cli.model_sets.catalogue import ModelSet
from matir_cli.model_sets.weights import locate_files

PACKAGES = ("matir-cli", "torch", "sam2", "llama-cpp-python", "sqlite-vec", "numpy", "pillow", "pycocotools")
"""Packages whose versions are reported."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is needed to get the same figures again."""

    settings: Mapping[str, str]
    """Setting to value, in words."""
    models: Mapping[str, str]
    """Part of a model set to name, hash of the weights and options."""
    versions: Mapping[str, str]
    """Package to version."""
    notes: tuple[str, ...] = ()
    """Remarks on the models, each a sentence without its full stop."""


def record_provenance(settings: Mapping[str, str], models: ModelSet, clips: Sequence[ModelSet]) -> Provenance:
    """Record the settings, the parts of `models`, the encoders of `clips`, and the installed versions.

    Raises:
        WeightsMissing, WeightsChanged: the files of a part are not here, or have changed.
    """
    parts = [(models, part, "") for part in models.parts]
    parts += [(each, each.part("encoder"), f" of {each.name}") for each in clips]
    identities = {}
    for model_set, part, suffix in parts:
        identity = locate_files(model_set, part.kind).identity
        options = msgspec.json.encode(part.options).decode()
        identities[f"{part.kind}{suffix}"] = f"{identity.name}, SHA-256 {identity.weight_hash}, {options}"
    versions = {"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    notes = (models.note.rstrip("."),) if models.note else ()
    return Provenance(settings, identities, versions, notes)
