"""Settings of the ablations."""

from pathlib import Path

from matir_cli.evaluation.ablations import AblationRunner, candidates_needed, other_judges
from matir_cli.evaluation.methods import EvaluationSetup
from matir_cli.evaluation.names import ABLATIONS, STAGE_1_ABLATIONS
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.progress import no_progress
from matir_cli.records import EngineConfig, ModelIdentity
from tests.evaluation.scenes import method_of


def runner_of(setup: EvaluationSetup, folder: Path) -> AblationRunner:
    config = EngineConfig("alpha_clip", {"transform": "squash"}, {}, ModelIdentity("encoder", "0"))
    return AblationRunner(setup, config, folder, "cpu", no_progress)


def test_ablations_of_the_second_stage(setup: EvaluationSetup, tmp_path: Path) -> None:
    runner = runner_of(setup, tmp_path)
    base = method_of(setup, None, candidates=50, keep=25)
    settings = {
        name: [runner.base_setting(name, base), *(each.setting for each in runner.variants(name, base))]
        for name in ABLATIONS
        if name not in (*STAGE_1_ABLATIONS, "match")
    }
    assert settings["candidates"] == ["50", "25", "100", "200"]
    assert runner.base_setting("match", base) == "iou"
    assert settings["keep"] == ["25", "10", "50"]
    assert settings["fusion"] == ["0", "3", "10", "30", "100"]
    assert settings["pixels"] == settings["ground-pixels"] == settings["grounding"] == ["as set"]
    assert [each.method.keep for each in runner.variants("keep", base)] == [10, 50]
    assert candidates_needed(10, ()) == 50
    assert candidates_needed(10, ("candidates",)) == 200


def test_other_judges_are_shares_of_the_judges_own() -> None:
    models = load_model_set("tiny")
    judge = models.part("judge")
    own, least = judge.options["max_pixels"], judge.options["min_pixels"]
    assert isinstance(own, int)
    assert isinstance(least, int)
    variants = list(other_judges(models, "pixels"))
    pixels = [changed.part("judge").options["max_pixels"] for _, changed in variants]
    assert pixels == sorted({max(round(own / 4), least), max(round(own / 2), least)})
    assert [setting for setting, _ in variants] == [f"{count} pixels" for count in pixels]
    assert all(changed.part("encoder") == models.part("encoder") for _, changed in variants)


def test_a_judge_that_chooses_differs_in_nothing_else() -> None:
    models = load_model_set("tiny")
    ((setting, changed),) = other_judges(models, "grounding")
    assert setting == "choose"
    assert changed.part("judge").options == {**models.part("judge").options, "grounding": "choose"}
    ((setting, again),) = other_judges(changed, "grounding")
    assert (setting, again.part("judge").options["grounding"]) == ("write", "write")


def test_sizes_for_boxes_change_nothing_else() -> None:
    models = load_model_set("full")
    judge = models.part("judge")
    changed = {setting: each.part("judge") for setting, each in other_judges(models, "ground-pixels")}
    assert list(changed) == ["501760 pixels", "1003520 pixels"]  # 802816 is the set's own
    for setting, part in changed.items():
        assert part.options == {**judge.options, "ground_min_pixels": int(setting.split()[0])}
        assert part.files == judge.files
