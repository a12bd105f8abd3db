"""Model sets in TOML: which models work together, and sources of their files.

A model set is a TOML file with one table per part: `[proposer]`, `[encoder]` and `[judge]`. Without a
judge, the set serves only the first stage; with an encoder alone, only as a baseline of the evaluation.

    name = "mine"                         # name of the set
    description = "one line for the list"
    note = "shown whenever the set is used"               # optional
    match = "iou"                         # regions of the judge's boxes: by iou (default) or joint
    fusion = 0                            # weight of stage 1 beside the judge; 0 (default): none
    trial = "shapes"                      # pictures of `matir models try`: shapes (default), drawn_world

    [abilities]                           # optional: what `matir models list --long` shows
    languages = "109 languages"
    commercial_use = true                 # whether every file may be used for commercial purposes
    memory_mb = 4500                      # main memory that the largest part needs, in 10^6 bytes
    measured = "what was measured, and with what"

    [encoder]
    name = "alpha_clip_vit_l14_grit20m"   # name of the model, for people
    engine = "alpha_clip"                 # engine that loads it
    licence = "MIT"
    reference = [0.215, 0.198]            # optional: figures of `matir models try --json` to compare with

    [encoder.options]                     # settings that only the engine reads

    [encoder.files.visual]                # one table per file, named by its role
    ...

    [presets.fast.proposer]               # optional: options of the proposer that `matir add --fast` replaces
    points = "adaptive"                   # likewise `thorough`, and other parts

A file has exactly one of three sources:

    hub = "owner/repo", file = "path/in/repo", revision = "main or a commit"
    url = "https://...", mirrors = ["https://..."], file = "name on disk"
    path = "tiny/visual.pth"              # relative to the TOML, never outside its folder

A file from `hub` or `url` also needs `bytes`, its exact size, or `about_bytes` if nobody publishes the
size. `sha256` is given if upstream publishes one. Nothing here accesses the network.
"""

import os
import re
import tomllib
from importlib import util
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

import msgspec

from matir_cli.errors import ModelSetInvalid, ModelSetUnknown, PartMissing, PresetMissing
from matir_cli.model_sets.abilities import Abilities, Text
from matir_cli.model_sets.addresses import address_fault
from matir_cli.model_sets.presets import PRESETS, PresetName, Presets, add_preset, split_preset
from matir_cli.model_sets.sources import HubSource, LocalSource, ModelFile, Source, UrlSource
from matir_cli.records import MatchRule

DEFAULT_MODEL_SET = "full"
"""Model set of a new gallery, unless another one is chosen."""

PARTS = ("proposer", "encoder", "judge")

LARGEST_TOML = 1 << 20
"""Bytes of a model set at most: a file named by mistake is not read to its end."""

SHA256_HEX = re.compile(r"[0-9a-f]{64}")
"""A SHA-256 in lower-case hex."""

TrialWorldName: TypeAlias = Literal["shapes", "drawn_world"]
"""Pictures that a set is tried with, see `trial.worlds`."""

_Size: TypeAlias = Annotated[int, msgspec.Meta(gt=0, le=1 << 50)]

_Table = TypeVar("_Table")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_ROLE = re.compile(r"[a-z][a-z0-9_]{0,31}")

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")

_REPO_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"

_REPO = re.compile(f"{_REPO_NAME}/{_REPO_NAME}")

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ModelPart(msgspec.Struct, frozen=True):
    """One model of a set."""

    kind: str
    """One of `PARTS`."""
    name: str
    """Name of the model for people, such as "sam2.1_hiera_large"."""
    engine: str
    """Name of the engine in the registry."""
    licence: str
    options: dict[str, Any]
    """Settings of the engine, as given in the TOML."""
    files: tuple[ModelFile, ...]
    reference: tuple[float, ...] = ()
    """Figures that a trial of the intact part measured, to compare with; empty if none are known."""


