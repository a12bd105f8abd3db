from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil, CLIPTextModelWithProjection
from transformers import CLIPVisionModelWithProjection as CLIPVision

from matir_cli import masks
from matir_cli.engines.clip.alpha_dense import load_alpha_clip_dense
from matir_cli.engines.clip.alpha_encoder import load_alpha_clip_encoder, place
from matir_cli.engines.clip.checkpoint import load_checkpoint_text_encoder
from matir_cli.engines.clip.image_encoder import central_square, load_clip_image_encoder
from matir_cli.engines.clip.tokenizer import load_tokenizer
from matir_cli.engines.registry import load_dense_encoder, load_region_encoder, load_text_encoder
from matir_cli.errors import CheckpointInvalid, ModelSetInvalid
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.weights import locate_files
from matir_cli.records import EngineConfig, FloatArray, ImageArray, ModelIdentity
from tests.support.clip_weights import (
    VISION_SMALL,
    byte_symbols,
    config,
    random_text,
    random_vision,
    randomise,
    save_tokenizer,
    save_torchscript,
    text_config,
    to_openai,
)

State = dict[str, Tensor]

VOCABULARY = 516
SIDES = (60, 96, 70, 40)

deprecated = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")


def plain(options: dict[str, object] | None = None, **files: Path) -> EngineConfig:
    """What a model set hands to the engine `clip`."""
    return EngineConfig("clip", options or {}, files, ModelIdentity("random", "0" * 64))


def photo(height: int, width: int, seed: int) -> ImageArray:
    """Blotches of 8 x 8 pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def unit(vectors: Tensor) -> FloatArray:
    return (vectors / vectors.norm(dim=-1, keepdim=True)).numpy()


def processed(images: list[ImageArray], side: int) -> Tensor:
    """(n, 3, side, side) as transformers prepares pictures for CLIP."""
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=side)
    return torch.cat([processor(image, return_tensors="pt")["pixel_values"] for image in images])


@pytest.fixture(scope="module")
def vision() -> CLIPVision:
    return random_vision(VISION_SMALL, 1)


@pytest.fixture(scope="module")
def text() -> CLIPTextModelWithProjection:
    return random_text(text_config(48, 2, 3, 24, VOCABULARY), 2)


@pytest.fixture(scope="module")
def hub_file(
    vision: CLIPVision, text: CLIPTextModelWithProjection, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A ViT as on the Hugging Face hub."""
    path = tmp_path_factory.mktemp("hub") / "model.safetensors"
    extra = {"text_model.embeddings.position_ids": torch.arange(77), "logit_scale": torch.ones(1)}
    towers = {**vision.state_dict(), **text.state_dict(), **extra}
    save_file({name: value.contiguous() for name, value in towers.items()}, path)
    return path


@pytest.fixture(scope="module")
def resnet() -> CLIP:
    """A ModifiedResNet as open_clip makes it, 9 cells of 32 pixels, with blocks of both kinds."""
    image = CLIPVisionCfg(layers=(1, 2, 1, 2), width=16, image_size=96, patch_size=None)
    model = CLIP(32, image, CLIPTextCfg(width=64, heads=1, layers=2, vocab_size=VOCABULARY), quick_gelu=True)
    randomise(model, 3)
    # Norms that fit the photos keep the layers from giving all of them the same.
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        model.train().encode_image(processed([photo(96, 96, seed) for seed in range(20, 32)], 96))
    return model.eval()


@pytest.fixture(scope="module")
def resnet_file(resnet: CLIP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resnet") / "open_clip_model.safetensors"
    save_file(resnet.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), "do", "dog</w>"]
    save_tokenizer(path, [*tokens, "<|startoftext|>", "<|endoftext|>"], ["d o", "do g</w>"])
    return path


# -- Parity: image towers --------------------------------------------------------------------


@torch.no_grad()
def test_vit_vectors_equal_transformers(vision: CLIPVision, hub_file: Path) -> None:
    images = [photo(side, side, seed) for seed, side in enumerate(SIDES)]
    expected = unit(vision(processed(images, 40)).image_embeds)
    assert np.max(np.triu(expected @ expected.T, 1)) < 0.97, "the reference hardly tells the photos apart"
    for batch_size in (1, 3, 64):
        options: dict[str, object] = {"heads": 3, "batch_size": batch_size}
        found = load_clip_image_encoder(plain(options, checkpoint=hub_file), "cpu").whole(images)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-4


@torch.no_grad()
def test_resnet_vectors_equal_open_clip(resnet: CLIP, resnet_file: Path) -> None:
    images = [photo(side, side, seed) for seed, side in enumerate(SIDES)]
    expected = unit(resnet.encode_image(processed(images, 96)))
    assert np.max(np.triu(expected @ expected.T, 1)) < 0.97, "the reference hardly tells the photos apart"
    found = load_clip_image_encoder(plain(checkpoint=resnet_file), "cpu").whole(images)
    assert np.abs(found - expected).max() < 1e-4


