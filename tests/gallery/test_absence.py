"""Missing files against a plain definition of absent folders, for random trees."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.gallery.absence import AbsenceCheck, AbsentFolder, absent_folders, missing_files
from matir_cli.gallery.database import GalleryFile
from tests.gallery.test_database import file, photo, region

NAMES = (b"a", b"b.c", b"b", b"\xff", "é".encode())
"""Names of folders and files, of which one is not UTF-8 and two sort around a slash."""

Trees = dict[tuple[bytes, ...], bool]
"""Known files by the parts of their path: True if the file exists."""

TREES = st.dictionaries(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(lambda parts: (*parts, b"file")),
    st.booleans(),
    max_size=12,
)


def make(root: Path, tree: Trees) -> GalleryFile:
    """Make a gallery that knows the files of `tree`, and those of them on disk that exist."""
    gallery = GalleryFile.open(root / "gallery.db", create=True)
    with gallery.atomic():
        for seed, (parts, exists) in enumerate(tree.items()):
            path = root.joinpath(*map(os.fsdecode, parts))
            gallery.add_photo(file(str(path)), photo(seed), [region()], None)
            if exists:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    return gallery


def kept_and_dropped(tree: Trees) -> tuple[set[tuple[bytes, ...]], set[tuple[bytes, ...]]]:
    """Missing files with and without a folder that has lost two or more files and holds none."""
    kept = set()
    for parts, exists in tree.items():
        for depth in range(len(parts)):
            below = [there for other, there in tree.items() if other[:depth] == parts[:depth]]
            if not exists and len(below) >= 2 and not any(below):
                kept.add(parts)
    return kept, {parts for parts, exists in tree.items() if not exists} - kept


@settings(max_examples=80, deadline=None, derandomize=True)
@given(TREES)
def test_absent_folders_are_those_without_any_of_two_or_more_files(
    tmp_path_factory: pytest.TempPathFactory, tree: Trees
) -> None:
    root = tmp_path_factory.mktemp("tree")
    with make(root, tree) as gallery:
        found = [*missing_files(gallery, root)]
        everything = [*missing_files(gallery, root, all_files=True)]
        assert [*absent_folders(gallery, root)] == [item for item in found if isinstance(item, AbsentFolder)]
    kept, dropped = kept_and_dropped(tree)
    files = [item for item in found if isinstance(item, Path)]
    folders = [item for item in found if isinstance(item, AbsentFolder)]
    assert {tuple(map(os.fsencode, path.relative_to(root).parts)) for path in files} == dropped
    assert sum({folder.path: folder.files for folder in folders}.values()) == len(kept)
    for parts in kept:
        path = root.joinpath(*map(os.fsdecode, parts))
        assert sum(path.is_relative_to(folder) for folder in {item.path for item in folders}) == 1
    assert not any(one.path.is_relative_to(two.path) for one, two in pairwise(folders) if one != two)
    assert len(everything) == len(kept) + len(dropped)


def test_a_link_to_nothing_is_absent_with_its_only_file(tmp_path: Path) -> None:
    tree: Trees = {(b"link", b"file"): False, (b"plain", b"file"): False, (b"here", b"file"): True}
    with make(tmp_path, tree) as gallery:
        (tmp_path / "link").symlink_to("nowhere")
        expected = [AbsentFolder(tmp_path / "link", 1), tmp_path / "plain" / "file"]
        assert [*missing_files(gallery, tmp_path)] == expected


def test_the_root_of_a_volume_is_absent_with_its_only_file(tmp_path: Path) -> None:
    with make(tmp_path, {(b"here", b"file"): True}) as gallery:
        for name in ("/dev/shm/none.png", f"{tmp_path}/gone.png"):  # noqa: S108 - a file that does not exist
            with gallery.atomic():
                gallery.add_photo(file(name), photo(len(name)), [region()], None)
        if Path("/dev/shm").is_dir() and not Path("/dev/shm").is_symlink():  # noqa: S108 - only looked at
            assert AbsentFolder(Path("/dev/shm"), 1) in missing_files(gallery)  # noqa: S108 - as above
        assert tmp_path / "gone.png" in missing_files(gallery)


def test_decisions_are_kept_for_the_current_folders_only(tmp_path: Path) -> None:
    tree: Trees = {(b"%03d" % number, b"x", b"file"): False for number in range(50)}
    with make(tmp_path, {**tree, (b"zzz", b"file"): True}) as gallery:
        check = AbsenceCheck(gallery, tmp_path)
        for parts in tree:
            assert check.absent_folder(tmp_path.joinpath(*map(os.fsdecode, parts))) is None
            assert len(check._decided) == 3