class ModelSet(msgspec.Struct, frozen=True):
    """A set of models that work together."""

    name: str
    handle: str
    """Argument of `load_model_set` for this set: a packaged set's name, or the TOML's absolute path; and
    behind a colon the preset, if one is in use."""
    description: str
    note: str
    """Sentence to show whenever the set is used; may be empty."""
    parts: tuple[ModelPart, ...]
    """In the order of `PARTS`; proposer and judge may be missing."""
    trial: TrialWorldName = "shapes"
    """Pictures that the set's models know, for a trial."""
    match: MatchRule = "iou"
    """How regions are matched to the judge's boxes, unless a search says otherwise."""
    fusion: float = 0.0
    """Weight of stage 1 in the ranking by verdicts: what one standard deviation of a photo's score counts
    beside zTrue - zFalse, where the parts of a description are scored; 0, as in the paper: none."""
    abilities: Abilities = Abilities()
    """What the set can do."""
    presets: Presets = {}
    """The set's presets."""
    preset: PresetName | None = None
    """The preset in use, whose options the parts have; None: none."""

    @property
    def title(self) -> str:
        """Name of the set for people, with the preset in use, such as "full, fast"."""
        return self.name if self.preset is None else f"{self.name}, {self.preset}"

    @property
    def files(self) -> tuple[ModelFile, ...]:
        """All files of all parts."""
        return tuple(file for part in self.parts for file in part.files)

    def part(self, kind: str) -> ModelPart:
        """Return the part `kind`, one of `PARTS`.

        Raises:
            PartMissing: the set has no such part.
        """
        for part in self.parts:
            if part.kind == kind:
                return part
        raise PartMissing(self.handle, kind)


class _FileTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hub: Text | None = None
    url: Text | None = None
    path: Text | None = None
    file: Text | None = None
    revision: Text | None = None
    mirrors: Annotated[tuple[Text, ...], msgspec.Meta(max_length=8)] = ()
    bytes: _Size | None = None
    about_bytes: _Size | None = None
    sha256: Text | None = None


class _PartTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Text
    engine: Text
    licence: Text
    files: Annotated[dict[str, dict[str, Any]], msgspec.Meta(min_length=1, max_length=32)]
    options: dict[str, Any] = {}
    reference: Annotated[tuple[float, ...], msgspec.Meta(max_length=1000)] = ()


class _SetTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Text
    description: Text
    encoder: dict[str, Any]
    proposer: dict[str, Any] | None = None
    judge: dict[str, Any] | None = None
    note: Text = ""
    abilities: dict[str, Any] = {}
    trial: TrialWorldName = "shapes"
    match: MatchRule = "iou"
    fusion: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    presets: Presets = {}


def model_set_names() -> list[str]:
    """Return the names of the packaged model sets, sorted."""
    return sorted(path.stem for path in _packaged().glob("*.toml"))


def sets_with_preset(preset: PresetName) -> list[str]:
    """Return the names of the packaged model sets that have `preset`, sorted."""
    return [name for name in model_set_names() if preset in load_model_set(name).presets]


def is_file_name(name: str) -> bool:
    """Return True if `load_model_set` takes `name` as a file, not as a packaged set."""
    base, _ = split_preset(name)
    return base.endswith(".toml") or "/" in base or os.sep in base


def load_model_set(name: str) -> ModelSet:
    """Load the packaged set `name`, or the set in the file `name`, with a preset such as in "full:fast".

    `name` is taken as a file if it ends in ".toml" or contains a path separator.

    Raises:
        ModelSetUnknown: there is no such set or file.
        ModelSetInvalid: the TOML is not a valid model set; the reason names the key.
        PresetMissing: the set does not have the preset.
    """
    base, preset = split_preset(name)
    plain = _load_file(base) if is_file_name(base) else _load_packaged(base)
    return plain if preset is None else _with_preset(plain, preset)


def _load_file(name: str) -> ModelSet:
    path = Path(name).absolute()
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ModelSetInvalid(ascii(str(path)), "its path is not UTF-8, so no gallery can hold it") from error
    return read_model_set(path, str(path))


def _load_packaged(name: str) -> ModelSet:
    known = model_set_names()
    if name not in known:
        raise ModelSetUnknown(name, known)
    return read_model_set(_packaged() / f"{name}.toml", name)


def _with_preset(models: ModelSet, preset: PresetName) -> ModelSet:
    """Return the set with the options of its preset.

    Raises:
        PresetMissing: it has no such preset.
    """
    if preset not in models.presets:
        raise PresetMissing(models.handle, preset, sets_with_preset(preset))
    replaced = models.presets[preset]
    # Figures of a trial were measured with the options that are replaced.
    parts = tuple(
        msgspec.structs.replace(part, options={**part.options, **replaced[part.kind]}, reference=())
        if replaced.get(part.kind)
        else part
        for part in models.parts
    )
    return msgspec.structs.replace(
        models, handle=add_preset(models.handle, preset), parts=parts, preset=preset
    )


