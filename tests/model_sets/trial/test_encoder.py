"""The encoder's trial on tiny towers with faults, in this process; and what the figures are compared with."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from matir_cli.engines.clip import text_encoder
from matir_cli.engines.registry import load_region_encoder, load_text_encoder
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import locate_part
from matir_cli.model_sets.trial.drawn_world import DRAWN_WORLD
from matir_cli.model_sets.trial.encoder import (
    REFERENCE_OBJECTS,
    TEXT_TOLERANCE,
    EncoderFigures,
    check_figures,
    try_encoder,
)
from matir_cli.model_sets.trial.findings import TrialFinding, TrialState, check_reference, rms_difference
from matir_cli.progress import no_progress
from matir_cli.records import FloatArray
from tests.support.broken_sets import (
    Fault,
    State,
    activate_text_by_silu,
    change_text,
    change_visual,
    copy_tiny,
    randomise,
)

TINY = load_model_set("tiny")


def damage_alpha(state: State) -> None:
    state["conv1_alpha.weight"] *= -1


def not_a_number(state: State) -> None:
    state["ln_post.weight"][0] = float("nan")


def find(folder: Path, fault: Fault, **options: object) -> list[TrialFinding]:
    """The findings about a copy of the tiny encoder with `fault` and `options`."""
    copy_tiny(folder)
    fault(folder)
    located = locate_part(TINY, "encoder")
    files = {role: folder / "tiny" / path.name for role, path in located.files.items()}
    config = replace(located, files=files, options={**located.options, **options})
    regions, texts = load_region_encoder(config, "cpu"), load_text_encoder(config)
    return try_encoder(DRAWN_WORLD, regions, texts, TINY.part("encoder").reference, no_progress)


def nothing(_: Path) -> None:
    """No fault."""


@pytest.mark.parametrize(
    ("fault", "failed", "reason"),
    [
        (change_text(activate_text_by_silu), ["reference figures"], "another activation function"),
        (change_text(randomise), ["colours", "kinds", "regions", "reference figures"], "the text file is of"),
        (change_visual(randomise), ["colours", "kinds", "regions", "reference figures"], "the visual file"),
        (
            change_visual(damage_alpha),
            ["colours", "kinds", "regions", "reference figures"],
            "the visual file",
        ),
        (change_visual(not_a_number), ["colours", "kinds", "regions", "reference figures"], "are damaged"),
    ],
    ids=["text activation", "random text", "random visual", "negative alpha", "not a number"],
)
def test_faults_in_the_weights(tmp_path: Path, fault: Fault, failed: list[str], reason: str) -> None:
    findings = find(tmp_path, fault)
    assert [each.name for each in findings if each.failed] == failed
    assert all(reason in each.reason for each in findings if each.failed)
    assert not any(each.reason for each in findings if not each.failed)


@pytest.mark.parametrize(
    "options", [{"transform": "crop"}, {"text_heads": 8}, {"prompts": ["itap of a {}."]}], ids=str
)
def test_options_that_the_models_were_not_trained_with(tmp_path: Path, options: dict[str, object]) -> None:
    findings = find(tmp_path, nothing, **options)
    assert [each.name for each in findings if each.failed] == ["reference figures"]
    assert "another transform, or other prompts, heads or text_heads" in findings[-1].reason


def test_rounding_is_no_fault(tmp_path: Path) -> None:
    assert not any(each.failed for each in find(tmp_path, nothing, precision="bfloat16"))


def gelu(x: FloatArray) -> FloatArray:
    """The exact GELU, for which QuickGELU is an approximation."""
    return np.asarray(x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2, np.float32)


def test_gelu_in_the_text_tower_shows_in_the_texts_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_encoder, "_quick_gelu", gelu)
    findings = find(tmp_path, nothing)
    assert [each.name for each in findings if each.failed] == ["reference figures"]
    assert "another activation function (GELU or QuickGELU)" in findings[-1].reason
    differences = np.subtract(findings[-1].figures, TINY.part("encoder").reference)
    of_texts = float(np.sqrt(np.mean(differences[2 * REFERENCE_OBJECTS :] ** 2)))
    assert of_texts > 3 * TEXT_TOLERANCE
    monkeypatch.undo()
    intact = find(tmp_path / "again", nothing)[-1]
    assert np.abs(np.subtract(intact.figures, TINY.part("encoder").reference)).max() < 0.3 * TEXT_TOLERANCE


def test_figures_that_were_recorded_without_those_of_texts(tmp_path: Path) -> None:
    figures = find(tmp_path, nothing)[-1].figures
    measured = EncoderFigures(
        1, 1, 1, 1, 1, figures[: 2 * REFERENCE_OBJECTS], figures[2 * REFERENCE_OBJECTS :]
    )
    assert check_figures(measured, figures).state is TrialState.OK
    assert check_figures(measured, measured.cosines).state is TrialState.OK
    assert check_figures(measured, ()).state is TrialState.UNKNOWN
    assert check_figures(measured, (*figures, 0.5)).failed
    assert check_figures(measured, figures[1:]).failed


class TestReference:
    def test_differences(self) -> None:
        assert rms_difference([1.0, 2.0], [1.0, 2.0]) == 0
        assert rms_difference([1.0, 2.0], [2.0, 1.0]) == pytest.approx(1.0)
        assert rms_difference([1.0], [1.0, 2.0]) == float("inf")
        assert rms_difference([float("nan")], [1.0]) == float("inf")

    @pytest.mark.parametrize(
        ("measured", "recorded", "state"),
        [
            ([0.5], [], TrialState.UNKNOWN),
            ([0.5], [0.501], TrialState.OK),
            ([0.5], [0.503], TrialState.FAILED),
            ([0.5, 0.5], [0.5], TrialState.FAILED),
            ([float("nan")], [0.5], TrialState.FAILED),
        ],
    )
    def test_states(self, measured: list[float], recorded: list[float], state: TrialState) -> None:
        found = check_reference("encoder", measured, recorded, 0.002)
        assert found.state is state
        assert len(found.figures) == len(measured)
