"""`matir find` and `matir tag` print the same with and without a server."""

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.process import BEGUN, MATIR, PHOTOS, Indexed, matir, open_terminal, records
from tests.support.server import LAST_SECONDS, Server, run_server
from tests.support.verdicts import count_verdicts

QUERY = "red house"


def both_ways(
    server: Server, *words: object, command: str = "find", given: bytes = b""
) -> tuple[subprocess.CompletedProcess[bytes], subprocess.CompletedProcess[bytes]]:
    """Run a command by the server and without it; the server has searched exactly in the first run."""
    before = server.status.served
    served = matir(command, *words, *server.options, given=given)
    lines = max(1, given.count(b"\n"))
    assert server.status.served == before + lines
    alone = matir(command, *words, *server.options, "--no-server", given=given)
    assert server.status.served == before + lines
    return served, alone


def same(server: Server, *words: object, command: str = "find", given: bytes = b"") -> tuple[int, bytes]:
    """Check that both ways end and print the same; return exit code and output."""
    served, alone = both_ways(server, *words, command=command, given=given)
    assert served.stdout == alone.stdout
    assert served.stderr == alone.stderr
    assert served.returncode == alone.returncode
    return served.returncode, served.stdout


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--json", "--rle"),
        ("--jsonl", "--all-instances"),
        ("--jsonl", "--stream"),
        ("-0",),
        ("--coco", "-"),
        ("--html", "-"),
        ("--no-rerank", "--max-size", "0.9"),
        ("--jsonl", "--not", "blue car", "--no-ground"),
        ("--budget", "0", "--fresh"),
        ("--explain",),
        ("--explain", "--jsonl", "--stream", "--not", "blue car", "--match", "joint"),
        ("--no-rerank", "--json", "--orientation", "landscape", "--no-gps", "--sort", "path"),
        ("--no-rerank", "--json", "--rating", "0+", "--no-keyword", "draft", "--sort", "size"),
    ],
    ids=" ".join,
)
def test_every_form_of_output_is_the_same(server: Server, words: tuple[str, ...]) -> None:
    code, output = same(server, QUERY, "-n", 5, *words)
    assert code == 0
    assert output


def test_judging_anew_gives_the_same_numbers(server: Server) -> None:
    code, output = same(server, "a car left of a tree", "--fresh", "--jsonl")
    assert code == 0
    assert len(output.splitlines()) == 10


def test_files_are_written_by_the_client(server: Server, tmp_path: Path) -> None:
    written = []
    for way in ("--server", "--no-server"):
        folder = tmp_path / way
        folder.mkdir()
        done = matir(
            *("find", QUERY, "--no-ground", "-n", 3, "--masks", folder / "m", "--yolo", folder / "y"),
            *("--cutouts", folder / "c", "--overlays", folder / "o"),
            *(*server.options, way),
        )
        assert done.returncode == 0, done.stderr
        files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        # The one that names the folder itself.
        written.append({k: v.replace(way.encode(), b"") for k, v in files.items()})
    assert written[0] == written[1]
    assert len(written[0]) > 12


def test_near_copies_are_left_out_alike(server: Server) -> None:
    code, output = same(server, QUERY, "--no-ground", "--unique", "--jsonl")
    assert code == 0
    assert all(json.loads(line)["near_copies"] == 0 for line in output.splitlines())


def test_an_example_and_queries_on_standard_input(server: Server, indexed: Indexed) -> None:
    photo = min(indexed.photos.glob("*.png"))
    assert same(server, "--image", photo, "--jsonl")[0] == 0
    first, second, third, *_ = sorted(indexed.photos.glob("*.png"))
    shown = ("--image", first, "--image", second, "--box", "5,5,60,60", "--unlike", third)
    several = (*shown, "--jsonl", "--explain")
    for words in (several, (*several, "--examples", "mean"), ("red house", *several, "-n", 2)):
        assert same(server, *words)[0] == 0
    code, output = same(server, "-", "--image", photo, "-n", 2, given=b"red house\nblue car\nred house\n")
    assert code == 0
    assert [json.loads(line)["query"] for line in output.splitlines()] == [
        "red house",
        "blue car",
        "red house",
    ]


def test_filters_examples_and_thresholds_are_the_same(server: Server, indexed: Indexed) -> None:
    photo = min(indexed.photos.glob("*.png"))
    for words, code in (
        (("--in", photo, "--no-ground"), 0),
        (("--in", indexed.photos, "--min-size", 0.01, "--max-size", 0.5, "--all-instances"), 0),
        (("--since", "2030"), 1),
        (("--until", "2030", "--camera", "nobody's"), 1),
        (("--image", photo, "--box", "20,20,120,110", "--weight", 0.3, "--whole"), 0),
        (("--match", "joint", "--refine", "--min-iou", 0.1, "-n", 2, "--fresh"), 0),
        (("--min-score", 0.3, "--certainty", 1, "--candidates", 4), 0),
    ):
        assert same(server, QUERY, "--jsonl", *words)[0] == code


def test_events_of_queries_on_standard_input_are_the_same(server: Server) -> None:
    code, output = same(server, "-", "--jsonl", "--stream", "-n", 2, given=b"red house\nblue car\n")
    assert code == 0
    assert output.count(b'"event": "stage1"') + output.count(b'"event":"stage1"') == 2


