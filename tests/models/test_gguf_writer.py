"""Tests of the GGUF writer against a listing of llama.cpp's converter."""

import json
from pathlib import Path

import gguf
import pytest
import torch
from transformers import Qwen2_5_VLConfig

from matir_cli.models.tiny.gguf_reader import read_gguf
from matir_cli.models.tiny.gguf_writer import check_config
from matir_cli.models.tiny.qwen_tokenizer import SPECIAL_TOKENS, build_tokenizer
from tests.support.small_qwen import CORPUS, SmallQwen, make_model, randomise_qwen

LISTING = json.loads((Path(__file__).parents[1] / "data" / "qwen25vl_converter_listing.json").read_text())
FREE_TEXT = {"general.name", "general.size_label"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> SmallQwen:
    """The model that the listing was made from."""
    return make_model(tmp_path_factory.mktemp("written"), seed=0, precision="f16")


def listing(path: Path) -> dict[str, dict[str, list[object]]]:
    """Keys with types and values (long lists by their length), tensors with types and shapes."""
    reader = gguf.GGUFReader(path)
    keys: dict[str, list[object]] = {}
    for key, field in reader.fields.items():
        value = field.contents()
        long = isinstance(value, list) and len(value) > 8
        types = " ".join(kind.name for kind in field.types)
        keys[key] = [types, f"{len(value)} items" if long else value]
    tensors = {tensor.name: [tensor.tensor_type.name, *map(int, tensor.shape)] for tensor in reader.tensors}
    return {"keys": {k: v for k, v in keys.items() if not k.startswith("GGUF.")}, "tensors": tensors}


@pytest.mark.parametrize("part", ["text", "projector"])
def test_keys_and_tensors_are_those_of_the_converter(written: SmallQwen, part: str) -> None:
    path = {"text": written.text_path, "projector": written.projector_path}[part]
    ours, theirs = listing(path), LISTING[part]
    assert ours["tensors"] == theirs["tensors"]
    assert ours["keys"].keys() == theirs["keys"].keys()
    for key in ours["keys"].keys() - FREE_TEXT:
        assert ours["keys"][key] == theirs["keys"][key], key


def test_float32_and_tied_embeddings(tmp_path: Path) -> None:
    tied = make_model(tmp_path, seed=0, precision="f32", tied=True)
    tensors = listing(tied.text_path)["tensors"] | listing(tied.projector_path)["tensors"]
    assert "output.weight" not in tensors
    assert {kind for kind, *_ in tensors.values()} == {"F32"}


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_written_is_read_back(tmp_path: Path, tied: bool) -> None:
    small = make_model(tmp_path, seed=3, precision="f32", tied=tied)
    expected = {name: tensor.clone() for name, tensor in small.model.state_dict().items()}
    randomise_qwen(small.model)
    assert not torch.equal(small.model.state_dict()["lm_head.weight"], expected["lm_head.weight"])
    read_gguf(small.model, small.text_path, small.projector_path)
    read = small.model.state_dict()
    assert read.keys() == expected.keys()
    assert [name for name in read if not torch.equal(read[name], expected[name])] == []


def test_files_of_another_model_are_refused_and_nothing_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    small = make_model(tmp_path, seed=3)
    other = make_model(tmp_path / "other", seed=3, hidden_size=128)
    before = {name: tensor.clone() for name, tensor in small.model.state_dict().items()}
    with pytest.raises(ValueError, match=r"embed_tokens.weight has shape \(404, 128\), not \(404, 64\)"):
        read_gguf(small.model, other.text_path, other.projector_path)
    with pytest.raises(ValueError, match="the files lack"):
        read_gguf(small.model, small.projector_path, small.text_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.model.state_dict().items())


@pytest.mark.parametrize(
    ("part", "change", "named"),
    [
        ("text_config", {"rope_parameters": {"mrope_section": [2, 2, 2]}}, "mrope_section"),
        ("text_config", {"num_key_value_heads": 3}, "num_key_value_heads"),
        ("text_config", {"vocab_size": 10}, "vocab_size"),
        ("vision_config", {"window_size": 56}, "window_size"),
        ("vision_config", {"out_hidden_size": 32}, "out_hidden_size"),
        ("vision_config", {"num_heads": 32}, "num_heads"),
        ("vision_config", {"fullatt_block_indexes": [1]}, "fullatt_block_indexes"),
        ("vision_config", {"fullatt_block_indexes": []}, "fullatt_block_indexes"),
        ("vision_config", {"hidden_act": "gelu"}, "hidden_act"),
    ],
)
def test_refuses_configs_that_llama_cpp_computes_differently(
    written: SmallQwen, part: str, change: dict[str, object], named: str
) -> None:
    config = Qwen2_5_VLConfig.from_dict(written.model.config.to_dict())
    for key, value in change.items():
        setattr(getattr(config, part), key, value)
    with pytest.raises(ValueError, match=named):
        check_config(config, len(written.tokenizer))


def test_tokenizer_has_qwens_tokens() -> None:
    tokenizer = build_tokenizer(CORPUS, 400)
    assert [len(tokenizer.encode(word)) for word in ("True", "False", *SPECIAL_TOKENS)] == [1] * 16
    assert len(tokenizer.encode("12345")) == 5
    text = 'A café,\n\t{"bbox_2d": [12, 34]} 狗 <|im_end|>\n'
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_tokenizer_without_room_for_the_answers() -> None:
    with pytest.raises(ValueError, match="no room"):
        build_tokenizer(CORPUS, 272)
