"""Pulling model sets over real sockets from a server that cuts, lies, refuses and forgets."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from matir_cli.errors import DownloadFailed, ModelSetInvalid, WeightsChanged
from matir_cli.model_sets.catalogue import ModelSet, load_model_set
from matir_cli.model_sets.pull import PulledFile, pull_model_set
from matir_cli.model_sets.sources import ModelFile
from matir_cli.model_sets.weights import expected_path, local_path, locate_files
from matir_cli.progress import Advance, no_progress
from tests.support.file_server import FileServer, Served, serving

BODY = bytes(range(256)) * 4000
"""A million bytes; large enough to arrive in several pieces."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models folder."""
    monkeypatch.setenv("MATIR_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def site() -> Iterator[FileServer]:
    """A server with one good file."""
    with serving() as server:
        server.paths["/w.pt"] = Served(BODY, headers={"ETag": '"v1"'})
        yield server


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def set_of(folder: Path, keys: str) -> ModelSet:
    """A set with one file to fetch, described by `keys`, and one local file."""
    (folder / "local.bin").write_bytes(b"local")
    (folder / "mine.toml").write_text(
        f"""
        name = "mine"
        description = "x"
        [proposer]
        name = "p"
        engine = "sam2"
        licence = "MIT"
        [proposer.files.checkpoint]
        {keys}
        [encoder]
        name = "e"
        engine = "alpha_clip"
        licence = "MIT"
        [encoder.files.visual]
        path = "local.bin"
        """
    )
    return load_model_set(str(folder / "mine.toml"))


def keys_for(site: FileServer, *, size: str = f"bytes = {len(BODY)}", more: str = "") -> str:
    return f'url = "{site.url}/w.pt"\n{size}\n{more}'


def declared(content: bytes) -> str:
    return f'sha256 = "{sha(content)}"'


def pulled(model_set: ModelSet, *, accept_changed: bool = False) -> list[PulledFile]:
    return list(pull_model_set(model_set, no_progress, accept_changed))


def failure(model_set: ModelSet) -> str:
    """Return the reason of a failed pull, checking that no file has the final name."""
    with pytest.raises(DownloadFailed) as caught:
        pulled(model_set)
    assert local_path(checkpoint(model_set)) is None
    return caught.value.reason


def checkpoint(model_set: ModelSet) -> ModelFile:
    return model_set.part("proposer").files[0]


def part_of(model_set: ModelSet) -> Path:
    target = expected_path(checkpoint(model_set))
    return target.with_name(f"{target.name}.part")


def left_over(model_set: ModelSet) -> list[str]:
    return sorted(path.name for path in part_of(model_set).parent.iterdir())


class RecordingObserver:
    """A progress observer that records its calls."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int | None, int]] = []
        self.counted = 0
        self.open = 0

    @contextmanager
    def __call__(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
        assert unit == "B"
        self.events.append((name, total, done))
        self.open += 1
        try:
            yield self._advance
        finally:
            self.open -= 1

    def _advance(self, count: int = 1, /) -> None:
        self.counted += count


def test_fetched_verified_and_recorded(site: FileServer, tmp_path: Path) -> None:
    model_set = set_of(tmp_path, keys_for(site, more=declared(BODY)))
    observer = RecordingObserver()
    got = list(pull_model_set(model_set, observer))
    assert [(item.file.label, item.fetched) for item in got] == [
        ("proposer.checkpoint", True),
        ("encoder.visual", False),
    ]
    assert got[0].path.read_bytes() == BODY
    assert left_over(model_set) == ["w.pt"]
    assert observer.events[0] == ("proposer.checkpoint", len(BODY), 0)
    assert observer.open == 0
    assert locate_files(model_set, "proposer").files == {"checkpoint": got[0].path}
    assert site.gets()[0].headers["accept-encoding"] == "identity"


def test_present_files_are_not_fetched_again(site: FileServer, tmp_path: Path) -> None:
    model_set = set_of(tmp_path, keys_for(site))
    pulled(model_set)
    assert [item.fetched for item in pulled(model_set)] == [False, False]
    assert len(site.requests) == 1


def test_cut_connection_is_resumed(site: FileServer, tmp_path: Path) -> None:
    model_set = set_of(tmp_path, keys_for(site, more=declared(BODY)))
    site.paths["/w.pt"].cut_after = 400_000
    assert f"cut after 400000 of {len(BODY)} bytes" in failure(model_set)
    assert part_of(model_set).read_bytes() == BODY[:400_000]
    assert "cut after 800000" in failure(model_set)
    site.paths["/w.pt"].cut_after = None
    observer = RecordingObserver()
    assert next(pull_model_set(model_set, observer)).path.read_bytes() == BODY
    assert observer.events[0] == ("proposer.checkpoint", len(BODY), 800_000)
    assert [request.headers.get("range") for request in site.gets()] == [
        None,
        "bytes=400000-",
        "bytes=800000-",
    ]
    assert site.gets()[2].headers["if-range"] == '"v1"'
    assert left_over(model_set) == ["w.pt"]


def test_server_that_ignores_ranges_starts_anew(site: FileServer, tmp_path: Path) -> None:
    model_set = set_of(tmp_path, keys_for(site, more=declared(BODY)))
    site.paths["/w.pt"].cut_after = 400_000
    failure(model_set)
    site.paths["/w.pt"] = Served(BODY, ranges=False)
    assert pulled(model_set)[0].path.read_bytes() == BODY


def test_file_changed_in_between_starts_anew(site: FileServer, tmp_path: Path) -> None:
    model_set = set_of(tmp_path, keys_for(site))
    site.paths["/w.pt"].cut_after = 400_000
    failure(model_set)
    newer = bytes(reversed(BODY))
    site.paths["/w.pt"] = Served(newer, headers={"ETag": '"v2"'})
    assert pulled(model_set)[0].path.read_bytes() == newer


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"v1"'}])
def test_without_validator_or_hash_nothing_is_resumed(
    site: FileServer, tmp_path: Path, headers: dict[str, str]
) -> None:
    model_set = set_of(tmp_path, keys_for(site))
    site.paths["/w.pt"] = Served(BODY, headers=headers, cut_after=400_000)
    failure(model_set)
    site.paths["/w.pt"].cut_after = None
    assert pulled(model_set)[0].path.read_bytes() == BODY
    assert "range" not in site.gets()[-1].headers


def test_known_hash_replaces_a_missing_validator(site: FileServer, tmp_path: Path) -> None:
    model_set = set_of(tmp_path, keys_for(site, more=declared(BODY)))
    site.paths["/w.pt"] = Served(BODY, cut_after=400_000)
    failure(model_set)
    site.paths["/w.pt"].cut_after = None
    assert pulled(model_set)[0].path.read_bytes() == BODY
    assert site.gets()[-1].headers["range"] == "bytes=400000-"


def test_complete_part_needs_no_network(site: FileServer, tmp_path: Path) -> None:
    model_set = set_of(tmp_path, keys_for(site, more=declared(BODY)))
    part_of(model_set).parent.mkdir(parents=True)
    part_of(model_set).write_bytes(BODY)
    assert pulled(model_set)[0].path.read_bytes() == BODY
    assert site.requests == []


def test_part_beyond_the_servers_end_starts_anew(site: FileServer, tmp_path: Path) -> None:
    model_set = set_of(tmp_path, keys_for(site, size="about_bytes = 1000000", more=declared(BODY)))
    part_of(model_set).parent.mkdir(parents=True)
    part_of(model_set).write_bytes(BODY + b"x")
    assert pulled(model_set)[0].path.read_bytes() == BODY


def test_file_with_another_hash_than_declared_is_not_kept(site: FileServer, tmp_path: Path) -> None:
    model_set = set_of(tmp_path, keys_for(site, more=declared(b"other")))
    assert f"its SHA-256 is {sha(BODY)}, not {sha(b'other')}" in failure(model_set)
    assert left_over(model_set) == []


def test_another_hash_than_the_first_needs_consent(site: FileServer, tmp_path: Path) -> None:
    model_set = set_of(tmp_path, keys_for(site))
    path = pulled(model_set)[0].path
    newer = bytes(reversed(BODY))
    site.paths["/w.pt"] = Served(newer)
    path.unlink()
    with pytest.raises(WeightsChanged) as caught:
        pulled(model_set)
    assert (caught.value.expected, caught.value.found) == (sha(BODY), sha(newer))
    assert left_over(model_set) == []
    assert pulled(model_set, accept_changed=True)[0].path.read_bytes() == newer
    locate_files(model_set, "proposer")


@pytest.mark.parametrize("damage", [b"", BODY[:-1], b"x" + BODY[1:]])
def test_damaged_file_is_replaced(site: FileServer, tmp_path: Path, damage: bytes) -> None:
    model_set = set_of(tmp_path, keys_for(site, more=declared(BODY)))
    path = pulled(model_set)[0].path
    path.write_bytes(damage)
    assert pulled(model_set)[0] == PulledFile(checkpoint(model_set), path, fetched=True)
    assert path.read_bytes() == BODY


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        (Served(status=404), "HTTP 404 Not Found"),
        (Served(status=503), "HTTP 503 Service Unavailable"),
        (Served(BODY[:10]), f"the server has 10 bytes, not the {len(BODY)} of the model set"),
        (Served(BODY + b"x"), f"the server has {len(BODY) + 1} bytes"),
        (Served(BODY, headers={"Content-Type": "text/html; charset=utf-8"}), "a web page, not the file"),
        (Served(redirect="ftp://127.0.0.1/w.pt"), "redirected to ftp, which is not safe"),
        (Served(redirect="file:///etc/passwd"), "is not allowed"),
        (Served(redirect="/w.pt"), "would lead to an infinite loop"),
    ],
)
def test_refusals_are_reported_and_leave_nothing(
    site: FileServer, tmp_path: Path, served: Served, reason: str
) -> None:
    model_set = set_of(tmp_path, keys_for(site))
    site.paths["/w.pt"] = served
    assert reason in failure(model_set)
    assert left_over(model_set) == []


def test_no_more_than_the_stated_size_is_written(site: FileServer, tmp_path: Path) -> None:
    model_set = set_of(tmp_path, keys_for(site, size="about_bytes = 300000"))
    # Without a length, the body ends with the connection: an endless one must be stopped while it arrives.
    site.paths["/w.pt"] = Served(BODY, headers={"Content-Length": "", "Transfer-Encoding": "identity"})
    assert "the server sent more than 600000 bytes" in failure(model_set)
    assert left_over(model_set) == []


def test_approximate_size_is_accepted_if_none_is_published(site: FileServer, tmp_path: Path) -> None:
    assert pulled(set_of(tmp_path, keys_for(site, size="about_bytes = 900000")))[0].path.read_bytes() == BODY


def test_small_page_instead_of_the_file_is_refused(site: FileServer, tmp_path: Path) -> None:
    site.paths["/w.pt"] = Served(b"<html>quota exceeded</html>")
    model_set = set_of(tmp_path, keys_for(site, size="about_bytes = 900000"))
    assert "not the about 900000 of the model set" in failure(model_set)


def test_unreachable_server(tmp_path: Path) -> None:
    with serving() as site:
        model_set = set_of(tmp_path, keys_for(site))
    assert "refused" in failure(model_set)


def test_redirection_is_followed(site: FileServer, tmp_path: Path) -> None:
    site.paths["/cdn"] = site.paths["/w.pt"]
    site.paths["/w.pt"] = Served(redirect="/cdn")
    assert pulled(set_of(tmp_path, keys_for(site)))[0].path.read_bytes() == BODY


def test_mirrors_are_tried_in_order(site: FileServer, tmp_path: Path) -> None:
    mirrors = f'mirrors = ["{site.url}/a", "{site.url}/b"]'
    model_set = set_of(tmp_path, keys_for(site, more=mirrors))
    good = site.paths.pop("/w.pt")
    assert (
        failure(model_set)
        == f"HTTP 404 Not Found; {site.url}/a: HTTP 404 Not Found; {site.url}/b: HTTP 404 Not Found"
    )
    site.paths["/b"] = good
    assert pulled(model_set)[0].path == expected_path(checkpoint(model_set))


def test_part_from_one_mirror_is_not_continued_from_another(site: FileServer, tmp_path: Path) -> None:
    model_set = set_of(tmp_path, keys_for(site, more=f'mirrors = ["{site.url}/b"]'))
    site.paths["/w.pt"].cut_after = 400_000
    failure(model_set)
    del site.paths["/w.pt"]
    other = bytes(reversed(BODY))
    site.paths["/b"] = Served(other, headers={"ETag": '"v1"'})
    assert pulled(model_set)[0].path.read_bytes() == other


def test_lack_of_room_is_reported_before_anything_is_fetched(site: FileServer, tmp_path: Path) -> None:
    size = 1 << 49
    model_set = set_of(tmp_path, keys_for(site, size=f"bytes = {size}"))
    site.paths["/w.pt"] = Served(BODY, headers={"Content-Length": str(size)})
    assert f"{size} bytes needed" in failure(model_set)
    assert left_over(model_set) == []


def test_folder_that_cannot_be_written(site: FileServer, tmp_path: Path, home: Path) -> None:
    home.write_bytes(b"a file, not a folder")
    assert "cannot be written" in failure(set_of(tmp_path, keys_for(site)))


def test_two_processes_do_not_fetch_the_same_file(site: FileServer, tmp_path: Path) -> None:
    model_set = set_of(tmp_path, keys_for(site))
    served = site.paths["/w.pt"]
    served.hold = threading.Event()
    first: list[PulledFile] = []
    thread = threading.Thread(target=lambda: first.extend(pulled(model_set)))
    thread.start()
    try:
        assert served.halfway.wait(20)
        assert "another process is fetching it" in failure(model_set)
    finally:
        served.hold.set()
        thread.join()
    assert first[0].path.read_bytes() == BODY


def test_missing_local_file_makes_the_set_invalid(site: FileServer, tmp_path: Path) -> None:
    model_set = set_of(tmp_path, keys_for(site))
    (tmp_path / "local.bin").unlink()
    with pytest.raises(ModelSetInvalid, match=r"encoder.visual: there is no file .*local\.bin"):
        pulled(model_set)
