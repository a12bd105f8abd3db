"""Fetching a model set's missing files, each verified before it gets its name.

Files of the hub: the hub's library says where a file is, its size and its SHA-256 (and honours
`HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE`), `matir_cli.model_sets.http` transfers the bytes, and
the library links the finished blob into its cache. Small files that the hub keeps in git, without a
SHA-256, are left to the library altogether.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from matir_cli.errors import CheckpointInvalid, DownloadFailed, ModelSetInvalid, WeightsChanged
from matir_cli.model_sets.catalogue import SHA256_HEX, ModelSet
from matir_cli.model_sets.http import Transfer, fetch_file
from matir_cli.model_sets.sources import HubSource, LocalSource, ModelFile, UrlSource
from matir_cli.model_sets.weights import (
    address_key,
    expected_hash,
    forget_hash,
    hash_and_record,
    hub_cache,
    hub_repo_folder,
    local_path,
    models_folder,
    record_hash,
    url_path,
    verified_hash,
)
from matir_cli.progress import ProgressObserver


@dataclass(frozen=True, slots=True)
class PulledFile:
    """A file of a model set that is present after pulling."""

    file: ModelFile
    path: Path
    fetched: bool
    """True if the file was fetched now, False if it was present before."""


def pull_model_set(
    model_set: ModelSet, progress: ProgressObserver, accept_changed: bool = False
) -> Iterator[PulledFile]:
    """Fetch every missing file of the set, in order; yields one result per file.

    Args:
        accept_changed: accept a new hash of a file whose hash nobody publishes, by forgetting the one
            seen first.

    Raises:
        DownloadFailed: as in `fetch_file`; also if another process is fetching the same file, or if the
            received file is not the one that the model set or the hub describes.
        WeightsChanged: the received file does not have the hash seen first.
        CheckpointInvalid: a file that is present cannot be read.
        ModelSetInvalid: a local file of the set does not exist.
    """
    for file in model_set.files:
        if accept_changed and file.sha256 is None:
            forget_hash(file)
        if isinstance(file.source, LocalSource) and local_path(file) is None:
            raise ModelSetInvalid(model_set.handle, f"{file.label}: there is no file {file.source.path}")
        with _locked(file):
            yield _pull_file(file, progress)


@contextlib.contextmanager
def _locked(file: ModelFile) -> Iterator[None]:
    """Hold a lock that keeps other processes from fetching the same file."""
    path = models_folder() / ".locks" / f"{address_key(file.source.address)}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise DownloadFailed(file.source.address, "another process is fetching it") from error
    except OSError as error:
        raise DownloadFailed(file.source.address, f"{path.parent} cannot be written: {error}") from error
    try:
        yield
    finally:
        lock.release()


def _pull_file(file: ModelFile, progress: ProgressObserver) -> PulledFile:
    """Fetch the file if it is missing, or if its size or hash is wrong."""
    path = local_path(file)
    if path is not None:
        try:
            verified_hash(file, path)
        except (WeightsChanged, CheckpointInvalid):
            # The wrong file is fetched again, and replaced only by the right one.
            if isinstance(file.source, LocalSource):
                raise
        else:
            return PulledFile(file, path, fetched=False)
    if isinstance(file.source, HubSource):
        return PulledFile(file, _fetch_from_hub(file, file.source, path, progress), fetched=True)
    assert isinstance(file.source, UrlSource), "a missing local file was refused before"
    return PulledFile(file, _fetch_from_urls(file, file.source, progress), fetched=True)


def _fetch_from_urls(file: ModelFile, source: UrlSource, progress: ProgressObserver) -> Path:
    """Fetch from the first address that serves the file; DownloadFailed gives each one's reason."""
    target, expected = url_path(source), expected_hash(file)
    fetch = fetch_file if file.sha256 is None else _fetch_published
    failures = []
    for url in (source.url, *source.mirrors):
        transfer = Transfer(url, target, file.label, file.bytes or 0, file.exact, expected)
        try:
            sha256 = fetch(transfer, progress)
        except DownloadFailed as error:
            failures.append(error)
        else:
            record_hash(file, target, target.stat(), sha256)
            return target
    first, *others = failures
    reason = "; ".join([first.reason, *(f"{other.source}: {other.reason}" for other in others)])
    raise DownloadFailed(first.source, reason)


def _fetch_published(transfer: Transfer, progress: ProgressObserver) -> str:
    """Fetch a file whose hash is published: another hash then means that the wrong file was served."""
    try:
        return fetch_file(transfer, progress)
    except WeightsChanged as error:
        reason = f"its SHA-256 is {error.found}, not {error.expected}; it was not kept"
        raise DownloadFailed(transfer.url, reason) from error


def _fetch_from_hub(
    file: ModelFile, source: HubSource, damaged: Path | None, progress: ProgressObserver
) -> Path:
    """Fetch a file of the hub into its cache, replacing the `damaged` one there.

    Raises:
        DownloadFailed: for any error of the hub's library.
        WeightsChanged, CheckpointInvalid: as in `hash_and_record`.
    """
    # Imported late: the library takes a tenth of a second to load.
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its HTTP client
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public by its docs

    if constants.HF_HUB_OFFLINE:
        raise DownloadFailed(source.address, "HF_HUB_OFFLINE is set, and the file is not in the hub's cache")
    sha256 = None
    try:
        url = hf_hub_url(source.repo, source.file, revision=source.revision)
        published = get_hf_file_metadata(url).etag
        if published is not None and SHA256_HEX.fullmatch(published):
            if file.sha256 not in (None, published):
                reason = f"the hub has the SHA-256 {published}, the model set says {file.sha256}"
                raise DownloadFailed(source.address, reason)
            blob = hub_repo_folder(source) / "blobs" / published
            token = build_hf_headers().get("authorization")
            transfer = Transfer(url, blob, file.label, file.bytes or 0, file.exact, published, token)
            sha256 = _fetch_published(transfer, progress)
        if damaged is not None:
            damaged.unlink(missing_ok=True)
        # Links the fetched blob; a file without SHA-256 is small, and is fetched by this call.
        again = damaged is not None and sha256 is None
        downloaded = hf_hub_download(
            source.repo, source.file, revision=source.revision, cache_dir=hub_cache(), force_download=again
        )
    except (OSError, ValueError, HTTPError) as error:
        raise DownloadFailed(source.address, _hub_reason(error)) from error
    path = Path(downloaded)
    if sha256 is None:
        hash_and_record(file, path, progress)
    elif (expected := expected_hash(file)) not in (None, sha256):
        raise WeightsChanged(path, str(expected), sha256)
    else:
        record_hash(file, path, path.stat(), sha256)
    return path


def _hub_reason(error: Exception) -> str:
    """Return the reason for an error of the hub's library in one line; its own messages have several."""
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            return "its licence must be accepted on the hub's page, and HF_TOKEN set"
        case errors.RepositoryNotFoundError():
            return "the hub has no such repository, or requires HF_TOKEN to show it"
        case errors.RevisionNotFoundError():
            return "the repository has no such revision"
        case errors.EntryNotFoundError():
            return "the repository has no such file"
        case _:
            return next(iter(str(error).splitlines()), "") or type(error).__name__
