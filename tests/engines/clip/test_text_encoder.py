"""CLIP's text encoder against transformers, and damaged weights."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTextModelWithProjection

from matir_cli.engines.clip.options import SEVEN_PROMPTS
from matir_cli.engines.clip.text_encoder import load_clip_text_encoder
from matir_cli.engines.clip.tokenizer import load_tokenizer
from matir_cli.errors import CheckpointInvalid, ModelSetInvalid
from matir_cli.records import FloatArray
from tests.support.clip_weights import (
    alpha_clip_config,
    openai_ids,
    random_text,
    save_text,
    text_config,
    unit,
)

QUERIES = (
    "dog led by rope",
    "cat",
    "a house without a door, left of the tree",
    "Crème brûlée &amp; 3 spoons",
    "very " * 100 + "long",
)


@torch.no_grad()
def reference(model: CLIPTextModelWithProjection, ids: Sequence[Sequence[int]]) -> FloatArray:
    """Return (texts, d) unit vectors by transformers, padded with the end token as by the hub's tokenizer."""
    end, longest = model.config.eos_token_id, max(len(text) for text in ids)
    padded = torch.tensor([[*text, *[end] * (longest - len(text))] for text in ids])
    return unit(model(padded).text_embeds)


# -- Parity --------------------------------------------------------------------------------


def test_vectors_equal_transformers_with_full_size_vit_b16(tmp_path: Path, vocabulary: Path) -> None:
    """The mean over the seven prompts, which OpenAI's tokenizer encodes for the reference."""
    model = random_text(text_config(512, 12, 8, 512), 0)
    save_text(model, tmp_path / "text.safetensors", {"vision_model.x": torch.ones(3, dtype=torch.int64)})
    encoder = load_clip_text_encoder(
        alpha_clip_config(text=tmp_path / "text.safetensors", vocabulary=vocabulary)
    )
    found = [encoder.encode(query) for query in QUERIES]
    expected = []
    for query in QUERIES:
        prompts = [openai_ids(prompt.format(query)) for prompt in SEVEN_PROMPTS]
        mean = reference(model, prompts).mean(axis=0)
        expected.append(mean / np.linalg.norm(mean))
    assert np.max(np.triu(np.stack(expected) @ np.stack(expected).T, 1)) < 0.95, "all queries look alike"
    assert np.abs(np.stack([query.vector for query in found]) - expected).max() < 1e-4
    assert [query.truncated for query in found] == [False, False, False, False, True]
    assert found[0].vector.dtype == np.float32
    assert encoder.dimensions == 512


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_stored_precisions(
    tmp_path: Path, small_vocabulary: Path, small_text: CLIPTextModelWithProjection, dtype: torch.dtype
) -> None:
    rounded = {name: value.to(dtype) for name, value in small_text.state_dict().items()}
    save_file(rounded, tmp_path / "text.safetensors")
    model = random_text(small_text.config, 1)
    model.load_state_dict({name: value.float() for name, value in rounded.items()})
    options = {"text_heads": 3, "prompts": ["{}"]}
    encoder = load_clip_text_encoder(
        alpha_clip_config(options, text=tmp_path / "text.safetensors", vocabulary=small_vocabulary)
    )
    ids = load_tokenizer(small_vocabulary).tokenize("dog and doggerel", 77).ids
    assert 513 in ids
    assert np.abs(encoder.encode("dog and doggerel").vector - reference(model, [ids])[0]).max() < 1e-5


def test_prompts_that_share_beginnings_do_not_disturb_each_other(
    tmp_path: Path, small_vocabulary: Path, small_text: CLIPTextModelWithProjection
) -> None:
    """One prompt is the beginning of another, and one occurs twice."""
    save_text(small_text, tmp_path / "text.safetensors")
    prompts = ["a {}", "a {} in", "{}", "a {}", "in a {}"]
    files = {"text": tmp_path / "text.safetensors", "vocabulary": small_vocabulary}
    together = (
        load_clip_text_encoder(alpha_clip_config({"text_heads": 3, "prompts": prompts}, **files))
        .encode("dog")
        .vector
    )
    alone = [
        load_clip_text_encoder(alpha_clip_config({"text_heads": 3, "prompts": [prompt]}, **files))
        .encode("dog")
        .vector
        for prompt in prompts
    ]
    mean = np.mean(alone, axis=0)
    assert np.allclose(together, mean / np.linalg.norm(mean), atol=1e-6)


def test_nan_weights_give_nan(
    tmp_path: Path, small_vocabulary: Path, small_text: CLIPTextModelWithProjection
) -> None:
    for value in (float("nan"), 0.0):
        state = small_text.state_dict()
        state["text_projection.weight"] = torch.full_like(state["text_projection.weight"], value)
        save_file(state, tmp_path / "text.safetensors")
        files = {"text": tmp_path / "text.safetensors", "vocabulary": small_vocabulary}
        assert np.isnan(
            load_clip_text_encoder(alpha_clip_config({"text_heads": 3}, **files)).encode("dog").vector
        ).all()


