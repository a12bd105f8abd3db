"""The model set that a gallery is used with: named by the user, or by the gallery if that is safe."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from matir_cli.errors import ModelSetUnknown, ModelSetUntrusted
from matir_cli.gallery.database import GalleryFile
from matir_cli.model_sets.catalogue import DEFAULT_MODEL_SET, ModelSet, load_model_set
from matir_cli.model_sets.choice import choose_set, record_choice
from matir_cli.records import ModelIdentity

TOML = """
name = "mine"
description = "a set in a file"
[encoder]
name = "an encoder"
engine = "alpha_clip"
licence = "none"
[encoder.files.visual]
path = "visual.pth"
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSet:
    """A set in a file of the user, whose state folder is empty."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "mine.toml").write_text(TOML)
    return load_model_set(str(tmp_path / "mine.toml"))


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        yield gallery


def bind(gallery: GalleryFile, model_set: str, digit: str = "1") -> None:
    for role in ("proposer", "encoder"):
        gallery.bind_model(role, ModelIdentity(f"a {role}", digit * 64), model_set)


def test_without_a_choice_the_default_is_used(gallery: GalleryFile) -> None:
    assert choose_set(None, None).name == DEFAULT_MODEL_SET
    assert choose_set(gallery, None).name == DEFAULT_MODEL_SET
    assert choose_set(gallery, "tiny").name == "tiny"


def test_a_gallery_may_name_a_set_of_the_catalogue(gallery: GalleryFile) -> None:
    bind(gallery, "tiny")
    assert choose_set(gallery, None).name == "tiny"
    bind(gallery, "of another version")
    with pytest.raises(ModelSetUnknown):
        choose_set(gallery, None)


def test_a_file_that_only_the_gallery_names_is_not_read(gallery: GalleryFile, mine: ModelSet) -> None:
    for name in (mine.handle, "./mine.toml", "../x", "/dev/stdin", "x.toml"):
        bind(gallery, name)
        with pytest.raises(ModelSetUntrusted) as caught:
            choose_set(gallery, None)
        assert (caught.value.gallery, caught.value.source) == (gallery.path, name)
    assert choose_set(gallery, "tiny").name == "tiny"


def test_a_file_that_the_user_has_used_is_used_again(gallery: GalleryFile, mine: ModelSet) -> None:
    bind(gallery, mine.handle)
    record_choice(gallery, mine)
    assert choose_set(gallery, None) == mine
    link = gallery.path.with_name("link.db")
    link.symlink_to(gallery.path)
    with GalleryFile.open(link) as linked:
        assert choose_set(linked, None) == mine


def test_naming_the_file_once_is_enough(
    gallery: GalleryFile, mine: ModelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind(gallery, mine.handle)
    monkeypatch.chdir(Path(mine.handle).parent)
    assert choose_set(gallery, "mine.toml") == mine
    assert choose_set(gallery, None) == mine


def test_another_gallery_at_the_same_path_is_not_trusted(gallery: GalleryFile, mine: ModelSet) -> None:
    bind(gallery, mine.handle)
    record_choice(gallery, mine)
    gallery.connection.execute("delete from models")
    bind(gallery, mine.handle, digit="2")
    with pytest.raises(ModelSetUntrusted):
        choose_set(gallery, None)
    gallery.connection.execute("delete from models")
    bind(gallery, f"{mine.handle}.toml")
    with pytest.raises(ModelSetUntrusted):
        choose_set(gallery, None)


def test_a_copy_of_the_gallery_has_to_be_named(gallery: GalleryFile, mine: ModelSet, tmp_path: Path) -> None:
    bind(gallery, mine.handle)
    record_choice(gallery, mine)
    with (
        GalleryFile.open(Path(shutil.copy(gallery.path, tmp_path / "copy.db"))) as copy,
        pytest.raises(ModelSetUntrusted),
    ):
        choose_set(copy, None)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"model_set": 5}', b"9" * 100_000])
def test_a_damaged_record_is_none(
    gallery: GalleryFile, mine: ModelSet, tmp_path: Path, content: bytes
) -> None:
    bind(gallery, mine.handle)
    record_choice(gallery, mine)
    (record,) = (path for path in (tmp_path / "state").rglob("*") if path.is_file())
    record.write_bytes(content)
    with pytest.raises(ModelSetUntrusted):
        choose_set(gallery, None)
    record_choice(gallery, mine)
    assert choose_set(gallery, None) == mine


def test_a_state_folder_that_cannot_be_written_is_done_without(
    gallery: GalleryFile, mine: ModelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind(gallery, mine.handle)
    monkeypatch.setenv("XDG_STATE_HOME", os.devnull)
    record_choice(gallery, mine)
    with pytest.raises(ModelSetUntrusted):
        choose_set(gallery, None)
