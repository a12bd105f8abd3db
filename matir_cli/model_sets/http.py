"""One file over HTTP into its place: resumed where it was cut, verified, moved there in one step.

What arrives is written to NAME.part beside the target. A cut, a full disk or Ctrl-C leaves
that file, and the next attempt asks for the rest of it (RFC 9110: Range, guarded by If-Range
with the validator that the first answer gave). Only a whole file with the right hash gets
the final name. The hub's own library starts a cut download from zero again, which is why
its files come through here too.
"""

import contextlib
import errno
import os
import re
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import urljoin, urlsplit

import msgspec

from matir_cli.errors import DownloadFailed, WeightsChanged
from matir_cli.model_sets.weights import sha256_of
from matir_cli.progress import Advance, ProgressObserver

TIMEOUT = 30.0
"""Seconds without a byte after which a server is given up."""

_CHUNK = 1 << 18

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Transfer:
    """What to fetch, where to, and what it must turn out to be."""

    url: str
    target: Path
    label: str
    """Names the file to whoever watches."""
    bytes: int
    """Its size."""
    exact: bool
    """`bytes` is the very size; otherwise a quarter of it to twice as much will do."""
    sha256: str | None
    """Hex; None where nobody knows it beforehand."""
    authorization: str | None = None
    """Value of that header, for the first host alone: redirections do not get it."""

    @property
    def least(self) -> int:
        """Bytes below which what arrived is no such file (an error page, say)."""
        return self.bytes if self.exact else self.bytes // 4

    @property
    def most(self) -> int:
        """Bytes that are written at most."""
        return self.bytes if self.exact else self.bytes * 2

    @property
    def part(self) -> Path:
        """What has arrived so far."""
        return self.target.with_name(f"{self.target.name}.part")


class _Origin(msgspec.Struct, frozen=True):
    """Where a .part file came from; kept beside it."""

    url: str
    validator: str | None
    """Strong ETag, else Last-Modified: tells whether the rest still belongs to it."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a server's headers say of the body that follows."""

    start: int
    """Position in the file of the body's first byte."""
    total: int | None
    """Bytes of the whole file, where told."""
    validator: str | None


def fetch_file(job: Transfer, progress: ProgressObserver) -> str:
    """Brings the file to `job.target` and returns its SHA-256.

    Raises:
        DownloadFailed: unreachable, refused, cut, of another size, or no room; what arrived
            so far is kept where it can be continued.
        WeightsChanged: all of it arrived and the hash is another one; it is not kept.
    """
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        if _arrived(job) != job.bytes or not job.exact:
            _receive(job, progress)
        found = sha256_of(job.part, job.label, progress)
        if job.sha256 is not None and found != job.sha256:
            _discard(job)
            raise WeightsChanged(job.target, job.sha256, found)
        job.part.replace(job.target)
        _origin_path(job).unlink(missing_ok=True)
    except OSError as error:
        raise _disk_failure(job, error) from error
    return found


def _receive(job: Transfer, progress: ProgressObserver) -> None:
    """Completes the .part file."""
    offset, validator = _resumable(job)
    try:
        response = _open(job, offset, validator)
    except urllib.error.HTTPError as error:
        error.close()
        # 416: the server's file ends before what is here, so what is here is not its start.
        if error.code != 416 or offset == 0:
            raise DownloadFailed(job.url, f"HTTP {error.code} {error.reason}") from error
        _discard(job)
        _receive(job, progress)
        return
    with response:
        answer = _read_headers(job, response, offset)
        _check_room(job, answer)
        if answer.start == 0:
            _discard(job)
            origin = _Origin(job.url, answer.validator)
            _origin_path(job).write_bytes(msgspec.json.encode(origin))
        total = answer.total or job.bytes
        with progress(job.label, total, "B", answer.start) as advance, job.part.open("ab") as stream:
            done = _copy(job, response, stream, answer.start, advance)
            os.fsync(stream.fileno())
    if done < (answer.total if answer.total is not None else job.least):
        raise DownloadFailed(job.url, f"cut after {done} of {answer.total or job.bytes} bytes")


