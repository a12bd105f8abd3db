"""Lists of paths, in and out."""

import ast
import codecs
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.cli.path_lists import (
    CHUNK_BYTES,
    LONGEST_NAME,
    arriving_lines,
    expand_names,
    expand_paths,
    without_mark,
    write_path,
)
from matir_cli.errors import ListNotUtf8
from tests.support.process import matir


def read(given: bytes) -> list[bytes]:
    """The names that a process reads from standard input, one repr per line."""
    script = (
        "import os; from matir_cli.cli.path_lists import names_on_stdin\n"
        "for name in names_on_stdin(os.path.lexists): print(ascii(os.fsencode(name)))"
    )
    done = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, check=True)
    return [ast.literal_eval(line) for line in done.stdout.decode().splitlines()]


@given(st.lists(st.binary(max_size=20), max_size=8), st.integers(0, 3))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_lines_are_those_of_a_binary_file(parts: list[bytes], ends: int) -> None:
    content = b"\n".join([*parts, b"z" * CHUNK_BYTES, *parts]) + b"\n" * ends
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        expected = file.readlines()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        assert [line for lines in arriving_lines(file.fileno()) for line in lines] == expected


def test_lines_come_as_many_at_a_time_as_are_there() -> None:
    source, sink = os.pipe()
    arriving = arriving_lines(source)
    os.write(sink, b"a\nb\nc")
    assert next(arriving) == [b"a\n", b"b\n"]
    os.write(sink, b"d")
    os.write(sink, b"\n\n")
    assert next(arriving) == [b"cd\n", b"\n"]
    long = b"x" * (CHUNK_BYTES // 2)
    os.write(sink, long)
    os.write(sink, b"y")
    os.close(sink)
    assert [*arriving] == [[long + b"y"]]
    os.close(source)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (b"", []),
        (b"a\nb c\n", [b"a", b"b c"]),
        (b"a\n\nb", [b"a", b"b"]),
        (b"a\nb\0c\0", [b"a\nb", b"c"]),
        (b"x\xff\xfe\0\0\n\0", [b"x\xff\xfe", b"\n"]),
        (b"\xef\xbb\xbfa\nb", [b"a", b"b"]),
        (b"\r\n/dev\r\n/dev/none\r\n", [b"/dev", b"/dev/none\r"]),
        (b"/dev\r\0", [b"/dev\r"]),
        (b"1\0002\0003\0", [b"1", b"2", b"3"]),
        (b"/\0", [b"/"]),
        (b"x" * (CHUNK_BYTES + 5) + b"\nlast", [b"x" * (CHUNK_BYTES + 5), b"last"]),
        (b"x" * (5 * LONGEST_NAME) + b"\nlast", [b"x" * LONGEST_NAME, b"last"]),
    ],
)
def test_names_are_separated_by_newlines_or_nul(given: bytes, names: list[bytes]) -> None:
    assert read(given) == names


def test_only_the_dash_stands_for_standard_input() -> None:
    assert [*expand_names(["a", "./b", "-c"], os.path.lexists)] == ["a", "./b", "-c"]
    paths = [Path("a"), Path("/b/-"), Path("/")]
    assert [*expand_paths(paths, allow_root=False)] == paths


NAMES = st.lists(
    st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), min_size=1),
    min_size=1,
    max_size=5,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(NAMES, st.sampled_from(["/", "./", "C:\\"]), st.sampled_from(["\n", "\r\n"]))
def test_other_encodings_are_recognised_and_no_others(names: list[str], start: str, end: str) -> None:
    text = "".join(f"{start}{name}{end}" for name in names)
    marked = [text.encode("utf-16"), text.encode("utf-32"), codecs.BOM_UTF16_BE + text.encode("utf-16-be")]
    for given_bytes in marked:
        with pytest.raises(ListNotUtf8):
            without_mark(given_bytes)
    assert without_mark(text.encode()) == text.encode()
    assert without_mark(text.encode("utf-8-sig")) == text.encode()
    by_null = text.replace(end, "\0").encode()
    assert without_mark(by_null) == by_null


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["/", "/home/ada/a.jpg\n", "/\u05e9\u05dc\u05d5\u05dd/a.jpg\r\n", "a dog\n"])
def test_utf_16_without_a_mark_is_recognised(text: str, encoding: str) -> None:
    with pytest.raises(ListNotUtf8):
        without_mark((text * 2).encode(encoding))


def test_a_path_is_written_byte_for_byte(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = Path(os.fsdecode(b"/a/\x1b[31m\xff\n"))
    write_path(path, null=False, before=b"+ ", after=b"\tx")
    write_path(path, null=True)
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == b"+ /a/\x1b[31m\xff\n\tx\n/a/\x1b[31m\xff\n\0"


def test_a_list_in_another_encoding_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    given = "/home/ada/a.jpg\n".encode("utf-16")
    done = matir("add", "-", "--db", tmp_path / "gallery.db", "--models", "tiny", given=given)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"encoded as UTF-16. Convert it first: iconv -f UTF-16 -t UTF-8\n" in done.stderr
    done = matir("add", "-", "--dry-run", "--db", tmp_path / "none.db", given=b"/\n//\n/dev/../\n")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.count(b"the root of the file system, see --allow-root\n") == 3
    assert not (tmp_path / "none.db").exists()
