"""The source gallery of a merge, read and checked."""

from pathlib import Path

import numpy as np
import pytest

from matir_cli.errors import GalleryDamaged, MergeIntoItself
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import open_read_only
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.maintenance.merge_source import (
    BoundModel,
    JudgeAnswer,
    check_mergeable,
    read_source_photo,
    source_models,
    source_photo_ids,
)
from matir_cli.records import FileRecord, Grounding, Verdict
from tests.support.crafted_gallery import DIMENSIONS, MODELS, REGIONS, craft, digest, place

JUDGE = "a" * 64


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A gallery of two photos, with a verdict and a grounding in the second."""
    path = tmp_path / "source.db"
    with craft(path, ["a", "b"]) as gallery:
        VerdictCache(gallery, JUDGE, "a dog").remember(2, Verdict(1.0, 2.0))
        VerdictCache(gallery, JUDGE, "a dog").remember_grounding(2, Grounding((), "[]", readable=True))
    return path


def test_a_photo_is_read_with_everything_known_of_it(source: Path, tmp_path: Path) -> None:
    with open_read_only(source) as opened, GalleryFile.open(tmp_path / "new.db", create=True) as gallery:
        check_mergeable(tmp_path / "new.db", opened)
        assert list(source_photo_ids(opened)) == [1, 2]
        assert set(source_models(opened)) == {
            BoundModel(role, identity, "crafted") for role, identity in MODELS.items()
        }
        photo = read_source_photo(gallery, opened, 2)
        assert photo is not None
        assert photo.record.sha256 == digest("b")
        assert photo.files == (FileRecord(place("b"), 10, 20),)
        assert photo.preview == opened.preview(2)
        assert photo.regions == [stored.region for stored in opened.regions(2)]
        assert photo.vectors.shape == (REGIONS, DIMENSIONS)
        assert photo.vectors.dtype == np.int8
        assert photo.verdicts == [JudgeAnswer(JUDGE, "a dog", (1.0, 2.0))]
        assert photo.groundings == [JudgeAnswer(JUDGE, "a dog", ("[]", "[]", 1))]
        assert read_source_photo(gallery, opened, 99) is None


def test_vectors_of_another_length_than_the_gallerys_are_refused(source: Path, tmp_path: Path) -> None:
    with craft(tmp_path / "other.db", ["c"]) as gallery, open_read_only(source) as opened:
        gallery.connection.execute("update vectors set vector = zeroblob(8)")
        with pytest.raises(GalleryDamaged, match="a stored vector has an impossible length"):
            read_source_photo(gallery, opened, 1)


def test_a_gallery_is_not_merged_into_itself(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(source)
    with open_read_only(source) as opened, pytest.raises(MergeIntoItself):
        check_mergeable(tmp_path / "link.db", opened)


def test_an_empty_gallery_has_no_models_to_compare(tmp_path: Path) -> None:
    GalleryFile.open(tmp_path / "empty.db", create=True).connection.close()
    with open_read_only(tmp_path / "empty.db") as opened:
        check_mergeable(tmp_path / "gallery.db", opened)
        assert source_models(opened) == []
        assert list(source_photo_ids(opened)) == []
