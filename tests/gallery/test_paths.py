"""Paths in SQL: any bytes, folders as ranges, existence."""

import os
from pathlib import Path

import apsw
import pytest

from matir_cli.gallery.paths import BELOW, below_bindings, decode_path, encode_path, is_gone


@pytest.mark.parametrize("name", [b"/a/b.jpg", "/a/עברית".encode(), b"/a/\xff\xfe", b"/a/new\nline"])
def test_a_path_is_text_if_it_can_be_and_survives_either_way(name: bytes) -> None:
    path = Path(os.fsdecode(name))
    stored = encode_path(path)
    assert isinstance(stored, bytes) == (b"\xff" in name)
    assert decode_path(stored) == path


def test_a_value_of_another_type_is_decoded_to_some_path() -> None:
    assert decode_path(7) == Path("7")
    assert decode_path(None) == Path("None")


def test_below_selects_a_folder_and_its_files() -> None:
    db = apsw.Connection(":memory:")
    db.execute("create table files (path primary key) without rowid")
    names = [b"/a/b", b"/a/b/c", b"/a/b/\xff", b"/a/bc", b"/a/b0"]
    db.executemany("insert into files values (?)", [(encode_path(Path(os.fsdecode(n))),) for n in names])
    rows = db.execute(f"select path from files where {BELOW}", below_bindings(Path("/a/b")))
    assert {os.fsencode(decode_path(path)) for (path,) in rows} == {b"/a/b", b"/a/b/c", b"/a/b/\xff"}
    db.close()


def test_a_path_is_gone_only_if_it_is_known_not_to_exist(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "dangling", "loop/x", "y" * 300):
        assert not is_gone(tmp_path / name), name
    for name in ("nothing", "nothing/x", "file/x", "a\0b"):
        assert is_gone(tmp_path / name), name
