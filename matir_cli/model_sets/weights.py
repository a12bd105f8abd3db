"""Model files on disk: locations, hashes, and verification.

Files fetched from web addresses are kept in the models folder: `MATIR_MODELS`, or "models" in the
platform's data folder. Files of the Hugging Face hub are kept in the hub's own cache, which other
tools share and `HF_HOME` moves. If `MATIR_MODELS` is set, they are kept in its subfolder "hub" in the
same layout, so that one folder holds everything and can be moved to another disk or to a machine
without a network.

A hash record, one small file per source in the subfolder ".record" of the models folder, keeps the
path, size, modification time and SHA-256 of a file. It makes starting cheap: while size and time are
unchanged, neither the hub's library is loaded nor a gigabyte hashed. It is also the reference for
files whose hash nobody publishes: the hash seen first is expected from then on. If a record cannot be
written, only this speed and this check are lost.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import msgspec
import platformdirs

from matir_cli.atomic_write import atomic_write
from matir_cli.errors import CheckpointInvalid, OutputError, WeightsChanged, WeightsMissing
from matir_cli.model_sets.catalogue import ModelPart, ModelSet
from matir_cli.model_sets.sources import HubSource, LocalSource, ModelFile, UrlSource
from matir_cli.progress import ProgressObserver, no_progress
from matir_cli.records import EngineConfig, ModelIdentity

MODELS_VARIABLE = "MATIR_MODELS"

_CHUNK = 1 << 20


class HashRecord(msgspec.Struct, frozen=True):
    """The hash record of one source."""

    source: str
    """Address of the source."""
    path: str
    """Path of the file; relative to the models folder if the file is inside it."""
    bytes: int
    mtime_ns: int
    sha256: str


class FileState(Enum):
    """Result of verifying a file."""

    OK = "ok"
    MISSING = "missing"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file of a model set after verification."""

    file: ModelFile
    path: Path
    """Path of the file, or the path where it is expected."""
    state: FileState
    fault: WeightsChanged | CheckpointInvalid | None
    """The fault of a file that has CHANGED; None in other states."""


