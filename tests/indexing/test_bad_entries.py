"""One path that cannot be read is skipped, named and remembered; everything else goes on."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import known_files, skip_reason, skipped_files
from matir_cli.indexing.outcomes import Added, Linked, Outcome, Skipped, Unchanged
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.indexing.sync import ChangeKind, FileChange, check_folders, list_changes, sync_folders
from tests.support.fakes import ColourEncoder, ColourProposer
from tests.support.pictures import save_scenes

NOBODY = 65534
"""A user who may not read everything, unlike the one who runs tests in a container."""


@contextmanager
def as_plain_user() -> Iterator[None]:
    """Run the block without the rights of the superuser."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in which a plain user may do everything."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o777)
        # What is imported when first used is imported now: a plain user may not read the package.
        save_scenes(path / "warm", a="red")
        add(path / "warm", path / "warm" / "a.png")
        with as_plain_user():
            yield path


def add(place: Path, *paths: Path) -> list[Outcome]:
    models = IndexingModels(ColourProposer, ColourEncoder)
    with GalleryFile.open(place / "gallery.db", create=True) as gallery:
        return list(add_photos(gallery, paths, models, previews=False))


def remembered(place: Path) -> dict[Path, str | None]:
    with GalleryFile.open(place / "gallery.db") as gallery:
        return {path: skip_reason(gallery, path) for path in skipped_files(gallery)}


def test_every_kind_of_bad_path_is_skipped_named_and_remembered(place: Path) -> None:
    folder = place / "photos"
    first, last = save_scenes(folder, a="red", z="green")
    for name in ("closed", "no_entry"):
        (folder / name).mkdir()
        (folder / name / "x.png").write_bytes(b"x")
    (folder / "forbidden.png").symlink_to(folder / "closed" / "x.png")
    (folder / "forbidden_folder").symlink_to(folder / "closed" / "y")
    (folder / "closed").chmod(0)
    (folder / "no_entry").chmod(0o600)
    (folder / "dangling.png").symlink_to("nowhere")
    (folder / "endless").symlink_to("m" * 300)
    (folder / "empty.png").touch()
    (folder / "junk.png").write_bytes(b"junk")
    (folder / "unreadable.png").write_bytes(b"secret")
    (folder / "unreadable.png").chmod(0)
    os.mkfifo(folder / "pipe.png")
    nul, long, never = Path("/a\0b"), folder / ("n" * 300), folder / "never.png"
    outcomes = add(place, nul, long, never, folder)
    assert [item for item in outcomes if not isinstance(item, Skipped)] == [Added(first, 1), Added(last, 1)]
    skipped = {item.path: item.reason for item in outcomes if isinstance(item, Skipped)}
    assert skipped.pop(nul) == "embedded null byte"
    expected = {
        long: "file name too long",
        never: "no such file or directory",
        folder / "closed": "folder cannot be listed: permission denied",
        folder / "no_entry" / "x.png": "permission denied",
        folder / "forbidden.png": "permission denied",
        folder / "forbidden_folder": "permission denied",
        folder / "dangling.png": "no such file or directory",
        folder / "endless": "file name too long",
        folder / "empty.png": "zero bytes",
        folder / "junk.png": "not an image",
        folder / "unreadable.png": "permission denied",
        folder / "pipe.png": "not a plain file",
    }
    assert skipped == expected
    assert remembered(place) == expected
    for name in ("closed", "no_entry"):
        (folder / name).chmod(0o700)


def test_a_folder_that_can_be_listed_again_is_no_longer_remembered(place: Path) -> None:
    folder = place / "photos" / "closed"
    save_scenes(folder, a="red")
    folder.chmod(0)
    assert [type(item) for item in add(place, place / "photos")] == [Skipped]
    assert [*remembered(place)] == [folder]
    folder.chmod(0o700)
    assert [type(item) for item in add(place, place / "photos")] == [Added]
    assert remembered(place) == {}


def test_a_photo_that_cannot_be_accessed_for_a_while_is_kept_and_tried_again(place: Path) -> None:
    (path,) = save_scenes(place / "photos", a="red")
    assert [type(item) for item in add(place, path)] == [Added]
    path.parent.chmod(0)
    assert add(place, path) == [Skipped(path, "permission denied")]
    assert remembered(place) == {path: "permission denied"}
    path.parent.chmod(0o700)
    with GalleryFile.open(place / "gallery.db") as gallery:
        assert [item.path for item in known_files(gallery)] == [path]
        assert [*list_changes(gallery, [path.parent])] == [
            FileChange(ChangeKind.RETRIED, path, "permission denied")
        ]
    assert add(place, path) == [Linked(path)]
    assert remembered(place) == {}
    assert add(place, path) == [Unchanged(path)]
    path.write_bytes(path.read_bytes() + b"changed")
    path.chmod(0)
    assert add(place, path) == [Skipped(path, "permission denied")]
    with GalleryFile.open(place / "gallery.db") as gallery:
        assert [item.path for item in known_files(gallery)] == [path]


def test_sync_goes_on_after_a_folder_that_cannot_be_listed(place: Path) -> None:
    photos = [*save_scenes(place / "p" / "a", a="red", b="green"), *save_scenes(place / "p" / "c", c="blue")]
    add(place, place / "p")
    photos[0].parent.chmod(0)
    (new,) = save_scenes(place / "p" / "z", z="red blue")
    models = IndexingModels(ColourProposer, ColourEncoder)
    with GalleryFile.open(place / "gallery.db") as gallery:
        check_folders(gallery, [place / "p"], drop_all=False)
        outcomes = [*sync_folders(gallery, [place / "p"], models, previews=False)]
    reason = "folder cannot be listed: permission denied"
    assert outcomes == [Skipped(photos[0].parent, reason), Unchanged(photos[2]), Added(new, 2)]
    photos[0].parent.chmod(0o700)
