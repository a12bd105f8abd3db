"""The real process: sync, ls, show, rm and info."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import known_files
from matir_cli.gallery.working_image import load_working_image
from matir_cli.output import drawing
from matir_cli.records import FileRecord
from tests.photos.dng import dng
from tests.photos.heif import heic
from tests.photos.icc import DISPLAY_P3
from tests.support.pictures import scene
from tests.support.process import MATIR, PHOTOS, Indexed, matir, on_a_terminal

HOSTILE = [
    b"new\nline.png",
    b"\xff\xfe not utf-8.png",
    "\u202eשלום.png".encode(),
    b"'quote\" & <tag>.png",
    b"\x1b]0;title\x07.png",
    b"x" * 251 + b".png",
]


@pytest.fixture
def db(indexed: Indexed, tmp_path: Path) -> Path:
    """A copy of the gallery, so that it may be changed."""
    return Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))


@pytest.fixture
def copies(indexed: Indexed, db: Path, tmp_path: Path) -> list[Path]:
    """A folder of copies with hostile names, linked to the photos 1, 2, ... of the gallery."""
    folder = tmp_path / "copies"
    folder.mkdir()
    made = []
    for number, name in enumerate(HOSTILE):
        made.append(folder / os.fsdecode(name))
        shutil.copy(indexed.photos / f"000{number}.png", made[-1])
    done = matir("add", folder, "--db", db)
    assert f"{len(HOSTILE)} recognised" in done.stderr.decode()
    return sorted(made, key=os.fsencode)


def test_sync_adds_updates_recognises_and_drops(copies: list[Path], db: Path, indexed: Indexed) -> None:
    folder = copies[0].parent
    renamed, changed, gone = copies[0], copies[1], copies[2]
    here = folder / "moved\n.png"
    renamed.rename(here)
    shutil.copy(indexed.photos / "0009.png", changed)
    gone.unlink()
    before = db.read_bytes()
    dry = matir("sync", folder, "--db", db, "--dry-run", "-0")
    assert dry.returncode == 0, dry.stderr
    expected = [b"+ " + os.fsencode(here), b"~ " + os.fsencode(changed)]
    expected += [b"- " + os.fsencode(path) for path in (renamed, gone)]
    assert sorted(dry.stdout.split(b"\0")[:-1]) == sorted(expected)
    assert b"1 new, 1 changed, 2 missing; nothing was done" in dry.stderr
    assert db.read_bytes() == before
    new = folder / "new.png"
    with Image.open(indexed.photos / "0007.png") as picture:
        picture.rotate(180).save(new)
    done = matir("sync", folder, "--db", db)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b""
    assert b"1 added or updated, 2 recognised, 1 dropped, 3 unchanged, 0 skipped" in done.stderr
    listed = matir("ls", "--in", folder, "-0", "--db", db).stdout.split(b"\0")[:-1]
    assert sorted(listed) == sorted(os.fsencode(path) for path in [*copies[3:], here, changed, new])
    assert len(matir("ls", "--in", indexed.photos, "--db", db).stdout.splitlines()) == PHOTOS


def test_a_dry_run_tells_apart_what_cannot_be_read(indexed: Indexed) -> None:
    link = indexed.photos.with_name("broken") / "link.png"
    link.parent.mkdir()
    link.symlink_to("nowhere")
    for command in ("add", "sync"):
        dry = matir(command, indexed.photos, link.parent, "--dry-run", "--db", indexed.gallery)
        assert dry.returncode == 0
        assert f"would skip {link}: no such file or directory" in dry.stderr.decode()
        assert os.fsencode(link) not in dry.stdout
    assert dry.stdout == b""
    assert f"would try again {indexed.photos / 'zero.jpg'}: zero bytes" in dry.stderr.decode()
    assert b"0 new, 0 changed, 0 missing, 2 to try again; nothing was done" in dry.stderr


def test_raw_files_are_noted_and_no_reason_to_fail(copies: list[Path], db: Path) -> None:
    folder = copies[0].parent
    for name in ("a.CR2", "b.NEF", "c.cr2", "clip.mp4"):
        (folder / name).write_bytes(b"x")
    for words in (["add"], ["add", "--dry-run"], ["sync"], ["sync", "--dry-run"]):
        done = matir(*words, folder, "--no-raw", "--db", db)
        assert (done.returncode, done.stdout) == (0, b"")
        assert done.stderr.count(b"matir: 3 raw files passed over (--no-raw)\n") == 1
    (folder / "b.NEF").unlink()
    (folder / "c.cr2").unlink()
    one = matir("add", folder, "--no-raw", "--db", db)
    assert b"matir: 1 raw file passed over (--no-raw)\n" in one.stderr


def test_raw_files_formats_and_colours_of_cameras(copies: list[Path], db: Path) -> None:
    folder = copies[0].parent
    picture = scene("red", "blue", size=(128, 96))
    (folder / "alone.dng").write_bytes(dng(picture, preview=picture))
    (folder / "pair.dng").write_bytes(dng(picture))
    picture.save(folder / "pair.jpg")
    # Formats and colours that phones write are read by the process in the same way.
    (folder / "phone.heic").write_bytes(heic(scene("green", size=(128, 96))))
    Image.new("RGB", (64, 48), (234, 51, 35)).save(folder / "p3.avif", icc_profile=DISPLAY_P3, quality=100)
    Image.new("RGB", (64, 48), (255, 0, 0)).save(folder / "srgb.png")
    done = matir("add", folder, "--db", db)
    assert done.returncode == 0, done.stderr
    assert b"matir: 5 added, 1 recognised, 6 unchanged, 0 skipped\n" in done.stderr
    listed = [json.loads(line) for line in matir("ls", "--jsonl", "--db", db).stdout.splitlines()]
    ids = {Path(row["path"]).name: row["id"] for row in listed}
    assert ids["pair.dng"] == ids["pair.jpg"] != ids["alone.dng"]
    with GalleryFile.open(db) as gallery:
        names = ("p3.avif", "srgb.png", "phone.heic")
        red, same, phone = (load_working_image(gallery, ids[name], prefer_file=True) for name in names)
    assert red is not None
    assert same is not None
    assert np.abs(red.astype(int) - same).max() <= 2
    assert phone is not None
    assert phone.shape == (96, 128, 3)


def test_what_is_left_out_is_counted_and_not_read(copies: list[Path], db: Path) -> None:
    folder = copies[0].parent
    (folder / "drafts").mkdir()
    for name in ("drafts/x.png", "y.png", "z.png"):
        (folder / name).write_bytes(b"x")
    (folder / ".matirignore").write_text("drafts/\n")
    (folder / "empty").mkdir()
    (folder / "empty" / ".matirignore").write_bytes(b"\xff\xfe")
    for words in (["add", "--dry-run"], ["sync", "--dry-run"], ["add"], ["sync"]):
        done = matir(*words, folder, "--exclude", "/[yz].png", "--db", db)
        assert (done.returncode, done.stdout) == (0, b""), done.stderr
        assert b"matir: 2 files and 1 folder left out by --exclude or .matirignore\n" in done.stderr
        assert b"matir: 1 file .matirignore not used: unreadable, not UTF-8, or more than 64" in done.stderr
    wrong = matir("add", folder, "--exclude", "!", "--db", db)
    assert wrong.returncode == 2
    assert b"is no pattern: write one as in .gitignore." in wrong.stderr


def test_two_forms_of_a_list_contradict_each_other() -> None:
    done = matir("ls", "--long", "--json")
    assert done.returncode == 2
    assert b"--long and --json are two forms of output: use only one of them." in done.stderr


def test_sync_refuses_a_folder_that_is_away(copies: list[Path], db: Path, tmp_path: Path) -> None:
    folder = copies[0].parent
    folder.rename(tmp_path / "away")
    for words in (["--dry-run"], []):
        done = matir("sync", folder, "--db", db, *words)
        assert (done.returncode, done.stdout) == (2, b"")
        assert f"none of the {len(HOSTILE)} files that the gallery knows in {folder}" in done.stderr.decode()
        assert b"--drop-all" in done.stderr
    done = matir("sync", folder, "--drop-all", "--db", db)
    assert done.returncode == 0, done.stderr
    assert f"{len(HOSTILE)} dropped" in done.stderr.decode()
    nowhere = tmp_path / "no.db"
    done = matir("sync", tmp_path / "typo", "--db", nowhere)
    assert done.returncode == 2
    assert b"typo does not exist." in done.stderr
    assert not nowhere.exists()
    dry = matir("sync", tmp_path / "away", "--dry-run", "-0", "--db", nowhere)
    assert dry.stdout.count(b"\0+ ") == len(HOSTILE) - 1
    assert not nowhere.exists()


def test_an_inner_folder_that_is_away_is_named_and_kept(copies: list[Path], db: Path, tmp_path: Path) -> None:
    volume = copies[0].parent / "volume"
    volume.mkdir()
    inner = [copy.rename(volume / f"{number}.png") for number, copy in enumerate(copies[:3])]
    assert matir("sync", copies[0].parent, "--db", db).returncode == 0
    volume.rename(tmp_path / "away")
    copies[3].unlink()
    said = f"{volume}: none of the 3 files that the gallery knows there exists"
    dry = matir("sync", copies[0].parent, "--dry-run", "-0", "--db", db)
    assert (dry.returncode, dry.stdout) == (0, b"- " + os.fsencode(copies[3]) + b"\0")
    assert f"would keep {said}\n" in dry.stderr.decode()
    assert b"1 folder would be kept: mount the volume, or use --drop-all" in dry.stderr
    listed = matir("ls", "--missing", "-0", "--db", db)
    assert (listed.returncode, listed.stdout) == (0, os.fsencode(copies[3]) + b"\0")
    assert f"left out {said}; mount its volume, or list them with --absent\n" in listed.stderr.decode()
    every = matir("ls", "--missing", "--absent", "-0", "--db", db)
    assert (every.stdout.count(b"\0"), every.stderr) == (4, b"")
    checked = matir("doctor", "--db", db).stdout.decode()
    assert f"4 of {PHOTOS + len(HOSTILE)} do not exist, among them those in {volume} -> Mount its" in checked
    done = matir("sync", copies[0].parent, "--db", db)
    assert done.returncode == 3
    assert f"kept {said}\n" in done.stderr.decode()
    assert b"1 dropped, 2 unchanged, 0 skipped" in done.stderr
    kept = matir("rm", "--missing", "--db", db)
    assert kept.returncode == 3
    assert f"kept {said}; mount its volume, or use --drop-all\n" in kept.stderr.decode()
    gone = matir("rm", "--missing", "--in", volume, "--drop-all", "--dry-run", "-0", "--db", db)
    assert gone.stdout.split(b"\0")[:-1] == sorted(os.fsencode(path) for path in inner)
    done = matir("rm", "--missing", "--drop-all", "--db", db)
    assert (done.returncode, b"3 files and 0 photos forgotten" in done.stderr) == (0, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rm", "7", "--missing"], b"--missing chooses the files itself"),
        (["rm", "7", "--drop-all"], b"--drop-all goes with --missing."),
        (["ls", "--absent"], b"--absent goes with --missing."),
    ],
)
def test_options_about_missing_files_that_do_not_go_together(words: list[str], said: bytes) -> None:
    done = matir(*words)
    assert (done.returncode, said in done.stderr) == (2, True)


def test_ls_prints_paths_as_they_are_and_json_brings_them_back(copies: list[Path], db: Path) -> None:
    folder = copies[0].parent
    names = sorted(os.fsencode(path) for path in copies)
    by_null = matir("ls", "--in", folder, "-0", "--db", db).stdout
    assert sorted(by_null.split(b"\0")[:-1]) == names
    assert matir("ls", "--in", folder, "--db", db).stdout == by_null.replace(b"\0", b"\n")
    lines = matir("ls", "--in", folder, "--jsonl", "--db", db).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    assert sorted(os.fsencode(record["path"]) for record in records) == names
    assert json.loads(matir("ls", "--in", folder, "--json", "--db", db).stdout) == records
    assert json.loads(matir("ls", "--in", "/nowhere", "--json", "--db", db).stdout) == []
    with GalleryFile.open(db) as gallery:
        for record in records:
            found = gallery.photo(record["id"]).record
            assert (record["width"], record["height"]) == (found.width, found.height)
            assert record["regions"] == len(gallery.regions(record["id"])) - 1
    table = matir("ls", "--in", folder, "--long", "--db", db).stdout.decode().splitlines()
    heads = ["id", "size", "regions", "taken", "camera", "position", "rating", "keywords", "path"]
    assert table[0].split() == heads
    assert len(table) == len(HOSTILE) + 1
    assert all(line.isprintable() for line in table)


def test_ls_is_harmless_on_a_terminal(copies: list[Path], db: Path) -> None:
    said = on_a_terminal("ls", "--in", copies[0].parent, "--db", db)
    assert len(said.splitlines()) == len(HOSTILE)
    assert b"\x1b" not in said
    assert "\u202e" not in said.decode()


def test_ls_missing_and_skipped_feed_rm(copies: list[Path], db: Path, indexed: Indexed) -> None:
    assert matir("ls", "--missing", "--db", db).stdout == b""
    for path in copies[:2]:
        path.unlink()
    missing = matir("ls", "--missing", "-0", "--db", db).stdout
    assert sorted(missing.split(b"\0")[:-1]) == sorted(os.fsencode(path) for path in copies[:2])
    done = matir("rm", "-", "--db", db, given=missing)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"2 files and 0 photos forgotten" in done.stderr
    assert matir("ls", "--missing", "--db", db).stdout == b""
    junk = os.fsencode(indexed.photos / "a\x1b[31mred\nname.jpg")
    skipped = matir("ls", "--skipped", "--db", db).stdout
    assert (
        skipped == junk + b"\tnot an image\n" + os.fsencode(indexed.photos / "zero.jpg") + b"\tzero bytes\n"
    )
    done = matir("rm", junk, "--db", db)
    assert b"1 file and 0 photos forgotten" in done.stderr
    (record,) = json.loads(matir("ls", "--skipped", "--json", "--db", db).stdout)
    assert (record["path"], record["reason"]) == (str(indexed.photos / "zero.jpg"), "zero bytes")
    assert matir("ls", "--skipped", "--long", "--db", db).returncode == 2


def test_rm_forgets_files_photos_and_folders_but_touches_none(
    copies: list[Path], db: Path, indexed: Indexed
) -> None:
    first = indexed.photos / "0000.png"
    with GalleryFile.open(db) as gallery:
        twin = next(path for path in gallery.paths(1) if path != first)
    assert b"1 file and 0 photos forgotten" in matir("rm", first, "--db", db).stderr
    dry = matir("rm", "1", indexed.photos / "0003.png", "--all-copies", "--dry-run", "-0", "--db", db)
    assert len(dry.stdout.split(b"\0")) == 4  # the twin; 0003 and its copy
    assert os.fsencode(twin) in dry.stdout
    done = matir("rm", "1", indexed.photos / "0003.png", "--all-copies", "--db", db)
    assert b"3 files and 2 photos forgotten" in done.stderr
    again = matir("rm", "1", "/no/such\n.jpg", "--db", db)
    assert again.returncode == 1
    assert b"holds no photo 1.\n" in again.stderr
    assert b"holds no photo /no/such\\n.jpg.\n" in again.stderr
    partly = matir("rm", "2", "/nowhere", "--db", db)
    assert (partly.returncode, b"2 files and 1 photo f" in partly.stderr) == (3, True)
    below = matir("rm", "--in", indexed.photos, "--db", db)
    assert below.returncode == 0, below.stderr
    left = matir("ls", "-0", "--db", db).stdout.split(b"\0")[:-1]
    assert left
    assert {Path(os.fsdecode(name)).parent for name in left} == {copies[0].parent}
    assert matir("ls", "--skipped", "--db", db).stdout == b""
    found = matir("find", "dog", "--no-rerank", "-n", PHOTOS, "-0", "--db", db)
    assert sorted(found.stdout.split(b"\0")[:-1]) == sorted(left)
    assert all(path.exists() for path in [*copies, first])
    assert matir("rm", "--db", db).returncode == 2


def test_show_says_what_is_stored(indexed: Indexed, copies: list[Path], db: Path) -> None:
    first = indexed.photos / "0000.png"
    record = json.loads(matir("show", first, "--json", "--db", db).stdout)
    assert record == json.loads(matir("show", "1", "--json", "--db", db).stdout)
    assert record["id"] == 1
    assert record["model_set"] == "tiny"
    assert [file["state"] for file in record["files"]] == ["here", "here"]
    with GalleryFile.open(db) as gallery:
        stored = gallery.regions(1)
        assert [os.fsencode(file["path"]) for file in record["files"]] == [*map(bytes, gallery.paths(1))]
    with Image.open(first) as picture:
        assert record["regions"][0]["box"] == [0, 0, *picture.size]
    assert len(record["regions"]) == len(stored)
    for shown, region in zip(record["regions"], stored, strict=True):
        assert shown["ordinal"] == region.ordinal
        assert shown["box"] == pytest.approx(
            [region.box.x0, region.box.y0, region.box.x1, region.box.y1], 0.01
        )
        share = region.region.area / (record["mask_width"] * record["mask_height"])
        assert shown["area_share"] == pytest.approx(share, abs=1e-5)
    text = matir("show", os.fsencode(copies[0]), "--db", db).stdout.decode()
    assert all(line.isprintable() for line in text.splitlines())
    assert "pred. IoU" in text
    unknown = matir("show", "/no/such.jpg", "--db", db)
    assert (unknown.returncode, unknown.stdout) == (2, b"")
    assert b"holds no photo /no/such.jpg. List what it holds: matir ls --db " in unknown.stderr


def test_show_draws_the_regions(db: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "regions.png"
    assert matir("show", "1", "--overlay", target, "--db", db).returncode == 0
    with GalleryFile.open(db) as gallery, Image.open(target) as picture:
        image = load_working_image(gallery, 1)
        assert image is not None
        assert picture.tobytes() == drawing.regions_overlay(image, gallery.regions(1)).tobytes()
    before = target.read_bytes()
    kept = matir("show", "1", "--overlay", target, "--db", db)
    assert (kept.returncode, kept.stdout) == (2, b"")
    assert b"already exists; it was kept" in kept.stderr
    assert matir("show", "2", "--overlay", target, "--force", "--db", db).returncode == 0
    assert target.read_bytes() != before
    assert [*target.parent.iterdir()] == [target]
    odd = matir("show", "1", "--overlay", tmp_path / "regions.xyz", "--db", db)
    assert odd.returncode == 2
    assert b".xyz is none of .png, .jpg" in odd.stderr


def test_show_draws_from_the_original_where_no_preview_is_stored(
    indexed: Indexed, db: Path, tmp_path: Path
) -> None:
    with GalleryFile.open(db) as gallery:
        gallery.connection.execute("delete from previews")
    assert matir("show", "1", "--overlay", tmp_path / "drawn.jpg", "--db", db).returncode == 0
    with GalleryFile.open(db) as gallery, gallery.atomic():
        gallery.link(FileRecord(indexed.photos / "0000.png", 1, 1), 1)  # another size: changed since
    done = matir("show", "1", "--overlay", tmp_path / "other.jpg", "--db", db)
    assert done.returncode == 2
    assert b"no preview is stored, and the file is missing or has changed" in done.stderr


def test_info_adds_up(db: Path) -> None:
    report = json.loads(matir("info", "--json", "--db", db).stdout)
    info = report["gallery"]
    assert sum(info["space"].values()) == info["bytes"] == db.stat().st_size
    assert (info["photos"], info["files"], info["skipped"], info["previews"]) == (PHOTOS, PHOTOS, 2, PHOTOS)
    with GalleryFile.open(db) as gallery:
        regions = [len(gallery.regions(item.photo_id)) - 1 for item in known_files(gallery)]
        preview = sum(len(gallery.preview(item.photo_id) or b"") for item in known_files(gallery))
        gallery.connection.execute("insert into questions values (1, 'abcdef', 'dog')")
        gallery.connection.execute("insert into verdicts values (1, 1, 0.5, 0), (1, 2, 0.5, 0)")
    assert info["regions"] == sum(regions)
    assert preview <= info["space"]["previews"] < 3 * preview
    assert {model["role"] for model in info["models"]} == {"proposer", "encoder"}
    assert info["judges"] == []
    text = matir("info", "--db", db).stdout.decode()
    assert f"{PHOTOS}  photos, {PHOTOS} of them with a preview" in text
    assert "abcdef: 1 query, 2 verdicts, 0 groundings" in text
    assert "from the model set tiny" in text
    assert matir("info", "--db", db.with_name("no.db")).returncode == 2


def test_a_reader_that_stops_reading_ls_is_no_error(db: Path) -> None:
    script = f"set -o pipefail; {' '.join(map(repr, MATIR))} ls --jsonl --db {db} | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
