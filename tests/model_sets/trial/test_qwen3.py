"""A model set with a judge of Qwen3-VL, as `matir doctor` and `matir models try` see it."""

import json
import shutil
from pathlib import Path

import pytest

from matir_cli.evaluation.ablations import other_judges
from matir_cli.maintenance.doctor.findings import FindingState
from matir_cli.maintenance.doctor.judge import examine_judge
from matir_cli.model_sets.catalogue import load_model_set
from tests.support.process import matir
from tests.support.small_qwen3 import make_qwen3


@pytest.fixture
def qwen3_set(model_set: Path, tmp_path: Path) -> Path:
    """The tiny set with a random judge of Qwen3-VL."""
    folder = Path(shutil.copytree(model_set.parent, tmp_path / "set"))
    make_qwen3(folder, seed=1)
    toml = folder / model_set.name
    text = toml.read_text().replace('engine = "qwen_vl"', 'engine = "qwen3_vl"')
    toml.write_text(text.replace("max_pixels = 50176", "min_pixels = 4096\nmax_pixels = 50176"))
    return toml


def test_doctor_asks_the_judge(qwen3_set: Path) -> None:
    (found,) = examine_judge(str(qwen3_set))
    assert found.state is not FindingState.PROBLEM
    assert "answered in" in found.text


def test_a_random_judge_is_tried_and_found_out(qwen3_set: Path) -> None:
    done = matir("models", "try", qwen3_set, "--part", "judge", "--json")
    findings = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert {finding["part"] for finding in findings} == {"judge"}
    assert any(finding["state"] == "failed" for finding in findings)
    assert b"Traceback" not in done.stderr


def test_other_judges_are_those_of_its_own_options(qwen3_set: Path) -> None:
    models = load_model_set(str(qwen3_set))
    pixels = [changed.part("judge").options["max_pixels"] for _, changed in other_judges(models, "pixels")]
    assert pixels == [50176 // 4, 50176 // 2]
