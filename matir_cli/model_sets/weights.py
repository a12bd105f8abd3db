"""Where the files of a model set lie, and that they are what they should be.

Files fetched from plain addresses lie in the models folder: `MATIR_MODELS`, or "models" in
the platform's data folder. Files of the Hugging Face hub lie in the hub's own cache, which
other tools share and which `HF_HOME` moves; with `MATIR_MODELS` set they lie in its folder
"hub" instead (the same layout), so that this one folder then holds everything and can be
put on another disk or carried to a machine without a network.

A small record, one file a source in the models folder's ".record", keeps where a file was
found, its size, modification time and SHA-256. It makes starting cheap (neither the hub's
library is loaded nor a gigabyte hashed while size and time are unchanged), and it is what
a file is held against whose hash nobody publishes: the hash seen first counts from then on.
A record that cannot be written costs time and that check, nothing else.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import msgspec
import platformdirs

from matir_cli.errors import CheckpointInvalid, WeightsChanged, WeightsMissing
from matir_cli.model_sets.catalogue import HubSource, LocalSource, ModelFile, ModelPart, ModelSet, UrlSource
from matir_cli.progress import ProgressObserver, no_progress
from matir_cli.records import EngineConfig, ModelIdentity

MODELS_VARIABLE = "MATIR_MODELS"

_CHUNK = 1 << 20


class HashRecord(msgspec.Struct, frozen=True):
    """What the record keeps of one source."""

    source: str
    """The source's address, for whoever reads the record."""
    path: str
    """Where the file was found; relative to the models folder when it lies in there."""
    bytes: int
    mtime_ns: int
    sha256: str


class FileState(Enum):
    """What became of a file that was checked."""

    OK = "ok"
    MISSING = "missing"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file of a model set, read through."""

    file: ModelFile
    path: Path
    """Where it lies, or where it should."""
    state: FileState
    fault: WeightsChanged | CheckpointInvalid | None
    """What is wrong with a file that has CHANGED."""


def models_folder() -> Path:
    """The folder of the models; it need not exist yet."""
    chosen = os.environ.get(MODELS_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    return platformdirs.user_data_path("matir", appauthor=False) / "models"


def hub_cache() -> Path:
    """The folder that holds hub files, in the hub's cache layout. Loads the hub's library."""
    if os.environ.get(MODELS_VARIABLE):
        return models_folder() / "hub"
    # Here: this library takes a tenth of a second to load, and `find` does without.
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def url_path(source: UrlSource) -> Path:
    """Where a fetched file lies: a folder an address, so that equal names never meet."""
    digest = hashlib.sha256(source.url.encode()).hexdigest()
    return models_folder() / "files" / digest[:16] / source.name


def local_path(file: ModelFile) -> Path | None:
    """Where `file` lies on this machine, or None. No network; hashes nothing."""
    source = file.source
    if isinstance(source, HubSource):
        return _recorded_path(source) or _cached_path(source)
    path = source.path if isinstance(source, LocalSource) else url_path(source)
    return path if _is_file(path) else None


def expected_path(file: ModelFile) -> Path:
    """Where `file` lies, or where it would."""
    found = local_path(file)
    if found is not None:
        return found
    source = file.source
    if isinstance(source, HubSource):
        # Exact for a commit; for a branch the hub decides the commit when it is asked.
        folder = hub_cache() / f"models--{source.repo.replace('/', '--')}" / "snapshots"
        return folder / source.revision / source.file
    return source.path if isinstance(source, LocalSource) else url_path(source)


def expected_hash(file: ModelFile) -> str | None:
    """The SHA-256 that `file` must have: the declared one, else the one seen first, else None.

    A file beside a user's own TOML is his to change: without a declared hash, another
    content is simply another model, with another identity.
    """
    if file.sha256 is not None:
        return file.sha256
    if isinstance(file.source, LocalSource):
        return None
    seen = _read_record(file.source.address)
    return seen.sha256 if seen is not None else None


def locate_files(model_set: ModelSet, kind: str) -> EngineConfig:
    """All that an engine needs to load the part `kind` ("proposer", "encoder", "judge").

    The identity covers every file of the part, so whoever loads only some of them gets the
    same one. Fast when the files are on record and unchanged; hashes them otherwise.

    Raises:
        WeightsMissing: files that are not here, all of them named.
        WeightsChanged, CheckpointInvalid: as `checked_hash`.
        PartMissing: the set has no such part.
    """
    part = model_set.part(kind)
    paths = {file.role: local_path(file) for file in part.files}
    found = {role: path for role, path in paths.items() if path is not None}
    if len(found) < len(paths):
        missing = [expected_path(file) for file in part.files if file.role not in found]
        raise WeightsMissing(model_set.handle, missing, kind)
    hashes = {file.role: verified_hash(file, found[file.role]) for file in part.files}
    return EngineConfig(part.engine, part.options, found, _identity(part, hashes))


def verified_hash(file: ModelFile, path: Path) -> str:
    """SHA-256 of `file` at `path`: the recorded one while size and time are unchanged.

    Raises:
        WeightsChanged: it is not the declared one, or the one seen first.
        CheckpointInvalid: it has another size than declared, or cannot be read.
    """
    seen = _read_record(file.source.address)
    try:
        status = path.stat()
    except OSError as error:
        raise CheckpointInvalid(path, f"cannot be read: {error.strerror}") from error
    known = seen is not None and (seen.bytes, seen.mtime_ns) == (status.st_size, status.st_mtime_ns)
    if seen is None or not known or _absolute(seen.path) != path:
        return hash_and_record(file, path)
    if file.sha256 is not None and seen.sha256 != file.sha256:
        raise WeightsChanged(path, file.sha256, seen.sha256)
    return seen.sha256


def hash_and_record(file: ModelFile, path: Path, progress: ProgressObserver = no_progress) -> str:
    """Reads `path` through, holds it against what is expected, and records it.

    Raises:
        WeightsChanged, CheckpointInvalid: as `checked_hash`; nothing is recorded then.
    """
    try:
        status = path.stat()
        if file.exact and status.st_size != file.bytes:
            raise CheckpointInvalid(
                path, f"has {status.st_size} bytes, not the {file.bytes} of the model set"
            )
        found = sha256_of(path, file.label, progress)
    except OSError as error:
        raise CheckpointInvalid(path, f"cannot be read: {error.strerror}") from error
    expected = expected_hash(file)
    if expected is not None and found != expected:
        raise WeightsChanged(path, expected, found)
    record_hash(file, path, status, found)
    return found


def sha256_of(path: Path, name: str, progress: ProgressObserver) -> str:
    """SHA-256 of the file at `path`, hex; OSError as the system raises it."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        with progress(name, size, "B") as advance:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                advance(len(chunk))
    return digest.hexdigest()


