"""Tests of the writer of Qwen3-VL's files against a listing of llama.cpp's converter."""

import json
from pathlib import Path

import pytest

from tests.models.test_gguf_writer import FREE_TEXT, listing
from tests.support.small_qwen import SmallQwen
from tests.support.small_qwen3 import make_qwen3

LISTING = json.loads((Path(__file__).parents[1] / "data" / "qwen3vl_converter_listing.json").read_text())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> SmallQwen:
    """The model that the listing was made from."""
    return make_qwen3(tmp_path_factory.mktemp("written"), seed=0, precision="f16")


@pytest.mark.parametrize("part", ["text", "projector"])
def test_keys_and_tensors_are_those_of_the_converter(written: SmallQwen, part: str) -> None:
    path = {"text": written.text_path, "projector": written.projector_path}[part]
    ours, theirs = listing(path), LISTING[part]
    assert ours["tensors"] == theirs["tensors"]
    assert ours["keys"].keys() == theirs["keys"].keys()
    for key in ours["keys"].keys() - FREE_TEXT:
        assert ours["keys"][key] == theirs["keys"][key], key


def test_float32_and_tied_embeddings(tmp_path: Path) -> None:
    tied = make_qwen3(tmp_path, seed=0, precision="f32", tied=True)
    tensors = listing(tied.text_path)["tensors"] | listing(tied.projector_path)["tensors"]
    assert "output.weight" not in tensors
    assert {kind for kind, *_ in tensors.values()} == {"F32"}
