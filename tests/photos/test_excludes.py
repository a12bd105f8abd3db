"""Patterns that leave files and folders out of a walk."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.photos.discover import (
    EXCLUDED,
    EXCLUDED_FOLDERS,
    UNUSED_PATTERNS,
    FolderRules,
    find_photo_files,
)
from matir_cli.photos.excludes import (
    IGNORE_FILE,
    MAX_BYTES,
    MAX_PATTERNS,
    PatternInvalid,
    check_pattern,
    read_patterns,
)

FILES = ["a.jpg", "a.png", "drafts/b.jpg", "trip/2019/c.jpg", "trip/a.png", "trip/drafts/d.jpg"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def walk(folder: Path, *exclude: str) -> tuple[list[str], Counter[str]]:
    """Return the files found below a folder, and what was passed over."""
    passed_over = Counter[str]()
    found = find_photo_files([folder], passed_over, rules=FolderRules(exclude))
    return [path.relative_to(folder).as_posix() for path in found], passed_over


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ([], FILES),
        (["*.png"], [name for name in FILES if not name.endswith(".png")]),
        (["drafts/"], ["a.jpg", "a.png", "trip/2019/c.jpg", "trip/a.png"]),
        (["/drafts"], ["a.jpg", "a.png", "trip/2019/c.jpg", "trip/a.png", "trip/drafts/d.jpg"]),
        (["trip/**"], ["a.jpg", "a.png", "drafts/b.jpg"]),
        (["*.png", "!trip/a.png"], ["a.jpg", *FILES[2:]]),
        (["a.jpg/"], FILES),  # a pattern of folders is not one of files
    ],
)
def test_patterns_are_those_of_gitignore(folder: Path, patterns: Sequence[str], left: list[str]) -> None:
    assert walk(folder, *patterns)[0] == left
    (folder / IGNORE_FILE).write_text("# a comment\n\n" + "\n".join(patterns))
    assert walk(folder)[0] == left


def test_what_is_left_out_is_counted(folder: Path) -> None:
    assert walk(folder, "*.png", "drafts/")[1] == {EXCLUDED: 2, EXCLUDED_FOLDERS: 2}


def test_a_file_of_patterns_rules_its_own_folder(folder: Path) -> None:
    (folder / "trip" / IGNORE_FILE).write_text("/a.png\n!../a.jpg\n")
    assert walk(folder)[0] == [name for name in FILES if name != "trip/a.png"]
    (folder / IGNORE_FILE).write_text("*.jpg")
    (folder / "trip" / IGNORE_FILE).write_text("!*.jpg")  # does not take back what is above it
    assert walk(folder)[0] == ["a.png", "trip/a.png"]


def test_a_path_that_is_named_is_not_left_out(folder: Path) -> None:
    (folder / IGNORE_FILE).write_text("*")
    named = folder / "trip" / "a.png"
    assert [*find_photo_files([named], rules=FolderRules(["*.png"]))] == [named]
    assert [*find_photo_files([folder / "trip" / "drafts"], rules=FolderRules(["drafts"]))] == [
        folder / "trip" / "drafts" / "d.jpg"
    ]
    assert walk(folder)[0] == []


def test_unusable_files_of_patterns_leave_nothing_out(folder: Path) -> None:
    place = folder / IGNORE_FILE
    for content in (b"\xff\xfe*\0", b"*\n" + b"#" * MAX_BYTES):
        place.write_bytes(content)
        assert walk(folder) == (FILES, Counter({UNUSED_PATTERNS: 1}))
    place.unlink()
    place.mkdir()
    assert walk(folder) == (FILES, Counter({UNUSED_PATTERNS: 1}))
    place.rmdir()
    os.mkfifo(place)  # would be waited for
    assert walk(folder) == (FILES, Counter({UNUSED_PATTERNS: 1}))


def test_costly_patterns_of_a_file_are_not_used(folder: Path) -> None:
    (folder / IGNORE_FILE).write_text("*a" * 40 + "\n*.png\n!\n" + "x\n" * 2 * MAX_PATTERNS + "*.jpg\n")
    patterns = read_patterns(folder)
    assert patterns is not None
    assert patterns[0] == "*.png"
    assert len(patterns) == MAX_PATTERNS
    (folder / ("a" * 250 + ".jpg")).write_bytes(b"x")
    assert len(walk(folder)[0]) == len(FILES) - 2 + 1


@pytest.mark.parametrize("pattern", ["", "# note", "!", "  "])
def test_a_pattern_of_the_user_must_mean_something(pattern: str) -> None:
    with pytest.raises(PatternInvalid):
        check_pattern(pattern)
    assert check_pattern("a/**/*.png") == "a/**/*.png"


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.one_of(st.binary(max_size=60), st.text("*/![]a.jpng\\?\n-", max_size=40).map(str.encode)))
def test_any_file_of_patterns_only_leaves_out(content: bytes) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for file in FILES:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(b"x")
        (folder / IGNORE_FILE).write_bytes(content)
        assert set(walk(folder)[0]) <= set(FILES)
