"""Model sets: which models work together, and where each of their files comes from.

A model set is a TOML file with a table for each part, `[proposer]`, `[encoder]` and
`[judge]` (the last may be left out: such a set serves the first stage alone; with an encoder
alone it serves as a baseline of the evaluation):

    name = "mine"                         # of the set
    description = "one line for the list"
    note = "shown whenever the set is used"               # may be left out

    [encoder]
    name = "alpha_clip_vit_l14_grit20m"   # the identity that people read
    engine = "alpha_clip"                 # which engine loads it
    licence = "MIT"

    [encoder.options]                     # the engine's own; only the engine reads them

    [encoder.files.visual]                # one table a file, named by its role
    ...

A file comes from exactly one of three places:

    hub = "owner/repo", file = "path/in/repo", revision = "main or a commit"
    url = "https://...", mirrors = ["https://..."], file = "name on disk"
    path = "tiny/visual.pth"              # lies beside the TOML, never outside its folder

with `bytes`, its exact size, or `about_bytes` where nobody publishes it (one of them for
`hub` and `url`), and `sha256` where upstream publishes one. Nothing here touches the network.
"""

import ipaddress
import os
import re
import tomllib
from importlib import util
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeAlias, TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec

from matir_cli.errors import ModelSetInvalid, ModelSetUnknown, PartMissing

DEFAULT_MODEL_SET = "full"
"""What a new gallery is made with unless told otherwise."""

PARTS = ("proposer", "encoder", "judge")

LARGEST_TOML = 1 << 20
"""Bytes read of a model set at most: whatever is named by mistake is not read to its end."""

_Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=2000)]

_Size: TypeAlias = Annotated[int, msgspec.Meta(gt=0, le=1 << 50)]

_Made = TypeVar("_Made")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_ROLE = re.compile(r"[a-z][a-z0-9_]{0,31}")

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")

_REPO_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"

_REPO = re.compile(f"{_REPO_NAME}/{_REPO_NAME}")

_ADDRESS = re.compile(r"[!-~]{1,2000}")

_SHA256 = re.compile(r"[0-9a-f]{64}")

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class HubSource(msgspec.Struct, frozen=True):
    """A file of a repository on the Hugging Face hub."""

    repo: str
    """Owner and name, such as "facebook/sam2.1-hiera-large"."""
    file: str
    """Path in the repository, forward slashes."""
    revision: str
    """Branch, tag, pull request or commit."""

    @property
    def address(self) -> str:
        """Names the file for people, and in the record."""
        return f"hub:{self.repo}@{self.revision}/{self.file}"


class UrlSource(msgspec.Struct, frozen=True):
    """A file at an address of the web."""

    url: str
    """https, or http on this machine itself."""
    mirrors: tuple[str, ...]
    """Other addresses of the same file, tried in this order when `url` fails."""
    name: str
    """What the file is called on disk: one plain file name."""

    @property
    def address(self) -> str:
        """Names the file for people, and in the record."""
        return self.url


class LocalSource(msgspec.Struct, frozen=True):
    """A file that lies in the folder of the model set's TOML."""

    path: Path
    """Absolute, symbolic links resolved."""

    @property
    def address(self) -> str:
        """Names the file for people, and in the record."""
        return str(self.path)


Source: TypeAlias = HubSource | UrlSource | LocalSource


class ModelFile(msgspec.Struct, frozen=True):
    """One file of a model."""

    part: str
    """The part that it belongs to, one of `PARTS`."""
    role: str
    """What the engine calls it, such as "checkpoint"."""
    source: Source
    bytes: int | None
    """Its size; None for a local file that does not say."""
    exact: bool
    """`bytes` is the very size; otherwise it is about right."""
    sha256: str | None
    """As published upstream, lower-case hex; None where upstream publishes none."""

    @property
    def label(self) -> str:
        """Part and role, such as "encoder.visual"."""
        return f"{self.part}.{self.role}"


class ModelPart(msgspec.Struct, frozen=True):
    """One model of a set."""

    kind: str
    """One of `PARTS`."""
    name: str
    """For people, such as "sam2.1_hiera_large"."""
    engine: str
    """The engine's name in the registry."""
    licence: str
    options: dict[str, Any]
    """The engine's settings as the TOML has them."""
    files: tuple[ModelFile, ...]


class ModelSet(msgspec.Struct, frozen=True):
    """Models that work together."""

    name: str
    handle: str
    """What finds this set again: the name of a packaged set, the absolute path of any other."""
    description: str
    note: str
    """A sentence to show when the set is used; may be empty."""
    parts: tuple[ModelPart, ...]
    """In the order of `PARTS`; proposer and judge may be missing."""

    @property
    def files(self) -> tuple[ModelFile, ...]:
        """Every file of every part."""
        return tuple(file for part in self.parts for file in part.files)

    def part(self, kind: str) -> ModelPart:
        """The part called `kind`; PartMissing if this set has none."""
        for part in self.parts:
            if part.kind == kind:
                return part
        raise PartMissing(self.handle, kind)


class _FileTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hub: _Text | None = None
    url: _Text | None = None
    path: _Text | None = None
    file: _Text | None = None
    revision: _Text | None = None
    mirrors: Annotated[tuple[_Text, ...], msgspec.Meta(max_length=8)] = ()
    bytes: _Size | None = None
    about_bytes: _Size | None = None
    sha256: _Text | None = None


