"""Photo files on disk: folders, file status, hashes."""

import hashlib
import os
from collections import Counter
from pathlib import Path

import pytest

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos.discover import absolute_path, find_photo_files, hash_file, stat_file
from tests.support.pictures import scene


def test_folders_are_walked_in_order_and_once(tmp_path: Path) -> None:
    kept = ["b.jpg", "a/x.PNG", "a/y.heic", "c/deep/z.webp"]
    ignored = ["notes.txt", ".hidden.jpg", ".git/x.jpg", "a/@eaDir/x.jpg", "noext"]
    for name in kept + ignored:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "c")
    found = [path.relative_to(tmp_path).as_posix() for path in find_photo_files([tmp_path])]
    assert found == ["a/x.PNG", "a/y.heic", "again/deep/z.webp", "b.jpg"]
    named = tmp_path / ".hidden.jpg"
    assert list(find_photo_files([named])) == [named]


def test_raw_files_in_folders_are_passed_over_and_counted(tmp_path: Path) -> None:
    names = ["a.jpg", "a.CR2", "b.nef", "deep/c.cr2", ".hidden.cr2", "clip.mp4", "a.heic"]
    (tmp_path / "deep").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    passed_over = Counter[str]()
    found = list(find_photo_files([tmp_path], passed_over))
    assert found == [tmp_path / "a.heic", tmp_path / "a.jpg"]
    assert passed_over == {".cr2": 2, ".nef": 1}
    assert list(find_photo_files([tmp_path / "b.nef"], passed_over)) == [tmp_path / "b.nef"]
    assert passed_over.total() == 3


def test_unusual_names_of_readable_formats_are_found(tmp_path: Path) -> None:
    names = ["a.jfif", "b.JPE", "c.mpo", "d.insp", "e.pjpeg", "f.btf", "g.heics"]
    for name in [*names, "h.fits", "i.jxl", "j.svg", "k.txt"]:
        (tmp_path / name).write_bytes(b"x")
    passed_over = Counter[str]()
    found = [path.name for path in find_photo_files([tmp_path], passed_over)]
    assert found == names
    assert passed_over == {".fits": 1, ".jxl": 1, ".svg": 1}


def test_a_time_beyond_sqlites_integers_is_clipped(tmp_path: Path) -> None:
    scene("red").save(tmp_path / "photo.png")
    os.utime(tmp_path / "photo.png", (1e10, 1e10))
    assert -(2**63) < stat_file(tmp_path / "photo.png").mtime_ns < 2**63


def test_an_absolute_path_keeps_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    monkeypatch.chdir(tmp_path)
    assert absolute_path(Path("./link/../link/a.jpg")) == tmp_path / "link" / "a.jpg"


def test_a_hash_is_that_of_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"content")
    file = stat_file(path)
    assert (file.path, file.bytes, file.mtime_ns) == (path, 7, path.stat().st_mtime_ns)
    assert hash_file(file) == hashlib.sha256(b"content").digest()
    path.unlink()
    with pytest.raises(PhotoUnreadable) as caught:
        hash_file(file)
    assert caught.value.reason == "no such file or directory"


def test_files_that_cannot_be_read_have_a_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(PhotoUnreadable) as caught:
        hash_file(stat_file(tmp_path / "empty.jpg"))
    assert caught.value.reason == "zero bytes"
    for path, reason in ((tmp_path, "cannot be listed"), (tmp_path / "a\0b", "null")):
        with pytest.raises(PhotoUnreadable, match=reason):
            stat_file(path)
