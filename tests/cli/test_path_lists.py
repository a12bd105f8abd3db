"""Lists of paths, in and out."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from matir_cli.cli.path_lists import CHUNK_BYTES, expand_names, expand_paths, write_path


def read(given: bytes) -> list[bytes]:
    """The names that a process reads from standard input, one repr per line."""
    script = (
        "import os; from matir_cli.cli.path_lists import names_on_stdin\n"
        "for name in names_on_stdin(): print(ascii(os.fsencode(name)))"
    )
    done = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, check=True)
    return [ast.literal_eval(line) for line in done.stdout.decode().splitlines()]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (b"", []),
        (b"a\nb c\n", [b"a", b"b c"]),
        (b"a\n\nb", [b"a", b"b"]),
        (b"a\nb\0c\0", [b"a\nb", b"c"]),
        (b"\xff\xfe\0\0\n\0", [b"\xff\xfe", b"\n"]),
        (b"x" * (CHUNK_BYTES + 5) + b"\nlast", [b"x" * (CHUNK_BYTES + 5), b"last"]),
    ],
)
def test_names_are_separated_by_newlines_or_nul(given: bytes, names: list[bytes]) -> None:
    assert read(given) == names


def test_only_the_dash_stands_for_standard_input() -> None:
    assert [*expand_names(["a", "./b", "-c"])] == ["a", "./b", "-c"]
    assert [*expand_paths([Path("a"), Path("/b/-")])] == [Path("a"), Path("/b/-")]


def test_a_path_is_written_byte_for_byte(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = Path(os.fsdecode(b"/a/\x1b[31m\xff\n"))
    write_path(path, null=False, before=b"+ ", after=b"\tx")
    write_path(path, null=True)
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == b"+ /a/\x1b[31m\xff\n\tx\n/a/\x1b[31m\xff\n\0"
