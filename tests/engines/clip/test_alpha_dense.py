"""Alpha-CLIP as dense encoder: the vectors of whole images are the gallery's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from matir_cli import masks
from matir_cli.engines.clip.alpha_dense import load_alpha_clip_dense_encoder
from matir_cli.engines.clip.alpha_encoder import compute_placement, load_alpha_clip_encoder
from tests.support.clip_weights import (
    VISION_SMALL,
    alpha_clip_config,
    random_photo,
    random_vision,
    to_openai,
)


@pytest.mark.parametrize("transform", ["letterbox", "squash"])
def test_alpha_clip_with_all_ones_is_what_the_gallery_holds(tmp_path: Path, transform: str) -> None:
    state = to_openai(random_vision(VISION_SMALL, 8))
    generator = torch.Generator().manual_seed(9)
    state["conv1_alpha.weight"] = torch.randn(state["conv1_alpha.weight"].shape, generator=generator)
    torch.save(state, tmp_path / "visual.pth")
    settings = alpha_clip_config({"heads": 3, "transform": transform}, visual=tmp_path / "visual.pth")
    images = [
        random_photo(60, 96, 1),
        random_photo(96, 60, 2),
        random_photo(70, 70, 3),
        random_photo(40, 41, 4),
    ]
    gallery = load_alpha_clip_encoder(settings, "cpu")
    expected = [gallery.encode(image, [masks.whole(*image.shape[:2])])[0] for image in images]
    encoder = load_alpha_clip_dense_encoder(settings, "cpu")
    assert np.abs(encoder.encode_whole(images) - np.stack(expected)).max() < 1e-5
    # 40 pixels, cells of 8: a photo of 60 x 96 is placed in rows 7 to 32, in four rows of cells.
    assert len(encoder.encode_dense(images[0])) == (25 if transform == "squash" else 4 * 5)
    assert len(encoder.encode_dense(random_photo(20, 200, 1))) == (25 if transform == "squash" else 5)
    at = compute_placement("letterbox", 20, 200, 40)
    assert (at.top, at.height) == (18, 4), "in the third row of cells alone"
