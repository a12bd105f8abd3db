"""One file over real sockets: what is kept, what is resumed, what is refused."""

import hashlib
import io
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPMessage
from pathlib import Path

import pytest

from matir_cli.errors import DownloadFailed, WeightsChanged
from matir_cli.model_sets.http import Transfer, _SafeRedirects, fetch_file
from matir_cli.progress import no_progress
from tests.support.file_server import FileServer, Served, serving

BODY = bytes(range(256)) * 1000


@pytest.fixture
def site() -> Iterator[FileServer]:
    """A server with one file that has a strong validator."""
    with serving() as server:
        server.paths["/w.pt"] = Served(BODY, headers={"ETag": '"v1"'})
        yield server


def transfer(site: FileServer, target: Path, sha256: str | None = None) -> Transfer:
    return Transfer(f"{site.url}/w.pt", target, "weights", len(BODY), exact=True, sha256=sha256)


def test_a_file_is_fetched_to_its_target(site: FileServer, tmp_path: Path) -> None:
    job = transfer(site, tmp_path / "new" / "w.pt")
    assert fetch_file(job, no_progress) == hashlib.sha256(BODY).hexdigest()
    assert job.target.read_bytes() == BODY
    assert [*job.target.parent.iterdir()] == [job.target]


def test_a_cut_transfer_is_resumed(site: FileServer, tmp_path: Path) -> None:
    job = transfer(site, tmp_path / "w.pt")
    site.paths["/w.pt"].cut_after = 100_000
    with pytest.raises(DownloadFailed, match="cut after 100000"):
        fetch_file(job, no_progress)
    assert job.part.read_bytes() == BODY[:100_000]
    assert not job.target.exists()
    site.paths["/w.pt"].cut_after = None
    fetch_file(job, no_progress)
    assert job.target.read_bytes() == BODY
    assert site.gets()[-1].headers["range"] == "bytes=100000-"


def test_a_wrong_hash_keeps_nothing(site: FileServer, tmp_path: Path) -> None:
    job = transfer(site, tmp_path / "w.pt", sha256="0" * 64)
    with pytest.raises(WeightsChanged) as caught:
        fetch_file(job, no_progress)
    assert (caught.value.expected, caught.value.found) == ("0" * 64, hashlib.sha256(BODY).hexdigest())
    assert [*tmp_path.iterdir()] == []


def test_an_authorization_is_not_sent_to_another_host(site: FileServer, tmp_path: Path) -> None:
    with serving() as other:
        other.paths["/w.pt"] = site.paths["/w.pt"]
        site.paths["/w.pt"] = Served(redirect=f"{other.url}/w.pt")
        job = replace(transfer(site, tmp_path / "w.pt"), authorization="Bearer secret")
        fetch_file(job, no_progress)
        assert site.gets()[0].headers["authorization"] == "Bearer secret"
        assert "authorization" not in other.gets()[0].headers


def test_the_size_accepted_depends_on_how_well_it_is_known(tmp_path: Path) -> None:
    sizes = [
        (job.least, job.most)
        for job in (Transfer("", tmp_path, "", 100, exact, None) for exact in (True, False))
    ]
    assert sizes == [(100, 100), (25, 200)]


@pytest.mark.parametrize(
    "address",
    [
        "http://[::1",
        "http://127.0.0.1:99999999/w.pt",
        "http://127.0.0.1:port/w.pt",
        f"http://{'a' * 70}.invalid/w.pt",
        "http:///w.pt",
        "//[",
        "nowhere:w.pt",
        "",
    ],
)
def test_a_redirection_to_what_is_no_address(site: FileServer, tmp_path: Path, address: str) -> None:
    site.paths["/w.pt"] = Served(redirect=address)
    with pytest.raises(DownloadFailed) as caught:
        fetch_file(transfer(site, tmp_path / "w.pt"), no_progress)
    assert caught.value.reason
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "1e3"])
def test_a_length_that_is_no_number_of_bytes_counts_as_none(
    site: FileServer, tmp_path: Path, number: str
) -> None:
    site.paths["/w.pt"].headers["Content-Length"] = number
    job = transfer(site, tmp_path / "w.pt")
    fetch_file(job, no_progress)
    assert job.target.read_bytes() == BODY


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "1e3"])
def test_a_range_that_is_no_part_of_the_file(site: FileServer, tmp_path: Path, number: str) -> None:
    site.paths["/w.pt"].cut_after = 100_000
    job = transfer(site, tmp_path / "w.pt")
    with pytest.raises(DownloadFailed, match="cut after"):
        fetch_file(job, no_progress)
    headers = {"ETag": '"v1"', "Content-Range": f"bytes 100000-{number}/{number}"}
    site.paths["/w.pt"] = Served(BODY, headers=headers)
    with pytest.raises(DownloadFailed, match="another part of the file"):
        fetch_file(job, no_progress)


def test_a_record_of_an_origin_that_is_not_text(site: FileServer, tmp_path: Path) -> None:
    job = transfer(site, tmp_path / "w.pt")
    job.part.write_bytes(b"half")
    job.part.with_name(f"{job.part.name}.origin").write_bytes(b'{"url": "\xff", "validator": "\xfe"}')
    fetch_file(job, no_progress)
    assert job.target.read_bytes() == BODY


def test_redirection_does_not_leave_https() -> None:
    request = urllib.request.Request("https://example.org/w.pt")
    handler, headers = _SafeRedirects(), HTTPMessage()
    with pytest.raises(DownloadFailed, match="redirected to http, which is not safe"):
        handler.redirect_request(request, io.BytesIO(), 302, "Found", headers, "http://example.org/w.pt")
    assert handler.redirect_request(
        request, io.BytesIO(), 302, "Found", headers, "https://cdn.example.org/w.pt"
    )
