"""`matir tag` as a process: sidecars change, photos do not."""

import json
import os
import resource
import shutil
import signal
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.paths import encode_path
from tests.output.sidecar_files import FOREIGN, SPACES, keywords, parsed, regions
from tests.support.process import MATIR, PHOTOS, Indexed, matir

NAMES = [
    b"new\nline.png",
    b"\xff\xfe.png",
    b"'quote\" & <tag>.png",
    "שלום\u202egpj.png".encode(),
    b"\x1b]0;title\x07.png",
    b"plain.png",
]


@pytest.fixture
def album(indexed: Indexed, tmp_path: Path) -> Indexed:
    """The indexed pictures under awkward names in a folder of their own, and their gallery."""
    folder, gallery = tmp_path / "photos", tmp_path / "gallery.db"
    folder.mkdir()
    shutil.copy(indexed.gallery, gallery)
    with GalleryFile.open(gallery) as opened, opened.atomic():
        opened.connection.execute("delete from files where path not like '%/photos/00__.png'")
        # Only objects are found: the tiny encoder prefers whole pictures, for which no region is written.
        whole = "select id from regions where ordinal = 0"
        opened.connection.execute(f"delete from vectors where region_id in ({whole})")
        for number in range(PHOTOS):
            old = indexed.photos / f"{number:04}.png"
            new = folder / (os.fsdecode(NAMES[number]) if number < len(NAMES) else f"{number:04}.png")
            shutil.copy2(old, new)
            opened.connection.execute(
                "update files set path = ? where path = ?", (encode_path(new), encode_path(old))
            )
    return Indexed(folder, gallery, indexed.added)


def tag(album: Indexed, *words: object) -> subprocess.CompletedProcess[bytes]:
    return matir("tag", "--db", album.gallery, "--no-rerank", *words)


def hashes(album: Indexed) -> dict[Path, str]:
    return {path: sha256(path.read_bytes()).hexdigest() for path in album.photos.glob("*.png")}


def sidecars(album: Indexed) -> list[Path]:
    return sorted(album.photos.glob("*.xmp"))


def test_labels_are_written_and_taken_away_again(album: Indexed) -> None:
    before = hashes(album)
    found = matir("find", "red house", "--no-rerank", "-n", PHOTOS, "-0", "--db", album.gallery)
    done = tag(album, "red house", "--label", ' a "red" <house> & בית ', "-n", PHOTOS, "-0")
    assert done.returncode == 0, done.stderr
    assert f"{PHOTOS} sidecars changed, 0 already had it, 0 skipped".encode() in done.stderr
    photos = found.stdout.split(b"\0")[:-1]
    assert done.stdout.split(b"\0")[:-1] == [name + b".xmp" for name in photos]
    assert {name.rsplit(b"/", 1)[1] for name in photos} >= {*NAMES}
    assert len(sidecars(album)) == PHOTOS
    for path in sidecars(album):
        assert keywords(path) == ['a "red" <house> & בית']
        assert len(regions(path)) == 1
    again = tag(album, "red house", "--label", 'a "red" <house> & בית', "-n", PHOTOS)
    assert (again.returncode, again.stdout) == (0, b"")
    assert f"0 sidecars changed, {PHOTOS} already had it".encode() in again.stderr
    gone = matir("tag", "--remove", "--label", 'a "red" <house> & בית', "--db", album.gallery, "-0")
    assert sorted(gone.stdout.split(b"\0")) == sorted(done.stdout.split(b"\0"))
    assert sidecars(album) == []
    assert hashes(album) == before


def test_the_region_is_where_find_sees_the_object(album: Indexed) -> None:
    words = ("tree", "--no-rerank", "-n", 4, "--db", album.gallery)
    records = [json.loads(line) for line in matir("find", *words, "--jsonl").stdout.splitlines()]
    assert tag(album, "tree", "-n", 4, "--region", "focus").returncode == 0
    assert len(records) == 4
    for record in records:
        (region,) = regions(Path(record["path"] + ".xmp"))
        assert region.findtext("mwg-rs:Name", None, SPACES) == "tree"
        assert region.findtext("mwg-rs:Type", None, SPACES) == "Focus"
        x, y, w, h = (float(region.findtext(f".//stArea:{n}", "", SPACES)) for n in "xywh")
        width, height = record["width"], record["height"]
        corners = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
        assert corners == pytest.approx(record["box"], abs=0.02)
        assert w * h < 0.9


def test_what_another_program_wrote_is_merged_with(album: Indexed) -> None:
    (best,) = matir(
        "find", "dog", "--no-rerank", "-n", 1, "--paths", "--db", album.gallery
    ).stdout.splitlines()[:1]
    photo = Path(os.fsdecode(best))
    theirs = photo.with_suffix(".xmp")
    theirs.write_text(FOREIGN, "utf-8")
    done = tag(album, "dog", "-n", 1, "--sidecar", "replace", "--region", "none")
    assert (done.returncode, done.stdout) == (0, bytes(theirs) + b"\n")
    assert keywords(theirs) == ["holiday", "dog"]
    assert len(regions(theirs)) == 1
    assert parsed(theirs).find(".//{urn:odd}text") is not None


