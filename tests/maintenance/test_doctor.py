import json
import os
import shutil
from pathlib import Path

import apsw
import numpy as np
import pytest

from matir_cli.gallery import schema
from matir_cli.gallery.database import GalleryFile
from matir_cli.maintenance.doctor.examine import examine_installation
from matir_cli.maintenance.doctor.findings import Finding, FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.progress import no_progress
from matir_cli.search.index import rebuild_index, seal_index
from tests.support.crafted_gallery import craft
from tests.support.process import Indexed, matir

NAMES = [f"{number}.jpg" for number in range(30)]


@pytest.fixture(scope="module")
def crafted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound gallery with blocks and loose photos, but that its files are not on this machine."""
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
    assert len(found) == 11
    assert {name for name, state in found.items() if state is not FindingState.OK} == {"gallery files"}
    assert found["gallery files"] is FindingState.WARNING
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("drop table verdicts", "gallery schema"),
        ("drop index files_by_photo", "gallery schema"),
        ("update regions set photo_id = 999 where id = 3", "gallery references"),
        ("delete from photos where id = 5", "gallery references"),
        ("update photos set sha256 = x'00' where id = 5", "gallery photos"),
        ("update photos set mask_width = 'wide' where id = 5", "gallery photos"),
        ("delete from regions where photo_id = 5", "gallery photos"),
        ("delete from vectors where region_id = 5", "gallery vectors"),
        ("update vectors set vector = x'01' where region_id = 5", "gallery vectors"),
        ("update vectors set vector = zeroblob(64) where region_id = 5", "gallery vectors"),
        ("update vectors set photo_id = 7 where region_id = 5", "gallery vectors"),
        ("update regions set rle = x'ff' where id = 5", "gallery masks"),
        ("update regions set rle = 7 where id = 5", "gallery masks"),
        ("update regions set area = area + 1 where id = 5", "gallery masks"),
        ("delete from blocks where id = 1", "gallery index"),
        ("delete from loose", "gallery index"),
        ("update blocks set runs = x'01' where id = 1", "gallery index"),
        ("update blocks set codes = x'01' where id = 1", "gallery index"),
        ("update blocks set centre = x'01' where id = 1", "gallery index"),
        ("update previews set jpeg = x'ffd8' where photo_id = 5", "gallery previews"),
        ("update photos set camera = cast(x'ff' as text) where id = 5", "gallery previews"),
    ],
)
def test_what_is_wrong_is_found_and_has_a_remedy(path: Path, statement: str, name: str) -> None:
    tamper(path, statement)
    found = {item.name: item for item in examine_gallery(path, deep=False)}
    assert found[name].state is FindingState.PROBLEM
    assert found[name].remedy or found[name].fault
    assert found["gallery space"].state is not FindingState.PROBLEM  # the checks after it were made too


def tamper(path: Path, statement: str) -> None:
    plain = apsw.Connection(os.fspath(path))
    plain.execute(statement)
    plain.close()


def test_codes_that_are_not_the_vectors_are_found_by_the_deep_look(path: Path) -> None:
    with GalleryFile.open(path) as gallery:
        (codes,) = gallery.connection.execute("select codes from blocks where id = 1").fetchone() or (b"",)
        changed = bytes(byte ^ 0x55 for byte in codes[:100]) + codes[100:]
        gallery.connection.execute("update blocks set codes = ? where id = 1", (changed,))
    assert bad(path) == set()
    assert bad(path, deep=True) == {"gallery index"}
    with GalleryFile.open(path) as gallery:
        rebuild_index(gallery, 32)
    assert bad(path, deep=True) == set()


def test_a_mostly_unused_file_is_worth_a_warning(path: Path) -> None:
    with GalleryFile.open(path) as gallery:
        gallery.connection.execute("delete from photos where id > 3")
    found = states(path)
    assert found["gallery space"] is FindingState.WARNING
    assert FindingState.PROBLEM not in found.values()


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.3, 0.7, 0.999])
def test_a_truncated_file_gives_a_report(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))
    assert bad(path)


@pytest.mark.parametrize("seed", range(25))
def test_flipped_bytes_give_a_report(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = np.fromfile(path, np.uint8)
    at = rng.integers(0 if seed % 2 else 100, raw.size, 2000)  # with and without the file's header
    raw[at] ^= rng.integers(1, 256, at.size).astype(np.uint8)
    raw.tofile(path)
    assert bad(path, deep=True)


def test_other_files_are_told_apart(path: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no gallery, but longer than the header of one is\n" * 9)
    tamper(tmp_path / "other.db", "create table t (a)")
    for name in ("text", "other.db"):
        assert (only(tmp_path / name).state, only(tmp_path / name).name) == (FindingState.PROBLEM, "gallery")
    (tmp_path / "empty").touch()
    assert only(tmp_path / "empty").state is FindingState.OK
    assert only(tmp_path / "none").state is FindingState.OK
    tamper(path, f"pragma user_version = {schema.VERSION + 1}")
    assert only(path).state is FindingState.PROBLEM
    tamper(path, f"pragma user_version = {schema.VERSION - 1}")
    assert only(path).state is FindingState.WARNING


def test_an_interrupted_write_is_no_damage(path: Path, tmp_path: Path) -> None:
    with GalleryFile.open(path) as gallery:
        gallery.connection.pragma("cache_size", 1)  # so that changed pages go to the file at once
        gallery.connection.execute("begin")
        gallery.connection.execute("update regions set area = area + 1")
        gallery.connection.execute("update vectors set vector = zeroblob(64)")
        for suffix in ("", "-journal"):
            shutil.copy(f"{path}{suffix}", tmp_path / f"copy.db{suffix}")
        gallery.connection.execute("rollback")
    found = only(tmp_path / "copy.db")
    assert (found.state, "waits to be undone" in found.text) == (FindingState.WARNING, True)
    with GalleryFile.open(tmp_path / "copy.db"):
        pass
    assert bad(tmp_path / "copy.db", deep=True) == set()


def test_without_a_gallery_the_default_models_are_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATIR_MODELS", str(tmp_path / "models"))
    found = list(examine_installation(tmp_path / "none.db", "full", deep=True, progress=no_progress))
    assert [item.name for item in found if item.state is FindingState.PROBLEM] == ["models full"]
    by_name = {item.name: item for item in found}
    assert "matir models pull full" in by_name["models full"].remedy
    assert {
        "python",
        "numpy",
        "sqlite",
        "engine sam2.proposer",
        "engine qwen_vl.judge",
        "cpu",
        "room",
    } <= set(by_name)
    assert by_name["models tiny"].state is FindingState.OK
    assert not (tmp_path / "none.db").exists()


def test_the_command_reports_and_passes_a_sound_gallery(indexed: Indexed) -> None:
    done = matir("doctor", "--db", indexed.gallery)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0, lines
    assert all(line.split()[0] in ("ok", "warning") for line in lines)
    assert "ok       gallery index: 0 blocks, 12 photos outside of them" in lines
    assert "ok       gallery models: those of the model set tiny" in lines
    assert b"matir: no problem\n" in done.stderr


def test_the_command_tells_programs_of_problems(indexed: Indexed, tmp_path: Path) -> None:
    path = Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))
    tamper(path, "update models set weight_hash = 'x'")
    tamper(path, "update files set path = '/gone/\x1b[31m' where path like '%0003.png'")
    tamper(path, "delete from vectors where region_id = 5")
    done = matir("doctor", "--db", path, "--json")
    assert done.returncode == 1
    found = {row["name"]: row for row in json.loads(done.stdout)}
    wrong = {name for name, row in found.items() if row["state"] == "problem"}
    assert wrong == {"gallery vectors", "gallery models"}
    (said,) = [line for line in done.stderr.decode().splitlines() if line.startswith("matir:")]
    assert said.startswith("matir: 2 problems: ")
    assert all(f"{name} -> {found[name]['remedy']}" in said for name in wrong)
    assert all(found[name]["remedy"] for name in wrong)
    assert "/gone/\x1b[31m" in found["gallery files"]["text"]
    assert b"\x1b" not in done.stdout
    assert done.stderr.count(b"matir:") == 1
