"""All checks of `matir doctor`, as a function and as the command."""

import json
import re
import shutil
from pathlib import Path

import pytest

from matir_cli.errors import GalleryUnrecovered
from matir_cli.maintenance.doctor.findings import FindingState
from matir_cli.maintenance.doctor.installation import examine_installation
from matir_cli.progress import no_progress
from tests.gallery.test_read_only import leave_hot_journal
from tests.maintenance.doctor.test_integrity import tamper
from tests.support.process import Indexed, matir


def test_without_a_gallery_only_the_default_models_are_missing(
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
    assert re.fullmatch(
        r"Ray \d.*|not installed; --ray needs it: pip install 'matir-cli\[ray\]'", by_name["ray"].text
    )
    assert by_name["ray"].state is FindingState.OK
    assert not (tmp_path / "none.db").exists()


def test_the_command_reports_and_passes_a_sound_gallery(indexed: Indexed) -> None:
    done = matir("doctor", "--db", indexed.gallery)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0, lines
    assert all(line.split()[0] in ("ok", "warning") for line in lines)
    assert "ok       gallery index: 0 blocks, 12 photos outside of them" in lines
    assert "ok       gallery models: those of the model set tiny" in lines
    assert b"matir: no problem\n" in done.stderr


def test_an_interrupted_write_hides_the_model_set(indexed: Indexed, tmp_path: Path) -> None:
    path = Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))
    leave_hot_journal(path)
    found = list(examine_installation(path, "full", deep=False, progress=no_progress))
    by_name = {item.name: item for item in found}
    assert [item.name for item in found if item.state is FindingState.PROBLEM] == []
    assert isinstance(by_name["gallery"].fault, GalleryUnrecovered)
    assert by_name["gallery"].state is FindingState.WARNING
    assert {by_name[f"models {name}"].state for name in ("full", "lite", "tiny")} == {FindingState.OK}
    assert "gallery models" not in by_name


def test_the_command_reports_problems_as_json(indexed: Indexed, tmp_path: Path) -> None:
    path = Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))
    tamper(path, "update models set weight_hash = 'x'")
    tamper(path, "update files set path = '/gone/\x1b[31m' where path like '%0003.png'")
    tamper(path, "delete from file_metadata where path like '%0003.png'")
    tamper(path, "delete from vectors where region_id = 5")
    done = matir("doctor", "--db", path, "--json")
    assert done.returncode == 1
    found = {row["name"]: row for row in json.loads(done.stdout)}
    wrong = {name for name, row in found.items() if row["state"] == "problem"}
    assert wrong == {"gallery vectors", "gallery models"}
    (summary,) = [line for line in done.stderr.decode().splitlines() if line.startswith("matir:")]
    assert summary.startswith("matir: 2 problems: ")
    assert all(f"{name} -> {found[name]['remedy']}" in summary for name in wrong)
    assert all(found[name]["remedy"] for name in wrong)
    assert "/gone/\x1b[31m" in found["gallery files"]["text"]
    assert b"\x1b" not in done.stdout
    assert done.stderr.count(b"matir:") == 1
