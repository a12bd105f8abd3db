"""Galleries that are read and never changed."""

import os
import signal
import threading
from pathlib import Path

import apsw
import pytest

from matir_cli.errors import GalleryMissing, GalleryNameInvalid, GalleryReadOnly
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import (
    LONGEST_VALUE,
    PAGE,
    interruptible,
    open_read_only,
    photo_ids,
    schema_faults,
)
from tests.gallery.test_database import add


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A gallery of five photos of which the third was deleted."""
    path = tmp_path / "gallery.db"
    with GalleryFile.open(path, create=True) as gallery:
        for seed in range(1, 6):
            add(gallery, seed, f"/photos/{seed}.jpg")
        gallery.connection.execute("delete from photos where id = 3")
    return path


def test_nothing_can_be_changed(path: Path) -> None:
    before = path.read_bytes()
    with open_read_only(path) as gallery:
        assert gallery.count_photos() == 4
        with pytest.raises(apsw.ReadOnlyError):
            gallery.connection.execute("delete from photos")
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(GalleryMissing):
        open_read_only(tmp_path / "none.db")
    with pytest.raises(GalleryReadOnly):
        open_read_only(tmp_path)


def test_a_huge_value_is_not_read(path: Path) -> None:
    with GalleryFile.open(path) as gallery:
        gallery.connection.execute(f"update previews set jpeg = zeroblob({LONGEST_VALUE + 1})")
    with open_read_only(path) as gallery, pytest.raises(apsw.TooBigError):
        gallery.connection.execute("select jpeg from previews").fetchall()


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("select 1", []),
        ("drop table loose", ["loose"]),
        ("alter table skipped add column more", ["skipped"]),
        ("drop index files_by_photo", ["files_by_photo"]),
        ("create table more (x)", []),
    ],
)
def test_missing_and_changed_tables_are_named(path: Path, statement: str, expected: list[str]) -> None:
    changed = apsw.Connection(os.fspath(path))
    changed.execute(statement)
    changed.close()
    with open_read_only(path) as gallery:
        assert schema_faults(gallery.connection) == expected


@pytest.mark.parametrize("count", [0, 1, PAGE, 2 * PAGE + 1])
def test_ids_are_complete_over_pages(tmp_path: Path, count: int) -> None:
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        gallery.connection.execute(
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?) "
            "insert into photos select i, cast(i as blob), 8, 8, 8, 8, 1, null, null, null, null, '' "
            "from n where i <= ?",
            (max(count, 1), count),
        )
        assert list(photo_ids(gallery)) == list(range(1, count + 1))


def test_ctrl_c_interrupts_a_statement_which_is_rolled_back(path: Path) -> None:
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n"
    with GalleryFile.open(path) as gallery:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt), interruptible(gallery.connection):
            gallery.connection.execute(f"update photos set width = ({endless})")
        timer.join()
        assert gallery.connection.execute("select count(*) from photos where width = 1000").get == 4


def test_a_path_that_is_not_utf_8_is_named_as_the_reason(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.db")
    path.touch()
    for opened in (open_read_only, GalleryFile.open):
        with pytest.raises(GalleryNameInvalid, match="not UTF-8"):
            opened(path)
