"""`matir sync --watch` as a real process."""

import shutil
import signal
import subprocess
from pathlib import Path
from typing import Self

import pytest

from tests.photos.packets import described
from tests.support.process import MATIR, Indexed, matir


class Watching:
    """A process that watches a folder."""

    def __init__(self, folder: Path, gallery: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [*MATIR, "sync", folder, "--watch", "--db", gallery, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def said(self) -> str:
        """Return the next line on standard error, but for the note of the model set."""
        assert self.process.stderr is not None
        line = self.process.stderr.readline().decode().strip()
        return self.said() if line.startswith("matir: model set") else line

    def change(self) -> str:
        """Return the next change."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def end(self, number: int) -> tuple[int, bytes, bytes]:
        """End it by a signal; return its exit code and the rest of its output."""
        self.process.send_signal(number)
        rest, words = self.process.communicate(timeout=60)
        return self.process.returncode, rest, words


@pytest.fixture
def folder(indexed: Indexed, tmp_path: Path) -> Path:
    """A folder with one photo of the gallery."""
    made = tmp_path / "watched"
    made.mkdir()
    shutil.copy(indexed.photos / "0000.png", made / "first.png")
    shutil.copy(indexed.gallery, made / "gallery.db")  # its own changes do not count
    return made


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_changes_are_followed_until_a_signal(indexed: Indexed, folder: Path, number: int) -> None:
    with Watching(folder, folder / "gallery.db", "--exclude", "draft*") as watching:
        assert watching.change() == f"+ {folder}/first.png"
        assert watching.said() == "matir: watching 1 folder; Ctrl-C ends it"
        shutil.copy(indexed.photos / "0001.png", folder / "draft.png")
        shutil.copy(indexed.photos / "0001.png", folder / "second.png")
        assert watching.change() == f"+ {folder}/second.png"
        (folder / "second.png.xmp").write_bytes(described('xmp:Rating="4"'))
        assert watching.change() == f"* {folder}/second.png"
        (folder / "second.png.xmp").write_bytes(b"none")
        assert watching.change() == f"* {folder}/second.png"
        incomplete = f"matir: incomplete {folder}/second.png: its sidecar second.png.xmp cannot be read"
        assert watching.said().startswith(incomplete)
        (folder / "first.png").unlink()
        assert watching.change() == f"- {folder}/first.png"
        (folder / "zero.png").touch()
        assert watching.said() == f"matir: skipped {folder}/zero.png: zero bytes"
        assert watching.end(number) == (128 + number, b"", b"")
    listed = matir("ls", "--in", folder, "--db", folder / "gallery.db").stdout.decode()
    assert listed.split() == [f"{folder}/second.png"]


def test_watching_and_a_dry_run_contradict_each_other(folder: Path) -> None:
    done = matir("sync", folder, "--watch", "--dry-run", "--db", folder / "gallery.db")
    assert done.returncode == 2
    assert b"--watch and --dry-run contradict each other" in done.stderr
