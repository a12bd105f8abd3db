"""Notes on what could not be read of a photo's file: stored with the photo, shown, merged and checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from matir_cli.cli.group import matir
from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.notes import MOST_NOTES, stored_notes
from matir_cli.gallery.read_only import open_read_only
from matir_cli.gallery.rows import LONGEST_TEXT
from matir_cli.indexing.outcomes import Added
from matir_cli.indexing.pipeline import IndexingModels
from matir_cli.indexing.sync import sync_folders
from matir_cli.maintenance.doctor.findings import FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.maintenance.info import gallery_info
from matir_cli.maintenance.listing import list_photo_files
from matir_cli.maintenance.merge import merge_gallery
from matir_cli.maintenance.show import photo_details
from matir_cli.photos.image_file import CUT, LEFT_OUT
from matir_cli.records import Note, NoteKind
from tests.support.crafted_gallery import craft, place, put
from tests.support.fakes import ColourEncoder, ColourProposer
from tests.support.pictures import scene

MODELS = IndexingModels(ColourProposer, ColourEncoder)


def notes(gallery: GalleryFile, photo_id: int) -> tuple[Note, ...]:
    return stored_notes(gallery.connection, gallery.path, photo_id)


def run(*words: str) -> Result:
    return CliRunner().invoke(matir, words)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A gallery of four photos; the second is cut, and the third lacks metadata too."""
    path = tmp_path / "gallery.db"
    with craft(path, ["a"]) as gallery, gallery.atomic():
        put(gallery, "b", notes=(CUT,))
        put(gallery, "c", notes=(CUT, LEFT_OUT, CUT))
        put(gallery, "d")
    return path


def test_notes_are_kept_with_their_photo(path: Path) -> None:
    with GalleryFile.open(path) as gallery:
        assert [notes(gallery, number) for number in (1, 2, 3, 4)] == [(), (CUT,), (LEFT_OUT, CUT), ()]
        assert gallery_info(gallery).incomplete == 2
        assert photo_details(gallery, 3).notes == (LEFT_OUT, CUT)
        assert [file.path for file in list_photo_files(gallery, incomplete=True)] == [place("b"), place("c")]
        assert [file.notes for file in list_photo_files(gallery)] == [(), (CUT,), (LEFT_OUT, CUT), ()]
        with gallery.atomic():
            gallery.unlink(place("b"))
        assert notes(gallery, 2) == ()
        assert gallery_info(gallery).incomplete == 1


def test_notes_are_written_with_the_photo_or_not_at_all(path: Path) -> None:
    with GalleryFile.open(path) as gallery:
        with pytest.raises(KeyboardInterrupt), gallery.atomic():
            put(gallery, "e", notes=(CUT,))
            raise KeyboardInterrupt
        assert gallery_info(gallery).incomplete == 2


@pytest.mark.parametrize(
    "change",
    [
        "update notes set kind = 'mood'",
        "update notes set kind = x'00'",
        "update notes set kind = 5",
        "update notes set note = x'00'",
        "update notes set note = 5 || x'ff'",
        f"update notes set note = hex(zeroblob({LONGEST_TEXT})) where photo_id = 2",
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < "
        f"{MOST_NOTES}) insert into notes select 2, 'picture', i from n",
    ],
)
def test_impossible_notes_are_damage(path: Path, change: str) -> None:
    with GalleryFile.open(path) as gallery:
        gallery.connection.execute(change)
        for use in (
            lambda: notes(gallery, 2),
            lambda: photo_details(gallery, 2),
            lambda: [*list_photo_files(gallery)],
            lambda: [*list_photo_files(gallery, incomplete=True)],
        ):
            with pytest.raises((GalleryDamaged, UnicodeDecodeError)):
                use()
    found = {item.name: item.state for item in examine_gallery(path, deep=False)}
    assert found["gallery notes"] is FindingState.PROBLEM


def test_notes_are_merged(path: Path, tmp_path: Path) -> None:
    other = Note(NoteKind.METADATA, "said by another version")
    with craft(tmp_path / "ours.db", ["b"]) as gallery:
        with gallery.atomic():
            put(gallery, "c", notes=(other,))
        with open_read_only(path) as source:
            list(merge_gallery(gallery, source, dry_run=False))
        named = {file.path.name: file.notes for file in list_photo_files(gallery)}
    assert named == {"a": (), "b": (CUT,), "c": (other,), "d": ()}


def test_a_file_that_was_made_whole_has_no_note_any_more(tmp_path: Path) -> None:
    photo = tmp_path / "photos" / "cut.jpg"
    photo.parent.mkdir()
    scene("red").save(photo)
    whole = photo.read_bytes()
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        photo.write_bytes(whole[:-2])
        (cut,) = sync_folders(gallery, [photo.parent], MODELS, previews=False)
        assert isinstance(cut, Added)
        assert cut.notes == (CUT,)
        assert [file.notes for file in list_photo_files(gallery)] == [(CUT,)]
        photo.write_bytes(whole)
        (added,) = sync_folders(gallery, [photo.parent], MODELS, previews=False)
        assert isinstance(added, Added)
        assert added.notes == ()
        assert [file.notes for file in list_photo_files(gallery)] == [()]
        photo.write_bytes(whole[:-2])
        list(sync_folders(gallery, [photo.parent], MODELS, previews=False))
        assert gallery_info(gallery).incomplete == 1


def test_commands_show_notes(path: Path) -> None:
    db = ("--db", str(path))
    listed = run("ls", "--incomplete", *db)
    assert listed.stdout.splitlines() == [
        f"{place('b')}\t{CUT.text}",
        f"{place('c')}\t{LEFT_OUT.text}; {CUT.text}",
    ]
    assert run("ls", "--incomplete", "-0", *db).stdout == f"{place('b')}\0{place('c')}\0"
    records = json.loads(run("ls", "--incomplete", "--json", *db).stdout)
    assert [[note["kind"] for note in record["notes"]] for record in records] == [
        ["picture"],
        ["metadata", "picture"],
    ]
    assert len(run("ls", "--long", *db).stdout.splitlines()) == 5
    assert len(run("ls", "--long", "--incomplete", *db).stdout.splitlines()) == 3
    assert f"incomplete   {CUT.text}" in run("show", "2", *db).stdout
    assert "incomplete" not in run("show", "1", *db).stdout
    assert json.loads(run("show", "2", "--json", *db).stdout)["notes"] == [
        {"kind": "picture", "text": CUT.text}
    ]
    assert "4 of them with a preview, 2 incomplete" in run("info", *db).stdout
    assert json.loads(run("info", "--json", *db).stdout)["gallery"]["incomplete"] == 2
    refused = run("ls", "--incomplete", "--skipped", *db)
    assert refused.exit_code == 2
    assert "choose one" in refused.stderr


def test_doctor_names_the_list_of_incomplete_photos(path: Path) -> None:
    found = {item.name: item for item in examine_gallery(path, deep=False)}
    assert found["gallery notes"].state is FindingState.OK
    assert "2 photos" in found["gallery notes"].text
