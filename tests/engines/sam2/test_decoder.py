"""The reordered mask decoder against upstream's."""

import msgspec
import numpy as np
import pytest
import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from matir_cli.engines.sam2.decoder import PromptDecoder
from matir_cli.engines.sam2.model import build_model
from matir_cli.records import ImageArray
from tests.support.crafted_sam2 import SMALL_OPTIONS


def _upstream_decode(
    model: SAM2Base, pixels: Tensor, points: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    full, half, embedding = model.forward_image(pixels)["backbone_fpn"]
    sparse, dense = model.sam_prompt_encoder(points=(points, labels), boxes=None, masks=None)
    logits, predicted_iou, _, _ = model.sam_mask_decoder.predict_masks(
        image_embeddings=embedding + model.no_mem_embed[0, 0][:, None, None],
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=True,
        high_res_features=[full, half],
    )
    return logits, predicted_iou


@pytest.mark.parametrize("size", [64, 256, 320])
def test_any_weights_decode_as_upstream(size: int) -> None:
    torch.manual_seed(size)
    model = build_model(msgspec.structs.replace(SMALL_OPTIONS, image_size=size)).eval().requires_grad_(False)
    # Weights far from their initial values, above all the biases.
    for name, weight in model.sam_mask_decoder.named_parameters():
        weight.add_(torch.randn_like(weight), alpha=0.3 if name.endswith("bias") else 0.05)
    pixels, points = torch.randn(1, 3, size, size), torch.rand(5, 2, 2) * size
    labels = torch.tensor([[1, 0], [1, 1], [0, 1], [2, 3], [1, -1]])
    expected, expected_iou = _upstream_decode(model, pixels, points, labels)

    decoder = PromptDecoder(model)
    encoded = decoder.encode(pixels)
    decoded = decoder.decode(encoded, points, labels)
    logits = decoder.mask_logits(encoded, decoded, torch.ones(5, 4, dtype=torch.bool)).view_as(expected)
    torch.testing.assert_close(decoded.predicted_iou, expected_iou, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits, expected, atol=1e-4 * float(expected.std()), rtol=1e-4)


def _pixels_and_points(image: ImageArray) -> tuple[Tensor, Tensor, Tensor]:
    """An image as the model takes it, 16 points anywhere in it, and their labels."""
    pixels = torch.from_numpy(image[None, :, :256].transpose(0, 3, 1, 2) / np.float32(255))
    pixels = torch.nn.functional.pad(pixels, (0, 0, 0, 16))
    generator = torch.Generator().manual_seed(0)
    points, labels = torch.rand(16, 1, 2, generator=generator) * 256, torch.ones(16, 1, dtype=torch.int)
    return pixels, points, labels


def test_bfloat16_decodes_as_upstream(model: SAM2Base, image: ImageArray) -> None:
    """As on a GPU: rounding errors are no larger than upstream's own."""
    pixels, points, labels = _pixels_and_points(image)
    exact, exact_iou = _upstream_decode(model, pixels, points, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, expected_iou = _upstream_decode(model, pixels, points, labels)
        decoder = PromptDecoder(model)
        encoded = decoder.encode(pixels)
        decoded = decoder.decode(encoded, points, labels)
        logits = decoder.mask_logits(encoded, decoded, torch.ones(16, 4, dtype=torch.bool)).view_as(expected)
    assert logits.dtype == expected.dtype == torch.bfloat16
    rounding = float((expected - exact).std())
    assert float((logits - expected).std()) < 1.5 * rounding
    assert float((logits - exact).std()) < 1.5 * rounding
    assert float((decoded.predicted_iou - exact_iou).std()) < 1.5 * float((expected_iou - exact_iou).std())


def test_bfloat16_upscaling_rounds_less_than_a_decoder_in_bfloat16(
    model: SAM2Base, image: ImageArray
) -> None:
    """As on a CPU: predicted IoU only differs by what the image encoder rounds."""
    pixels, points, labels = _pixels_and_points(image)
    exact, exact_iou = _upstream_decode(model, pixels, points, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, rough_iou = _upstream_decode(model, pixels, points, labels)
    decoder = PromptDecoder(model, torch.bfloat16)
    encoded = decoder.encode(pixels)
    decoded = decoder.decode(encoded, points, labels)
    logits = decoder.mask_logits(encoded, decoded, torch.ones(16, 4, dtype=torch.bool)).view_as(exact)
    assert logits.dtype == decoded.predicted_iou.dtype == torch.float32
    assert 0 < float((logits - exact).std()) < 0.7 * float((rough - exact).std())
    assert float((decoded.predicted_iou - exact_iou).std()) < 0.7 * float((rough_iou - exact_iou).std())


def test_a_prompt_without_masks_gives_none(model: SAM2Base) -> None:
    decoder = PromptDecoder(model)
    encoded = decoder.encode(torch.zeros(1, 3, 256, 256))
    decoded = decoder.decode(encoded, torch.full((2, 1, 2), 128.0), torch.ones(2, 1, dtype=torch.int))
    keep = torch.zeros(2, 4, dtype=torch.bool)
    assert decoder.mask_logits(encoded, decoded, keep).shape == (0, 64, 64)
    keep[1, 2] = True
    everything = decoder.mask_logits(encoded, decoded, torch.ones_like(keep)).view(2, 4, 64, 64)
    torch.testing.assert_close(decoder.mask_logits(encoded, decoded, keep)[0], everything[1, 2])
