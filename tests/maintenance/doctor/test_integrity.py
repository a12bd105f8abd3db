"""Integrity checks of galleries: sound, damaged in many ways, and other files."""

import os
import shutil
from pathlib import Path

import apsw
import numpy as np
import pytest

from matir_cli.errors import GalleryDamaged, GalleryUnrecovered
from matir_cli.gallery import schema
from matir_cli.gallery.database import GalleryFile
from matir_cli.maintenance.doctor.findings import Finding, FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.search.index import rebuild_index, seal_index
from tests.support.crafted_gallery import craft

NAMES = [f"{number}.jpg" for number in range(30)]


@pytest.fixture(scope="module")
def crafted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound gallery with blocks and loose photos, whose photo files are not on this machine."""
    made = tmp_path_factory.mktemp("crafted") / "gallery.db"
    with craft(made, NAMES[:20]) as gallery:
        seal_index(gallery, 32)
    craft(made, NAMES[20:]).connection.close()
    return made


@pytest.fixture
def path(crafted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(crafted, tmp_path))


def states(path: Path, *, deep: bool = False) -> dict[str, FindingState]:
    return {found.name: found.state for found in examine_gallery(path, deep=deep)}


def bad(path: Path, *, deep: bool = False) -> set[str]:
    return {name for name, state in states(path, deep=deep).items() if state is FindingState.PROBLEM}


def only(path: Path) -> Finding:
    (found,) = examine_gallery(path, deep=False)
    return found


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_gallery_has_no_problem(path: Path, deep: bool) -> None:
    before = path.read_bytes()
    found = states(path, deep=deep)
    assert len(found) == 15
    assert {name for name, state in found.items() if state is not FindingState.OK} == {"gallery files"}
    assert found["gallery files"] is FindingState.WARNING
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("update regions set photo_id = 999 where id = 3", "gallery references"),
        ("delete from photos where id = 5", "gallery references"),
        ("update photos set sha256 = x'00' where id = 5", "gallery photos"),
        ("update photos set mask_width = 'wide' where id = 5", "gallery photos"),
        ("delete from regions where photo_id = 5", "gallery photos"),
        ("delete from vectors where region_id = 5", "gallery vectors"),
        ("update vectors set vector = x'01' where region_id = 5", "gallery vectors"),
        ("update vectors set vector = zeroblob(64) where region_id = 5", "gallery vectors"),
        ("update vectors set photo_id = 7 where region_id = 5", "gallery vectors"),
        ("update residuals set residuals = x'01' where photo_id = 5", "gallery vectors"),
        ("update regions set rle = x'ff' where id = 5", "gallery masks"),
        ("update regions set rle = 7 where id = 5", "gallery masks"),
        ("update regions set area = area + 1 where id = 5", "gallery masks"),
        ("insert into region_origins values (5, 'elsewhere', null)", "gallery origins"),
        ("insert into region_origins values (5, 'human', x'00')", "gallery origins"),
        ("insert into region_origins values (5, 'human', hex(zeroblob(600)))", "gallery origins"),
        ("insert into region_origins values (5, 7, 'a dog')", "gallery masks"),
        ("delete from codes where id = 1", "gallery index"),
        ("delete from loose", "gallery index"),
        ("update codes set runs = x'01' where id = 1", "gallery index"),
        ("update codes set codes = x'01' where id = 1", "gallery index"),
        ("update codes set centre = x'01' where id = 1", "gallery index"),
        ("update previews set jpeg = x'ffd8' where photo_id = 5", "gallery previews"),
        ("update photos set camera = cast(x'ff' as text) where id = 5", "gallery previews"),
    ],
)
def test_each_fault_is_found_and_has_a_remedy(path: Path, statement: str, name: str) -> None:
    tamper(path, statement)
    found = {item.name: item for item in examine_gallery(path, deep=False)}
    assert found[name].state is FindingState.PROBLEM
    assert found[name].remedy or found[name].fault
    assert found["gallery space"].state is not FindingState.PROBLEM  # later checks were made too


@pytest.mark.parametrize(
    "statement",
    [
        "drop table verdicts",
        "drop index files_by_photo",
        "create view v as select * from photos",
        "create trigger t after insert on files begin delete from photos; end",
    ],
)
def test_nothing_is_read_from_another_schema(path: Path, statement: str) -> None:
    tamper(path, statement)
    found = only(path)
    assert (found.name, found.state) == ("gallery", FindingState.PROBLEM)
    assert isinstance(found.fault, GalleryDamaged)


def tamper(path: Path, statement: str) -> None:
    plain = apsw.Connection(os.fspath(path))
    plain.execute(statement)
    plain.close()


@pytest.mark.parametrize("end", [-100, 100])  # of the levels, and of the scales before them
def test_codes_that_do_not_match_their_vectors_are_found_by_deep_checks(path: Path, end: int) -> None:
    with GalleryFile.open(path) as gallery:
        (codes,) = gallery.connection.execute("select codes from codes where id = 1").fetchone() or (b"",)
        changed = bytearray(codes)
        for at in range(min(end, 0), max(end, 0)):
            changed[at] ^= 0x55
        gallery.connection.execute("update codes set codes = ? where id = 1", (bytes(changed),))
    assert bad(path) == set()
    assert bad(path, deep=True) == {"gallery index"}
    with GalleryFile.open(path) as gallery:
        rebuild_index(gallery, 32)
    assert bad(path, deep=True) == set()


def test_a_mostly_unused_file_is_worth_a_warning(path: Path) -> None:
    with GalleryFile.open(path) as gallery:
        gallery.connection.execute("insert into questions values (1, 'judge', hex(zeroblob(200000)))")
        gallery.connection.execute("delete from questions")
    found = states(path)
    assert found["gallery space"] is FindingState.WARNING
    assert FindingState.PROBLEM not in found.values()


def test_a_gallery_whose_photos_were_all_removed_has_no_problem(path: Path) -> None:
    with GalleryFile.open(path) as gallery:
        gallery.connection.execute("delete from photos")
        assert gallery.connection.execute("select count(*) from codes").get > 0
    assert bad(path, deep=True) == set()


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.3, 0.7, 0.999])
def test_a_truncated_file_gives_a_report(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))
    assert bad(path)


@pytest.mark.parametrize("seed", range(25))
def test_flipped_bytes_give_a_report(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = np.fromfile(path, np.uint8)
    at = rng.integers(0 if seed % 2 else 100, raw.size, 2000)  # with and without the header of the file
    raw[at] ^= rng.integers(1, 256, at.size).astype(np.uint8)
    raw.tofile(path)
    assert bad(path, deep=True)


def test_other_files_are_recognised(path: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no gallery, but longer than the header of one is\n" * 9)
    tamper(tmp_path / "other.db", "create table t (a)")
    for name in ("text", "other.db"):
        assert (only(tmp_path / name).state, only(tmp_path / name).name) == (FindingState.PROBLEM, "gallery")
    (tmp_path / "empty").touch()
    assert only(tmp_path / "empty").state is FindingState.OK
    assert only(tmp_path / "none").state is FindingState.OK
    tamper(path, f"pragma user_version = {schema.VERSION + 1}")
    assert only(path).state is FindingState.PROBLEM


def test_an_interrupted_write_is_not_damage(path: Path, tmp_path: Path) -> None:
    with GalleryFile.open(path) as gallery:
        gallery.connection.pragma("cache_size", 1)  # so that changed pages go to the file at once
        gallery.connection.execute("begin")
        gallery.connection.execute("update regions set area = area + 1")
        gallery.connection.execute("update vectors set vector = zeroblob(64)")
        for suffix in ("", "-journal"):
            shutil.copy(f"{path}{suffix}", tmp_path / f"copy.db{suffix}")
        gallery.connection.execute("rollback")
    found = only(tmp_path / "copy.db")
    assert found.state is FindingState.WARNING
    assert isinstance(found.fault, GalleryUnrecovered)
    with GalleryFile.open(tmp_path / "copy.db"):
        pass
    assert bad(tmp_path / "copy.db", deep=True) == set()
