"""The regions of several photos in one call of an encoder: the vectors of each photo alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from matir_cli import masks
from matir_cli.engines.clip.alpha_encoder import AlphaClipEncoder, load_visual_tower
from matir_cli.engines.clip.image_towers import load_vision_transformer
from matir_cli.engines.clip.options import ClipOptions
from matir_cli.engines.protocols import MaskedPhoto
from matir_cli.engines.region_tokens.encoder import RegionTokensEncoder
from matir_cli.engines.region_tokens.towers import ClipRegionTower, SiglipRegionTower
from matir_cli.engines.siglip.image_tower import load_image_tower
from matir_cli.errors import EngineFailed
from matir_cli.records import Rle
from tests.support.clip_weights import (
    SMALL_VOCABULARY,
    VISION_SMALL,
    alpha_clip_config,
    random_photo,
    random_text,
    random_vision,
    text_config,
    to_openai,
)
from tests.support.siglip_weights import random_siglip, save_siglip

Encoder = AlphaClipEncoder | RegionTokensEncoder

ENGINES = ("alpha_clip", "clip_tokens", "siglip_tokens")

ITEMS = 5
"""Items of a square photo with five masks: the masks, or the photo and its 2 x 2 crops."""


@dataclass(frozen=True)
class Engine:
    """A kind of encoder over one random tower."""

    load: Callable[[int], Encoder]
    """Returns an encoder with this batch size."""
    block: nn.Module
    """The first block of the tower's transformer, which sees each batch once."""


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    """The three kinds of encoders."""
    folder = tmp_path_factory.mktemp("towers")
    vision = random_vision(VISION_SMALL, 1)
    state = to_openai(vision)
    shape = state["conv1_alpha.weight"].shape
    state["conv1_alpha.weight"] = torch.randn(shape, generator=torch.Generator().manual_seed(2)) * 0.3
    torch.save(state, folder / "visual.pth")
    text = random_text(text_config(48, 2, 3, 24, SMALL_VOCABULARY), 2)
    towers = {**vision.state_dict(), **text.state_dict()}
    save_file({name: value.contiguous() for name, value in towers.items()}, folder / "clip.safetensors")
    save_siglip(random_siglip(1), folder / "siglip.safetensors")

    alpha = load_visual_tower(alpha_clip_config(visual=folder / "visual.pth"), ClipOptions(heads=3), "cpu")
    clip = load_vision_transformer(folder / "clip.safetensors", 3, "cpu", "float32")
    siglip = load_image_tower(folder / "siglip.safetensors", 3, "cpu", "float32")
    (siglip_block, *_) = siglip.encoder.layers
    return {
        "alpha_clip": Engine(lambda size: AlphaClipEncoder(alpha, "letterbox", size), alpha.transformer),
        "clip_tokens": Engine(
            lambda size: RegionTokensEncoder(ClipRegionTower(clip), 2, 0.07, size),
            clip.transformer.resblocks[0],
        ),
        "siglip_tokens": Engine(
            lambda size: RegionTokensEncoder(SiglipRegionTower(siglip), 2, 0.07, size), siglip_block
        ),
    }


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    """Each of them."""
    return engines[request.param]


