"""The engine registry: every name loads, and model sets of one encoder work."""

from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest

from matir_cli import masks
from matir_cli.engines import registry
from matir_cli.engines.registry import (
    has_own_processor,
    load_dense_encoder,
    load_judge,
    load_proposer,
    load_region_encoder,
    load_text_encoder,
)
from matir_cli.errors import ModelSetInvalid
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.weights import locate_files
from matir_cli.records import EngineConfig, ModelIdentity
from tests.support.clip_weights import random_photo

TABLES = (
    registry.PROPOSERS,
    registry.REGION_ENCODERS,
    registry.TEXT_ENCODERS,
    registry.DENSE_ENCODERS,
    registry.JUDGES,
)


def test_every_entry_names_a_function_and_has_options() -> None:
    names = {name for table in TABLES for name in table}
    assert names == registry.OPTIONS.keys()
    loaders = [resolve_name(entry) for table in TABLES for entry in table.values()]
    assert all(callable(loader) for loader in loaders)
    assert len({loader.__qualname__ for loader in loaders}) == len(loaders)


def test_an_unknown_engine_is_named_with_those_there_are() -> None:
    unknown = EngineConfig("sam9", {}, {}, ModelIdentity("new", "0" * 64))
    for load in (load_proposer, load_region_encoder, load_dense_encoder, load_judge):
        with pytest.raises(ModelSetInvalid, match="no engine is called 'sam9'") as raised:
            load(unknown, "cpu")
        assert raised.value.source == "new"
    with pytest.raises(ModelSetInvalid, match="there is alpha_clip, clip"):
        load_text_encoder(replace(unknown, engine="sam2"))


def test_the_cpu_is_no_processor_of_its_own() -> None:
    assert not has_own_processor("cpu")


def test_a_model_set_of_an_encoder_alone(
    resnet_file: Path, small_vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATIR_MODELS", str(tmp_path / "models"))
    (tmp_path / "clip.safetensors").write_bytes(resnet_file.read_bytes())
    (tmp_path / "tokenizer.json").write_bytes(small_vocabulary.read_bytes())
    toml = tmp_path / "rn.toml"
    toml.write_text(
        """
        name = "rn"
        description = "a ModifiedResNet"
        [encoder]
        name = "clip_rn"
        engine = "clip"
        licence = "MIT"
        [encoder.files.checkpoint]
        path = "clip.safetensors"
        [encoder.files.vocabulary]
        path = "tokenizer.json"
        """,
        encoding="utf-8",
    )
    found = locate_files(load_model_set(str(toml)), "encoder")
    image = random_photo(96, 96, 15)
    vectors = load_dense_encoder(found, "cpu").encode_whole([image])
    assert vectors @ load_text_encoder(found).encode("dog").vector < 1
    with pytest.raises(ModelSetInvalid, match="no engine is called 'clip'"):
        load_region_encoder(found, "cpu")


def test_the_tiny_set_is_a_baseline_too() -> None:
    found = locate_files(load_model_set("tiny"), "encoder")
    image = random_photo(192, 192, 16)
    dense = load_dense_encoder(found, "cpu").encode_dense(image)
    gallery = load_region_encoder(found, "cpu").encode(image, [masks.whole(192, 192)])
    whole = load_dense_encoder(found, "cpu").encode_whole([image])
    assert np.abs(whole - gallery).max() < 1e-5
    assert dense.shape[1] == whole.shape[1]
    assert np.allclose(np.linalg.norm(dense, axis=1), 1, atol=1e-5)