def verify_model_set(model_set: ModelSet, progress: ProgressObserver) -> Iterator[CheckedFile]:
    """Reads every file of the set through, whatever is on record, and tells of each."""
    for file in model_set.files:
        path = local_path(file)
        if path is None:
            yield CheckedFile(file, expected_path(file), FileState.MISSING, None)
            continue
        try:
            hash_and_record(file, path, progress)
        except (WeightsChanged, CheckpointInvalid) as error:
            yield CheckedFile(file, path, FileState.CHANGED, error)
        else:
            yield CheckedFile(file, path, FileState.OK, None)


def record_hash(file: ModelFile, path: Path, status: os.stat_result, sha256: str) -> None:
    """Remembers where `file` lies and what it hashed to; silently not, where nothing can be written."""
    folder = models_folder()
    # Relative where it can be: the folder may be moved, or carried to another machine.
    shown = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
    seen = HashRecord(file.source.address, shown, status.st_size, status.st_mtime_ns, sha256)
    target = _record_path(file.source.address)
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own, then a rename: two processes never see half a record.
        handle, name = tempfile.mkstemp(dir=target.parent, suffix=".new")
        with os.fdopen(handle, "wb") as stream:
            stream.write(msgspec.json.encode(seen))
        Path(name).replace(target)


def forget_hash(file: ModelFile) -> None:
    """Drops what is on record of `file`: the next hash seen is the first again."""
    with contextlib.suppress(FileNotFoundError):
        _record_path(file.source.address).unlink()


def _identity(part: ModelPart, hashes: dict[str, str]) -> ModelIdentity:
    lines = "".join(f"{role} {hashes[role]}\n" for role in sorted(hashes))
    return ModelIdentity(part.name, hashlib.sha256(lines.encode()).hexdigest())


def _record_path(address: str) -> Path:
    name = hashlib.sha256(address.encode()).hexdigest()[:32]
    return models_folder() / ".record" / f"{name}.json"


def _read_record(address: str) -> HashRecord | None:
    try:
        seen = msgspec.json.decode(_record_path(address).read_bytes(), type=HashRecord)
    except (OSError, msgspec.DecodeError):
        return None
    return seen if seen.source == address else None


def _absolute(path: str) -> Path:
    return models_folder() / path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a folder that may not be looked into
        return False


def _recorded_path(source: HubSource) -> Path | None:
    seen = _read_record(source.address)
    if seen is None:
        return None
    path = _absolute(seen.path)
    return path if _is_file(path) else None


def _cached_path(source: HubSource) -> Path | None:
    # Here: see hub_cache.
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repo, source.file, hub_cache(), source.revision)
    return Path(found) if isinstance(found, str) else None
