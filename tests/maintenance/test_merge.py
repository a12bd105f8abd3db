"""Merging galleries: nothing lost, nothing doubled, nothing trusted."""

import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import apsw
import numpy as np
import pytest

from matir_cli import errors, masks
from matir_cli.gallery import schema
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import StoredMetadata, store_metadata, stored_metadata
from matir_cli.gallery.read_only import open_read_only
from matir_cli.gallery.region_rows import store_origin
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.maintenance.doctor.findings import FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.maintenance.merge import (
    PHOTOS_AT_ONCE,
    Combined,
    Joined,
    LeftOut,
    Outcome,
    TakenOver,
    merge_gallery,
)
from matir_cli.maintenance.merge_source import check_mergeable
from matir_cli.photos.discover import stat_file
from matir_cli.records import (
    Box,
    FileMetadata,
    FileRecord,
    Grounding,
    ModelIdentity,
    OriginKind,
    Region,
    RegionOrigin,
    Verdict,
)
from matir_cli.search.region_update import replace_regions
from matir_cli.search.vectors import region_vector
from tests.support.crafted_gallery import HEIGHT, REGIONS, WIDTH, craft, digest, place, put, ranking, vectors
from tests.support.process import Indexed, matir

JUDGE = "a" * 64
NAMES = [f"{number}.jpg" for number in range(40)]


def merged(into: Path, other: Path, *, dry_run: bool = False) -> list[Outcome]:
    with open_read_only(other) as theirs:
        check_mergeable(into, theirs)
        with GalleryFile.open(into, create=True) as gallery:
            return list(merge_gallery(gallery, theirs, dry_run=dry_run))


def kinds(outcomes: list[Outcome]) -> Counter[type[Outcome]]:
    return Counter(type(outcome) for outcome in outcomes)


