"""Resumable, verified transfer of one file over HTTP.

Received bytes are written to NAME.part beside the target. A cut connection, a full disk or Ctrl-C
leaves that file, and the next attempt requests the rest of it (RFC 9110: Range, guarded by If-Range
with the validator of the first response). Only a complete file with the right hash gets the final name,
by one rename. The hub's own library restarts a cut download from zero, which is why its files are
transferred here too.
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
from typing import IO, Any, BinaryIO
from urllib.parse import urljoin, urlsplit

import msgspec

from matir_cli.errors import DownloadFailed, WeightsChanged
from matir_cli.model_sets.weights import sha256_of
from matir_cli.progress import Advance, ProgressObserver

TIMEOUT = 30.0
"""Seconds without a received byte after which a transfer fails."""

_CHUNK = 1 << 18

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")

_LENGTH = re.compile(r"[0-9]{1,18}")
"""A number of bytes; longer ones are no size of a file, and int() refuses thousands of digits."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A file to fetch, its target, and what it must turn out to be."""

    url: str
    target: Path
    label: str
    """Name of the file in progress reports."""
    bytes: int
    """Size of the file."""
    exact: bool
    """True if `bytes` is the exact size; otherwise from a quarter of it to twice as much is accepted."""
    sha256: str | None
    """Hex; None if the hash is not known beforehand."""
    authorization: str | None = None
    """Value of the Authorization header, for the first host only: redirections do not get it."""

    @property
    def least(self) -> int:
        """Smallest size accepted, bytes; anything smaller is another file, such as an error page."""
        return self.bytes if self.exact else self.bytes // 4

    @property
    def most(self) -> int:
        """Largest size accepted, bytes; nothing is written beyond it."""
        return self.bytes if self.exact else self.bytes * 2

    @property
    def part(self) -> Path:
        """Path of the file that holds the bytes received so far."""
        return self.target.with_name(f"{self.target.name}.part")


class _Origin(msgspec.Struct, frozen=True):
    """Origin of a .part file, kept in a file beside it."""

    url: str
    validator: str | None
    """Strong ETag, else Last-Modified: shows whether the server still has the same file."""


@dataclass(frozen=True, slots=True)
class _BodyRange:
    """The part of the file that a response body holds, according to its headers."""

    start: int
    """Position in the file of the body's first byte."""
    total: int | None
    """Bytes of the whole file; None if the server does not say."""
    validator: str | None
    """As in `_Origin`."""


def fetch_file(transfer: Transfer, progress: ProgressObserver) -> str:
    """Fetch the file to `transfer.target` and return its SHA-256, hex.

    Raises:
        DownloadFailed: the server cannot be reached or refuses, the connection is cut, the size is
            wrong, or the disk is full; received bytes are kept if the transfer can be resumed.
        WeightsChanged: the file arrived completely with another hash; it is not kept.
    """
    try:
        transfer.target.parent.mkdir(parents=True, exist_ok=True)
        if _received_bytes(transfer) != transfer.bytes or not transfer.exact:
            _receive(transfer, progress)
        sha256 = sha256_of(transfer.part, transfer.label, progress)
        if transfer.sha256 is not None and sha256 != transfer.sha256:
            _discard(transfer)
            raise WeightsChanged(transfer.target, transfer.sha256, sha256)
        transfer.part.replace(transfer.target)
        _origin_path(transfer).unlink(missing_ok=True)
    except OSError as error:
        raise _disk_failure(transfer, error) from error
    return sha256


def _receive(transfer: Transfer, progress: ProgressObserver) -> None:
    """Complete the .part file."""
    offset, validator = _resume_point(transfer)
    try:
        response = _open(transfer, offset, validator)
    except urllib.error.HTTPError as error:
        error.close()
        # 416: the server's file is shorter than the .part file, which therefore is not its start.
        if error.code != 416 or offset == 0:
            raise DownloadFailed(transfer.url, f"HTTP {error.code} {_one_line(error.reason)}") from error
        _discard(transfer)
        _receive(transfer, progress)
        return
    with response:
        body = _read_headers(transfer, response, offset)
        _check_room(transfer, body)
        if body.start == 0:
            _discard(transfer)
            origin = _Origin(transfer.url, body.validator)
            _origin_path(transfer).write_bytes(msgspec.json.encode(origin))
        total = body.total or transfer.bytes
        with progress(transfer.label, total, "B", body.start) as advance, transfer.part.open("ab") as stream:
            done = _copy(transfer, response, stream, body.start, advance)
            os.fsync(stream.fileno())
    if done < (body.total if body.total is not None else transfer.least):
        raise DownloadFailed(transfer.url, f"cut after {done} of {body.total or transfer.bytes} bytes")


