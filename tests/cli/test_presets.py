"""Commands with --fast, and commands on galleries that were made with it."""

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from matir_cli import Gallery
from matir_cli.cli.group import matir as command_line
from matir_cli.cli.indexing import open_for_indexing
from matir_cli.cli.options.common import gallery_option
from matir_cli.cli.options.presets import preset_options
from matir_cli.errors import PresetMismatch, PresetMissing
from matir_cli.gallery.database import GalleryFile
from matir_cli.maintenance.doctor.installation import examine_installation
from matir_cli.model_sets.catalogue import sets_with_preset
from matir_cli.progress import no_progress
from tests.support.preset_set import FAST, make_preset_set
from tests.support.process import Indexed, matir


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return make_preset_set(tmp_path)


def run(*words: object) -> Result:
    """Run a command line in this process."""
    return CliRunner().invoke(command_line, [str(word) for word in words])


def test_a_gallery_made_with_fast_goes_on_so(indexed: Indexed, mine: Path, tmp_path: Path) -> None:
    db, state = tmp_path / "new.db", str(tmp_path / "state")
    first, second = (indexed.photos / name for name in ("0000.png", "0001.png"))
    added = matir("add", first, "--db", db, "--models", mine, "--fast", "--json", XDG_STATE_HOME=state)
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["prompts"] == FAST["points_per_side"] ** 2
    again = matir("add", second, "--db", db, "--json", XDG_STATE_HOME=state)
    assert json.loads(again.stdout)["prompts"] == FAST["points_per_side"] ** 2
    info = run("info", "--db", db)
    assert info.stdout.count(f"from the model set {mine}, fast\n") == 2
    shown = json.loads(run("info", "--db", db, "--json").stdout)["gallery"]
    assert {model["model_set"] for model in shown["models"]} == {f"{mine}:fast"}
    details = run("show", first, "--db", db).stdout
    assert re.search(rf"models +{re.escape(str(mine))}, fast\n", details)


def test_doctor_names_the_preset(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with open_for_indexing(tmp_path / "new.db", str(mine), "cpu", preset="fast"):
        pass
    checks = examine_installation(tmp_path / "new.db", "full", deep=False, progress=no_progress)
    found = {check.name: check for check in checks}
    assert found["gallery models"].text == "those of the model set tiny, fast"
    assert found[f"models {mine}, fast"].text == "all files are present"
    assert f"models {mine}" not in found


def test_the_api_takes_a_set_with_a_preset(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    db = tmp_path / "new.db"
    for models in (f"{mine}:fast", None, str(mine)):
        with Gallery(db, models=models) as gallery:
            assert list(gallery.add([])) == []
        with GalleryFile.open(db) as file:
            assert file.model_set() == f"{mine}:fast"
    with Gallery(tmp_path / "plain.db", models=str(mine)) as gallery:
        gallery.add([])
    with Gallery(tmp_path / "plain.db", models=f"{mine}:fast") as gallery, pytest.raises(PresetMismatch):
        gallery.add([])


def test_presets_do_not_mix(mine: Path, tmp_path: Path) -> None:
    db = tmp_path / "new.db"
    both = run("add", tmp_path, "--db", db, "--models", mine, "--fast", "--thorough")
    assert (both.exit_code, db.exists()) == (2, False)
    assert "--fast and --thorough contradict each other" in both.stderr
    for words in (("add", tmp_path), ("sync", tmp_path)):
        missing = run(*words, "--db", db, "--models", "tiny", "--fast")
        assert isinstance(missing.exception, PresetMissing)
        assert not db.exists()


def test_models_list_names_presets() -> None:
    lines = run("models", "list", "--long").stdout.splitlines()
    found = [line.split("\t") for line in lines if line.split("\t")[1] == "preset"]
    fast = {name for name, _, value in found if value == "fast: points = adaptive, repeat_threshold = 0.9"}
    assert fast == set(sets_with_preset("fast"))
    assert ["tiny", "preset", "thorough: points_per_side = 24, repeat_threshold = 0.9"] in found
    rows = {row["name"]: row["presets"] for row in json.loads(run("models", "list", "--json").stdout)}
    assert [*rows["tiny"]] == ["thorough"]
    assert rows["full"]["fast"] == {"proposer": {"points": "adaptive", "repeat_threshold": 0.9}}


@click.command()
@gallery_option
@preset_options
def chosen(gallery_path: Path, preset: str | None) -> None:
    """Print the preset and the gallery."""
    click.echo(f"{preset} {gallery_path.name}")


@pytest.mark.parametrize(
    ("words", "defaults", "new", "old"),
    [
        ([], [], "None", "None"),
        (["--fast"], [], "fast", "fast"),
        (["--thorough"], [], "thorough", "thorough"),
        ([], ["fast"], "fast", "None"),
        (["--thorough"], ["fast"], "thorough", "thorough"),
        (["--fast"], ["fast"], "fast", "fast"),
    ],
)
def test_a_preset_of_the_defaults_file_is_for_new_galleries(
    tmp_path: Path, words: list[str], defaults: list[str], new: str, old: str
) -> None:
    (tmp_path / "old.db").touch()
    for name, expected in (("new.db", new), ("old.db", old)):
        given = [*words, "--db", str(tmp_path / name)]
        done = CliRunner().invoke(chosen, given, default_map=dict.fromkeys(defaults, True))
        assert done.output == f"{expected} {name}\n"
