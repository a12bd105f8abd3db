"""The gallery file: what is stored, what is refused, and what survives."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import apsw
import numpy as np
import pytest

from matir_cli import errors, masks
from matir_cli.gallery import schema
from matir_cli.gallery.connection import open_defensively
from matir_cli.gallery.database import GalleryFile
from matir_cli.records import Box, FileRecord, ModelIdentity, PhotoRecord, Region


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gallery.db"


def region(*, top: int = 2) -> Region:
    mask = np.zeros((50, 100), dtype=np.bool_)
    mask[top : top + 10, 5:25] = True
    rle = masks.encode(mask)
    return Region(rle, masks.box(rle), masks.area(rle), 0.9, 0.95)


def photo(seed: int = 1) -> PhotoRecord:
    return PhotoRecord(bytes([seed]) * 32, 1000, 500, 100, 50, 6, "2024-05-06T07:08:09", "ACME", 1.5, -2.5)


def file(name: str = "/photos/a.jpg", mtime: int = 7) -> FileRecord:
    return FileRecord(Path(name), 1234, mtime)


def add(gallery: GalleryFile, seed: int = 1, name: str = "/photos/a.jpg") -> int:
    with gallery.atomic():
        return gallery.add_photo(file(name), photo(seed), [region(), region(top=30)], b"jpeg")[0]


def test_what_is_written_is_read_back(path: Path) -> None:
    with GalleryFile.open(path, create=True) as gallery:
        photo_id = add(gallery)
    with GalleryFile.open(path) as gallery:
        stored = gallery.photo(photo_id)
        assert stored.record == photo()
        assert stored.paths == (Path("/photos/a.jpg"),)
        assert gallery.preview(photo_id) == b"jpeg"
        first, second = gallery.regions(photo_id)
        assert first.region == region()
        assert first.box == Box(50, 20, 250, 120)  # working pixels times ten
        assert gallery.region(second.id) == second
        assert gallery.count_photos() == 1
        assert gallery.photo_with(bytes([1]) * 32) == photo_id


def test_one_file_remains_after_closing(path: Path) -> None:
    with GalleryFile.open(path, create=True) as gallery:
        add(gallery)
    assert [*path.parent.iterdir()] == [path]


def test_any_sqlite_tool_reads_it(path: Path) -> None:
    with GalleryFile.open(path, create=True) as gallery:
        add(gallery)
    plain = sqlite3.connect(path)
    assert plain.execute("select path, width from files join photos on photos.id = photo_id").fetchall() == [
        ("/photos/a.jpg", 1000)
    ]
    assert plain.execute("pragma integrity_check").fetchone() == ("ok",)
    plain.close()


def test_a_transaction_is_all_or_nothing(path: Path) -> None:
    with GalleryFile.open(path, create=True) as gallery:
        with pytest.raises(KeyboardInterrupt), gallery.atomic():
            gallery.add_photo(file(), photo(), [region()], None)
            raise KeyboardInterrupt
        assert gallery.count_photos() == 0
        assert not gallery.connection.in_transaction


def test_files_of_one_photo(path: Path, tmp_path: Path) -> None:
    here = tmp_path / "here.jpg"
    here.write_bytes(b"x")
    with GalleryFile.open(path, create=True) as gallery:
        photo_id = add(gallery, name=str(here))
        copy = FileRecord(tmp_path / "copy.jpg", 1234, 8)
        copy.path.write_bytes(b"x")
        assert gallery.link_file(copy, gallery.photo(photo_id).record.sha256)
        assert gallery.paths(photo_id) == (copy.path, here)
        assert gallery.is_unchanged(copy)
        assert not gallery.is_unchanged(FileRecord(copy.path, 1234, 9))
        here.unlink()  # renamed: the old name goes when the new one comes
        renamed = FileRecord(tmp_path / "renamed.jpg", 1234, 7)
        assert gallery.link_file(renamed, gallery.photo(photo_id).record.sha256)
        assert gallery.paths(photo_id) == (copy.path, renamed.path)


def test_a_changed_file_replaces_its_old_photo(path: Path) -> None:
    with GalleryFile.open(path, create=True) as gallery:
        old = add(gallery, seed=1)
        new = add(gallery, seed=2)
        assert gallery.count_photos() == 1
        assert gallery.photo_with(bytes([1]) * 32) is None
        assert gallery.preview(old) is None or old == new
        assert len(gallery.regions(new)) == 2
        gallery.remember_skipped(file(mtime=9), "damaged: cut")
        assert gallery.count_photos() == 0
        assert list(gallery.connection.execute("select path, reason from skipped")) == [
            ("/photos/a.jpg", "damaged: cut")
        ]
        add(gallery, seed=3)
        assert list(gallery.connection.execute("select * from skipped")) == []


@pytest.mark.parametrize(
    "name", [b"new\nline", b"\xff\xfe not utf-8", "עברית.jpg".encode(), b"'quote\"", b"\x1b[31m", b"x" * 255]
)
def test_any_file_name_survives(path: Path, name: bytes) -> None:
    whole = Path("/photos") / os.fsdecode(name)
    with GalleryFile.open(path, create=True) as gallery:
        photo_id = add(gallery, name=str(whole))
    with GalleryFile.open(path) as gallery:
        assert gallery.paths(photo_id) == (whole,)
        assert gallery.is_unchanged(FileRecord(whole, 1234, 7))


def test_a_gallery_is_bound_to_its_models(path: Path) -> None:
    one, other = ModelIdentity("clip", "a" * 64), ModelIdentity("clip", "b" * 64)
    with GalleryFile.open(path, create=True) as gallery:
        gallery.check_model("encoder", one)
        assert gallery.model_set() is None
        gallery.bind_model("encoder", one, "tiny")
        gallery.bind_model("encoder", one, "./mine.toml")
        assert gallery.model_set() == "./mine.toml"
        with pytest.raises(errors.ModelMismatch) as caught:
            gallery.bind_model("encoder", other, "full")
        assert (caught.value.stored, caught.value.wanted) == ("clip (aaaaaaaaaaaa)", "clip (bbbbbbbbbbbb)")
        assert gallery.model_set() == "./mine.toml"


def test_reading_creates_no_gallery(path: Path) -> None:
    with pytest.raises(errors.GalleryMissing):
        GalleryFile.open(path)
    assert not path.exists()


@pytest.mark.parametrize("content", [b"not a database" * 100, b"\0" * 5000])
def test_another_file_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for create in (False, True):
        with pytest.raises(errors.NotAGallery):
            GalleryFile.open(path, create=create)
    assert path.read_bytes() == content


def test_another_database_is_left_alone(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("create table t (x)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(errors.NotAGallery):
        GalleryFile.open(path, create=True)
    assert path.read_bytes() == before


def test_a_newer_gallery_is_refused_and_left_unchanged(path: Path) -> None:
    GalleryFile.open(path, create=True).connection.close()
    later = sqlite3.connect(path)
    later.execute(f"pragma user_version = {schema.VERSION + 1}")
    later.close()
    before = path.read_bytes()
    with pytest.raises(errors.GalleryTooNew) as caught:
        GalleryFile.open(path, create=True)
    assert (caught.value.found, caught.value.known) == (schema.VERSION + 1, schema.VERSION)
    assert path.read_bytes() == before


def test_a_damaged_file_is_an_error(path: Path) -> None:
    with GalleryFile.open(path, create=True) as gallery:
        add(gallery)
    content = bytearray(path.read_bytes())
    content[schema.PAGE_SIZE :] = b"\xa5" * (len(content) - schema.PAGE_SIZE)
    path.write_bytes(content)
    with pytest.raises(errors.GalleryDamaged), GalleryFile.open(path) as gallery:
        gallery.count_photos()


def test_a_hostile_mask_is_refused_before_it_is_decoded(path: Path) -> None:
    with GalleryFile.open(path, create=True) as gallery:
        photo_id = add(gallery)
        for change in ("rle = x'7f7f7f7f'", "rle = 'text'", "rle = 5"):
            gallery.connection.execute(f"update regions set {change}")
            with pytest.raises(errors.GalleryDamaged):
                gallery.regions(photo_id)


@pytest.mark.parametrize(
    "change",
    [
        *("photos set width = -5", "photos set width = 'wide'", "photos set width = 300000, height = 300000"),
        *("photos set mask_width = 0", "photos set taken_at = 5", "photos set camera = x'00ff'"),
        *("photos set orientation = 9", "photos set latitude = 9e999", "photos set sha256 = 'x'"),
        *("regions set x0 = 9e999", "regions set area = 'x'", "regions set stability = 'x'"),
        *("previews set jpeg = 'abc'", "files set path = cast(x'2fff' as text)"),
    ],
)
def test_impossible_rows_are_damage(path: Path, change: str) -> None:
    with GalleryFile.open(path, create=True) as gallery:
        photo_id = add(gallery)
        gallery.connection.execute(f"update {change}")
    with pytest.raises(errors.GalleryDamaged), GalleryFile.open(path) as gallery:
        gallery.photo(photo_id)
        gallery.regions(photo_id)
        gallery.preview(photo_id)


def test_a_photo_without_a_file_is_damage(path: Path) -> None:
    with GalleryFile.open(path, create=True) as gallery:
        photo_id = add(gallery)
        gallery.connection.execute("delete from files")
        with pytest.raises(errors.GalleryDamaged):
            gallery.photo(photo_id)


def test_ids_are_never_used_again(path: Path) -> None:
    with GalleryFile.open(path, create=True) as gallery:
        first = add(gallery)
        regions = {stored.id for stored in gallery.regions(first)}
        gallery.connection.execute("delete from photos")
        second = add(gallery)
        assert second != first
        assert not regions & {stored.id for stored in gallery.regions(second)}


def test_a_read_only_gallery_can_be_read(path: Path) -> None:
    with GalleryFile.open(path, create=True) as gallery:
        add(gallery)
    immutable = path.with_name("immutable.db")
    immutable.write_bytes(path.read_bytes())
    connection = open_defensively(
        f"file:{immutable}?mode=ro", apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    )
    gallery = GalleryFile(immutable, connection)
    gallery._prepare()
    assert gallery.count_photos() == 1
    with pytest.raises(errors.GalleryReadOnly), gallery, gallery.atomic():
        gallery.add_photo(file("/b.jpg"), photo(2), [], None)


def test_a_gallery_in_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(errors.GalleryReadOnly):
        GalleryFile.open(tmp_path / "file" / "gallery.db", create=True)


def test_a_full_disk_keeps_what_was_there(path: Path) -> None:
    with GalleryFile.open(path, create=True) as gallery:
        add(gallery)
        pages = gallery.connection.pragma("page_count")
        gallery.connection.pragma("max_page_count", pages)
        with pytest.raises(apsw.FullError), gallery.atomic():
            gallery.add_photo(file("/b.jpg"), photo(2), [region()] * 500, b"x" * 100_000)
        assert gallery.count_photos() == 1
    with pytest.raises(errors.DiskFull), GalleryFile.open(path) as gallery:
        gallery.connection.pragma("max_page_count", pages)
        with gallery.atomic():
            gallery.add_photo(file("/b.jpg"), photo(2), [region()] * 500, b"x" * 100_000)


def test_a_process_killed_in_a_transaction_leaves_a_sound_file(path: Path) -> None:
    with GalleryFile.open(path, create=True) as gallery:
        add(gallery)
    script = (
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from matir_cli.gallery.database import GalleryFile\n"
        "from tests.gallery.test_database import file, photo, region\n"
        "gallery = GalleryFile.open(Path(sys.argv[1]))\n"
        "gallery.connection.pragma('cache_size', 1)\n"  # so that pages reach the file before the commit
        "gallery.connection.execute('begin immediate')\n"
        "gallery.add_photo(file('/b.jpg'), photo(2), [region()] * 2000, b'x' * 1_000_000)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -9
    assert path.with_name("gallery.db-journal").exists()
    with GalleryFile.open(path) as gallery:
        assert gallery.count_photos() == 1
        assert gallery.connection.pragma("integrity_check") == "ok"
    assert [*path.parent.iterdir()] == [path]


def test_file_size_and_unused_space_are_known(path: Path) -> None:
    with GalleryFile.open(path, create=True) as gallery:
        add(gallery)
        assert gallery.file_bytes == path.stat().st_size
        assert gallery.free_bytes == 0
        gallery.connection.execute("insert into questions values (1, 'judge', ?)", ("x" * 100_000,))
        gallery.connection.execute("delete from questions")
        assert 100_000 < gallery.free_bytes < gallery.file_bytes == path.stat().st_size