def _open(transfer: Transfer, offset: int, validator: str | None) -> HTTPResponse:
    """Request the file from `offset` on and return the response, its body unread.

    Raises:
        urllib.error.HTTPError: the server refuses.
        DownloadFailed: the server cannot be reached.
    """
    # identity: positions in a compressed body would not be positions in the file.
    headers = {"User-Agent": "matir-cli", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if validator is not None:
            headers["If-Range"] = validator
    request = urllib.request.Request(transfer.url, headers=headers)  # noqa: S310  the catalogue checked it
    if transfer.authorization is not None:
        request.add_unredirected_header("Authorization", transfer.authorization)
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        response: HTTPResponse = opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError:
        raise
    except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
        # ValueError: a redirection to a name that no host can have.
        raise DownloadFailed(transfer.url, _one_line(getattr(error, "reason", error))) from error
    return response


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to http and https, but never from https to http."""

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> Any:
        """Follow a redirection; the response that asks for it is closed whatever happens."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except BaseException:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the redirected request; raises DownloadFailed if the redirection is not safe."""
        try:
            target = urlsplit(urljoin(req.full_url, newurl))
            scheme, _ = target.scheme, target.port  # ValueError for a port that cannot be one
        except ValueError as error:
            fp.close()
            raise DownloadFailed(req.full_url, f"redirected to no address: {_one_line(error)}") from error
        if scheme != "https" and (scheme != "http" or urlsplit(req.full_url).scheme == "https"):
            fp.close()
            raise DownloadFailed(req.full_url, f"redirected to {scheme or 'nowhere'}, which is not safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read_headers(transfer: Transfer, response: HTTPResponse, offset: int) -> _BodyRange:
    """Return the part of the file that `response` holds; raises DownloadFailed if it is another file."""
    if response.headers.get_content_type() == "text/html" and transfer.target.suffix != ".html":
        raise DownloadFailed(transfer.url, "the server sent a web page, not the file")
    length = response.headers.get("Content-Length", "")
    start, total = 0, int(length) if _LENGTH.fullmatch(length) else None
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != offset:
            _discard(transfer)
            raise DownloadFailed(transfer.url, "the server sent another part of the file than requested")
        start = offset
        total = int(match[2]) if match[2] != "*" else None
    if total is not None and not transfer.least <= total <= transfer.most:
        stated = f"{transfer.bytes}" if transfer.exact else f"about {transfer.bytes}"
        raise DownloadFailed(transfer.url, f"the server has {total} bytes, not the {stated} of the model set")
    etag = response.headers.get("ETag")
    # A weak ETag must not guard a range (RFC 9110, 13.1.5).
    strong = etag if etag is not None and not etag.startswith("W/") else None
    return _BodyRange(start, total, strong or response.headers.get("Last-Modified"))


def _copy(transfer: Transfer, response: HTTPResponse, stream: BinaryIO, done: int, advance: Advance) -> int:
    """Append the body to `stream`; returns the number of bytes of the file received in all."""
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (HTTPException, OSError, ValueError) as error:
            reason = f"cut after {done} of {transfer.bytes} bytes: {_one_line(error)}"
            raise DownloadFailed(transfer.url, reason) from error
        if not chunk:
            return done
        if done + len(chunk) > transfer.most:
            _discard(transfer)
            raise DownloadFailed(transfer.url, f"the server sent more than {transfer.most} bytes")
        stream.write(chunk)
        done += len(chunk)
        advance(len(chunk))


def _resume_point(transfer: Transfer) -> tuple[int, str | None]:
    """Return the number of bytes of the .part file to continue from, and the validator that guards them."""
    offset = _received_bytes(transfer)
    try:
        origin = msgspec.json.decode(_origin_path(transfer).read_bytes(), type=_Origin)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        origin = None
    if 0 < offset < transfer.most:
        if origin is not None and origin.url == transfer.url and origin.validator is not None:
            return offset, origin.validator
        # Without a validator, only a hash known beforehand shows that the pieces belong together.
        if transfer.sha256 is not None:
            return offset, None
    return 0, None


def _received_bytes(transfer: Transfer) -> int:
    return transfer.part.stat().st_size if transfer.part.exists() else 0


def _origin_path(transfer: Transfer) -> Path:
    return transfer.part.with_name(f"{transfer.part.name}.origin")


def _discard(transfer: Transfer) -> None:
    """Delete the .part file and its origin."""
    for path in (transfer.part, _origin_path(transfer)):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _check_room(transfer: Transfer, body: _BodyRange) -> None:
    """Check that the disk has room for the rest, before gigabytes are fetched; raises DownloadFailed."""
    needed = (body.total or transfer.bytes) - body.start
    free = shutil.disk_usage(transfer.target.parent).free
    # A transfer from the start replaces the bytes received before.
    if body.start == 0:
        free += _received_bytes(transfer)
    if needed > free:
        reason = f"no room in {transfer.target.parent}: {needed} bytes needed, {free} free"
        raise DownloadFailed(transfer.url, reason)


def _disk_failure(transfer: Transfer, error: OSError) -> DownloadFailed:
    """Make the error for a file that cannot be written."""
    if error.errno in _NO_ROOM:
        reason = (
            f"no room in {transfer.target.parent}: {transfer.bytes} bytes needed in all ({error.strerror})"
        )
        return DownloadFailed(transfer.url, reason)
    return DownloadFailed(transfer.url, f"{transfer.target.parent} cannot be written: {_one_line(error)}")


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