def test_a_label_goes_into_the_sidecars_that_are_there(album: Indexed) -> None:
    alone, both, paired = (album.photos / f"{number:04}" for number in (6, 7, 8))
    for stem in (alone, both, paired):
        stem.with_suffix(".xmp").write_text(FOREIGN, "utf-8")
    both.with_suffix(".png.xmp").write_text(FOREIGN, "utf-8")
    paired.with_suffix(".CR2").write_bytes(b"raw")
    shared = {stem.with_suffix(".xmp") for stem in (alone, both)}
    done = tag(album, "dog", "-n", PHOTOS, "--region", "none")
    assert done.returncode == 0, done.stderr
    assert "1 other sidecar left alone" in done.stderr.decode()
    assert f"{paired}.xmp" in done.stderr.decode()
    assert done.stdout.count(b".xmp\n") == PHOTOS + 1
    assert not alone.with_suffix(".png.xmp").exists()
    for path in (*shared, both.with_suffix(".png.xmp")):
        assert keywords(path) == ["holiday", "dog"]
    assert keywords(paired.with_suffix(".png.xmp")) == ["dog"]
    assert paired.with_suffix(".xmp").read_text("utf-8") == FOREIGN
    gone = tag(album, "--remove", "--label", "dog")
    assert gone.stdout.count(b".xmp\n") == PHOTOS + 1
    assert {*sidecars(album)} == {*shared, both.with_suffix(".png.xmp"), paired.with_suffix(".xmp")}
    assert all(keywords(path) == ["holiday"] for path in sidecars(album))


def test_a_keyword_in_another_form_of_unicode_is_the_same(album: Indexed) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    photo = album.photos / "0007.png"
    path = photo.with_name("0007.png.xmp")
    path.write_text(FOREIGN.replace("holiday", decomposed), "utf-8")
    again = tag(album, composed, "-n", PHOTOS, "--in", photo, "--region", "none")
    assert (again.returncode, again.stdout) == (0, b"")
    assert keywords(path) == [decomposed]
    gone = tag(album, "--remove", "--label", composed, "--in", photo)
    assert gone.stdout == bytes(path) + b"\n"
    assert "dc:subject" not in path.read_text("utf-8")


def test_what_is_in_a_folder_is_tagged_and_untagged(album: Indexed) -> None:
    one = album.photos / "0007.png"
    words = ("dog", "-n", PHOTOS, "--label", "x")
    assert tag(album, *words).stdout.count(b".xmp\n") == PHOTOS
    gone = tag(album, "--remove", "--label", "x", "--in", one)
    assert (gone.returncode, gone.stdout) == (0, bytes(one) + b".xmp\n")
    back = tag(album, *words, "--in", one)
    assert back.stdout == gone.stdout
    with GalleryFile.open(album.gallery) as opened:
        box = opened.regions(8)[1].box
    corners = f"{box.x0},{box.y0},{box.x1},{box.y1}"
    alike = tag(album, "--image", one, "--box", corners, "-n", 1, "--label", "x", "--remove")
    assert alike.stdout == gone.stdout


def test_a_dry_run_writes_nothing(album: Indexed) -> None:
    done = tag(album, "dog", "-n", 3, "--dry-run")
    assert done.returncode == 0
    assert done.stdout.count(b".xmp\n") == 3
    assert b"3 sidecars to change" in done.stderr
    assert sidecars(album) == []


def test_what_cannot_be_done_is_one_line_and_the_others_go_on(album: Indexed) -> None:
    whole, gone, changed, laughs = (album.photos / f"{number:04}.png" for number in (6, 7, 8, 9))
    whole.with_name("0006.png.xmp").mkdir()
    gone.unlink()
    changed.write_bytes(changed.read_bytes() + b"\0")
    hostile = '<!DOCTYPE x [<!ENTITY a "lol">]><x>&a;</x>'
    laughs.with_name("0009.png.xmp").write_text(hostile)
    done = tag(album, "dog", "-n", PHOTOS)
    assert done.returncode == 3
    assert len(done.stdout.split(b".xmp\n")) == PHOTOS - 4 + 1
    talk = done.stderr.decode()
    assert f"skipped {whole}: {whole}.xmp was left unchanged: it is not a plain file." in talk
    assert f"skipped {gone}: no such file or directory" in talk
    assert f"skipped {changed}: it has changed since it was indexed" in talk
    assert f"skipped {laughs}: {laughs}.xmp was left unchanged: it declares a document type" in talk
    assert talk.count("skipped ") == 4
    assert laughs.with_name("0009.png.xmp").read_text() == hostile
    assert "Traceback" not in talk


def test_no_room_is_said_for_each_and_leaves_nothing_behind(album: Indexed) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    before = hashes(album)
    done = subprocess.run(
        [*MATIR, "tag", "dog", "--no-rerank", "-n", "2", "--db", str(album.gallery)],
        capture_output=True,
        check=False,
        preexec_fn=limit,
    )
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.count(b"cannot be written: File too large.") == 2
    assert {*album.photos.iterdir()} == {*before}
    assert hashes(album) == before


def test_usage(album: Indexed) -> None:
    cases = {
        ("--remove",): "Give the label with --label",
        ("-n", "1"): "Describe an object",
        ("dog",): "Say what counts as found",
        ("dog", "--min-p", "0.5"): "--min-p needs the judge",
        ("dog", "-n", "1", "--label", "a\x07b"): "holds a control character",
        ("dog", "-n", "1", "--label", ""): "it is empty",
        ("do\x1bg", "-n", "1"): "Give the label with --label",
        ("dog", "-n", "1", "--region", "Thing"): "'Thing' is not one of",
        (" ", "-n", "1"): "the query is empty",
        ("-", "-n", "1"): "takes one QUERY",
    }
    for words, text in cases.items():
        done = tag(album, *words)
        assert done.returncode == 2, words
        assert text in " ".join(done.stderr.decode().split()), words
    nothing = tag(album, "dog", "--min-score", "1.5")
    assert nothing.returncode == 1
    assert b"nothing found" in nothing.stderr
    assert sidecars(album) == []
