import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from matir_cli import errors
from matir_cli.cli.boundary import explain, say
from matir_cli.gallery.database import GalleryFile
from matir_cli.records import FileRecord, PhotoRecord
from tests.support.process import MATIR, Indexed


def kinds(base: type[errors.MatirError]) -> Iterator[type[errors.MatirError]]:
    """Yield the errors that are raised: classes without subclasses, and others with a message."""
    below = base.__subclasses__()
    for child in below:
        yield from kinds(child)
    if not below or "__str__" in vars(base):
        yield base


KINDS = sorted(kinds(errors.MatirError), key=lambda kind: kind.__name__)

EXAMPLES = {
    "path": Path("/a/b"),
    "files": [Path("/a/b")],
    "known": ["full"],
    "needed": 2,
    "available": 1,
    "found": 3,
    "count": 4,
    "value": 5.0,
    "least": 0,
    "most": 1,
    "width": 100,
    "height": 80,
}


def made(kind: type[errors.MatirError], ending: str = "") -> errors.MatirError:
    """Create an error with some values; text values end with `ending`."""
    names: list[str] = [each.name for each in fields(kind) if each.init] if is_dataclass(kind) else []
    facts = {name: EXAMPLES.get(name, f"the {name}{ending}") for name in names}
    if "path" in facts:
        facts["path"] = Path(f"/a/b{ending}")
    return kind(**facts)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_says_what_is_wrong_and_the_command_line_what_to_do(
    kind: type[errors.MatirError], capfd: pytest.CaptureFixture[str]
) -> None:
    error = made(kind)
    problem, remedy = explain(error)
    assert problem == str(error)
    assert re.fullmatch(r"[^A-Z\n].+[^.]\.", problem)
    # Of the galleries that are left out, each has been named before.
    assert not hasattr(error, "path") or "/a/b" in problem or kind is errors.NoGalleryLeft
    assert re.fullmatch(r"[^\n]+", remedy)
    # Whatever a file name holds, the terminal gets one harmless line.
    say(" ".join(explain(made(kind, "\x1b[31m\n\u202e\udcff"))))
    shown = capfd.readouterr().err
    assert shown.startswith("matir: ")
    assert shown.endswith("\n")
    assert shown[:-1].isprintable()


def test_no_two_errors_say_the_same() -> None:
    assert len({str(made(kind)) for kind in KINDS}) == len(KINDS)


def test_a_folder_that_never_was_is_not_a_volume_that_is_away() -> None:
    assert explain(errors.FolderVanished(Path("/a"), 0)) == ("/a does not exist.", "Check the name.")


def test_a_number_out_of_its_range() -> None:
    error = errors.OutOfRange("min_p", 3, 0, 1)
    assert isinstance(error, ValueError)
    assert explain(error) == ("min_p is 3; it must be from 0 to 1.", "Choose another value for --min-p.")
    assert str(errors.OutOfRange("limit", 0, 1)) == "limit is 0; it must be 1 or more."


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"── (\w+)", errors.__doc__ or "")
    known = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert sorted(drawn) == sorted(kind.__name__ for kind in known if kind is not errors.MatirError)


def run(body: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a process whose command executes `body`, through the real boundary."""
    head = "import click\nfrom matir_cli.cli import boundary\n@click.command()\ndef command():\n"
    script = f"{head}    {body}\nboundary.run(command)"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, env={"PATH": "/bin", **variables}
    )


def test_an_error_of_ours_is_one_line_and_harmless() -> None:
    done = run("from matir_cli.errors import GalleryMissing; raise GalleryMissing('\\x1b[31m\\nx')")
    assert done.returncode == 2
    remedy = b"Check the name, or create one: matir add FOLDER --db '\\x1b[31m\\nx'"
    assert done.stderr == b"matir: there is no gallery at \\x1b[31m\\nx. " + remedy + b"\n"


def test_too_little_memory_is_no_internal_error() -> None:
    done = run("raise MemoryError")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert done.stderr.startswith(b"matir: not enough memory; close other programs")


def test_an_internal_error_shows_its_traceback_only_when_asked() -> None:
    done = run("1 / 0")
    assert done.returncode == 2
    assert b"internal error: ZeroDivisionError" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Traceback" in run("1 / 0", MATIR_DEBUG="1").stderr


def test_ctrl_c_is_130() -> None:
    assert run("raise KeyboardInterrupt").returncode == 130


def test_wrong_usage_is_2_and_shows_how() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "matir_cli", "find", "--nonsense"], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"No such option" in done.stderr


def in_shell(redirected: str, *words: object, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a shell with a redirection such as ">&-"."""
    line = f"exec {shlex.join([*MATIR, *map(str, words)])} {redirected}"
    unbuffered = {"PYTHONUNBUFFERED": ""}
    return subprocess.run(
        ["sh", "-c", line], capture_output=True, check=False, env={**os.environ, **unbuffered, **variables}
    )


@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [
        (">/dev/full", 2, b"matir: the output: no space left on device\n"),
        (">&-", 0, b""),
        ("2>&-", 0, b""),
        ("<&-", 0, b""),
    ],
)
def test_streams_that_are_closed_or_full(indexed: Indexed, redirected: str, code: int, said: bytes) -> None:
    done = in_shell(redirected, "ls", "--db", indexed.gallery)
    assert (done.returncode, done.stderr) == (code, said)
    missing = in_shell(redirected, "ls", "--db", indexed.gallery.with_name("none.db"))
    assert missing.returncode == 2
    assert b"Traceback" not in missing.stderr


def test_an_output_that_cannot_spell_a_name_escapes_it(tmp_path: Path) -> None:
    gallery = tmp_path / "photos.db"
    with GalleryFile.open(gallery, create=True) as opened:
        record = PhotoRecord(b"1" * 32, 40, 30, 40, 30, 1)
        opened.add_photo(FileRecord(tmp_path / "\u732b.png", 1, 1), record, [], None)
    done = in_shell("", "ls", "--long", "--db", gallery, PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    assert rb"\u732b.png" in done.stdout
