"""Photo files on disk: folders, file status, hashes."""

import hashlib
import os
from collections import Counter
from pathlib import Path

import pytest

from matir_cli.errors import PhotoInaccessible, PhotoUnreadable
from matir_cli.photos.discover import FolderRules, absolute_path, find_photo_files, hash_file, stat_file
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
    rules = FolderRules(raw=False)
    found = list(find_photo_files([tmp_path], passed_over, rules=rules))
    assert found == [tmp_path / "a.heic", tmp_path / "a.jpg"]
    assert passed_over == {".cr2": 2, ".nef": 1}
    assert list(find_photo_files([tmp_path / "b.nef"], passed_over, rules=rules)) == [tmp_path / "b.nef"]
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
    for path, reason in ((tmp_path, "is a folder"), (tmp_path / "a\0b", "null")):
        with pytest.raises(PhotoUnreadable, match=reason):
            stat_file(path)


def test_folders_are_walked_however_deep(tmp_path: Path) -> None:
    folders = [tmp_path]
    for _ in range(1500):
        folders.append(folders[-1] / "d")
        folders[-1].mkdir()
    photo = folders[-1] / "x.jpg"
    photo.touch()
    assert list(find_photo_files([tmp_path])) == [photo]
    photo.unlink()
    for folder in reversed(folders[1:]):  # Python's own rmtree would call itself too often
        folder.rmdir()


def test_what_the_system_does_not_look_at_is_yielded_and_the_walk_goes_on(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    inside = [os.open(tmp_path, os.O_RDONLY)]
    for name in ("deep", *("y" * 250 for _ in range(17))):  # 4,250 characters, more than a path may have
        os.mkdir(name, dir_fd=inside[-1])
        inside.append(os.open(name, os.O_RDONLY, dir_fd=inside[-1]))
    for descriptor in inside:
        os.close(descriptor)
    (tmp_path / "link").symlink_to("x" * 300)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "z.jpg").touch()
    long = tmp_path / ("n" * 300)
    first, *found = find_photo_files([long, tmp_path, Path("/a\0b")])
    assert (first, found[1:]) == (long, [tmp_path / "link", tmp_path / "z.jpg", Path("/a\0b")])
    assert found[0].is_relative_to(deep)
    for path in (long, found[0], tmp_path / "link"):
        with pytest.raises(PhotoInaccessible, match="file name too long"):
            stat_file(path)


def test_listed_folders_are_told(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    listed: list[Path] = []
    assert list(find_photo_files([tmp_path, tmp_path / "a"], listed=listed.append)) == []
    assert listed[:3] == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_a_path_with_nul_is_not_cut_off_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_path(Path("/a\0/../b")) == Path("/a\0/../b")
    assert absolute_path(Path("a\0b")) == tmp_path / "a\0b"