@torch.no_grad()
def test_openai_vit_equals_open_clip(tmp_path: Path) -> None:
    """Under OpenAI's names, saved by torch."""
    image = CLIPVisionCfg(layers=2, width=128, image_size=40, patch_size=8)
    model = CLIP(32, image, CLIPTextCfg(width=64, heads=1, layers=1, vocab_size=VOCABULARY), quick_gelu=True)
    randomise(model, 5)
    torch.save(model.state_dict(), tmp_path / "model.bin")
    images = [photo(side, side, seed) for seed, side in enumerate(SIDES)]
    expected = unit(model.eval().encode_image(processed(images, 40)))
    found = load_clip_image_encoder(plain(checkpoint=tmp_path / "model.bin"), "cpu").whole(images)
    assert np.abs(found - expected).max() < 1e-4


@torch.no_grad()
def test_vit_places_are_maskclips(vision: CLIPVision, hub_file: Path) -> None:
    """transformers' own layers; attention in the last one gives each token its own value."""
    image = photo(60, 96, 6)
    model, last = vision.vision_model, vision.vision_model.encoder.layers[-1]
    x = model.pre_layrnorm(model.embeddings(processed([image], 40)))
    for layer in model.encoder.layers[:-1]:
        x = layer(x, None)
        x = x[0] if isinstance(x, tuple) else x
    x = x + last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(x)))
    x = x + last.mlp(last.layer_norm2(x))
    expected = unit(vision.visual_projection(model.post_layernorm(x))[0, 1:])
    found = load_clip_image_encoder(plain({"heads": 3}, checkpoint=hub_file), "cpu").dense(image)
    assert found.shape == (25, 24)
    assert np.abs(found - expected).max() < 1e-4
    assert np.min(expected @ expected.T) < 0.8, "the places hardly differ"


@torch.no_grad()
def test_resnet_places_are_the_attention_pool_without_attention(resnet: CLIP, resnet_file: Path) -> None:
    """open_clip's feature map; then its own pool, made to look at one cell, and an einsum."""
    image, visual, pool = photo(100, 100, 7), resnet.visual, resnet.visual.attnpool
    x = visual.stem(processed([image], 96))
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    value = torch.einsum("vc,chw->hwv", pool.v_proj.weight, x[0]) + pool.v_proj.bias
    places = torch.einsum("dv,hwv->hwd", pool.c_proj.weight, value) + pool.c_proj.bias
    found = load_clip_image_encoder(plain(checkpoint=resnet_file), "cpu").dense(image)
    assert np.abs(found - unit(places.flatten(0, 1))).max() < 1e-4

    position = pool.positional_embedding.clone()
    pool.positional_embedding.zero_()
    # A picture of one cell everywhere: whatever attention does, it finds that cell.
    alone = [unit(pool(cell.view(1, -1, 1, 1).expand(1, -1, 3, 3))[0]) for cell in x[0].flatten(1).T]
    pool.positional_embedding.copy_(position)
    assert np.abs(found - np.stack(alone)).max() < 1e-4


@pytest.mark.parametrize("transform", ["letterbox", "squash"])
def test_alpha_clip_with_all_ones_is_what_the_gallery_holds(tmp_path: Path, transform: str) -> None:
    state = to_openai(random_vision(VISION_SMALL, 8))
    generator = torch.Generator().manual_seed(9)
    state["conv1_alpha.weight"] = torch.randn(state["conv1_alpha.weight"].shape, generator=generator)
    torch.save(state, tmp_path / "visual.pth")
    settings = config({"heads": 3, "transform": transform}, visual=tmp_path / "visual.pth")
    images = [photo(60, 96, 1), photo(96, 60, 2), photo(70, 70, 3), photo(40, 41, 4)]
    gallery = load_alpha_clip_encoder(settings, "cpu")
    expected = [gallery.encode(image, [masks.whole(*image.shape[:2])])[0] for image in images]
    encoder = load_alpha_clip_dense(settings, "cpu")
    assert np.abs(encoder.whole(images) - np.stack(expected)).max() < 1e-5
    # 40 pixels, cells of 8: a photo of 60 x 96 comes to lie in rows 7 to 32, in four rows of cells.
    assert len(encoder.dense(images[0])) == (25 if transform == "squash" else 4 * 5)
    assert len(encoder.dense(photo(20, 200, 1))) == (25 if transform == "squash" else 5)
    at = place("letterbox", 20, 200, 40)
    assert (at.top, at.height) == (18, 4), "in the third row of cells alone"