def models_folder() -> Path:
    """Return the models folder, which need not exist yet."""
    chosen = os.environ.get(MODELS_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    return platformdirs.user_data_path("matir", appauthor=False) / "models"


def hub_cache() -> Path:
    """Return the folder of hub files, in the hub's cache layout; may load the hub's library."""
    if os.environ.get(MODELS_VARIABLE):
        return models_folder() / "hub"
    # Imported late: the library takes a tenth of a second to load, and `find` does not need it.
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def hub_repo_folder(source: HubSource) -> Path:
    """Return the folder of the source's repository in the hub's cache."""
    return hub_cache() / f"models--{source.repo.replace('/', '--')}"


def url_path(source: UrlSource) -> Path:
    """Return the path of a fetched file: one folder per address, so that equal names do not collide."""
    digest = hashlib.sha256(source.url.encode()).hexdigest()
    return models_folder() / "files" / digest[:16] / source.name


def local_path(file: ModelFile) -> Path | None:
    """Return the path of `file` if it is on this machine, else None; uses no network, hashes nothing."""
    source = file.source
    if isinstance(source, HubSource):
        return _recorded_path(source) or _cached_path(source)
    path = source.path if isinstance(source, LocalSource) else url_path(source)
    return path if _is_file(path) else None


def expected_path(file: ModelFile) -> Path:
    """Return the path of `file`, or the path where it would be after fetching."""
    path = local_path(file)
    if path is not None:
        return path
    source = file.source
    if isinstance(source, HubSource):
        # Exact if the revision is a commit; the commit of a branch is known to the hub only.
        return hub_repo_folder(source) / "snapshots" / source.revision / source.file
    return source.path if isinstance(source, LocalSource) else url_path(source)


def expected_hash(file: ModelFile) -> str | None:
    """Return the SHA-256 (hex) that `file` must have: the declared one, else the one seen first, else None.

    Users may change a file beside their own TOML: without a declared hash, other content is
    another model with another identity, not an error.
    """
    if file.sha256 is not None:
        return file.sha256
    if isinstance(file.source, LocalSource):
        return None
    record = _read_record(file.source.address)
    return record.sha256 if record is not None else None


def locate_files(model_set: ModelSet, kind: str) -> EngineConfig:
    """Locate the files of the part `kind` ("proposer", "encoder", "judge") for its engine.

    The identity covers every file of the part, even if an engine loads only some of them. Fast if all
    files are on record and unchanged; hashes them otherwise.

    Raises:
        WeightsMissing: files are missing; the error names all of them.
        WeightsChanged, CheckpointInvalid: as in `verified_hash`.
        PartMissing: the set has no such part.
    """
    part = model_set.part(kind)
    paths = {file.role: local_path(file) for file in part.files}
    present = {role: path for role, path in paths.items() if path is not None}
    if len(present) < len(paths):
        missing = [expected_path(file) for file in part.files if file.role not in present]
        raise WeightsMissing(model_set.handle, missing, kind)
    hashes = {file.role: verified_hash(file, present[file.role]) for file in part.files}
    return EngineConfig(part.engine, part.options, present, _identity(part, hashes))


def verified_hash(file: ModelFile, path: Path) -> str:
    """Return the SHA-256 (hex) of `file` at `path`: the recorded one while size and time are unchanged.

    Raises:
        WeightsChanged: the hash is not the declared one, or not the one seen first.
        CheckpointInvalid: the file has another size than declared, or cannot be read.
    """
    record = _read_record(file.source.address)
    try:
        status = path.stat()
    except OSError as error:
        raise CheckpointInvalid(path, f"cannot be read: {error.strerror}") from error
    unchanged = record is not None and (record.bytes, record.mtime_ns) == (status.st_size, status.st_mtime_ns)
    if record is None or not unchanged or _absolute(record.path) != path:
        return hash_and_record(file, path)
    if file.sha256 is not None and record.sha256 != file.sha256:
        raise WeightsChanged(path, file.sha256, record.sha256)
    return record.sha256


def hash_and_record(file: ModelFile, path: Path, progress: ProgressObserver = no_progress) -> str:
    """Hash the file at `path`, compare it with the expected size and hash, and record it.

    Returns:
        The SHA-256, hex.

    Raises:
        WeightsChanged, CheckpointInvalid: as in `verified_hash`; nothing is recorded then.
    """
    try:
        status = path.stat()
        check_size(file, path, status.st_size)
        actual = sha256_of(path, file.label, progress)
    except OSError as error:
        raise CheckpointInvalid(path, f"cannot be read: {error.strerror}") from error
    expected = expected_hash(file)
    if expected is not None and actual != expected:
        raise WeightsChanged(path, expected, actual)
    record_hash(file, path, status, actual)
    return actual


def check_size(file: ModelFile, path: Path, size: int) -> None:
    """Check that `size`, the bytes of the file at `path`, is what the model set declares.

    Raises:
        CheckpointInvalid: the model set declares another exact size.
    """
    if file.exact and size != file.bytes:
        raise CheckpointInvalid(path, f"has {size} bytes, not the {file.bytes} of the model set")


def sha256_of(path: Path, name: str, progress: ProgressObserver) -> str:
    """Return the SHA-256 (hex) of the file at `path`; raises OSError if it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        with progress(name, size, "B") as advance:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                advance(len(chunk))
    return digest.hexdigest()


def verify_model_set(model_set: ModelSet, progress: ProgressObserver) -> Iterator[CheckedFile]:
    """Hash every file of the set, whatever is on record; yields the result of each."""
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
    """Record path and hash of `file`; does nothing if the record cannot be written."""
    folder = models_folder()
    # Relative if possible: the folder may be moved to another place or machine.
    stored = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
    record = HashRecord(file.source.address, stored, status.st_size, status.st_mtime_ns, sha256)
    target = _record_path(file.source.address)
    # No process ever reads half a record.
    with contextlib.suppress(OutputError), atomic_write(target, force=True) as temporary:
        temporary.write_bytes(msgspec.json.encode(record))


def forget_hash(file: ModelFile) -> None:
    """Delete the hash record of `file`, so that the next hash seen counts as the first."""
    with contextlib.suppress(FileNotFoundError):
        _record_path(file.source.address).unlink()


def address_key(address: str) -> str:
    """Return a file name for things kept per source: 32 hex digits of the SHA-256 of its address."""
    return hashlib.sha256(address.encode()).hexdigest()[:32]


def _identity(part: ModelPart, hashes: dict[str, str]) -> ModelIdentity:
    """Make the identity of a part from the hash of each role's file."""
    lines = "".join(f"{role} {hashes[role]}\n" for role in sorted(hashes))
    return ModelIdentity(part.name, hashlib.sha256(lines.encode()).hexdigest())


def _record_path(address: str) -> Path:
    return models_folder() / ".record" / f"{address_key(address)}.json"


def _read_record(address: str) -> HashRecord | None:
    """Read the hash record of a source; None if it is missing, damaged or another source's."""
    try:
        record = msgspec.json.decode(_record_path(address).read_bytes(), type=HashRecord)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return record if record.source == address else None


def _absolute(path: str) -> Path:
    """Return the path of a hash record as an absolute one."""
    return models_folder() / path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a folder without access
        return False


def _recorded_path(source: HubSource) -> Path | None:
    """Return the path on record if the file still exists."""
    record = _read_record(source.address)
    if record is None:
        return None
    path = _absolute(record.path)
    return path if _is_file(path) else None


def _cached_path(source: HubSource) -> Path | None:
    """Return the path of the file in the hub's cache, None if it is not there."""
    # Imported late, as in `hub_cache`.
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(source.repo, source.file, hub_cache(), source.revision)
    return Path(cached) if isinstance(cached, str) else None