def draw_photo(height: int, width: int, count: int, seed: int) -> MaskedPhoto:
    """Return a random photo with `count` masks: the whole photo, then ellipses."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    rles: list[Rle] = []
    for _ in range(count):
        y, x, radius = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.4)
        mask = (rows / height - y) ** 2 + (columns / width - x) ** 2 < radius**2
        mask[int(y * height), int(x * width)] = True
        rles.append(masks.encode(mask))
    if rles:
        rles[0] = masks.whole(height, width)
    return MaskedPhoto(random_photo(height, width, seed), rles)


def check_equal_to_alone(encoder: Encoder, photos: Sequence[MaskedPhoto]) -> None:
    """Check that each photo has the vectors that it has alone."""
    together = encoder.encode_photos(photos)
    assert [len(vectors) for vectors in together] == [len(photo.masks) for photo in photos]
    for photo, vectors in zip(photos, together, strict=True):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, encoder.encode(photo.image, photo.masks), atol=1e-6)


@contextmanager
def watch_batches(engine: Engine, room: int) -> Iterator[list[int]]:
    """Return a list that the size of each batch is added to; one above `room` finds no memory."""
    seen: list[int] = []

    def watch(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        seen.append(len(given[0]))
        if seen[-1] > room:
            raise torch.OutOfMemoryError("no memory")

    handle = engine.block.register_forward_pre_hook(watch)
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("name", ENGINES)
@settings(derandomize=True, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(
    shapes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(0, 7)), max_size=6),
    batch=st.integers(1, 12),
)
def test_vectors_are_those_of_each_photo_alone(
    engines: dict[str, Engine], name: str, shapes: list[tuple[int, int, int]], batch: int
) -> None:
    photos = [draw_photo(*shape, seed) for seed, shape in enumerate(shapes)]
    check_equal_to_alone(engines[name].load(batch), photos)


def test_a_huge_photo_among_small_ones(engine: Engine) -> None:
    photos = [draw_photo(30, 40, 2, seed) for seed in range(6)]
    photos[2:2] = [draw_photo(700, 1100, 23, 9), draw_photo(50, 40, 0, 10), draw_photo(40, 40, 1, 11)]
    check_equal_to_alone(engine.load(8), photos)


def test_bit_by_bit_if_batches_are_as_large(engine: Engine) -> None:
    """Products of as many rows are rounded alike, whatever stands in the other rows."""
    encoder = engine.load(ITEMS)
    photos = [draw_photo(side, side, 5, side) for side in (33, 64, 80)]
    for photo, vectors in zip(photos, encoder.encode_photos(photos), strict=True):
        np.testing.assert_array_equal(vectors, encoder.encode(photo.image, photo.masks))


def test_batches_run_over_the_borders_of_photos(engine: Engine) -> None:
    photos = [draw_photo(40, 40, 5, seed) for seed in range(5)]
    with watch_batches(engine, 100) as seen:
        engine.load(8).encode_photos(photos)
    assert seen == [8, 8, 8, 1]


def test_a_batch_of_several_photos_that_does_not_fit_is_halved(engine: Engine) -> None:
    encoder = engine.load(16)
    photos = [draw_photo(40, 40, 5, seed) for seed in range(5)]
    expected = encoder.encode_photos(photos)
    with watch_batches(engine, 7) as seen:
        found = encoder.encode_photos(photos)
    assert seen == [16, 8, 4, 4, 4, 4, 4, 4, 1]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    with watch_batches(engine, 0), pytest.raises(EngineFailed, match="not enough memory for one item"):
        encoder.encode_photos(photos)


def test_the_patches_of_a_photo_are_embedded_once(engines: dict[str, Engine]) -> None:
    """However many batches its masks are in, and whether the first of them fitted or not."""
    encoder = engines["alpha_clip"].load(8)
    assert isinstance(encoder, AlphaClipEncoder)
    embedded: list[int] = []
    handle = encoder._tower.conv1.register_forward_hook(lambda *_: embedded.append(1))
    try:
        with watch_batches(engines["alpha_clip"], 4):
            encoder.encode_photos([draw_photo(40, 60, count, count) for count in (9, 0, 2, 3, 17)])
    finally:
        handle.remove()
    assert len(embedded) == 4


def test_a_mask_of_another_size_is_refused(engine: Engine) -> None:
    right, wrong = draw_photo(40, 60, 2, 1), draw_photo(60, 40, 2, 1)
    with pytest.raises(ValueError, match="a mask does not have the photo's size 40 x 60"):
        engine.load(8).encode_photos([right, MaskedPhoto(right.image, wrong.masks)])


def test_no_photos(engine: Engine) -> None:
    assert engine.load(8).encode_photos([]) == []
