"""SigLIP 2's text encoder against transformers, and damaged weights."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SiglipModel
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

from matir_cli.engines.protocols import TextEncoder
from matir_cli.engines.region_tokens.text import load_region_tokens_text_encoder
from matir_cli.errors import CheckpointInvalid, ModelSetInvalid
from matir_cli.records import FloatArray
from tests.support.clip_weights import unit
from tests.support.siglip_weights import (
    HEADS,
    random_siglip,
    random_strings,
    region_tokens_config,
    save_gemma_tokenizer,
    save_siglip,
)

QUERIES = (
    "perro con correa",
    "狗",
    "A house without a door, left of the TREE",
    "собака на поводке",
    "x " * 90,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SigLIP 2 with its tokenizer, as on the hub."""
    folder = tmp_path_factory.mktemp("siglip2")
    save_gemma_tokenizer(folder, random_strings(300, 1))
    save_siglip(random_siglip(1), folder / "model.safetensors")
    return folder


def load(folder: Path, **options: object) -> TextEncoder:
    """Load the text encoder in `folder`."""
    files = {"checkpoint": folder / "model.safetensors", "vocabulary": folder / "tokenizer.json"}
    return load_region_tokens_text_encoder(region_tokens_config({**HEADS, **options}, **files))


@torch.no_grad()
def reference(model: SiglipModel, folder: Path, texts: list[str]) -> FloatArray:
    """Return (texts, d) unit vectors by transformers."""
    tokenizer = Siglip2Tokenizer.from_pretrained(folder)
    ids = tokenizer(texts, padding="max_length", max_length=64, truncation=True)["input_ids"]
    return unit(model.text_model(torch.tensor(ids)).pooler_output)


def test_vectors_equal_transformers(folder: Path) -> None:
    encoder = load(folder)
    found = [encoder.encode(query) for query in QUERIES]
    expected = reference(random_siglip(1), folder, list(QUERIES))
    assert np.max(np.triu(expected @ expected.T, 1)) < 0.999, "all queries look alike"
    assert np.abs(np.stack([query.vector for query in found]) - expected).max() < 1e-5
    assert [query.truncated for query in found] == [False, False, False, False, True]
    assert found[0].vector.dtype == np.float32
    assert [[prompt.text for prompt in query.prompts] for query in found] == [[query] for query in QUERIES]


def test_prompts_are_averaged(folder: Path) -> None:
    prompts = ["{}", "foto de {}.", "{} on a table"]
    found = load(folder, prompts=prompts).encode("perro")
    expected = reference(random_siglip(1), folder, [prompt.format("perro") for prompt in prompts])
    assert np.abs(np.stack([prompt.vector for prompt in found.prompts]) - expected).max() < 1e-5
    mean = expected.mean(axis=0)
    assert np.abs(found.vector - mean / np.linalg.norm(mean)).max() < 1e-5


def test_torch_is_not_loaded(folder: Path) -> None:
    """A query in a process of its own starts without torch."""
    script = (
        "import sys; from pathlib import Path\n"
        "from matir_cli.engines.registry import load_text_encoder\n"
        "from matir_cli.records import EngineConfig, ModelIdentity\n"
        "folder = Path(sys.argv[1])\n"
        "files = {'checkpoint': folder / 'model.safetensors', 'vocabulary': folder / 'tokenizer.json'}\n"
        "config = EngineConfig('region_tokens', {'text_heads': 3}, files, ModelIdentity('', ''))\n"
        "print(len(load_text_encoder(config).encode('perro con correa').vector), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["48", "False"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text_model.head.weight", "text_model.head.weight is missing"),
        ("text_model.encoder.layers.1.mlp.fc1.weight", "is missing"),
        ("text_model.encoder.layers.0.layer_norm1.weight", "has 0 layers"),
    ],
)
def test_a_missing_tensor(folder: Path, tmp_path: Path, name: str, reason: str) -> None:
    state = load_file(folder / "model.safetensors")
    del state[name]
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(CheckpointInvalid, match=reason):
        load(tmp_path)


def test_a_vocabulary_of_another_model(folder: Path, tmp_path: Path) -> None:
    save_siglip(random_siglip(1, vocabulary=900), tmp_path / "model.safetensors")
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(CheckpointInvalid, match="does not fit the vocabulary"):
        load(tmp_path)
    with pytest.raises(CheckpointInvalid, match="5 heads do not divide the width 48"):
        load(folder, text_heads=5)
    with pytest.raises(ModelSetInvalid, match="needs a file with the role 'vocabulary'"):
        load_region_tokens_text_encoder(region_tokens_config({}, checkpoint=folder / "model.safetensors"))
