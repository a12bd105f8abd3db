"""Errors about model sets, their files and the engines that run them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matir_cli.errors.base import MatirError


class ModelSetError(MatirError):
    """An error about a model set or one of its files."""


@dataclass(eq=False)
class ModelSetUnknown(ModelSetError):
    """No model set is called `name`; `known` lists the names of the available ones."""

    name: str
    known: Sequence[str]

    def __str__(self) -> str:
        return f"there is no model set {self.name}; available: {', '.join(self.known) or 'none'}."


@dataclass(eq=False)
class ModelSetUntrusted(ModelSetError):
    """The gallery at `gallery` names the file `source`, which this user has not used with it."""

    gallery: Path
    source: str

    def __str__(self) -> str:
        return f"{self.gallery} names the model set {self.source}, which you have not used with it yet."


@dataclass(eq=False)
class ModelSetInvalid(ModelSetError):
    """The model set in `source` is invalid; `reason` names the key and the value that it must have."""

    source: str
    reason: str

    def __str__(self) -> str:
        return f"the model set {self.source} is invalid: {self.reason}."


@dataclass(eq=False)
class PresetMissing(ModelSetError):
    """The model set `model_set` has no `preset`; `known` names the available sets that have it."""

    model_set: str
    preset: str
    known: Sequence[str]

    def __str__(self) -> str:
        having = ", ".join(self.known) or "none"
        return f"the model set {self.model_set} has no preset {self.preset}; sets that have it: {having}."


@dataclass(eq=False)
class PresetsContradict(ModelSetError):
    """The model set `model_set` names another preset than `preset`, which is asked for as well."""

    model_set: str
    preset: str

    def __str__(self) -> str:
        return f"the model set {self.model_set} and the preset {self.preset} contradict each other."


@dataclass(eq=False)
class PartMissing(ModelSetError):
    """The model set `model_set` has no `part` ("proposer", "encoder" or "judge")."""

    model_set: str
    part: str

    def __str__(self) -> str:
        return f"the model set {self.model_set} has no {self.part}."


@dataclass(eq=False)
class WeightsMissing(ModelSetError):
    """`files` of the model set `model_set` are not on this machine; `part` is the part that needs them."""

    model_set: str
    files: Sequence[Path]
    part: str | None = None

    def __post_init__(self) -> None:
        self.files = tuple(self.files)

    def __str__(self) -> str:
        names = ", ".join(sorted(file.name for file in self.files))
        return f"weights of the model set {self.model_set} are missing: {names}."


@dataclass(eq=False)
class WeightsChanged(ModelSetError):
    """The SHA-256 of `path` is `found` instead of `expected` (both hex)."""

    path: Path
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.path} has the SHA-256 {self.found}, expected {self.expected}."


@dataclass(eq=False)
class CheckpointInvalid(ModelSetError):
    """`path` cannot be loaded as the model that it should hold, because of `reason`."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} cannot be loaded: {self.reason}."


@dataclass(eq=False)
class MemoryTooSmall(ModelSetError):
    """The model in `path` needs `needed` bytes of memory, and only `available` are free."""

    path: Path
    needed: int
    available: int

    def __str__(self) -> str:
        needed, available = f"{self.needed / 1e9:.1f} GB", f"{self.available / 1e9:.1f} GB"
        return f"{self.path} needs {needed} of memory; only {available} is available."


@dataclass(eq=False)
class ContextTooSmall(ModelSetError):
    """`what` takes `needed` tokens, and the model's context has room for only `available`."""

    what: str
    needed: int
    available: int

    def __str__(self) -> str:
        room = f"the judge's context has room for {self.available}"
        return f"{self.what} takes {self.needed} tokens; {room}."


@dataclass(eq=False)
class DownloadFailed(ModelSetError):
    """`source` could not be fetched because of `reason`. The part that arrived is kept for resuming."""

    source: str
    reason: str

    def __str__(self) -> str:
        return f"{self.source} could not be fetched: {self.reason}."


@dataclass(eq=False)
class EngineFailed(MatirError):
    """A loaded model could not compute a result; `reason` is the engine's own message."""

    reason: str

    def __str__(self) -> str:
        return f"a model could not compute a result: {self.reason}."


@dataclass(eq=False)
class DeviceUnavailable(MatirError):
    """`device` was requested by name and is not available on this machine."""

    device: str

    def __str__(self) -> str:
        return f"this machine has no {self.device} device."