# -- Start-up ------------------------------------------------------------------------------


def test_a_query_loads_no_torch(
    tmp_path: Path, small_vocabulary: Path, small_text: CLIPTextModelWithProjection
) -> None:
    save_text(small_text, tmp_path / "text.safetensors")
    program = """
import sys
from pathlib import Path
from matir_cli.engines.clip.text_encoder import load_clip_text_encoder
from matir_cli.records import EngineConfig, ModelIdentity
files = {"text": Path(sys.argv[1]), "vocabulary": Path(sys.argv[2])}
encoder = load_clip_text_encoder(EngineConfig("alpha_clip", {"text_heads": 3}, files, ModelIdentity("", "")))
encoder.encode("Dog, led by rope")
heavy = {"torch", "transformers", "safetensors", "ftfy", "PIL", "pycocotools"}
print(sorted(heavy & set(sys.modules)))
encoder.encode("crème")
print(sorted(heavy & set(sys.modules)))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "text.safetensors"), str(small_vocabulary)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "['ftfy']"]


# -- Weights -------------------------------------------------------------------------------


def _change_header(path: Path, change: Callable[[dict[str, dict[str, object]]], None]) -> None:
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + length :])


NORM = "text_model.final_layer_norm.weight"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda header: header.pop(NORM), f"{NORM} is missing"),
        (lambda header: header[NORM].update(shape=[47]), r"shape \[47\], expected \[48\]"),
        (lambda header: header[NORM].update(shape=[-48]), "shape"),
        (lambda header: header[NORM].update(shape=["a"]), "malformed"),
        (lambda header: header[NORM].update(dtype="I32"), "is I32"),
        (lambda header: header[NORM].update(data_offsets=[0, 2**62]), "outside"),
        (lambda header: header[NORM].update(data_offsets=[-192, 0]), "outside"),
        (lambda header: header[NORM].update(data_offsets=[0, 196]), "196 bytes"),
        (lambda header: header["text_projection.weight"].update(shape=[1152]), "expected a matrix"),
        (lambda header: header["text_projection.weight"].update(shape=[24, 0]), "expected a matrix"),
        (lambda header: header.pop("text_model.encoder.layers.0.layer_norm1.weight"), "0 layers"),
        (lambda header: header.pop("text_model.encoder.layers.2.mlp.fc2.bias"), "fc2.bias is missing"),
        (lambda header: header.clear(), "missing"),
    ],
)
def test_damaged_weights_are_named(
    tmp_path: Path,
    small_vocabulary: Path,
    small_text: CLIPTextModelWithProjection,
    change: Callable[[dict[str, dict[str, object]]], None],
    reason: str,
) -> None:
    path = tmp_path / "text.safetensors"
    save_text(small_text, path)
    _change_header(path, change)
    with pytest.raises(CheckpointInvalid, match=reason):
        load_clip_text_encoder(alpha_clip_config({"text_heads": 3}, text=path, vocabulary=small_vocabulary))


@pytest.mark.parametrize(
    "content",
    [b"", b"12345", b"<html>404</html>" * 9, struct.pack("<Q", 2**63) + b"{}", b"\3" + bytes(7) + b"{]}"],
)
def test_files_that_are_no_weights(tmp_path: Path, small_vocabulary: Path, content: bytes) -> None:
    path = tmp_path / "text.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointInvalid, match=r"empty|not a safetensors file"):
        load_clip_text_encoder(alpha_clip_config(text=path, vocabulary=small_vocabulary))
    with pytest.raises(CheckpointInvalid, match="No such file"):
        load_clip_text_encoder(alpha_clip_config(text=tmp_path / "missing", vocabulary=small_vocabulary))


def test_parts_that_do_not_fit(
    tmp_path: Path, vocabulary: Path, small_vocabulary: Path, small_text: CLIPTextModelWithProjection
) -> None:
    path = tmp_path / "text.safetensors"
    save_text(small_text, path)
    with pytest.raises(CheckpointInvalid, match="does not fit the vocabulary"):
        load_clip_text_encoder(alpha_clip_config({"text_heads": 3}, text=path, vocabulary=vocabulary))
    with pytest.raises(CheckpointInvalid, match="5 heads do not divide"):
        load_clip_text_encoder(alpha_clip_config({"text_heads": 5}, text=path, vocabulary=small_vocabulary))
    wrong: list[dict[str, object]] = [{"prompts": prompts} for prompts in ([], ["no place"], ["{} and {}"])]
    wrong.append({"colour": 1})
    for options in wrong:
        with pytest.raises(ModelSetInvalid):
            load_clip_text_encoder(alpha_clip_config(options, text=path, vocabulary=small_vocabulary))
    with pytest.raises(ModelSetInvalid, match="vocabulary"):
        load_clip_text_encoder(alpha_clip_config(text=path))
