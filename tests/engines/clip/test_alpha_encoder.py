"""Alpha-CLIP's region encoder against transformers and upstream's formulas."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms.functional import resize
from transformers import CLIPImageProcessorPil

from matir_cli import masks
from matir_cli.engines.clip.alpha_encoder import (
    AlphaClipEncoder,
    compute_placement,
    load_alpha_clip_encoder,
    load_visual_tower,
    render_alpha,
    render_rgb,
)
from matir_cli.engines.clip.options import ClipOptions, Transform
from matir_cli.errors import CheckpointInvalid, ModelSetInvalid
from matir_cli.records import ImageArray, MaskArray
from tests.support.clip_weights import (
    VISION_B16,
    alpha_clip_config,
    normalised,
    plain_tower,
    random_vision,
    to_openai,
    unit,
)

SMALL_HEADS = {"heads": 3}


CPU = torch.device("cpu")


def photo(height: int, width: int, seed: int) -> ImageArray:
    """Return (height, width, 3) uint8: smooth coarse colours with fine noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-20, 21, (height, width, 3))
    return np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)


def blob(height: int, width: int, seed: int) -> MaskArray:
    """Return (height, width) bool: a random ellipse."""
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(0.2, 0.8, 2)
    ry, rx = rng.uniform(0.1, 0.4, 2)
    rows, columns = np.mgrid[:height, :width]
    inside: MaskArray = ((rows / height - y) / ry) ** 2 + ((columns / width - x) / rx) ** 2 < 1
    return inside


# -- Parity --------------------------------------------------------------------------------


@torch.no_grad()
def test_vectors_equal_transformers_with_full_size_vit_b16(tmp_path: Path) -> None:
    """With `conv1_alpha` zero; photos resized to 224 x 224 by PIL and by transformers' processor."""
    reference = random_vision(VISION_B16, 0)
    torch.save(to_openai(reference), tmp_path / "visual.pth")
    wide, tall, square = photo(150, 300, 1), photo(300, 200, 2), photo(260, 260, 3)
    letterboxed = Image.new("RGB", (224, 224))
    letterboxed.paste(Image.fromarray(wide).resize((224, 112), Image.Resampling.BICUBIC), (0, 56))
    squashed = Image.fromarray(tall).resize((224, 224), Image.Resampling.BICUBIC)
    processed = CLIPImageProcessorPil()(square, return_tensors="pt")["pixel_values"]
    pixels = torch.cat([normalised(letterboxed), normalised(squashed), processed])
    expected = unit(reference(pixels).image_embeds)
    assert np.max(np.triu(expected @ expected.T, 1)) < 0.9, "the reference hardly tells the photos apart"

    found = []
    for image, transform in ((wide, "letterbox"), (tall, "squash"), (square, "crop")):
        encoder = load_alpha_clip_encoder(
            alpha_clip_config(
                {"transform": transform, "precision": "float32"}, visual=tmp_path / "visual.pth"
            ),
            "cpu",
        )
        found.append(encoder.encode(image, [masks.encode(blob(image.shape[0], image.shape[1], 4))])[0])
    assert encoder.dimensions == 512
    assert np.abs(np.stack(found) - expected).max() < 1e-4
    # As it is chosen on this machine, and in bfloat16 on any.
    for precision in ("auto", "bfloat16"):
        config = alpha_clip_config(
            {"transform": "crop", "precision": precision}, visual=tmp_path / "visual.pth"
        )
        (rough,) = load_alpha_clip_encoder(config, "cpu").encode(square, [masks.whole(260, 260)])
        assert rough @ expected[2] > 0.9995


def test_masks_act_as_upstream(visual_file: Path) -> None:
    state, side = torch.load(visual_file, weights_only=True), 40
    image = photo(60, 80, 5)
    shapes = [blob(60, 80, seed) for seed in range(5)] + [
        np.zeros((60, 80), np.bool_),
        np.ones((60, 80), np.bool_),
    ]
    square = Image.new("RGB", (side, side))
    square.paste(Image.fromarray(image).resize((40, 30), Image.Resampling.BICUBIC), (0, 5))
    rows = []
    for shape in shapes:
        alpha = torch.full((1, 1, side, side), float(shape.all()))
        alpha[:, :, 5:35] = resize(torch.from_numpy(shape).float()[None, None], [30, 40], antialias=True)
        rows.append(plain_tower(state, 3, normalised(square), (alpha - 0.5) / 0.26)[0])
    expected = unit(torch.stack(rows))
    apart = np.abs(expected[:, None] - expected[None]).max(axis=2) + np.eye(len(expected))
    assert apart.min() > 0.01, "the masks hardly matter"

    for batch_size in (1, 3, 64):
        encoder = load_alpha_clip_encoder(
            alpha_clip_config({"heads": 3, "batch_size": batch_size}, visual=visual_file), "cpu"
        )
        found = encoder.encode(image, [masks.encode(shape) for shape in shapes])
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-5


def test_half_precision_stays_close(visual_file: Path) -> None:
    image, rles = photo(40, 40, 6), [masks.encode(blob(40, 40, seed)) for seed in range(3)]
    exact, *rough = (
        load_alpha_clip_encoder(
            alpha_clip_config({"heads": 3, "precision": precision}, visual=visual_file), "cpu"
        ).encode(image, rles)
        for precision in ("float32", "float16", "bfloat16")
    )
    for vectors in rough:
        assert not np.array_equal(vectors, exact)
        assert np.sum(vectors * exact, axis=1).min() > 0.999


# -- Geometry ------------------------------------------------------------------------------