def read_model_set(path: Path, handle: str) -> ModelSet:
    """Read the model set in the file at `path`, called `handle` in messages.

    Raises:
        ModelSetUnknown, ModelSetInvalid: as in `load_model_set`.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST_TOML + 1)
    except FileNotFoundError as error:
        raise ModelSetUnknown(handle, model_set_names()) from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise ModelSetInvalid(handle, f"it cannot be read: {error}") from error
    if len(raw) > LARGEST_TOML:
        raise ModelSetInvalid(handle, f"it is larger than {LARGEST_TOML} bytes")
    return _TomlReader(handle, path.parent.resolve()).model_set(raw)


def _packaged() -> Path:
    """Return the folder of the packaged model sets."""
    # Located without an import: an editable install maps the top-level folder models/ to this name.
    spec = util.find_spec("matir_cli.models")
    if spec is None or not spec.submodule_search_locations:
        raise ModelSetUnknown("matir_cli.models", [])
    return Path(next(iter(spec.submodule_search_locations)))


def _convert(value: object, into: type[_Table]) -> tuple[_Table | None, str]:
    """Convert `value`, or return None and the fault: ": reason" or ".key: reason"."""
    try:
        return msgspec.convert(value, into), ""
    except msgspec.ValidationError as error:
        reason, _, key = str(error).partition(" - at `$")
        reason = re.sub(r"^Object missing required field (`.*`)$", r"\1 is missing", reason)
        reason = re.sub(r"^Object contains unknown field (`.*`)$", r"\1 is not a key of this table", reason)
        # TOML has neither null nor objects.
        reason = reason.replace(" | null", "").replace("`object`", "a table")
        return None, f"{key.rstrip('`')}: {reason}"


class _TomlReader:
    """Reads one model set; each method converts a table or value, or raises ModelSetInvalid."""

    def __init__(self, handle: str, folder: Path) -> None:
        self.handle = handle
        self.folder = folder

    def invalid(self, where: str, reason: str) -> ModelSetInvalid:
        """Make the error for the key `where`; unprintable characters in it become "?"."""
        # The file may be a stranger's, and its keys are shown on a terminal.
        shown = _UNPRINTABLE.sub("?", f"{where}{reason}").removeprefix(".").removeprefix(": ")
        return ModelSetInvalid(self.handle, shown)

    def table(self, value: object, into: type[_Table], where: str) -> _Table:
        table, fault = _convert(value, into)
        if table is None:
            raise self.invalid(where, fault)
        return table

    def text(self, value: str, where: str) -> str:
        if _UNPRINTABLE.search(value):
            raise self.invalid(where, ": must be one line without control characters")
        return value

    def matching(self, value: str, pattern: re.Pattern[str], where: str, rule: str) -> str:
        if not pattern.fullmatch(value):
            raise self.invalid(where, f": {rule}")
        return value

    def model_set(self, raw: bytes) -> ModelSet:
        try:
            document = tomllib.loads(raw.decode())
        except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, an endless number; too deep
            raise self.invalid("", f": it is not TOML: {error}") from error
        table = self.table(document, _SetTable, "")
        given = {kind: getattr(table, kind) for kind in PARTS}
        return ModelSet(
            name=self.matching(table.name, _NAME, "name", "letters, digits, '.', '_' and '-', at most 64"),
            handle=self.handle,
            description=self.text(table.description, "description"),
            note=self.text(table.note, "note"),
            parts=tuple(self.part(kind, value) for kind, value in given.items() if value is not None),
            trial=table.trial,
            match=table.match,
            fusion=table.fusion,
            abilities=self.abilities(table.abilities),
            presets=self.presets(table),
        )

    def abilities(self, value: dict[str, Any]) -> Abilities:
        table = self.table(value, Abilities, "abilities")
        for key in ("languages", "measured"):
            self.text(getattr(table, key), f"abilities.{key}")
        return table

    def presets(self, table: _SetTable) -> Presets:
        for name, parts in table.presets.items():
            if name not in PRESETS:
                raise self.invalid(f"presets.{name}", f": a preset is one of {', '.join(PRESETS)}")
            for kind in parts:
                if kind not in PARTS or getattr(table, kind) is None:
                    raise self.invalid(f"presets.{name}.{kind}", ": the set has no such part")
        return table.presets

    def part(self, kind: str, value: dict[str, Any]) -> ModelPart:
        table = self.table(value, _PartTable, kind)
        return ModelPart(
            kind=kind,
            name=self.text(table.name, f"{kind}.name"),
            engine=self.matching(table.engine, _ROLE, f"{kind}.engine", "letters a-z, digits and '_'"),
            licence=self.text(table.licence, f"{kind}.licence"),
            options=table.options,
            files=tuple(self.file(kind, role, table.files[role]) for role in sorted(table.files)),
            reference=table.reference,
        )

    def file(self, kind: str, role: str, value: dict[str, Any]) -> ModelFile:
        where = f"{kind}.files.{role}"
        self.matching(role, _ROLE, where, "a role is letters a-z, digits and '_'")
        table = self.table(value, _FileTable, where)
        source = self.source(table, where)
        size = table.bytes or table.about_bytes
        if table.bytes and table.about_bytes:
            raise self.invalid(where, ": `bytes` or `about_bytes`, not both")
        if size is None and not isinstance(source, LocalSource):
            raise self.invalid(where, ": `bytes` is missing (or `about_bytes`)")
        sha256 = table.sha256.lower() if table.sha256 is not None else None
        if sha256 is not None:
            self.matching(sha256, SHA256_HEX, f"{where}.sha256", "must be 64 hexadecimal digits")
        return ModelFile(kind, role, source, size, table.bytes is not None, sha256)

    def source(self, table: _FileTable, where: str) -> Source:
        if [table.hub, table.url, table.path].count(None) != 2:
            raise self.invalid(where, ": exactly one of `hub`, `url` and `path`")
        keys_of = {"hub": ("file", "revision"), "url": ("file", "mirrors"), "path": ()}
        kind = next(name for name in keys_of if getattr(table, name) is not None)
        for key in ("file", "revision", "mirrors"):
            if getattr(table, key) and key not in keys_of[kind]:
                raise self.invalid(f"{where}.{key}", f": does not go with `{kind}`")
        if table.hub is not None:
            return self.hub(table, table.hub, where)
        if table.url is not None:
            return self.url(table, table.url, where)
        return self.local(table.path or "", where)

    def hub(self, table: _FileTable, repo: str, where: str) -> HubSource:
        # The same rules as the hub's own.
        if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or repo.endswith(".git"):
            raise self.invalid(f"{where}.hub", ': must be "owner/repository"')
        if table.file is None:
            raise self.invalid(where, ": `file` is missing (the path in the repository)")
        file = self.inner_path(table.file, f"{where}.file")
        revision = self.inner_path(table.revision or "main", f"{where}.revision")
        return HubSource(repo, file, revision)

    def url(self, table: _FileTable, url: str, where: str) -> UrlSource:
        for key, address in [("url", url), *(("mirrors", mirror) for mirror in table.mirrors)]:
            fault = address_fault(address)
            if fault is not None:
                raise self.invalid(f"{where}.{key}", f": {fault}")
        name = table.file if table.file is not None else PurePosixPath(urlsplit(url).path).name
        self.matching(name, _FILE_NAME, f"{where}.file", "must be one plain file name")
        return UrlSource(url, table.mirrors, name)

    def local(self, path: str, where: str) -> LocalSource:
        inner = self.inner_path(path, f"{where}.path")
        try:
            full = (self.folder / inner).resolve()
        except (OSError, RuntimeError) as error:  # RuntimeError: circular links
            raise self.invalid(f"{where}.path", f": {error}") from error
        if not full.is_relative_to(self.folder):
            raise self.invalid(f"{where}.path", ": leads out of the folder of the model set")
        return LocalSource(full)

    def inner_path(self, path: str, where: str) -> str:
        """Check that `path` is relative, of plain names with single forward slashes between them."""
        if not all(_FILE_NAME.fullmatch(name) and ".." not in name for name in path.split("/")):
            raise self.invalid(where, ": must be a relative path of plain names, with '/' between them")
        return path