class _PartTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: _Text
    engine: _Text
    licence: _Text
    files: Annotated[dict[str, dict[str, Any]], msgspec.Meta(min_length=1, max_length=32)]
    options: dict[str, Any] = {}


class _SetTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: _Text
    description: _Text
    encoder: dict[str, Any]
    proposer: dict[str, Any] | None = None
    judge: dict[str, Any] | None = None
    note: _Text = ""


def model_set_names() -> list[str]:
    """The packaged model sets, sorted."""
    return sorted(path.stem for path in _packaged().glob("*.toml"))


def load_model_set(wanted: str) -> ModelSet:
    """The packaged set called `wanted`, or the one in the file `wanted`.

    A file is what ends in ".toml" or has a path separator in it.

    Raises:
        ModelSetUnknown: there is no such set or file.
        ModelSetInvalid: the TOML does not say what it must; the reason names the key.
    """
    if wanted.endswith(".toml") or "/" in wanted or os.sep in wanted:
        path = Path(wanted).absolute()
        return read_model_set(path, str(path))
    known = model_set_names()
    if wanted not in known:
        raise ModelSetUnknown(wanted, known)
    return read_model_set(_packaged() / f"{wanted}.toml", wanted)


def read_model_set(path: Path, handle: str) -> ModelSet:
    """The model set in the file at `path`, called `handle` in messages; errors as in `find`."""
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


def address_fault(url: str) -> str | None:
    """Why `url` is not an address to fetch a model from, or None if it is one."""
    if not _ADDRESS.fullmatch(url):
        return "an address is plain ASCII without spaces"
    try:
        parts: SplitResult = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port  # raises for a port that is none
    except ValueError as error:
        return f"not an address: {error}"
    if not host or parts.username is not None or parts.password is not None:
        return "an address has a host and no user name"
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        return None
    return "an address starts with https:// (http:// on this machine itself)"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _packaged() -> Path:
    # Found, not imported: an editable install maps the top-level folder models/ to this name.
    spec = util.find_spec("matir_cli.models")
    if spec is None or not spec.submodule_search_locations:
        raise ModelSetUnknown("matir_cli.models", [])
    return Path(next(iter(spec.submodule_search_locations)))


def _convert(value: object, into: type[_Made]) -> tuple[_Made | None, str]:
    """`value` as an `into`, or where it is wrong and why (": reason" or ".key: reason")."""
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
    """Reads one TOML; carries what every complaint names."""

    def __init__(self, handle: str, folder: Path) -> None:
        self.handle = handle
        self.folder = folder

    def invalid(self, where: str, reason: str) -> ModelSetInvalid:
        # A stranger's keys are shown on a terminal.
        shown = _UNPRINTABLE.sub("?", f"{where}{reason}").removeprefix(".").removeprefix(": ")
        return ModelSetInvalid(self.handle, shown)

    def table(self, value: object, into: type[_Made], where: str) -> _Made:
        made, fault = _convert(value, into)
        if made is None:
            raise self.invalid(where, fault)
        return made

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
        )

    def part(self, kind: str, value: dict[str, Any]) -> ModelPart:
        table = self.table(value, _PartTable, kind)
        return ModelPart(
            kind=kind,
            name=self.text(table.name, f"{kind}.name"),
            engine=self.matching(table.engine, _ROLE, f"{kind}.engine", "letters a-z, digits and '_'"),
            licence=self.text(table.licence, f"{kind}.licence"),
            options=table.options,
            files=tuple(self.file(kind, role, table.files[role]) for role in sorted(table.files)),
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
            self.matching(sha256, _SHA256, f"{where}.sha256", "must be 64 hexadecimal digits")
        return ModelFile(kind, role, source, size, table.bytes is not None, sha256)

    def source(self, table: _FileTable, where: str) -> Source:
        if [table.hub, table.url, table.path].count(None) != 2:
            raise self.invalid(where, ": exactly one of `hub`, `url` and `path`")
        taken = {"hub": ("file", "revision"), "url": ("file", "mirrors"), "path": ()}
        kind = next(name for name in taken if getattr(table, name) is not None)
        for key in ("file", "revision", "mirrors"):
            if getattr(table, key) and key not in taken[kind]:
                raise self.invalid(f"{where}.{key}", f": does not go with `{kind}`")
        if table.hub is not None:
            return self.hub(table, table.hub, where)
        if table.url is not None:
            return self.url(table, table.url, where)
        return self.local(table.path or "", where)

    def hub(self, table: _FileTable, repo: str, where: str) -> HubSource:
        # What the hub itself refuses in a name.
        if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or repo.endswith(".git"):
            raise self.invalid(f"{where}.hub", ': must be "owner/repository"')
        if table.file is None:
            raise self.invalid(where, ": `file` is missing, the path in the repository")
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
        except (OSError, RuntimeError) as error:  # RuntimeError: links that go in a circle
            raise self.invalid(f"{where}.path", f": {error}") from error
        if not full.is_relative_to(self.folder):
            raise self.invalid(f"{where}.path", ": leads out of the folder of the model set")
        return LocalSource(full)

    def inner_path(self, path: str, where: str) -> str:
        """A path of plain names with single forward slashes between them, inside something."""
        if not all(_FILE_NAME.fullmatch(name) and ".." not in name for name in path.split("/")):
            raise self.invalid(where, ": must be a relative path of plain names, with '/' between them")
        return path
