"""Galleries that are read and never changed."""

import os
from pathlib import Path

import apsw
import pytest

from matir_cli.errors import (
    GalleryDamaged,
    GalleryMissing,
    GalleryNameInvalid,
    GalleryReadOnly,
    GalleryTooNew,
    GalleryUnrecovered,
    NotAGallery,
)
from matir_cli.gallery import schema
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import PAGE, open_read_only, photo_ids
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
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(NotAGallery):
            open_read_only(name)
        with pytest.raises(NotAGallery):
            GalleryFile.open(name, create=True)
    for name in (Path(os.fsdecode(b"/tmp/\xff.db")), tmp_path / ("x" * 300), Path("/nul\0.db")):
        with pytest.raises((GalleryMissing, GalleryReadOnly, GalleryNameInvalid)):
            open_read_only(name)
        with pytest.raises((GalleryReadOnly, GalleryNameInvalid)):
            GalleryFile.open(name, create=True)


def test_an_older_newer_or_empty_file_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with pytest.raises(NotAGallery):
        open_read_only(tmp_path / "empty.db")
    for version, error in ((schema.VERSION + 1, GalleryTooNew), (-1, GalleryDamaged)):
        changed = apsw.Connection(os.fspath(path))
        changed.pragma("user_version", version)
        changed.close()
        with pytest.raises(error):
            open_read_only(path)


def test_an_interrupted_write_is_told_from_a_missing_permission(path: Path) -> None:
    leave_hot_journal(path)
    with pytest.raises(GalleryUnrecovered, match="not been rolled back"):
        open_read_only(path)


def leave_hot_journal(path: Path) -> None:
    """Leave the gallery as a process that was killed in the middle of a write leaves it."""
    with GalleryFile.open(path) as gallery:
        gallery.connection.pragma("cache_size", 1)  # so that changed pages go to the file at once
        gallery.connection.execute("begin")
        gallery.connection.execute("update photos set camera = hex(zeroblob(1000))")
        gallery.connection.execute("update previews set jpeg = zeroblob(100000)")
        gallery.connection.cache_flush()
        copies = {
            Path(f"{path}{suffix}"): Path(f"{path}{suffix}").read_bytes() for suffix in ("", "-journal")
        }
        gallery.connection.execute("rollback")
    for name, content in copies.items():
        name.write_bytes(content)


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


def test_a_path_that_is_not_utf_8_is_named_as_the_reason(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.db")
    path.touch()
    for opened in (open_read_only, GalleryFile.open):
        with pytest.raises(GalleryNameInvalid, match="not UTF-8"):
            opened(path)