@pytest.fixture(scope="module")
def crafted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two galleries that have five photos in common."""
    folder = tmp_path_factory.mktemp("crafted")
    craft(folder / "ours.db", NAMES[:25]).connection.close()
    craft(folder / "theirs.db", NAMES[20:]).connection.close()
    return folder


@pytest.fixture
def ours(crafted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(crafted / "ours.db", tmp_path))


@pytest.fixture
def theirs(crafted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(crafted / "theirs.db", tmp_path))


def test_a_merged_gallery_gives_the_results_of_one_with_all_photos(
    ours: Path, theirs: Path, tmp_path: Path
) -> None:
    before = theirs.read_bytes()
    assert kinds(merged(ours, theirs, dry_run=True)) == {TakenOver: 15, Combined: 5}
    with GalleryFile.open(ours) as gallery:
        assert gallery.count_photos() == 25
    assert kinds(merged(ours, theirs)) == {TakenOver: 15, Combined: 5}
    assert kinds(merged(ours, theirs)) == {Combined: 20}
    assert theirs.read_bytes() == before
    with craft(tmp_path / "all.db", NAMES) as whole, GalleryFile.open(ours) as gallery:
        assert ranking(gallery) == ranking(whole)
        for name in NAMES:
            found, expected = gallery.photo_with(digest(name)), whole.photo_with(digest(name))
            assert found is not None
            assert expected is not None
            assert gallery.photo(found).record == whole.photo(expected).record
            assert gallery.paths(found) == (place(name),)
            assert gallery.preview(found) == whole.preview(expected)
            assert gallery.preview(found) is not None
            assert [(r.box, r.region) for r in gallery.regions(found)] == [
                (r.box, r.region) for r in whole.regions(expected)
            ]
        assert list(gallery.connection.execute("pragma foreign_key_check")) == []


def test_a_missing_gallery_becomes_a_copy_of_the_source(theirs: Path, tmp_path: Path) -> None:
    assert kinds(merged(tmp_path / "new" / "gallery.db", theirs)) == {TakenOver: 20}
    with GalleryFile.open(tmp_path / "new" / "gallery.db") as gallery, GalleryFile.open(theirs) as other:
        assert ranking(gallery) == ranking(other)
        assert gallery.model_set() == "crafted"


def test_files_verdicts_and_previews_of_one_photo_are_combined(tmp_path: Path) -> None:
    here, there = tmp_path / "here.db", tmp_path / "there.db"
    grounding = Grounding((Box(1, 2, 3, 4),), "[1, 2, 3, 4]", readable=True)
    with craft(here, ["a"], previews=False) as gallery:
        VerdictCache(gallery, JUDGE, "a dog").remember(1, Verdict(3.0, 1.0))
    with craft(there, ["b", "a"]) as gallery:
        gallery.link_file(FileRecord(place("copy"), 10, 20), gallery.photo(2).record.sha256)
        for number, query in enumerate(["a cat", "a dog"]):
            VerdictCache(gallery, JUDGE, query).remember(2, Verdict(float(number), 5.0))
        VerdictCache(gallery, JUDGE, "a cat").remember_grounding(2, grounding)
    assert kinds(merged(here, there)) == {TakenOver: 1, Combined: 1}
    with GalleryFile.open(here) as gallery:
        assert gallery.paths(1) == (place("a"), place("copy"))
        assert gallery.preview(1) is not None
        # The verdict that the gallery had before is kept.
        assert VerdictCache(gallery, JUDGE, "a dog").verdict(1) == Verdict(3.0, 1.0)
        assert VerdictCache(gallery, JUDGE, "a cat").verdict(1) == Verdict(0.0, 5.0)
        assert VerdictCache(gallery, JUDGE, "a cat").grounding(1) == grounding
        assert VerdictCache(gallery, JUDGE, "a cat").verdict(2) is None


def test_a_raw_file_joins_its_picture(tmp_path: Path) -> None:
    here, there = tmp_path / "here.db", tmp_path / "there.db"
    craft(here, ["foo.JPG"]).connection.close()
    with craft(there, ["b", "foo.CR2"]) as gallery:
        VerdictCache(gallery, JUDGE, "a dog").remember(2, Verdict(3.0, 1.0))
        store_metadata(gallery.connection, place("foo.CR2"), FileMetadata(4), None)
    expected = [TakenOver(place("b")), Joined(place("foo.CR2"))]
    assert merged(here, there, dry_run=True) == expected
    assert merged(here, there) == expected
    assert kinds(merged(here, there)) == {Combined: 1, LeftOut: 1}
    with GalleryFile.open(here) as gallery:
        assert gallery.count_photos() == 2
        assert gallery.paths(1) == (place("foo.JPG"), place("foo.CR2"))
        stored = stored_metadata(gallery.connection, place("foo.CR2"))
        assert stored == StoredMetadata(FileMetadata(4), None)
        # The judge has seen the raw file's own pixels.
        assert VerdictCache(gallery, JUDGE, "a dog").verdict(1) is None


def test_a_file_with_two_contents_has_the_one_on_disk(tmp_path: Path) -> None:
    here, there, path = tmp_path / "here.db", tmp_path / "there.db", tmp_path / "photo.jpg"
    path.write_bytes(b"new")
    new, old = stat_file(path), FileRecord(path, 99, 1)
    for gallery_path, name, file in ((here, "before", old), (there, "after", new)):
        with craft(gallery_path, ["other"]) as gallery, gallery.atomic():
            put(gallery, name, file=file)
    backwards = Path(shutil.copy(there, tmp_path / "backwards.db"))
    assert kinds(merged(here, there)) == {TakenOver: 1, Combined: 1}
    assert kinds(merged(backwards, here)) == {Combined: 2}
    assert kinds(merged(tmp_path / "third.db", here)) == {TakenOver: 2}
    with craft(tmp_path / "stale.db", []) as gallery, gallery.atomic():
        put(gallery, "before", file=old)
    assert kinds(merged(here, tmp_path / "stale.db")) == {LeftOut: 1}
    with GalleryFile.open(here) as gallery:
        assert gallery.photo_with(digest("before")) is None
        assert gallery.is_unchanged(new)


def test_a_stopped_run_is_continued(ours: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    craft(other, [f"new {name}" for name in NAMES]).connection.close()
    with open_read_only(other) as theirs, GalleryFile.open(ours) as gallery:
        outcomes = merge_gallery(gallery, theirs, dry_run=False)
        next(outcomes)
        outcomes.close()
        assert gallery.count_photos() == 25 + PHOTOS_AT_ONCE
    assert kinds(merged(ours, other)) == {TakenOver: 40 - PHOTOS_AT_ONCE, Combined: PHOTOS_AT_ONCE}


def test_a_gallery_is_not_merged_into_itself(ours: Path, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(ours)
    os.link(ours, tmp_path / "hard.db")
    for name in ("ours.db", "link.db", "hard.db"):
        with pytest.raises(errors.MergeIntoItself):
            merged(ours, tmp_path / name)


def test_other_models_are_refused(ours: Path, tmp_path: Path) -> None:
    with GalleryFile.open(tmp_path / "others.db", create=True) as gallery:
        gallery.bind_model("encoder", ModelIdentity("another", "3" * 64), "set")
    with pytest.raises(errors.ModelMismatch) as caught:
        merged(ours, tmp_path / "others.db")
    assert (caught.value.role, caught.value.wanted) == ("encoder", "another")


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("pragma application_id = 1", errors.NotAGallery),
        (f"pragma user_version = {schema.VERSION + 1}", errors.GalleryTooNew),
        ("pragma user_version = -1", errors.GalleryDamaged),
        ("pragma user_version = 0", errors.GalleryDamaged),
        ("create view more as select * from photos", errors.GalleryDamaged),
        ("drop table verdicts", errors.GalleryDamaged),
        ("alter table photos add column more text", errors.GalleryDamaged),
        ("delete from models", errors.GalleryDamaged),
        ("update models set weight_hash = 'x'", (errors.GalleryDamaged, errors.ModelMismatch)),
    ],
)
def test_only_a_gallery_of_this_schema_is_read(
    ours: Path, theirs: Path, statement: str, error: type[errors.GalleryError]
) -> None:
    tamper(theirs, statement)
    with pytest.raises(error):
        merged(ours, theirs)


def tamper(path: Path, statement: str) -> None:
    plain = apsw.Connection(os.fspath(path))
    plain.execute(statement)
    plain.close()


@pytest.mark.parametrize(
    "statement",
    [
        "update regions set rle = x'ff' where id = 50",
        "update regions set rle = 'text' where id = 50",
        "update regions set stability = 'x' where id = 50",
        "update regions set predicted_iou = 9e999 where id = 50",
        "update regions set x1 = 'wide' where id = 50",
        "update photos set mask_width = 100000, width = 100000 where id = 15",
        "update photos set width = 0 where id = 15",
        "update photos set width = 400000, height = 400000 where id = 15",
        "update photos set sha256 = x'00' where id = 15",
        "update photos set camera = cast(x'ff' as text) where id = 15",
        "update photos set taken_at = 'yesterday' where id = 15",
        "update photos set latitude = 9e999 where id = 15",
        "update photos set orientation = 9 where id = 15",
        "update vectors set vector = x'01' where region_id = 50",
        "update vectors set vector = zeroblob(64) where region_id = 50",
        "update vectors set vector = 'text' where region_id = 50",
        "delete from vectors where region_id = 50",
        "update previews set jpeg = 'text' where photo_id = 15",
        "update previews set jpeg = zeroblob(100000000) where photo_id = 15",
        "update files set path = 'relative.jpg' where photo_id = 15",
        "update files set path = 7 where photo_id = 15",
        "update files set bytes = 'x' where photo_id = 15",
        "update verdicts set z_true = 'x'",
        "update verdicts set z_true = -9e999",
        "update questions set judge = 'me'",
        "update questions set query = x'00'",
        "update groundings set boxes = '[[1, 2]]'",
        "update groundings set boxes = 'x'",
        "update groundings set answer = x'04'",
        "update groundings set readable = 7",
        "insert into region_origins values (50, 'elsewhere', null)",
        "insert into region_origins values (50, 'human', x'00')",
        "insert into notes values (15, 'mood', 'cut')",
        "insert into notes values (15, 'picture', x'00')",
        "insert into notes select 15, 'picture', a.id || '.' || b.id from regions a, regions b limit 101",
    ],
)
def test_impossible_values_in_the_source_are_refused(ours: Path, theirs: Path, statement: str) -> None:
    with GalleryFile.open(theirs) as gallery:
        VerdictCache(gallery, JUDGE, "a dog").remember(15, Verdict(1.0, 2.0))
        VerdictCache(gallery, JUDGE, "a dog").remember_grounding(15, Grounding((), "[]", readable=True))
    assert kinds(merged(ours, theirs, dry_run=True)) == {TakenOver: 15, Combined: 5}
    tamper(theirs, statement)
    with pytest.raises(errors.GalleryDamaged) as caught:
        merged(ours, theirs)
    assert caught.value.path == theirs
    with GalleryFile.open(ours) as gallery:
        assert gallery.count_photos() == 25
        assert gallery.connection.execute("pragma integrity_check").get == "ok"


def test_the_command_merges_two_halves(indexed: Indexed, tmp_path: Path) -> None:
    here, there = (Path(shutil.copy(indexed.gallery, tmp_path / name)) for name in ("here.db", "there.db"))
    for path, rest in ((here, 0), (there, 1)):
        with GalleryFile.open(path) as gallery:
            gallery.connection.execute("delete from photos where id % 3 > 0 and id % 2 = ?", (rest,))
    listed = matir("merge", there, "--db", here, "--dry-run", "-0")
    assert listed.returncode == 0, listed.stderr
    done = matir("merge", there, "--db", here)
    assert done.returncode == 0, done.stderr
    assert b"4 copied, 4 already present" in done.stderr
    assert done.stdout == b""
    assert len(listed.stdout.split(b"\0")) == 4 + 1
    queries = ("red house", "tree")
    for query in queries:
        answers = [
            matir("find", "--no-rerank", "-n", 20, "--jsonl", "--rle", query, "--db", path).stdout
            for path in (indexed.gallery, here)
        ]
        found = [[json.loads(line) for line in answer.splitlines()] for answer in answers]
        assert found[0] == found[1]
        assert len(found[0]) == 12
    into_itself = matir("merge", here, "--db", here)
    assert into_itself.returncode == 2
    assert b"cannot be merged into itself" in into_itself.stderr
    assert b"Traceback" not in into_itself.stderr


def test_given_regions_are_copied_and_combined(tmp_path: Path) -> None:
    human, other = RegionOrigin(OriginKind.HUMAN, "a dog"), RegionOrigin(OriginKind.DATA_SET, None)
    craft(tmp_path / "a.db", ["1.jpg", "2.jpg"]).connection.close()
    with craft(tmp_path / "b.db", ["2.jpg", "3.jpg"]) as theirs:
        for photo_id in (1, 2):
            stored = theirs.regions(photo_id)
            store_origin(theirs.connection, stored[1].id, human)  # confirmed
            mask = np.zeros((HEIGHT, WIDTH), np.bool_)
            mask[3:9, 4:20] = True
            rle = masks.encode(mask)
            given = Region(rle, masks.box(rle), masks.area(rle), 1.0, 1.0, other)
            with theirs.atomic():
                replace_regions(theirs, photo_id, stored, stored, [given], vectors("given")[:1])
        wanted = [[each.region for each in theirs.regions(photo_id)] for photo_id in (1, 2)]
    for _ in range(2):  # the second time, nothing is doubled
        merged(tmp_path / "a.db", tmp_path / "b.db")
        with GalleryFile.open(tmp_path / "a.db") as ours:
            assert [[each.region for each in ours.regions(photo_id)] for photo_id in (2, 3)] == wanted
            given_vectors = [
                region_vector(ours, ours.regions(photo_id)[-1].id).tolist() for photo_id in (2, 3)
            ]
            assert given_vectors[0] == given_vectors[1]
            assert [each.region.origin for each in ours.regions(1)] == [None] * REGIONS
    findings = list(examine_gallery(tmp_path / "a.db", deep=True))
    assert {each.name for each in findings if each.state is FindingState.PROBLEM} == set()


def test_a_persons_mask_of_the_whole_picture_is_an_object_beside_the_whole_photo(tmp_path: Path) -> None:
    craft(tmp_path / "a.db", ["1.jpg"]).connection.close()
    with craft(tmp_path / "b.db", ["1.jpg"]) as theirs:
        stored = theirs.regions(1)
        given = replace(stored[0].region, origin=RegionOrigin(OriginKind.HUMAN, "a wall"))
        with theirs.atomic():
            replace_regions(theirs, 1, stored, stored, [given], vectors("given")[:1])
    merged(tmp_path / "a.db", tmp_path / "b.db")
    with GalleryFile.open(tmp_path / "a.db") as ours:
        assert [each.region for each in ours.regions(1)] == [*(each.region for each in stored), given]
