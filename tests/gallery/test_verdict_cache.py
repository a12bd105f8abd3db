"""Cached answers of judges: kept per judge and query, bounded, never written to a read-only file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import open_read_only
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.records import Box, Grounding, Verdict
from tests.gallery.test_database import add

JUDGE = "j" * 64
VERDICT = Verdict(2.0, -1.0)
GROUNDING = Grounding((Box(1, 2, 3.5, 4), Box(0, 0, 9, 9)), "two boxes", readable=True)


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    """A gallery of two photos."""
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        for seed in (1, 2):
            add(gallery, seed, f"/photos/{seed}.jpg")
        yield gallery


def test_answers_are_kept_per_judge_and_query(gallery: GalleryFile) -> None:
    cache = VerdictCache(gallery, JUDGE, "a dog")
    cache.remember(1, VERDICT)
    cache.remember_grounding(1, GROUNDING)
    again = VerdictCache(gallery, JUDGE, "a dog")
    assert (again.verdict(1), again.grounding(1)) == (VERDICT, GROUNDING)
    assert (again.verdict(2), again.grounding(2)) == (None, None)
    for other in (VerdictCache(gallery, "k" * 64, "a dog"), VerdictCache(gallery, JUDGE, "a cat")):
        assert (other.verdict(1), other.grounding(1)) == (None, None)


def test_a_fresh_cache_forgets(gallery: GalleryFile) -> None:
    VerdictCache(gallery, JUDGE, "a dog").remember(1, VERDICT)
    assert VerdictCache(gallery, JUDGE, "a dog", fresh=True).verdict(1) is None
    assert VerdictCache(gallery, JUDGE, "a dog").verdict(1) is None


def test_a_read_only_gallery_is_read_and_not_written(gallery: GalleryFile) -> None:
    VerdictCache(gallery, JUDGE, "a dog").remember(1, VERDICT)
    with open_read_only(gallery.path) as opened:
        cache = VerdictCache(opened, JUDGE, "a dog")
        cache.remember(2, VERDICT)
        cache.remember_grounding(2, GROUNDING)
        assert (cache.verdict(1), cache.verdict(2), cache.grounding(2)) == (VERDICT, None, None)
        assert VerdictCache(opened, JUDGE, "a dog", fresh=True).verdict(1) is None
    assert VerdictCache(gallery, JUDGE, "a dog").verdict(1) == VERDICT


def test_an_answer_about_a_deleted_photo_is_dropped(gallery: GalleryFile) -> None:
    cache = VerdictCache(gallery, JUDGE, "a dog")
    gallery.connection.execute("delete from photos where id = 1")
    cache.remember(1, VERDICT)
    cache.remember_grounding(1, GROUNDING)
    assert (cache.verdict(1), cache.grounding(1)) == (None, None)


def test_the_oldest_question_makes_room(gallery: GalleryFile) -> None:
    for query in ("one", "two", "three"):
        cache = VerdictCache(gallery, JUDGE, query, limit=3)
        cache.remember(1, VERDICT)
        cache.remember(2, VERDICT)
    kept = [VerdictCache(gallery, JUDGE, query).verdict(1) for query in ("one", "two", "three")]
    assert kept == [None, VERDICT, VERDICT]


@pytest.mark.parametrize(
    "change",
    [
        "verdicts set z_true = 'high'",
        "verdicts set z_false = 9e999",
        "verdicts set z_true = x'00'",
        "groundings set boxes = 'garbage'",
        "groundings set boxes = x'5b5d'",
        "groundings set boxes = '[[1, 2, 1e999, 4]]'",
        "groundings set answer = x'00'",
        "groundings set answer = hex(zeroblob(100000))",
        "groundings set readable = 'yes'",
    ],
)
def test_garbage_in_an_answer_is_damage(gallery: GalleryFile, change: str) -> None:
    cache = VerdictCache(gallery, JUDGE, "a dog")
    cache.remember(1, VERDICT)
    cache.remember_grounding(1, GROUNDING)
    gallery.connection.execute(f"update {change}")
    with pytest.raises(GalleryDamaged, match="photo 1: "):
        cache.verdict(1), cache.grounding(1)


def test_boxes_are_clipped_to_the_photo(gallery: GalleryFile) -> None:
    cache = VerdictCache(gallery, JUDGE, "a dog")
    cache.remember_grounding(1, GROUNDING)
    gallery.connection.execute("update groundings set boxes = '[[-5, 2, 1e9, 1e9]]'")
    grounding, record = cache.grounding(1), gallery.photo(1).record
    assert grounding is not None
    assert grounding.boxes == (Box(0, 2, record.width, record.height),)
