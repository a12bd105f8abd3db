"""The model set that a gallery is used with: one that the user names, or the gallery's own.

A gallery may come from a stranger, and a model set decides which files are loaded. So a gallery may name a
set of the catalogue; the path of a TOML file in it counts only if this user has used that file with this
gallery before. That is recorded outside of the gallery, in the user's state folder, in one file per gallery.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import msgspec
import platformdirs

from matir_cli.atomic_write import atomic_write
from matir_cli.errors import ModelSetUntrusted, OutputError, PresetsContradict
from matir_cli.gallery.union import GalleryReader
from matir_cli.model_sets.catalogue import DEFAULT_MODEL_SET, PARTS, ModelSet, is_file_name, load_model_set
from matir_cli.model_sets.presets import PresetName, add_preset, split_preset

_LARGEST_RECORD = 1 << 16
"""Bytes."""


class _Record(msgspec.Struct, frozen=True):
    """A model set in a file that the user has used with a gallery."""

    model_set: str
    """Absolute path of the TOML file."""
    weights: dict[str, str]
    """Role to the hash of the model that the gallery is bound to: another gallery at this path differs."""


def choose_set(gallery: GalleryReader | None, name: str | None, preset: PresetName | None = None) -> ModelSet:
    """Load the set that the user calls `name`, else the gallery's own, else the default.

    The gallery's own set has the gallery's preset, also where the user calls it by its name alone.

    Args:
        gallery: None for a gallery that does not exist yet.
        name: name of a set, or path of a TOML file, as the user gave it; None if none was given.
        preset: preset that the user asked for besides.

    Raises:
        ModelSetUntrusted: the gallery names a file that this user has not used with it.
        ModelSetUnknown, ModelSetInvalid, PresetMissing: as in `load_model_set`.
        PresetsContradict: `name` has another preset than `preset`.
    """
    own = gallery.model_set() if gallery is not None else None
    if name:
        if preset is not None and split_preset(name)[1] not in (None, preset):
            raise PresetsContradict(name, preset)
        chosen = load_model_set(add_preset(name, preset))
        if own is not None and chosen.preset is None and chosen.handle == split_preset(own)[0]:
            chosen = load_model_set(own)
        if gallery is not None and chosen.handle == own:
            record_choice(gallery, chosen)
        return chosen
    if gallery is not None and own is not None and is_file_name(own) and _recorded(gallery) != own:
        raise ModelSetUntrusted(gallery.path, own)
    return load_model_set(add_preset(own or DEFAULT_MODEL_SET, preset))


def choose_next_set(gallery: GalleryReader, name: str) -> ModelSet:
    """Load the set called `name` for a gallery that is to have its encoder, as in `choose_set`.

    A set that has the gallery's preset is taken with it, since the gallery's regions were made so.
    """
    chosen = choose_set(gallery, name)
    _, preset = split_preset(gallery.model_set() or "")
    if preset is None or chosen.preset is not None or preset not in chosen.presets:
        return chosen
    return load_model_set(add_preset(chosen.handle, preset))


def record_choice(gallery: GalleryReader, models: ModelSet) -> None:
    """Record that the user uses the gallery, which is bound to `models`, with the file of that set.

    Sets of the catalogue need no record. Without a state folder that can be written, none is made, and the
    user has to name the set again.
    """
    if not is_file_name(models.handle):
        return
    record = _Record(models.handle, _weights(gallery))
    path = _record_path(gallery)
    with suppress(OutputError, OSError):
        if _read_record(path) != record:
            with atomic_write(path, force=True) as temporary:
                temporary.write_bytes(msgspec.json.encode(record))


def _recorded(gallery: GalleryReader) -> str | None:
    """Return the file of the model set that the user has used with this gallery; None if there is none."""
    record = _read_record(_record_path(gallery))
    return record.model_set if record is not None and record.weights == _weights(gallery) else None


def _read_record(path: Path) -> _Record | None:
    try:
        with path.open("rb") as stream:
            return msgspec.json.decode(stream.read(_LARGEST_RECORD), type=_Record)
    except (OSError, msgspec.MsgspecError, ValueError):  # none, or not one that `record_choice` wrote
        return None


def _record_path(gallery: GalleryReader) -> Path:
    """Return the path of the record: named by the hash of the gallery's path, links resolved."""
    name = hashlib.sha256(os.fsencode(os.path.realpath(gallery.path))).hexdigest()
    return platformdirs.user_state_path("matir", appauthor=False) / "model_sets" / f"{name}.json"


def _weights(gallery: GalleryReader) -> dict[str, str]:
    bound = {role: gallery.model(role) for role in PARTS}
    return {role: identity.weight_hash for role, identity in bound.items() if identity is not None}