def _open(job: Transfer, offset: int, validator: str | None) -> HTTPResponse:
    """The server's answer, its body unread; HTTPError for a refusal."""
    # identity: a compressed body would have other positions than the file.
    headers = {"User-Agent": "matir-cli", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if validator is not None:
            headers["If-Range"] = validator
    request = urllib.request.Request(job.url, headers=headers)  # noqa: S310  the catalogue checked it
    if job.authorization is not None:
        request.add_unredirected_header("Authorization", job.authorization)
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        response: HTTPResponse = opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError:
        raise
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise DownloadFailed(job.url, _one_line(getattr(error, "reason", error))) from error
    return response


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not from https to anything else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request that follows `req`; DownloadFailed for one that is not safe."""
        scheme = urlsplit(urljoin(req.full_url, newurl)).scheme
        if scheme != "https" and (scheme != "http" or urlsplit(req.full_url).scheme == "https"):
            fp.close()
            raise DownloadFailed(req.full_url, f"redirected to {scheme}, which is not safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read_headers(job: Transfer, response: HTTPResponse, offset: int) -> _Answer:
    """What `response` is about to send; DownloadFailed if that is not the file."""
    if response.headers.get_content_type() == "text/html" and job.target.suffix != ".html":
        raise DownloadFailed(job.url, "the server sent a web page, not the file")
    length = response.headers.get("Content-Length", "")
    start, total = 0, int(length) if length.isdecimal() else None
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != offset:
            _discard(job)
            raise DownloadFailed(job.url, "the server sent another part of the file than asked for")
        start = offset
        total = int(match[2]) if match[2] != "*" else None
    if total is not None and not job.least <= total <= job.most:
        stated = f"{job.bytes}" if job.exact else f"about {job.bytes}"
        raise DownloadFailed(job.url, f"the server has {total} bytes, not the {stated} of the model set")
    etag = response.headers.get("ETag")
    # A weak ETag may not guard a range (RFC 9110, 13.1.5).
    strong = etag if etag is not None and not etag.startswith("W/") else None
    return _Answer(start, total, strong or response.headers.get("Last-Modified"))


def _copy(job: Transfer, response: HTTPResponse, stream: BinaryIO, done: int, advance: Advance) -> int:
    """Appends the body to `stream`; the number of bytes then there."""
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (HTTPException, OSError) as error:
            reason = f"cut after {done} of {job.bytes} bytes: {_one_line(error)}"
            raise DownloadFailed(job.url, reason) from error
        if not chunk:
            return done
        if done + len(chunk) > job.most:
            _discard(job)
            raise DownloadFailed(job.url, f"the server sent more than {job.most} bytes")
        stream.write(chunk)
        done += len(chunk)
        advance(len(chunk))


def _resumable(job: Transfer) -> tuple[int, str | None]:
    """How much of the .part file can be built upon, and the validator that guards it."""
    offset = _arrived(job)
    try:
        origin = msgspec.json.decode(_origin_path(job).read_bytes(), type=_Origin)
    except (OSError, msgspec.DecodeError):
        origin = None
    if 0 < offset < job.most:
        if origin is not None and origin.url == job.url and origin.validator is not None:
            return offset, origin.validator
        # Without a validator only a hash known beforehand shows that the pieces belong together.
        if job.sha256 is not None:
            return offset, None
    return 0, None


def _arrived(job: Transfer) -> int:
    return job.part.stat().st_size if job.part.exists() else 0


def _origin_path(job: Transfer) -> Path:
    return job.part.with_name(f"{job.part.name}.origin")


def _discard(job: Transfer) -> None:
    for path in (job.part, _origin_path(job)):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _check_room(job: Transfer, answer: _Answer) -> None:
    """DownloadFailed if the rest cannot fit; said before gigabytes are fetched."""
    needed = (answer.total or job.bytes) - answer.start
    free = shutil.disk_usage(job.target.parent).free
    # What starts anew gives back what it replaces.
    if answer.start == 0:
        free += _arrived(job)
    if needed > free:
        reason = f"no room in {job.target.parent}: {needed} bytes needed, {free} free"
        raise DownloadFailed(job.url, reason)


def _disk_failure(job: Transfer, error: OSError) -> DownloadFailed:
    if error.errno in _NO_ROOM:
        reason = f"no room in {job.target.parent}: {job.bytes} bytes needed in all ({error.strerror})"
        return DownloadFailed(job.url, reason)
    return DownloadFailed(job.url, f"{job.target.parent} cannot be written: {_one_line(error)}")


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
