"""The real process: a gallery that names a TOML file as its model set."""

import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from matir_cli.gallery.database import GalleryFile
from tests.support.process import Indexed, matir


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The tiny set as a file of the user's."""
    shipped = Path(str(files("matir_cli.models")))
    shutil.copytree(shipped / "tiny", tmp_path / "tiny", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return Path(shutil.copy(shipped / "tiny.toml", tmp_path / "mine.toml"))


@pytest.fixture
def db(indexed: Indexed, mine: Path, tmp_path: Path) -> Path:
    """A gallery that names that file."""
    copy = Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))
    with GalleryFile.open(copy) as gallery:
        gallery.connection.execute("update models set model_set = ?", (str(mine),))
    return copy


def test_a_file_that_a_stranger_names_is_not_used(db: Path, mine: Path, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    search = ("find", "red ball", "--no-rerank", "--db", db)
    refused = matir(*search, XDG_STATE_HOME=state)
    assert refused.returncode == 2
    assert f"names the model set {mine}, which you have not used".encode() in refused.stderr
    assert f"--models {mine}".encode() in refused.stderr
    problems = matir("doctor", "--db", db, XDG_STATE_HOME=state)
    assert b"problem  gallery models: " in problems.stdout
    assert matir(*search, "--models", mine, XDG_STATE_HOME=state).returncode == 0
    assert matir(*search, XDG_STATE_HOME=state).returncode == 0
    assert matir(*search, XDG_STATE_HOME=str(tmp_path / "other")).returncode == 2


def test_a_file_that_the_user_indexed_with_is_used_again(
    indexed: Indexed, mine: Path, tmp_path: Path
) -> None:
    state = str(tmp_path / "state")
    db = tmp_path / "new.db"
    photo = indexed.photos / "0000.png"
    added = matir("add", photo, "--db", db, "--models", mine, XDG_STATE_HOME=state)
    assert added.returncode == 0, added.stderr
    for words in (("add", photo), ("find", "red ball", "--no-rerank")):
        assert matir(*words, "--db", db, XDG_STATE_HOME=state).returncode == 0
