"""The identity of models: their files and the settings that affect results."""

from pathlib import Path

import msgspec
import pytest

from matir_cli.engines.qwen_vl.options import QwenVlOptions
from matir_cli.engines.registry import OPTIONS, identify_config
from matir_cli.errors import ModelMismatch, ModelSetInvalid
from matir_cli.gallery.database import GalleryFile
from matir_cli.model_sets.catalogue import ModelSet, load_model_set
from matir_cli.model_sets.session import ModelSession
from matir_cli.records import EngineConfig, ModelIdentity

OF_THE_JUDGES_SPEED = {"context_tokens", "grounds_at_once", "prefix_cache_mib", "n_gpu_layers", "threads"}

OF_SPEED_AND_QUERIES = {
    "sam2": {"points_per_batch", "precision"},
    "alpha_clip": {"batch_size", "precision", "text_heads", "prompts"},
    "clip": {"batch_size", "precision", "text_heads", "prompts"},
    "region_tokens": {"batch_size", "precision", "text_heads", "prompts"},
    "qwen_vl": OF_THE_JUDGES_SPEED,
    "qwen3_vl": OF_THE_JUDGES_SPEED,
}


def encoder_with(models: ModelSet, **options: object) -> ModelSet:
    parts = tuple(
        msgspec.structs.replace(part, options=part.options | options) if part.kind == "encoder" else part
        for part in models.parts
    )
    return msgspec.structs.replace(models, parts=parts)


def key(engine: str, files: str = "a", **options: object) -> str:
    config = EngineConfig(engine, options, {}, ModelIdentity("model", files))
    return identify_config(config).identity.weight_hash


@pytest.mark.parametrize("engine", sorted(OPTIONS))
def test_every_setting_is_classified(engine: str) -> None:
    kind = OPTIONS[engine]
    assert set(kind.IDENTITY_OPTIONS) | OF_SPEED_AND_QUERIES[engine] == set(kind.__struct_fields__)
    assert not set(kind.IDENTITY_OPTIONS) & OF_SPEED_AND_QUERIES[engine]


def test_a_judge_is_identified_by_weights_and_settings_that_matter() -> None:
    assert (
        key("qwen_vl") == key("qwen_vl", threads=2, n_gpu_layers=3) == key("qwen_vl", max_pixels=1280 * 28**2)
    )
    assert key("qwen3_vl") != key("qwen_vl")
    assert len({key("qwen_vl"), key("qwen_vl", "b"), key("qwen_vl", max_pixels=9000)}) == 3


def test_a_judge_with_other_questions_has_another_identity() -> None:
    class Rude(QwenVlOptions, frozen=True):
        METHOD = QwenVlOptions.METHOD.replace("Answer True or False.", "Well?")

    assert Rude().identity() != QwenVlOptions().identity() != b""


def test_default_settings_do_not_change_an_identity() -> None:
    assert key("sam2") == key("sam2", points_per_side=32, points_per_batch=8) == "a"
    assert key("sam2", points_per_side=16) != "a"
    assert key("alpha_clip", prompts=["a {}"]) == "a" != key("alpha_clip", transform="crop")


def test_unknown_settings_and_engines_are_refused() -> None:
    with pytest.raises(ModelSetInvalid):
        key("sam2", points=3)
    with pytest.raises(ModelSetInvalid, match="no engine is called 'sam9'"):
        key("sam9")


def test_a_gallery_refuses_the_same_weights_with_other_settings(tmp_path: Path) -> None:
    tiny = load_model_set("tiny")
    other = encoder_with(tiny, transform="crop")
    with GalleryFile.open(tmp_path / "photos.db", create=True) as gallery:
        ModelSession(gallery, tiny, "cpu").bind()
        ModelSession(gallery, encoder_with(tiny, batch_size=3), "cpu").bind()
        with pytest.raises(ModelMismatch):
            ModelSession(gallery, other, "cpu").bind()
        with pytest.raises(ModelMismatch):
            ModelSession(gallery, other, "cpu").config("encoder")
