"""Fetches the files of a model set that are not here yet, each verified before it gets its name.

Hub files: the hub's library tells where a file is, how large and with which SHA-256 (it
honours `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`), `matir_cli.transfer` brings the bytes,
and the library takes the finished blob into its cache. Small files that the hub keeps in
git, without a SHA-256, are left to the library altogether.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from filelock import FileLock, Timeout

from matir_cli.errors import CheckpointInvalid, DownloadFailed, ModelSetInvalid, WeightsChanged
from matir_cli.model_sets.catalogue import HubSource, LocalSource, ModelFile, ModelSet, UrlSource
from matir_cli.model_sets.http import Transfer, fetch_file
from matir_cli.model_sets.weights import (
    expected_hash,
    forget_hash,
    hash_and_record,
    hub_cache,
    local_path,
    models_folder,
    record_hash,
    url_path,
    verified_hash,
)
from matir_cli.progress import ProgressObserver

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PulledFile:
    """A file of a model set that is here now."""

    file: ModelFile
    path: Path
    fetched: bool
    """It was not here before."""


def pull_model_set(
    model_set: ModelSet, progress: ProgressObserver, accept_changed: bool = False
) -> Iterator[PulledFile]:
    """Brings every file of the set to this machine, in order, telling of each.

    With `accept_changed` a file whose hash nobody publishes may have another one than the
    one seen first: that one is forgotten.

    Raises:
        DownloadFailed: as `matir_cli.transfer.fetch`; another process is fetching the same
            file; what arrived is not what the model set or the hub says.
        WeightsChanged: what arrived is not what was seen first.
        CheckpointInvalid: what lies here cannot be read.
        ModelSetInvalid: a file that should lie beside the TOML does not.
    """
    for file in model_set.files:
        if accept_changed and file.sha256 is None:
            forget_hash(file)
        if isinstance(file.source, LocalSource) and local_path(file) is None:
            raise ModelSetInvalid(model_set.handle, f"{file.label}: there is no file {file.source.path}")
        with _alone(file):
            yield _bring(file, progress)


@contextlib.contextmanager
def _alone(file: ModelFile) -> Iterator[None]:
    """Keeps another process from fetching the same file at the same time."""
    name = sha256(file.source.address.encode()).hexdigest()[:32]
    path = models_folder() / ".locks" / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise DownloadFailed(file.source.address, "another process is fetching it just now") from error
    except OSError as error:
        raise DownloadFailed(file.source.address, f"{path.parent} cannot be written: {error}") from error
    try:
        yield
    finally:
        lock.release()


def _bring(file: ModelFile, progress: ProgressObserver) -> PulledFile:
    path = local_path(file)
    if path is not None:
        try:
            verified_hash(file, path)
        except (WeightsChanged, CheckpointInvalid):
            # Not what it should be: fetched again, and replaced only by the right one.
            if isinstance(file.source, LocalSource):
                raise
        else:
            return PulledFile(file, path, fetched=False)
    if isinstance(file.source, HubSource):
        return PulledFile(file, _from_hub(file, file.source, path, progress), fetched=True)
    assert isinstance(file.source, UrlSource), "a local file is here, or `pull` has refused it"
    return PulledFile(file, _from_addresses(file, file.source, progress), fetched=True)


def _from_addresses(file: ModelFile, source: UrlSource, progress: ProgressObserver) -> Path:
    """From the first of the addresses that has it; DownloadFailed tells what each of them said."""
    faults = []
    for url in (source.url, *source.mirrors):
        job = Transfer(url, url_path(source), file.label, file.bytes or 0, file.exact, expected_hash(file))
        try:
            found = _fetch_published(job, progress) if file.sha256 is not None else fetch_file(job, progress)
        except DownloadFailed as error:
            faults.append(error)
        else:
            record_hash(file, job.target, job.target.stat(), found)
            return job.target
    first, *others = faults
    reason = "; ".join([first.reason, *(f"{other.source}: {other.reason}" for other in others)])
    raise DownloadFailed(first.source, reason)


def _fetch_published(job: Transfer, progress: ProgressObserver) -> str:
    """`fetch`, where another hash than the published one means that the wrong thing arrived."""
    try:
        return fetch_file(job, progress)
    except WeightsChanged as error:
        reason = f"its SHA-256 is {error.found}, not {error.expected}; it was not kept"
        raise DownloadFailed(job.url, reason) from error


def _from_hub(file: ModelFile, source: HubSource, damaged: Path | None, progress: ProgressObserver) -> Path:
    """From the hub into its cache, in place of what is `damaged` there.

    DownloadFailed for whatever the library stumbles over; else as `hash_and_record`.
    """
    # Here: this library takes a tenth of a second to load, and nothing else needs it.
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # its HTTP client's
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented all the same

    if constants.HF_HUB_OFFLINE:
        raise DownloadFailed(source.address, "HF_HUB_OFFLINE is set, and the hub's cache does not have it")
    cache = hub_cache()
    found = None
    try:
        url = hf_hub_url(source.repo, source.file, revision=source.revision)
        published = get_hf_file_metadata(url).etag
        if published is not None and _SHA256.fullmatch(published):
            if file.sha256 not in (None, published):
                reason = f"the hub has the SHA-256 {published}, the model set says {file.sha256}"
                raise DownloadFailed(source.address, reason)
            blob = cache / f"models--{source.repo.replace('/', '--')}" / "blobs" / published
            token = build_hf_headers().get("authorization")
            job = Transfer(url, blob, file.label, file.bytes or 0, file.exact, published, token)
            found = _fetch_published(job, progress)
        if damaged is not None:
            damaged.unlink(missing_ok=True)
        # Links the blob just brought; a file without SHA-256 is a small one and fetched by this.
        again = damaged is not None and found is None
        place = hf_hub_download(
            source.repo, source.file, revision=source.revision, cache_dir=cache, force_download=again
        )
    except (OSError, ValueError, HTTPError) as error:
        raise DownloadFailed(source.address, _hub_fault(error)) from error
    path = Path(place)
    if found is None:
        hash_and_record(file, path, progress)
    elif (first := expected_hash(file)) not in (None, found):
        raise WeightsChanged(path, str(first), found)
    else:
        record_hash(file, path, path.stat(), found)
    return path


def _hub_fault(error: Exception) -> str:
    """What the hub's library means, in one line; its own messages have several."""
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            return "its owner wants the licence accepted on the hub's page, and HF_TOKEN set"
        case errors.RepositoryNotFoundError():
            return "the hub has no such repository, or shows it only with HF_TOKEN set"
        case errors.RevisionNotFoundError():
            return "the repository has no such revision"
        case errors.EntryNotFoundError():
            return "the repository has no such file"
        case _:
            return next(iter(str(error).splitlines()), "") or type(error).__name__
