"""CLIP's image encoder against transformers and open_clip."""

from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from transformers import CLIPImageProcessorPil
from transformers import CLIPVisionModelWithProjection as CLIPVision

from matir_cli.engines.clip.image_encoder import crop_central_square, load_clip_image_encoder
from tests.support.clip_weights import (
    SMALL_VOCABULARY,
    clip_config,
    clip_pixels,
    random_photo,
    randomise,
    unit,
)

SIDES = (60, 96, 70, 40)


# -- Whole images --------------------------------------------------------------------------


@torch.no_grad()
def test_vit_vectors_equal_transformers(vision: CLIPVision, hub_file: Path) -> None:
    images = [random_photo(side, side, seed) for seed, side in enumerate(SIDES)]
    expected = unit(vision(clip_pixels(images, 40)).image_embeds)
    assert np.max(np.triu(expected @ expected.T, 1)) < 0.97, "the reference hardly tells the photos apart"
    for batch_size in (1, 3, 64):
        options: dict[str, object] = {"heads": 3, "batch_size": batch_size}
        found = load_clip_image_encoder(clip_config(options, checkpoint=hub_file), "cpu").encode_whole(images)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-4


@torch.no_grad()
def test_resnet_vectors_equal_open_clip(resnet: CLIP, resnet_file: Path) -> None:
    images = [random_photo(side, side, seed) for seed, side in enumerate(SIDES)]
    expected = unit(resnet.encode_image(clip_pixels(images, 96)))
    assert np.max(np.triu(expected @ expected.T, 1)) < 0.97, "the reference hardly tells the photos apart"
    found = load_clip_image_encoder(clip_config(checkpoint=resnet_file), "cpu").encode_whole(images)
    assert np.abs(found - expected).max() < 1e-4


@torch.no_grad()
def test_openai_vit_equals_open_clip(tmp_path: Path) -> None:
    """With OpenAI's tensor names, in a file of torch.save."""
    image = CLIPVisionCfg(layers=2, width=128, image_size=40, patch_size=8)
    model = CLIP(
        32, image, CLIPTextCfg(width=64, heads=1, layers=1, vocab_size=SMALL_VOCABULARY), quick_gelu=True
    )
    randomise(model, 5)
    torch.save(model.state_dict(), tmp_path / "model.bin")
    images = [random_photo(side, side, seed) for seed, side in enumerate(SIDES)]
    expected = unit(model.eval().encode_image(clip_pixels(images, 40)))
    found = load_clip_image_encoder(clip_config(checkpoint=tmp_path / "model.bin"), "cpu").encode_whole(
        images
    )
    assert np.abs(found - expected).max() < 1e-4


def test_half_precision_stays_close(resnet_file: Path) -> None:
    image = random_photo(96, 96, 10)
    exact, rough = (
        load_clip_image_encoder(clip_config({"precision": precision}, checkpoint=resnet_file), "cpu")
        for precision in ("float32", "bfloat16")
    )
    assert not np.array_equal(exact.encode_dense(image), rough.encode_dense(image))
    assert np.sum(exact.encode_dense(image) * rough.encode_dense(image), axis=1).min() > 0.99
    assert np.sum(exact.encode_whole([image]) * rough.encode_whole([image])) > 0.99


# -- Grid cells ----------------------------------------------------------------------------


@torch.no_grad()
def test_vit_cells_equal_maskclip(vision: CLIPVision, hub_file: Path) -> None:
    """Against transformers' layers, with each token's own value instead of attention in the last one."""
    image = random_photo(60, 96, 6)
    model, last = vision.vision_model, vision.vision_model.encoder.layers[-1]
    x = model.pre_layrnorm(model.embeddings(clip_pixels([image], 40)))
    for layer in model.encoder.layers[:-1]:
        x = layer(x, None)
        x = x[0] if isinstance(x, tuple) else x
    x = x + last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(x)))
    x = x + last.mlp(last.layer_norm2(x))
    expected = unit(vision.visual_projection(model.post_layernorm(x))[0, 1:])
    found = load_clip_image_encoder(clip_config({"heads": 3}, checkpoint=hub_file), "cpu").encode_dense(image)
    assert found.shape == (25, 24)
    assert np.abs(found - expected).max() < 1e-4
    assert np.min(expected @ expected.T) < 0.8, "the cells hardly differ"


@torch.no_grad()
def test_resnet_cells_equal_the_attention_pool_without_attention(resnet: CLIP, resnet_file: Path) -> None:
    """Against open_clip's feature map with an einsum, and with its own pool on one cell at a time."""
    image, visual, pool = random_photo(100, 100, 7), resnet.visual, resnet.visual.attnpool
    x = visual.stem(clip_pixels([image], 96))
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    value = torch.einsum("vc,chw->hwv", pool.v_proj.weight, x[0]) + pool.v_proj.bias
    cells = torch.einsum("dv,hwv->hwd", pool.c_proj.weight, value) + pool.c_proj.bias
    found = load_clip_image_encoder(clip_config(checkpoint=resnet_file), "cpu").encode_dense(image)
    assert np.abs(found - unit(cells.flatten(0, 1))).max() < 1e-4

    position = pool.positional_embedding.clone()
    pool.positional_embedding.zero_()
    # If all cells are equal, attention returns that cell whatever its weights.
    alone = [unit(pool(cell.view(1, -1, 1, 1).expand(1, -1, 3, 3))[0]) for cell in x[0].flatten(1).T]
    pool.positional_embedding.copy_(position)
    assert np.abs(found - np.stack(alone)).max() < 1e-4


# -- Geometry ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width"), [(300, 500), (501, 310), (30, 17), (40, 40), (41, 900), (333, 2)]
)
def test_the_central_square_equals_clips_transform(height: int, width: int) -> None:
    image = random_photo(height, width, 11)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 40}, crop_size=40, do_normalize=False, do_rescale=False
    )
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    assert np.abs(crop_central_square(image, 40) * 255 - expected).max() <= 1


def test_a_sliver_takes_no_memory(hub_file: Path) -> None:
    """Scaled by its short side, the image would have 40 x 4,000,000 pixels."""
    encoder = load_clip_image_encoder(clip_config({"heads": 3}, checkpoint=hub_file), "cpu")
    found = encoder.encode_whole([random_photo(1, 100_000, 12), random_photo(1, 1, 13)])
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert encoder.encode_whole([]).shape == (0, 24)
