"""Checks of llama.cpp and of the judge, with the tiny set and with judges that are wrong."""

import shutil
from pathlib import Path

import pytest

from matir_cli.maintenance.doctor.findings import Finding, FindingState
from matir_cli.maintenance.doctor.judge import examine_judge, examine_llama_cpp
from tests.support.gguf_edit import read_gguf


def judge_finding(model_set: str | Path) -> Finding:
    (found,) = examine_judge(str(model_set))
    return found


def test_llama_cpp_names_its_distribution_and_its_backends() -> None:
    (found,) = examine_llama_cpp()
    assert found.state is FindingState.OK
    assert "llama_cpp_python 0.3.36 (py3-none-" in found.text
    assert "built for " in found.text
    assert "CPU" in found.text


def test_the_tiny_judge_tells_a_red_square_from_a_blue_circle() -> None:
    found = judge_finding("tiny")
    assert found.state is FindingState.OK, found
    assert found.text.startswith("qwen2.5_vl_tiny_drawn_world answered in ")


def test_a_judge_without_files_is_left_to_the_check_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATIR_MODELS", str(tmp_path))
    assert list(examine_judge("full")) == []


def test_a_judge_that_computes_no_numbers_is_a_warning(model_set: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_set.parent, tmp_path / "set"))
    projector = read_gguf(folder / "projector.gguf")
    projector.values[b"clip.vision.image_std"].content = [5e-6] * 3
    (folder / "projector.gguf").write_bytes(projector.pack())
    found = judge_finding(folder / model_set.name)
    assert (found.state, found.text) == (
        FindingState.WARNING,
        "random computes no numbers for a drawn picture",
    )
    assert "--device cpu" in found.remedy


def test_a_judge_with_an_invalid_file_is_a_problem(model_set: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_set.parent, tmp_path / "set"))
    projector = read_gguf(folder / "projector.gguf")
    projector.values[b"clip.vision.attention.layer_norm_epsilon"].content = -1.0
    (folder / "projector.gguf").write_bytes(projector.pack())
    found = judge_finding(folder / model_set.name)
    assert found.state is FindingState.PROBLEM
    assert "layer_norm_epsilon is -1.0" in str(found.fault)
