"""Region tokens against a plain restatement of TextRegion's formulas over transformers' towers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from matir_cli import masks
from matir_cli.engines.region_tokens.encoder import RegionTokensEncoder, load_region_tokens_encoder
from matir_cli.engines.registry import identify_config, load_region_encoder
from matir_cli.errors import CheckpointInvalid, ModelSetInvalid
from matir_cli.records import FloatArray, MaskArray
from tests.engines.region_tokens.conftest import Checkpoint
from tests.engines.region_tokens.restatement import region_tokens
from tests.support.clip_weights import random_photo
from tests.support.siglip_weights import region_tokens_config

SIZES = {"landscape": (80, 120), "portrait": (132, 88), "panorama": (40, 240), "square": (64, 64)}
"""(height, width) such that crops begin at whole pixels, as the restatement has them."""


def some_masks(height: int, width: int) -> list[MaskArray]:
    """Return the whole photo, ellipses, a stripe that overlaps them, and a speck between patches' centres."""
    rows, columns = np.mgrid[:height, :width]
    found: list[MaskArray] = [np.ones((height, width), dtype=np.bool_)]
    for y, x, radius in ((0.3, 0.25, 0.2), (0.6, 0.7, 0.25), (0.75, 0.2, 0.12)):
        found.append((rows / height - y) ** 2 + (columns / width - x) ** 2 < radius**2)
    found.append(rows > 0.55 * height)
    speck = np.zeros((height, width), dtype=np.bool_)
    speck[0, 0] = True
    found.append(speck)
    return found


def encode(encoder: RegionTokensEncoder, seed: int, found: list[MaskArray]) -> FloatArray:
    """Encode masks of a random photo of their size."""
    height, width = found[0].shape
    return encoder.encode(random_photo(height, width, seed), [masks.encode(mask) for mask in found])


@pytest.mark.parametrize("crops", [0, 1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_vectors_equal_the_formulas(checkpoint: Checkpoint, size: str, crops: int) -> None:
    found = some_masks(*SIZES[size])
    encoder = load_region_tokens_encoder(checkpoint.config(crops=crops), "cpu")
    vectors = encode(encoder, 5, found)
    image = random_photo(*SIZES[size], 5)
    expected = region_tokens(checkpoint.vision, image, found, checkpoint.side, crops, 0.07)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(found), encoder.dimensions)
    assert np.abs(vectors - expected).max() < 1e-4
    assert np.max(np.triu(expected @ expected.T, 1)) < 0.999, "all regions look alike"


@pytest.mark.parametrize("threshold", [-3.0, 0.0, 0.3])
def test_suppression_equals_the_formula(checkpoint: Checkpoint, threshold: float) -> None:
    found = some_masks(*SIZES["landscape"])
    encoder = load_region_tokens_encoder(checkpoint.config(global_patch_threshold=threshold), "cpu")
    image = random_photo(*SIZES["landscape"], 5)
    expected = region_tokens(checkpoint.vision, image, found, checkpoint.side, 2, threshold)
    assert np.abs(encode(encoder, 5, found) - expected).max() < 1e-4


def test_suppression_changes_vectors(checkpoint: Checkpoint) -> None:
    found = some_masks(*SIZES["landscape"])
    plain, strict = (
        encode(load_region_tokens_encoder(checkpoint.config(global_patch_threshold=each), "cpu"), 5, found)
        for each in (-3.0, 0.07)
    )
    assert np.abs(plain - strict)[1:].max() > 1e-3
    np.testing.assert_array_equal(plain[0], strict[0])


def test_the_whole_photo_has_the_towers_own_vector(checkpoint: Checkpoint) -> None:
    """Whether other masks are given or not; the batch size is of no account either."""
    found = some_masks(*SIZES["portrait"])
    both = encode(load_region_tokens_encoder(checkpoint.config(), "cpu"), 6, found)
    alone = encode(load_region_tokens_encoder(checkpoint.config(batch_size=1), "cpu"), 6, found[:1])
    np.testing.assert_allclose(both[:1], alone, atol=1e-6)


def test_order_and_batches_do_not_matter(checkpoint: Checkpoint) -> None:
    found = some_masks(*SIZES["square"]) * 4
    encoder = load_region_tokens_encoder(checkpoint.config(batch_size=2), "cpu")
    forward, backward = encode(encoder, 7, found), encode(encoder, 7, found[::-1])
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-6)
    np.testing.assert_allclose(forward[:6], forward[6:12], atol=1e-6)


def test_no_masks_and_masks_of_another_size(checkpoint: Checkpoint) -> None:
    encoder = load_region_tokens_encoder(checkpoint.config(), "cpu")
    assert encoder.encode(random_photo(40, 60, 1), []).shape == (0, encoder.dimensions)
    with pytest.raises(ValueError, match="a mask does not have the photo's size 40 x 60"):
        encoder.encode(random_photo(40, 60, 1), [masks.whole(60, 40)])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 5)])
def test_photos_smaller_than_the_grid(checkpoint: Checkpoint, size: tuple[int, int]) -> None:
    mask = np.zeros(size, dtype=np.bool_)
    mask[0, : size[1] // 2 + 1] = True
    vectors = encode(load_region_tokens_encoder(checkpoint.config(), "cpu"), 8, [mask])
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5


def test_bfloat16_is_near(checkpoint: Checkpoint) -> None:
    found = some_masks(*SIZES["square"])
    full, half = (
        encode(load_region_tokens_encoder(checkpoint.config(precision=each), "cpu"), 9, found)
        for each in ("float32", "bfloat16")
    )
    assert np.sum(full * half, axis=1).min() > 0.99


def test_what_changes_the_vectors_changes_the_identity(checkpoint: Checkpoint) -> None:
    plain = identify_config(checkpoint.config()).identity.weight_hash
    changed = (
        identify_config(checkpoint.config(crops=3)),
        identify_config(checkpoint.config(global_patch_threshold=0.1)),
        identify_config(checkpoint.config(heads=6)),
    )
    assert len({plain, *(config.identity.weight_hash for config in changed)}) == 4
    assert identify_config(checkpoint.config(batch_size=3)).identity.weight_hash == plain
    assert identify_config(checkpoint.config(prompts=["{}!"])).identity.weight_hash == plain


def test_openai_names_and_files_of_torch(clip: Checkpoint, tmp_path: Path) -> None:
    """A CLIP in a file of torch.save has the same vectors."""
    torch.save(load_file(clip.folder / "model.safetensors"), tmp_path / "model.pt")
    config = region_tokens_config({"heads": 3}, checkpoint=tmp_path / "model.pt")
    found = some_masks(*SIZES["square"])
    image, rles = random_photo(*SIZES["square"], 3), [masks.encode(mask) for mask in found]
    expected = load_region_encoder(clip.config(), "cpu").encode(image, rles)
    np.testing.assert_array_equal(load_region_encoder(config, "cpu").encode(image, rles), expected)


def test_a_resnet_is_refused(resnet_file: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="its image tower is a ResNet, not a ViT"):
        load_region_encoder(region_tokens_config({}, checkpoint=resnet_file), "cpu")


def test_invalid_options(siglip: Checkpoint) -> None:
    for options in ({"crops": 9}, {"global_patch_threshold": 4.0}, {"prompts": ["x"]}, {"transform": "crop"}):
        with pytest.raises(ModelSetInvalid):
            load_region_encoder(siglip.config(**options), "cpu")