def test_tag_is_the_same(server: Server) -> None:
    code, output = same(server, QUERY, "-n", 3, "--no-ground", "--dry-run", command="tag")
    assert code == 0
    assert output.count(b".xmp\n") == 3


def test_nothing_found_and_errors_are_the_same(server: Server) -> None:
    assert same(server, QUERY, "--min-p", "0.999999") == (1, b"")
    assert same(server, QUERY, "--not", f"{QUERY} ") == (2, b"")


@pytest.mark.parametrize(
    ("words", "variable"),
    [(("--no-server",), "on"), ((), "off"), (("-v",), "on")],
    ids=["option", "variable", "logs of this process"],
)
def test_a_server_is_not_used(server: Server, words: tuple[str, ...], variable: str) -> None:
    before = server.status.served
    assert matir("find", QUERY, *server.options, "-n", 1, *words, MATIR_SERVER=variable).returncode == 0
    assert server.status.served == before


def test_a_server_that_does_not_fit_is_named_and_not_used(server: Server) -> None:
    before = server.status.served
    done = matir("find", QUERY, *server.options, "-n", 1, "--device", "cpu")
    assert done.returncode == 0
    assert (
        f"has the model set {server.models} on the device auto: searching without it" in done.stderr.decode()
    )
    record = Path(server.record.socket).with_suffix(".json")
    own = record.read_bytes()
    try:
        version = server.record.version
        record.write_bytes(own.replace(f'"{version}"'.encode(), b'"9.9"'))
        done = matir("find", QUERY, *server.options, "-n", 1)
    finally:
        record.write_bytes(own)
    assert done.returncode == 0
    said = f"the server of this gallery is of version 9.9, this program of {version}: searching without it"
    assert said in done.stderr.decode()
    assert server.status.served == before


class Judging:
    """A `matir find` that is in the middle of judging, with stderr on a terminal."""

    def __init__(self, server: Server, query: str, candidates: int = PHOTOS) -> None:
        self._shown, terminal = open_terminal()
        numbers = ("-n", str(candidates), "--candidates", str(candidates), "--certainty", "1")
        self.process = subprocess.Popen(
            [*MATIR, "find", query, "--jsonl", *numbers, *server.options],
            stderr=terminal,
            stdout=subprocess.PIPE,
        )
        os.close(terminal)
        self.said = b""
        while not BEGUN.search(self.said):
            self.said += os.read(self._shown, 4096)

    def end(self) -> list[dict[str, object]]:
        """Wait for its end; return what it printed."""
        assert self.process.stdout is not None
        with suppress(OSError):  # it has closed the terminal
            while part := os.read(self._shown, 4096):
                self.said += part
        output = self.process.stdout.read()
        self.process.stdout.close()
        self.process.wait()
        os.close(self._shown)
        return [json.loads(line) for line in output.splitlines()]


def test_interruptions(gallery: Path, slow_set: Path) -> None:
    with run_server(gallery, slow_set) as server:
        # Ctrl-C prints what was judged, and the server ends the search.
        judging = Judging(server, QUERY)
        judging.process.send_signal(signal.SIGINT)
        printed = judging.end()
        assert judging.process.returncode == 130
        assert 1 <= len(printed) < PHOTOS
        assert all(record["judged"] for record in printed)
        assert b"only these follow" in judging.said

        # A second search waits, says so, and has its turn once the first one's client has been killed.
        judging = Judging(server, "blue car")
        second = subprocess.Popen(
            [*MATIR, "find", "green tree", "--candidates", "1", "-n", "1", "--jsonl", *server.options],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert second.stderr is not None
        assert second.stderr.readline().startswith(b"matir: waiting for 1 other search")
        judging.process.kill()
        judging.end()
        output, _ = second.communicate()
        assert second.returncode == 0
        assert len(output.splitlines()) == 1
        assert count_verdicts(gallery, "blue car") < PHOTOS

        # After SIGKILL of the server, the search goes on without it.
        judging = Judging(server, "purple dog", candidates=3)
        server.process.kill()
        printed = judging.end()
        assert judging.process.returncode == 0
        assert b"the server of this gallery went away: searching without it" in judging.said
    again = ("find", "purple dog", "--jsonl", "--candidates", 3, "-n", 3, "--certainty", 1, *server.options)
    alone = matir(*again)
    assert records(alone) == printed
    assert b"server" not in alone.stderr
    other = matir(*again, "--device", "cpu")  # a server that is gone has no device to be named
    assert (records(other), other.stderr) == (printed, alone.stderr)
    with run_server(gallery, slow_set) as server:  # in place of what the killed one left
        assert matir(*again).stdout == alone.stdout
        assert server.status.served == 1


def test_a_search_goes_on_when_the_server_is_ended(gallery: Path, slow_set: Path) -> None:
    with run_server(gallery, slow_set) as server:
        judging = Judging(server, "orange dog", candidates=3)
        server.process.send_signal(signal.SIGTERM)
        printed = judging.end()
        assert judging.process.returncode == 0
        assert len(printed) == 3
        assert b"did not finish (the server was stopped): searching without it" in judging.said
        assert server.process.wait(LAST_SECONDS) == 128 + signal.SIGTERM