def test_half_precision_stays_close(resnet_file: Path) -> None:
    image = photo(96, 96, 10)
    exact, rough = (
        load_clip_image_encoder(plain({"precision": precision}, checkpoint=resnet_file), "cpu")
        for precision in ("float32", "bfloat16")
    )
    assert not np.array_equal(exact.dense(image), rough.dense(image))
    assert np.sum(exact.dense(image) * rough.dense(image), axis=1).min() > 0.99
    assert np.sum(exact.whole([image]) * rough.whole([image])) > 0.99


@pytest.mark.parametrize(
    ("height", "width"), [(300, 500), (501, 310), (30, 17), (40, 40), (41, 900), (333, 2)]
)
def test_the_central_square_is_clips(height: int, width: int) -> None:
    image = photo(height, width, 11)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 40}, crop_size=40, do_normalize=False, do_rescale=False
    )
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    assert np.abs(central_square(image, 40) * 255 - expected).max() <= 1


def test_a_sliver_takes_no_memory(hub_file: Path) -> None:
    """Scaled to its short side it would be 40 x 4,000,000."""
    encoder = load_clip_image_encoder(plain({"heads": 3}, checkpoint=hub_file), "cpu")
    found = encoder.whole([photo(1, 100_000, 12), photo(1, 1, 13)])
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert encoder.whole([]).shape == (0, 24)


# -- Parity: text towers ---------------------------------------------------------------------


@torch.no_grad()
def test_text_vectors_equal_open_clip(resnet: CLIP, resnet_file: Path, vocabulary: Path) -> None:
    encoder = load_checkpoint_text_encoder(
        plain({"prompts": ["{}"]}, checkpoint=resnet_file, vocabulary=vocabulary)
    )
    for query in ("dog", "dog led by rope"):
        ids = load_tokenizer(vocabulary).tokenize(query, 77).ids
        padded = torch.tensor([[*ids, *[0] * (77 - len(ids))]])
        assert np.abs(encoder.encode(query).vector - unit(resnet.encode_text(padded))[0]).max() < 1e-5


@torch.no_grad()
def test_text_vectors_equal_transformers(
    text: CLIPTextModelWithProjection, hub_file: Path, vocabulary: Path
) -> None:
    options: dict[str, object] = {"prompts": ["a {}"], "text_heads": 3}
    encoder = load_checkpoint_text_encoder(plain(options, checkpoint=hub_file, vocabulary=vocabulary))
    ids = load_tokenizer(vocabulary).tokenize("a dog", 77).ids
    expected = unit(text(torch.tensor([ids])).text_embeds)[0]
    assert np.abs(encoder.encode("dog").vector - expected).max() < 1e-5


# -- Files -----------------------------------------------------------------------------------


def all_vectors(**files: Path) -> FloatArray:
    """(n, d): of a photo, its places and a query."""
    made, image = plain(**files), photo(96, 100, 14)
    encoder = load_clip_image_encoder(made, "cpu")
    query = load_checkpoint_text_encoder(made).encode("dog").vector
    return np.concatenate([encoder.whole([image]), encoder.dense(image), query[None]])


@deprecated
def test_openais_own_archives(resnet: CLIP, resnet_file: Path, vocabulary: Path, tmp_path: Path) -> None:
    """Half precision, tensors that share a storage, and what is no weight."""
    state = {name: value.half() for name, value in resnet.state_dict().items() if value.is_floating_point()}
    both = torch.stack([state["visual.bn1.weight"], state["visual.bn1.bias"]])
    state |= {"visual.bn1.weight": both[0], "visual.bn1.bias": both[1], "context_length": torch.tensor(77)}
    save_torchscript(state, tmp_path / "RN.pt")
    found = all_vectors(checkpoint=tmp_path / "RN.pt", vocabulary=vocabulary)
    exact = all_vectors(checkpoint=resnet_file, vocabulary=vocabulary)
    assert found.shape == exact.shape == (1 + 9 + 1, 32)
    assert np.sum(found * exact, axis=1).min() > 0.999


@deprecated
def test_every_container_gives_the_same_vectors(
    resnet: CLIP, resnet_file: Path, vocabulary: Path, tmp_path: Path
) -> None:
    torch.save(resnet.state_dict(), tmp_path / "state.bin")
    save_torchscript(resnet.state_dict(), tmp_path / "script.pt")
    expected = all_vectors(checkpoint=resnet_file, vocabulary=vocabulary)
    for name in ("state.bin", "script.pt"):
        assert np.array_equal(all_vectors(checkpoint=tmp_path / name, vocabulary=vocabulary), expected)


def _without(*names: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if name not in names}


