"""Rewriting keeps everything of a file but its content."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.output.file_rewrite import rewrite_file

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0

NOBODY = 65534


def facts(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


@given(st.binary(max_size=300), st.binary(max_size=300), st.booleans(), st.integers(0, 7))
@settings(derandomize=True, deadline=None, max_examples=40)
def test_content_changes_and_nothing_else(before: bytes, after: bytes, linked: bool, mode: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, other = folder / "a.xmp", folder / "b"
        path.write_bytes(before)
        path.chmod(0o600 | mode << 3)
        if IS_ROOT:
            os.chown(path, 12345, 23456)
        if linked:
            os.link(path, other)
        os.utime(path, (1, 1))
        kept = facts(path)
        rewrite_file(path, after)
        assert path.read_bytes() == after
        assert facts(path) == kept
        assert path.stat().st_mtime > 1
        assert {*folder.iterdir()} == ({path, other} if linked else {path})
        if linked:
            assert path.samefile(other)


def test_extended_attributes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.xmp"
    path.write_bytes(b"old")
    if not hasattr(os, "setxattr"):
        pytest.skip("this system has no os.setxattr")
    try:
        os.setxattr(path, "user.rating", b"5")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    rewrite_file(path, b"new")
    assert (path.read_bytes(), os.getxattr(path, "user.rating")) == (b"new", b"5")


@contextmanager
def as_nobody() -> Iterator[None]:
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a file to another user")
def test_a_file_of_another_user_stays_his() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        path = folder / "a.xmp"
        path.write_bytes(b"a longer old text")
        os.chown(path, 12345, NOBODY)
        path.chmod(0o664)
        with as_nobody():
            rewrite_file(path, b"new")
        assert (path.read_bytes(), facts(path)) == (b"new", (12345, NOBODY, 0o664))
        path.chmod(0o644)  # now he may only be read
        with as_nobody(), pytest.raises(PermissionError):
            rewrite_file(path, b"newer")
        assert (path.read_bytes(), [*folder.iterdir()]) == (b"new", [path])


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.xmp"
    with pytest.raises(FileNotFoundError):
        rewrite_file(path, b"new")
    assert list(tmp_path.iterdir()) == []