@given(st.sampled_from(("letterbox", "squash", "crop")), st.integers(1, 3000), st.integers(1, 3000))
def test_placement_lies_in_the_square(transform: Transform, height: int, width: int) -> None:
    at = compute_placement(transform, height, width, 224)
    assert min(at.height, at.width, at.top + 1, at.left + 1) >= 1
    assert at.top + at.height <= 224
    assert at.left + at.width <= 224
    assert max(at.height, at.width) == 224
    seen = (at.rows.stop - at.rows.start, at.columns.stop - at.columns.start)
    assert seen == (height, width) if transform != "crop" else seen == (min(height, width),) * 2
    if transform == "letterbox":
        assert abs(at.height * width - at.width * height) <= max(height, width)


@pytest.mark.parametrize("transform", ["letterbox", "squash", "crop"])
@pytest.mark.parametrize(("height", "width"), [(300, 500), (500, 310), (30, 17), (400, 400)])
def test_photo_and_mask_are_transformed_alike(transform: Transform, height: int, width: int) -> None:
    mask = blob(height, width, 7)
    image = np.repeat(mask[:, :, None], 3, axis=2).astype(np.uint8) * 255
    at = compute_placement(transform, height, width, 112)
    rgb = render_rgb(image, at, 112)
    alpha = render_alpha([masks.encode(mask)], at, 112, CPU)[0, 0].numpy()
    # Bicubic and bilinear differ along edges; a shift by one pixel would cost ten times as much.
    assert np.abs(rgb[0] - alpha).mean() < 0.01
    assert alpha.max() > 0.99


def test_only_the_whole_photo_covers_the_bars() -> None:
    at = compute_placement("letterbox", 20, 40, 40)
    almost = np.ones((20, 40), np.bool_)
    almost[0, 0] = False
    alpha = render_alpha([masks.encode(almost), masks.whole(20, 40)], at, 40, CPU)
    assert not alpha[0, 0, :10].any()
    assert alpha[1].min() == 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 900), (900, 2)])
@pytest.mark.parametrize("transform", ["letterbox", "squash", "crop"])
def test_extreme_photos(visual_file: Path, height: int, width: int, transform: str) -> None:
    encoder = load_alpha_clip_encoder(
        alpha_clip_config({"heads": 3, "transform": transform}, visual=visual_file), "cpu"
    )
    found = encoder.encode(photo(height, width, 8), [masks.whole(height, width)])
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_no_masks_and_wrong_masks(visual_file: Path) -> None:
    encoder = load_alpha_clip_encoder(alpha_clip_config(SMALL_HEADS, visual=visual_file), "cpu")
    assert encoder.encode(photo(20, 30, 9), []).shape == (0, 24)
    with pytest.raises(ValueError, match="20 x 30"):
        encoder.encode(photo(20, 30, 9), [masks.whole(30, 20)])


def test_a_batch_that_does_not_fit_is_halved(visual_file: Path) -> None:
    config = alpha_clip_config(SMALL_HEADS, visual=visual_file)
    tower = load_visual_tower(config, ClipOptions(heads=3), "cpu")
    image, rles = photo(40, 60, 0), [masks.encode(blob(40, 60, seed)) for seed in range(7)]
    expected = AlphaClipEncoder(tower, "letterbox", 8).encode(image, rles)
    seen: list[int] = []

    def limit(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        seen.append(len(given[0]))
        if seen[-1] > 3:
            raise torch.OutOfMemoryError("no memory")

    tower.transformer.register_forward_pre_hook(limit)
    encoder = AlphaClipEncoder(tower, "letterbox", 8)
    np.testing.assert_allclose(encoder.encode(image, rles), expected, atol=1e-6)
    assert seen == [7, 3, 3, 1]
    seen.clear()
    encoder.encode(image, rles)
    assert seen == [3, 3, 1], "the smaller batch is remembered"


def test_a_vector_of_length_zero_is_nan(visual_file: Path, tmp_path: Path) -> None:
    state = torch.load(visual_file, weights_only=True)
    torch.save({**state, "proj": torch.zeros_like(state["proj"])}, tmp_path / "zero.pth")
    encoder = load_alpha_clip_encoder(alpha_clip_config(SMALL_HEADS, visual=tmp_path / "zero.pth"), "cpu")
    assert np.isnan(encoder.encode(photo(20, 30, 9), [masks.whole(20, 30)])).all()


# -- Files and options ---------------------------------------------------------------------


def test_other_containers_give_the_same_vectors(visual_file: Path, tmp_path: Path) -> None:
    state = torch.load(visual_file, weights_only=True)
    save_file(state, tmp_path / "visual.safetensors")
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "ddp.pth")
    image, rle = photo(40, 50, 10), masks.whole(40, 50)
    vectors = [
        load_alpha_clip_encoder(alpha_clip_config(SMALL_HEADS, visual=path), "cpu").encode(image, [rle])
        for path in (visual_file, tmp_path / "visual.safetensors", tmp_path / "ddp.pth")
    ]
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])


def test_options_are_checked(visual_file: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="5 heads do not divide the width 48"):
        load_alpha_clip_encoder(alpha_clip_config({"heads": 5}, visual=visual_file), "cpu")
    for wrong in ({"transform": "zoom"}, {"batch_size": 0}, {"colour": 1}):
        with pytest.raises(ModelSetInvalid):
            load_alpha_clip_encoder(alpha_clip_config(wrong, visual=visual_file), "cpu")
    with pytest.raises(ModelSetInvalid, match="visual"):
        load_alpha_clip_encoder(alpha_clip_config(), "cpu")
