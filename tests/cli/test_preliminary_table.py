"""The preliminary table on a terminal: what it shows, that it goes, and where there is none."""

import fcntl
import os
import re
import shutil
import signal
import struct
import subprocess
import termios
from pathlib import Path

import click
import pytest

from matir_cli.cli.preliminary_table import PreliminaryTable
from matir_cli.gallery.database import GalleryFile
from matir_cli.records import Candidate, Verdict
from matir_cli.search.events import Stage1Event, VerdictEvent
from matir_cli.search.rerank import JudgedCandidate
from tests.support.process import (
    MATIR,
    PHOTOS,
    Indexed,
    on_a_terminal,
    on_full_terminal,
    open_terminal,
)
from tests.support.screen import Screen

QUERY = "red house"

JUDGED = re.compile(rb"judging: [1-9][0-9]*/")
"""The last line of a table after a verdict."""


@pytest.fixture
def gallery(indexed: Indexed, tmp_path: Path) -> Path:
    """A copy of the indexed gallery, without any verdict."""
    return Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))


@pytest.fixture
def slow(model_set: Path) -> Path:
    """The model set with a judge that sees much larger pictures."""
    path = model_set.with_name("slow_table.toml")
    path.write_text(model_set.read_text().replace("max_pixels = 50176", "min_pixels = 401408"))
    return path


def words(gallery: Path, models: Path, *more: object) -> list[object]:
    return ["find", QUERY, "--no-ground", "--db", gallery, "--models", models, *more]


def shown_at_the_end(output: bytes, rows: int, columns: int) -> list[str]:
    screen = Screen(rows, columns)
    screen.feed(output)
    return screen.lines


@pytest.mark.parametrize(
    ("size", "variables"),
    [((24, 250), {}), ((7, 31), {"NO_COLOR": "1"})],
    ids=["large", "small, without colours"],
)
def test_stage_1_is_shown_first_and_nothing_of_it_stays(
    gallery: Path, model_set: Path, size: tuple[int, int], variables: dict[str, str]
) -> None:
    output = on_full_terminal(words(gallery, model_set, "-n", 9), 0, size, **variables)
    # Stage 1's table is drawn, as far as it fits, before the first verdict.
    first = output.split(b"judging: 1/")[0]
    drawn = Screen(*size)
    drawn.feed(first[: first.rindex(b"\x1b[J")] if b"\x1b[J" in first else first)
    assert output.count(b"\x1b[J") >= 1
    assert len(drawn.lines) <= size[0]
    assert any(line.lstrip().startswith("rank") for line in drawn.lines)
    assert all(len(line) < size[1] for line in drawn.lines[1:])
    if "NO_COLOR" in variables:
        assert b"\x1b[2m" not in output
    # At the end the screen shows what a terminal without the table shows: the second time nothing is asked.
    plain = on_full_terminal(words(gallery, model_set, "-n", 9), size=size, TERM="dumb")
    assert b"\x1b[J" not in plain
    assert b"judging" not in plain or b"\r" in plain
    expected = [line.rstrip() for line in shown_at_the_end(plain, 500, size[1])]
    expected = [line for line in expected if "judging" not in line]
    assert [line.rstrip() for line in shown_at_the_end(output, 500, size[1])] == expected


def test_there_is_none_where_stdout_is_read_by_a_program_or_the_terminal_cannot(
    gallery: Path, model_set: Path
) -> None:
    fresh = ("--fresh",)
    assert b"\x1b[J" not in on_full_terminal(words(gallery, model_set, *fresh, "--paths"))
    assert b"\x1b[J" not in on_full_terminal(words(gallery, model_set, *fresh), size=(0, 0))
    assert b"\x1b[J" not in on_full_terminal(words(gallery, model_set, "--no-rerank"))
    assert b"\x1b[J" not in on_a_terminal(*words(gallery, model_set, *fresh))  # stderr is none


def test_ctrl_c_and_another_size_leave_a_clean_screen(gallery: Path, slow: Path) -> None:
    shown, terminal = open_terminal(24, 200)
    # Ctrl-C may come at any moment, and leave a file to the garbage collector.
    process = subprocess.Popen(
        [*MATIR[:-2], "-W", "ignore::ResourceWarning", *MATIR[-2:], *map(str, words(gallery, slow, "-n", 9))],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color"},
        start_new_session=True,
    )
    output = b""
    os.close(terminal)
    while not JUDGED.search(output):
        output += os.read(shown, 4096)
    before = len(output)
    fcntl.ioctl(shown, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 60, 0, 0))
    while not JUDGED.search(output, before):
        output += os.read(shown, 4096)
    process.send_signal(signal.SIGINT)
    while True:
        try:
            part = os.read(shown, 4096)
        except OSError:  # the process has ended
            break
        if not part:
            break
        output += part
    os.close(shown)
    assert process.wait() == 130
    narrow = output[before:].split(b"\x1b[J")[-2]
    assert max(map(len, narrow.replace(b"\x1b[2m", b"").replace(b"\x1b[0m", b"").splitlines())) < 60
    end = output[output.rindex(b"\x1b[J") + 3 :].decode()
    assert "interrupted: " in end
    assert "judging" not in end
    judged = [line for line in end.splitlines() if ".png" in line]
    assert 1 <= len(judged) < PHOTOS


def test_photos_are_in_the_order_in_which_the_results_will_be(
    gallery: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was judged True before what is unknown before what was judged False; in each, as it is ranked."""
    monkeypatch.setenv("COLUMNS", "300")
    with GalleryFile.open(gallery) as file, click.Context(click.Command("find"), color=False):
        rows = [*file.connection.execute("select photo_id, min(id) from regions group by photo_id limit 5")]
        scores = (5.0, 4.0, 3.0, 2.0, 1.0)
        candidates = [
            Candidate(photo_id, region_id, score)
            for (photo_id, region_id), score in zip(rows, scores, strict=True)
        ]
        table = PreliminaryTable(file, 5)
        table.observe(Stage1Event(tuple(candidates), (), fusion=1.0))
        margins = {0: -1.0, 1: 2.0, 3: 3.0, 4: 4.5}
        for asked, (place, margin) in enumerate(margins.items(), 1):
            table.observe(VerdictEvent(JudgedCandidate(candidates[place], Verdict(margin, 0.0)), asked))
        capsys.readouterr()
        with table.progress("judging", 5, "photo"):
            drawn = capsys.readouterr().err
        names = [file.paths(photo_id)[0].name for photo_id, _ in rows]
    assert sorted(names, key=drawn.index) == [names[place] for place in (1, 4, 3, 2, 0)]