def _with(name: str, *shape: int) -> Callable[[State], State]:
    return lambda state: {**state, name: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_without("visual.bn2.running_mean"), "no 'bn2.running_mean'"),
        (_without("visual.layer2.1.conv2.weight"), "no layer2.1.conv2.bias, layer2.1.conv2.weight"),
        (_without("visual.attnpool.q_proj.bias"), "no attnpool.q_proj.bias"),
        (_without("visual.attnpool.c_proj.weight"), "not the image tower of a CLIP"),
        (_without("visual.layer3.0.conv1.weight", "visual.layer3.1.conv1.weight"), "0 blocks in layer3"),
        (_with("visual.bn1.weight", 3), "not the image tower of a CLIP"),
        (_with("visual.conv2.weight", 8, 9, 3, 3), "wrong shape or type of conv2"),
        (_with("visual.conv3.weight", 18, 8, 3, 3), "not the image tower of a CLIP"),
        (_with("visual.attnpool.positional_embedding", 9, 512), "9 positions"),
        (_with("visual.attnpool.positional_embedding", 9), "unpack"),
        (lambda state: {n: v for n, v in state.items() if not n.startswith("visual.")}, "no image tower"),
    ],
)
def test_what_is_no_clip_is_named(
    resnet: CLIP, tmp_path: Path, change: Callable[[State], State], reason: str
) -> None:
    save_file(change(dict(resnet.state_dict())), tmp_path / "changed.safetensors")
    with pytest.raises(CheckpointInvalid, match=reason):
        load_clip_image_encoder(plain(checkpoint=tmp_path / "changed.safetensors"), "cpu")


def test_parts_that_do_not_fit(resnet_file: Path, hub_file: Path, vocabulary: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="7 heads"):
        load_clip_image_encoder(plain({"heads": 7}, checkpoint=resnet_file), "cpu")
    with pytest.raises(CheckpointInvalid, match="5 heads do not divide"):
        load_clip_image_encoder(plain({"heads": 5}, checkpoint=hub_file), "cpu")
    with pytest.raises(CheckpointInvalid, match="No such file"):
        load_clip_image_encoder(plain(checkpoint=tmp_path / "missing.pt"), "cpu")
    with pytest.raises(ModelSetInvalid, match="checkpoint"):
        load_clip_image_encoder(plain(), "cpu")
    with pytest.raises(ModelSetInvalid):
        load_clip_image_encoder(plain({"transform": "zoom"}, checkpoint=hub_file), "cpu")
    save_file({"visual.conv1.weight": torch.zeros(3)}, tmp_path / "image.safetensors")
    with pytest.raises(CheckpointInvalid, match="no text tower"):
        load_checkpoint_text_encoder(plain(checkpoint=tmp_path / "image.safetensors", vocabulary=vocabulary))
    save_file({"ln_final.weight": torch.zeros(3)}, tmp_path / "text.safetensors")
    with pytest.raises(CheckpointInvalid, match=r"token_embedding.weight is missing"):
        load_checkpoint_text_encoder(plain(checkpoint=tmp_path / "text.safetensors", vocabulary=vocabulary))
    halves = {"vision_model.encoder.layers.0.self_attn.q_proj.weight": torch.zeros(4, 4)}
    save_file(halves, tmp_path / "halves.safetensors")
    with pytest.raises(CheckpointInvalid, match="query, key and value"):
        load_clip_image_encoder(plain(checkpoint=tmp_path / "halves.safetensors"), "cpu")


# -- Model sets ------------------------------------------------------------------------------


def test_a_model_set_of_an_encoder_alone(
    resnet_file: Path, vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATIR_MODELS", str(tmp_path / "models"))
    (tmp_path / "clip.safetensors").write_bytes(resnet_file.read_bytes())
    (tmp_path / "tokenizer.json").write_bytes(vocabulary.read_bytes())
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
    image = photo(96, 96, 15)
    vectors = load_dense_encoder(found, "cpu").whole([image])
    assert vectors @ load_text_encoder(found).encode("dog").vector < 1
    with pytest.raises(ModelSetInvalid, match="no engine is called 'clip'"):
        load_region_encoder(found, "cpu")


def test_the_tiny_set_is_a_baseline_too() -> None:
    found = locate_files(load_model_set("tiny"), "encoder")
    image = photo(192, 192, 16)
    dense = load_dense_encoder(found, "cpu").dense(image)
    gallery = load_region_encoder(found, "cpu").encode(image, [masks.whole(192, 192)])
    whole = load_dense_encoder(found, "cpu").whole([image])
    assert np.abs(whole - gallery).max() < 1e-5
    assert dense.shape[1] == whole.shape[1]
    assert np.allclose(np.linalg.norm(dense, axis=1), 1, atol=1e-5)
