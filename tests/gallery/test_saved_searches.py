"""Saved searches in the gallery, and what they have returned."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from matir_cli.errors import GalleryDamaged, SavedSearchExists, SavedSearchUnknown
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import open_read_only
from matir_cli.gallery.saved_searches import (
    check_name,
    find_saved_search,
    remember_results,
    remove_saved_searches,
    returned_photos,
    save_search,
    saved_searches,
)
from matir_cli.maintenance.doctor.findings import FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.maintenance.merge import merge_gallery
from matir_cli.maintenance.merge_saved import merge_saved_searches
from tests.support.crafted_gallery import craft

BALLS, CATS = '{"query": {"text": "a ball"}}', '{"query": {"text": "a cat"}}'


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    with craft(tmp_path / "gallery.db", ["a", "b", "c"]) as opened:
        yield opened


def test_a_search_is_saved_once_under_a_name(gallery: GalleryFile) -> None:
    save_search(gallery, "balls", BALLS)
    save_search(gallery, "art", CATS)
    assert [(each.name, each.search, each.run_at) for each in saved_searches(gallery)] == [
        ("art", CATS, None),
        ("balls", BALLS, None),
    ]
    with pytest.raises(SavedSearchExists, match="balls"):
        save_search(gallery, "balls", CATS)
    remember_results(gallery, find_saved_search(gallery, "balls"), [1])
    save_search(gallery, "balls", CATS, replace=True)
    found = find_saved_search(gallery, "balls")
    assert (found.search, found.returned, found.run_at) == (CATS, 0, None)


def test_what_was_returned_is_remembered_while_the_photo_is_there(gallery: GalleryFile) -> None:
    save_search(gallery, "balls", BALLS)
    found = find_saved_search(gallery, "balls")
    remember_results(gallery, found, [1, 3, 99])
    remember_results(gallery, found, [1, 2])
    assert returned_photos(gallery, found) == {1, 2, 3}
    assert find_saved_search(gallery, "balls").run_at is not None
    gallery.connection.execute("delete from photos where id = 2")
    assert returned_photos(gallery, found) == {1, 3}
    assert find_saved_search(gallery, "balls").returned == 2
    remove_saved_searches(gallery, ["balls"])
    assert gallery.connection.execute("select count(*) from saved_results").get == 0
    remember_results(gallery, found, [1])  # another process has removed the search
    assert gallery.connection.execute("select count(*) from saved_results").get == 0


def test_all_searches_named_are_removed_or_none(gallery: GalleryFile) -> None:
    save_search(gallery, "balls", BALLS)
    with pytest.raises(SavedSearchUnknown, match="cats"):
        remove_saved_searches(gallery, ["balls", "cats"])
    assert [each.name for each in saved_searches(gallery)] == ["balls"]


@pytest.mark.parametrize("name", ["", " a", "a\nb", "\x1b[31m", "a" * 101, "\udcff"])
def test_a_name_is_short_and_printable(name: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        check_name(name)


@pytest.mark.parametrize(
    "change",
    [
        "update saved_searches set name = x'00'",
        "update saved_searches set name = char(27)",
        "update saved_searches set search = x'7b7d'",
        "update saved_searches set saved_at = x'00'",
        "update saved_searches set run_at = 1",
        "update saved_searches set search = zeroblob(1000000)",
    ],
)
def test_impossible_values_are_refused(gallery: GalleryFile, change: str) -> None:
    save_search(gallery, "balls", BALLS)
    gallery.connection.execute(change)
    with pytest.raises(GalleryDamaged):
        saved_searches(gallery)
    (finding,) = [each for each in examine_gallery(gallery.path, deep=False) if "saved" in each.name]
    assert finding.state is FindingState.PROBLEM


def test_doctor_reads_each_search(gallery: GalleryFile) -> None:
    save_search(gallery, "balls", BALLS)
    (finding,) = [each for each in examine_gallery(gallery.path, deep=False) if "saved" in each.name]
    assert finding.state is FindingState.OK
    gallery.connection.execute("update saved_searches set search = '{}'")
    (finding,) = [each for each in examine_gallery(gallery.path, deep=False) if "saved" in each.name]
    assert finding.state is FindingState.PROBLEM
    assert "saved rm balls" in (finding.remedy or "")


def test_a_merge_carries_searches_and_names_clashes(gallery: GalleryFile, tmp_path: Path) -> None:
    with craft(tmp_path / "other.db", ["c", "d", "e"]) as other:
        save_search(other, "balls", BALLS)
        save_search(other, "pets", CATS)
        save_search(other, "new", CATS)
        for name, ids in (("balls", [1, 2]), ("pets", [3]), ("new", [1, 3])):
            remember_results(other, find_saved_search(other, name), ids)
    save_search(gallery, "balls", BALLS)
    remember_results(gallery, find_saved_search(gallery, "balls"), [1])
    save_search(gallery, "pets", BALLS)
    with open_read_only(tmp_path / "other.db") as source:
        assert merge_saved_searches(gallery, source, dry_run=True) == ["pets"]
        assert [each.name for each in saved_searches(gallery)] == ["balls", "pets"]
        list(merge_gallery(gallery, source, dry_run=False))
        assert merge_saved_searches(gallery, source, dry_run=False) == ["pets"]
        assert merge_saved_searches(gallery, source, dry_run=False) == ["pets"]

    def names(search: str) -> set[str]:
        ids = returned_photos(gallery, find_saved_search(gallery, search))
        return {gallery.paths(photo_id)[0].name for photo_id in ids}

    assert names("balls") == {"a", "c", "d"}
    assert names("new") == {"c", "e"}
    assert names("pets") == set()
    assert find_saved_search(gallery, "pets").search == BALLS


def test_a_damaged_search_of_the_source_is_not_copied(gallery: GalleryFile, tmp_path: Path) -> None:
    with craft(tmp_path / "other.db", ["c"]) as other:
        save_search(other, "a", BALLS)
        save_search(other, "b", '{"output": "/etc"}')
    with open_read_only(tmp_path / "other.db") as source, pytest.raises(GalleryDamaged, match="b: "):
        merge_saved_searches(gallery, source, dry_run=False)
    assert saved_searches(gallery) == []
