"""`matir reencode` as a process, with the tiny set and one with another encoder of its formats."""

import json
import shutil
from pathlib import Path

import pytest

from matir_cli.gallery.database import GalleryFile
from tests.support.process import PHOTOS, Indexed, matir, records
from tests.support.second_set import ENCODER, make_second_set

QUERY = "red house"


@pytest.fixture(scope="module")
def second_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_second_set(tmp_path_factory.mktemp("second"))


@pytest.fixture
def gallery(indexed: Indexed, tmp_path: Path) -> Path:
    return Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))


def test_a_reencoded_gallery_is_searched_as_a_fresh_one(
    indexed: Indexed, second_set: Path, gallery: Path, tmp_path: Path
) -> None:
    fresh = tmp_path / "fresh.db"
    assert matir("add", indexed.photos, "--db", fresh, "--models", second_set).returncode == 3  # with junk
    done = matir("reencode", "--models", second_set, "--from-files", "--db", gallery, "--progress", "json")
    assert done.returncode == 0, done.stderr
    assert f"matir: {PHOTOS} photos now have vectors of {ENCODER}\n".encode() in done.stderr
    assert b"free disk space" in done.stderr
    steps = [json.loads(line) for line in done.stderr.splitlines() if line.startswith(b"{")]
    assert {"reencode", "exchanging the vectors"} <= {step["step"] for step in steps}
    words = ("find", QUERY, "--no-rerank", "--jsonl", "-n", PHOTOS)
    expected = records(matir(*words, "--db", fresh))
    found = records(matir(*words, "--db", gallery))  # the gallery's own set is the new one
    assert found == expected
    refused = matir(*words, "--db", gallery, "--models", "tiny")
    assert refused.returncode == 2
    assert b"was made with the encoder" in refused.stderr
    assert matir("doctor", "--db", gallery, "--deep").stdout.count(b"problem") == 0
    assert matir("compact", "--db", gallery).returncode == 0
    assert records(matir(*words, "--db", gallery)) == expected
    again = matir("reencode", "--models", second_set, "--db", gallery)
    assert (again.returncode, b"already" in again.stderr) == (0, True)
    added = matir("add", indexed.photos, "--db", gallery)
    assert b"0 added" in added.stderr


def test_previews_serve_where_the_files_are_gone(second_set: Path, gallery: Path) -> None:
    with GalleryFile.open(gallery) as opened:
        opened.connection.execute("update files set path = '/gone/' || photo_id")
        opened.connection.execute("delete from previews where photo_id = 3")
    words = ("reencode", "--models", second_set, "--db", gallery)
    refused = matir(*words)
    assert refused.returncode == 3
    assert b"not encoded /gone/3: no preview is stored" in refused.stderr
    assert b"1 photo could not be encoded, so the vectors in use stay" in refused.stderr
    before = records(matir("find", QUERY, "--no-rerank", "--jsonl", "--db", gallery))
    assert before
    info = matir("info", "--db", gallery)
    assert f"new vectors of {PHOTOS - 1} of {PHOTOS} photos are made".encode() in info.stdout
    doctor = matir("doctor", "--db", gallery)
    assert f"Go on: matir reencode --models {second_set}".encode() in doctor.stdout
    dropped = matir(*words, "--drop-missing")
    assert dropped.returncode == 0
    assert f"{PHOTOS - 1} photos now have vectors of {ENCODER}, 1 photo dropped".encode() in dropped.stderr
    assert len(records(matir("ls", "--jsonl", "--db", gallery))) == PHOTOS - 1


def test_a_set_with_another_proposer_is_refused(second_set: Path, gallery: Path) -> None:
    other = second_set.with_name("other.toml")
    other.write_text(second_set.read_text().replace("points_per_side = 12", "points_per_side = 10"))
    refused = matir("reencode", "--models", other, "--db", gallery)
    assert refused.returncode == 2
    assert b"are of the proposer sam2_tiny_drawn_world" in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith(b"matir: the regions of ")
