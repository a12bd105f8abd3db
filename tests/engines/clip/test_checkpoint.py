"""CLIP checkpoints of OpenAI, open_clip and transformers: text vectors and file formats."""

from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from transformers import CLIPTextModelWithProjection

from matir_cli.engines.clip.checkpoint import load_checkpoint_text_encoder, read_image_tower, read_text_tower
from matir_cli.engines.clip.image_encoder import load_clip_image_encoder
from matir_cli.engines.clip.tokenizer import load_tokenizer
from matir_cli.errors import CheckpointInvalid, ModelSetInvalid
from matir_cli.records import FloatArray
from tests.support.clip_weights import clip_config, random_photo, save_torchscript, unit

deprecated = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")


@torch.no_grad()
def test_text_vectors_equal_open_clip(resnet: CLIP, resnet_file: Path, small_vocabulary: Path) -> None:
    encoder = load_checkpoint_text_encoder(
        clip_config({"prompts": ["{}"]}, checkpoint=resnet_file, vocabulary=small_vocabulary)
    )
    for query in ("dog", "dog led by rope"):
        ids = load_tokenizer(small_vocabulary).tokenize(query, 77).ids
        padded = torch.tensor([[*ids, *[0] * (77 - len(ids))]])
        assert np.abs(encoder.encode(query).vector - unit(resnet.encode_text(padded))[0]).max() < 1e-5


@torch.no_grad()
def test_text_vectors_equal_transformers(
    text_model: CLIPTextModelWithProjection, hub_file: Path, small_vocabulary: Path
) -> None:
    options: dict[str, object] = {"prompts": ["a {}"], "text_heads": 3}
    encoder = load_checkpoint_text_encoder(
        clip_config(options, checkpoint=hub_file, vocabulary=small_vocabulary)
    )
    ids = load_tokenizer(small_vocabulary).tokenize("a dog", 77).ids
    expected = unit(text_model(torch.tensor([ids])).text_embeds)[0]
    assert np.abs(encoder.encode("dog").vector - expected).max() < 1e-5


def all_vectors(checkpoint: Path, vocabulary: Path) -> FloatArray:
    """Return (n, d): the vectors of a photo, of its grid cells and of a query."""
    made, image = clip_config(checkpoint=checkpoint, vocabulary=vocabulary), random_photo(96, 100, 14)
    encoder = load_clip_image_encoder(made, "cpu")
    query = load_checkpoint_text_encoder(made).encode("dog").vector
    return np.concatenate([encoder.encode_whole([image]), encoder.encode_dense(image), query[None]])


@deprecated
def test_openais_own_archives(
    resnet: CLIP, resnet_file: Path, small_vocabulary: Path, tmp_path: Path
) -> None:
    """With half precision, tensors that share a storage, and tensors that are not weights."""
    state = {name: value.half() for name, value in resnet.state_dict().items() if value.is_floating_point()}
    both = torch.stack([state["visual.bn1.weight"], state["visual.bn1.bias"]])
    state |= {"visual.bn1.weight": both[0], "visual.bn1.bias": both[1], "context_length": torch.tensor(77)}
    save_torchscript(state, tmp_path / "RN.pt")
    found = all_vectors(checkpoint=tmp_path / "RN.pt", vocabulary=small_vocabulary)
    exact = all_vectors(checkpoint=resnet_file, vocabulary=small_vocabulary)
    assert found.shape == exact.shape == (1 + 9 + 1, 32)
    assert np.sum(found * exact, axis=1).min() > 0.999


@deprecated
def test_every_container_gives_the_same_vectors(
    resnet: CLIP, resnet_file: Path, small_vocabulary: Path, tmp_path: Path
) -> None:
    torch.save(resnet.state_dict(), tmp_path / "state.bin")
    save_torchscript(resnet.state_dict(), tmp_path / "script.pt")
    expected = all_vectors(checkpoint=resnet_file, vocabulary=small_vocabulary)
    for name in ("state.bin", "script.pt"):
        assert np.array_equal(all_vectors(checkpoint=tmp_path / name, vocabulary=small_vocabulary), expected)


def test_parts_that_do_not_fit(
    resnet_file: Path, hub_file: Path, small_vocabulary: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointInvalid, match="7 heads"):
        load_clip_image_encoder(clip_config({"heads": 7}, checkpoint=resnet_file), "cpu")
    with pytest.raises(CheckpointInvalid, match="5 heads do not divide"):
        load_clip_image_encoder(clip_config({"heads": 5}, checkpoint=hub_file), "cpu")
    with pytest.raises(CheckpointInvalid, match="No such file"):
        load_clip_image_encoder(clip_config(checkpoint=tmp_path / "missing.pt"), "cpu")
    with pytest.raises(ModelSetInvalid, match="checkpoint"):
        load_clip_image_encoder(clip_config(), "cpu")
    with pytest.raises(ModelSetInvalid):
        load_clip_image_encoder(clip_config({"transform": "zoom"}, checkpoint=hub_file), "cpu")
    save_file({"visual.conv1.weight": torch.zeros(3)}, tmp_path / "image.safetensors")
    with pytest.raises(CheckpointInvalid, match="no text tower"):
        load_checkpoint_text_encoder(
            clip_config(checkpoint=tmp_path / "image.safetensors", vocabulary=small_vocabulary)
        )
    save_file({"ln_final.weight": torch.zeros(3)}, tmp_path / "text.safetensors")
    with pytest.raises(CheckpointInvalid, match=r"token_embedding.weight is missing"):
        load_checkpoint_text_encoder(
            clip_config(checkpoint=tmp_path / "text.safetensors", vocabulary=small_vocabulary)
        )
    halves = {"vision_model.encoder.layers.0.self_attn.q_proj.weight": torch.zeros(4, 4)}
    save_file(halves, tmp_path / "halves.safetensors")
    with pytest.raises(CheckpointInvalid, match="query, key and value"):
        load_clip_image_encoder(clip_config(checkpoint=tmp_path / "halves.safetensors"), "cpu")


def test_towers_come_under_the_names_that_the_engines_expect(hub_file: Path, resnet_file: Path) -> None:
    assert {"conv1.weight", "proj", "transformer.resblocks.0.attn.in_proj.weight"} <= read_image_tower(
        hub_file
    ).keys()
    assert "attnpool.c_proj.weight" in read_image_tower(resnet_file)
    for path in (hub_file, resnet_file):
        text = read_text_tower(path)
        width = text.shape("text_model.final_layer_norm.weight")[0]
        assert (
            text.read("text_model.encoder.layers.0.self_attn.q_proj.weight", width, width).dtype == np.float32
        )
        with pytest.raises(CheckpointInvalid, match=r"expected \[3\]"):
            text.read("text_model.final_layer_norm.weight", 3)
