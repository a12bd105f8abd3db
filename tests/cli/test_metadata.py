"""The real process: ratings, keywords, places and raw pairs, from files to filters and listings."""

import json
import os
import shutil
from pathlib import Path

import apsw
import pytest

from tests.photos.dng import dng
from tests.photos.packets import bag, described
from tests.support.pictures import scene
from tests.support.process import Indexed, matir, records

POSITION = 'exif:GPSLatitude="45,26.2N" exif:GPSLongitude="12,20.1E"'


def with_more(gallery: Path, place: Path) -> Path:
    """Copy a gallery into `place`, and add photos: rated, in Venice; unrated; and one with a raw file."""
    path = Path(shutil.copy(gallery, place / "gallery.db"))
    folder = place / "more"
    folder.mkdir()
    keywords = bag("dc:subject", "holiday", "\u202eevil")
    scene("red", size=(96, 128)).save(
        folder / "venice.jpg", xmp=described(f'xmp:Rating="4" {POSITION}', keywords)
    )
    scene("green", size=(128, 96)).save(folder / "plain.png")
    pair = scene("blue", size=(128, 96))
    pair.save(folder / "pair.jpg")
    (folder / "pair.dng").write_bytes(dng(pair))
    (folder / "pair.xmp").write_bytes(described('xmp:Rating="2"', bag("lr:hierarchicalSubject", "A|B|C")))
    done = matir("add", folder, "--db", path)
    assert done.returncode == 0, done.stderr
    assert b"matir: 3 added, 1 recognised, 0 unchanged, 0 skipped\n" in done.stderr
    return path


@pytest.fixture(scope="module")
def made(indexed: Indexed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery `with_more`; neither it nor its photos are changed."""
    return with_more(indexed.gallery, tmp_path_factory.mktemp("metadata"))


@pytest.fixture
def db(made: Path, tmp_path: Path) -> Path:
    """A copy of the gallery `with_more`."""
    return Path(shutil.copy(made, tmp_path / "gallery.db"))


def found(db: Path, *words: object) -> list[str]:
    """The names that a search finds, in order."""
    done = matir("find", "a red ball", "--no-rerank", "-n", 50, "--paths", "--db", db, *words)
    assert done.returncode in (0, 1), done.stderr
    return [Path(os.fsdecode(line)).name for line in done.stdout.splitlines()]


def test_filters_by_metadata_and_what_they_say(db: Path) -> None:
    assert found(db, "--near", "45.437,12.335", "--within", "1km") == ["venice.jpg"]
    assert found(db, "--has-gps") == ["venice.jpg"]
    assert found(db, "--orientation", "portrait", "--rating", "3+") == ["venice.jpg"]
    assert found(db, "--rating", "1-5", "--sort", "path") == ["pair.jpg", "venice.jpg"]
    assert found(db, "--keyword", "b") == ["pair.jpg"]
    assert "plain.png" in found(db, "--no-keyword", "b", "--no-gps", "--rating", "0")
    none = matir("find", "a ball", "--no-rerank", "--keyword", "nowhere", "--db", db)
    assert (none.returncode, none.stdout) == (1, b"")
    assert b"nothing found: no photo has the keyword nowhere (see: matir ls --long" in none.stderr
    for words in (["--within", "5km"], ["--near", "95,0"], ["--rating", "9"], ["--keyword", ""]):
        wrong = matir("find", "a ball", "--db", db, *words)
        assert (wrong.returncode, wrong.stdout) == (2, b"")


def test_a_raw_pair_is_one_result_with_both_paths(db: Path) -> None:
    done = matir("find", "a ball", "--no-rerank", "--keyword", "A|B|C", "--jsonl", "--db", db)
    (only,) = records(done)
    assert Path(only["path"]).name == "pair.jpg"
    assert [Path(path).name for path in only["other_paths"]] == ["pair.dng"]
    assert (only["rating"], only["keywords"]) == (2, ["A|B|C"])
    shown = json.loads(matir("show", only["path"], "--json", "--db", db).stdout)
    assert [Path(file["path"]).name for file in shown["files"]] == ["pair.jpg", "pair.dng"]
    assert matir("rm", only["path"], "--db", db).returncode == 0
    assert b"/pair." not in matir("ls", "--db", db).stdout


def test_listings_show_metadata_and_no_control_characters(db: Path, made: Path) -> None:
    photo = made.parent / "more" / "venice.jpg"
    listed = json.loads(matir("ls", "--json", "--in", photo, "--db", db).stdout)[0]
    assert (listed["rating"], listed["keywords"]) == (4, ["holiday", "\u202eevil"])
    assert listed["latitude"] == pytest.approx(45.43667, abs=1e-4)
    table = matir("ls", "--long", "--in", photo, "--db", db).stdout.decode()
    assert "45.43667,12.33500" in table
    assert "holiday" in table
    shown = matir("show", photo, "--db", db).stdout.decode()
    assert "  rating       4\n" in shown
    assert "  keywords     holiday, \\u202eevil\n" in shown
    assert "\u202e" not in table + shown


def test_tags_are_keywords_after_the_next_sync(indexed: Indexed, tmp_path: Path) -> None:
    db, folder = with_more(indexed.gallery, tmp_path), tmp_path / "more"
    words = ("--no-rerank", "-n", 1, "--in", folder / "plain.png", "--db", db)
    assert matir("tag", "a green ball", "--label", "seen", *words).returncode == 0
    assert found(db, "--keyword", "seen") == []
    dry = matir("sync", folder, "--dry-run", "--db", db)
    assert dry.stdout == b"* " + os.fsencode(folder / "plain.png") + b"\n"
    assert b"matir: 0 new, 0 changed, 0 missing, 1 with other metadata; nothing was done\n" in dry.stderr
    synced = matir("sync", folder, "--db", db)
    assert b"0 dropped, 1 with new metadata, 3 unchanged, 0 skipped" in synced.stderr
    assert found(db, "--keyword", "seen") == ["plain.png"]


def test_an_older_gallery_says_what_it_lacks_and_is_filled_in(db: Path, made: Path) -> None:
    connection = apsw.Connection(str(db))
    connection.pragma("foreign_keys", True)
    connection.execute("delete from file_metadata where path like '%/more/%'")
    connection.close()
    asked = matir("find", "a ball", "--no-rerank", "--rating", "1+", "--db", db)
    said = b"ratings and keywords of 4 files are not known yet: matir sync --metadata FOLDER reads them\n"
    assert asked.stderr.count(said) == 1
    assert said not in matir("find", "a ball", "--no-rerank", "--has-gps", "--db", db).stderr
    filled = matir("sync", "--metadata", made.parent / "more", "--db", db)
    assert b"4 with new metadata, 0 unchanged" in filled.stderr
    assert found(db, "--rating", "1+", "--sort", "path") == ["pair.jpg", "venice.jpg"]
    assert said not in matir("find", "a ball", "--no-rerank", "--rating", "1+", "--db", db).stderr


def test_metadata_goes_with_a_merge(db: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged.db"
    assert matir("merge", db, "--db", merged).returncode == 0
    assert found(merged, "--rating", "4") == ["venice.jpg"]
    assert found(merged, "--keyword", "C") == ["pair.jpg"]
    assert matir("doctor", "--db", merged).returncode == 0
