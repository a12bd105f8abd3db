"""Paths in SQL: any bytes, folders as ranges, existence."""

from __future__ import annotations

import os
from pathlib import Path

import apsw
import pytest

from matir_cli.gallery.paths import BELOW, below_bindings, decode_path, encode_path, is_gone, path_order


@pytest.mark.parametrize("name", [b"/a/b.jpg", "/a/עברית".encode(), b"/a/\xff\xfe", b"/a/new\nline"])
def test_a_path_is_text_if_it_can_be_and_survives_either_way(name: bytes) -> None:
    path = Path(os.fsdecode(name))
    stored = encode_path(path)
    assert isinstance(stored, bytes) == (b"\xff" in name)
    assert decode_path(stored) == path


@pytest.mark.parametrize("value", [7, None, 0.5, "", b"", "relative/a", b"relative", "/nul\0", b"/nul\0"])
def test_another_value_than_an_absolute_path_is_refused(value: apsw.SQLiteValue) -> None:
    with pytest.raises(ValueError, match="file name"):
        decode_path(value)


def test_paths_are_ordered_as_sqlite_orders_them() -> None:
    names = ["/a", "/a/b", "/\u00e9", "/\U0001f600", "/\uffff", b"/a", b"/\xff"]
    db = apsw.Connection(":memory:")
    db.execute("create table files (path primary key) without rowid")
    db.executemany("insert into files values (?)", [(name,) for name in names])
    by_sqlite = [path for (path,) in db.execute("select path from files order by path")]
    assert by_sqlite == sorted(names, key=path_order)
    db.close()


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
