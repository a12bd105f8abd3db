"""The tiny Qwen2.5-VL, with a forward pass that is cheap in training.

The model is transformers' own class with a small configuration; its weights are trained in place, and
the forward passes of transformers and llama.cpp give the same numbers for them. Training only arranges
the computation differently: the vision tower processes a batch of padded pictures at once, and all
questions about a picture form one sequence, a tree. Its branches attend to the trunk and to themselves
but not to each other, and each has the positions that it would have alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

from matir_cli.engines.qwen_vl.boxes import ImageSize, smart_resize
from matir_cli.engines.qwen_vl.family import QWEN2_5_VL
from matir_cli.models.tiny.gguf_writer import IMAGE_MEAN, IMAGE_STD
from matir_cli.records import ImageArray

MIN_PIXELS, MAX_PIXELS = 24_000, 31_360
"""Bounds of `smart_resize`: every picture of the world becomes 28 to 40 tokens."""

PATCH, MERGE = 14, 2
WIDTH, VISION_WIDTH, VISION_HEADS = 192, 128, 4

POINTING_LAYER = 4
"""Layer, of six, whose states the pointing head reads; the two layers above it can use what a question's
last token holds there when they write the answer."""


@dataclass(frozen=True)
class Patches:
    """Pictures as the vision tower's input, padded to the longest."""

    pixels: Tensor
    """(pictures, patches, 3 x 2 x 14 x 14); the four patches of a merged token are adjacent."""
    places: Tensor
    """(pictures, patches, 2): row and column of each patch."""
    sizes: tuple[ImageSize, ...]
    """Size of each picture after `smart_resize`, pixels."""


@dataclass(frozen=True)
class Branch:
    """A question and its answer, as tokens."""

    on_stem: bool
    """True if it continues the stem, which many questions share; False if it continues the trunk."""
    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    """Weight, in the loss, of *predicting* each token; 0 for the tokens of the question."""
    box: tuple[float, float, float, float] | None = None
    """Box of the object that the question is about, in tokens from the upper left; None if there is none."""


@dataclass(frozen=True)
class QuestionTrees:
    """All questions about a batch of pictures, one sequence per picture."""

    tokens: Tensor
    """(pictures, length) token ids; -1 for image tokens, 0 for padding."""
    positions: Tensor
    """(3, pictures, length): time, row and column of M-RoPE."""
    mask: Tensor
    """(pictures, 1, length, length): 0 where a token (row) attends to another (column), else -inf."""
    predicting: Tensor
    """(predictions, 2): picture and index of each token whose successor is predicted."""
    targets: Tensor
    """(predictions,) id of the successor."""
    weights: Tensor
    """(predictions,) weight in the loss."""
    pointing: Tensor
    """(boxes, 2): picture and index of the last token of each question about an object that is present."""
    boxes: Tensor
    """(boxes, 4): box of that object, in tokens from the upper left."""


def build(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """The untrained model; it has 4 million parameters."""
    vocabulary = len(tokenizer)
    special: dict[str, Any] = {
        name: tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in {
            "image_token_id": "image_pad",
            "video_token_id": "video_pad",
            "vision_start_token_id": "vision_start",
            "vision_end_token_id": "vision_end",
        }.items()
    }
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": WIDTH,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]},
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.convert_tokens_to_ids("<|im_start|>"),
            "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        },
        vision_config={
            "depth": 5,
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 352,
            "num_heads": VISION_HEADS,
            "out_hidden_size": WIDTH,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [0, 1, 2, 3, 4],
            "hidden_act": "silu",
        },
        tie_word_embeddings=True,
        **special,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def patches_of(images: Sequence[ImageArray], device: torch.device) -> Patches:
    """Resize the images as the judge does, cut them into patches and pad them."""
    sizes = tuple(
        smart_resize(image.shape[0], image.shape[1], MIN_PIXELS, MAX_PIXELS, QWEN2_5_VL.factor)
        for image in images
    )
    longest = 4 * max(size.tokens(QWEN2_5_VL.factor) for size in sizes)
    pixels = np.zeros((len(images), longest, 3 * 2 * PATCH * PATCH), dtype=np.float32)
    places = np.zeros((len(images), longest, 2), dtype=np.int64)
    for row, (image, size) in enumerate(zip(images, sizes, strict=True)):
        cut, at = _cut(image, size)
        pixels[row, : len(cut)], places[row, : len(at)] = cut, at
    return Patches(torch.from_numpy(pixels).to(device), torch.from_numpy(places).to(device), sizes)


def _cut(image: ImageArray, size: ImageSize) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(patches, 1176) pixels in Qwen's order, merged groups of 2 x 2 together, and (patches, 2) places."""
    picture = Image.fromarray(image).resize((size.width, size.height), Image.Resampling.BICUBIC)
    values = (np.asarray(picture, dtype=np.float32) / 255 - IMAGE_MEAN) / IMAGE_STD
    rows, columns = size.height // (PATCH * MERGE), size.width // (PATCH * MERGE)
    blocks = values.reshape(rows, MERGE, PATCH, columns, MERGE, PATCH, 3)
    still = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(-1, 3, 1, PATCH * PATCH)
    y, x = np.mgrid[: rows * MERGE, : columns * MERGE]
    at = np.stack([y, x], axis=-1).reshape(rows, MERGE, columns, MERGE, 2).transpose(0, 2, 1, 3, 4)
    # A still picture is a video of two equal frames.
    return np.repeat(still, 2, axis=2).reshape(len(still), -1).astype(np.float32), at.reshape(-1, 2)


def encode_patches(visual: Any, patches: Patches) -> Tensor:
    """(pictures, longest / 4, WIDTH) visual tokens of the tower `visual`; ignore those of the padding."""
    count, longest = patches.pixels.shape[:2]
    x = visual.patch_embed(patches.pixels.flatten(0, 1)).view(count, longest, -1)
    cos, sin = visual.rotary_pos_emb(x, patches.places.flatten(0, 1))
    real = torch.tensor([4 * size.tokens(QWEN2_5_VL.factor) for size in patches.sizes], device=x.device)
    mask = (torch.arange(longest, device=x.device) < real[:, None])[:, None, None]
    for block in visual.blocks:
        attention = block.attn
        q, k, v = attention.qkv(block.norm1(x)).view(count * longest, 3, attention.num_heads, -1).unbind(1)
        q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
        q, k, v = (
            t.to(v.dtype).view(count, longest, attention.num_heads, -1).transpose(1, 2) for t in (q, k, v)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + attention.proj(mixed.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
    tokens: Tensor = visual.merger(x.flatten(0, 1))
    return tokens.view(count, longest // 4, -1)


def lay_out_questions(
    before: Sequence[int],
    sizes: Sequence[ImageSize],
    after: tuple[Sequence[int], Sequence[int]],
    branches: Sequence[Sequence[Branch]],
    device: torch.device,
) -> QuestionTrees:
    """Lay out one sequence per picture: `before`, image tokens, end of the trunk, stem, branches.

    Args:
        before: tokens of the trunk before the image.
        after: tokens of the trunk after the image, and tokens of the stem.
        branches: the questions about each picture.
    """
    trees = [_tree(before, size, *after, each) for size, each in zip(sizes, branches, strict=True)]
    length = max(len(tree[0]) for tree in trees)
    tokens = np.zeros((len(trees), length), dtype=np.int64)
    positions = np.zeros((3, len(trees), length), dtype=np.int64)
    mask = np.full((len(trees), 1, length, length), -np.inf, dtype=np.float32)
    mask[:, :, np.arange(length), np.arange(length)] = 0  # padding attends to itself, or softmax gives NaN
    predicting, targets, weights = [], [], []
    pointing: list[tuple[int, int]] = []
    for row, (ids, at, owner, weight, ends) in enumerate(trees):
        size = len(ids)
        tokens[row, :size], positions[:, row, :size] = ids, at
        # Owners: 0 trunk, 1 stem, then branches, negative ones from the trunk. Each attends to what it
        # continues.
        visible = (owner == 0) | (owner[:, None] == owner) | ((owner == 1) & (owner[:, None] > 0))
        earlier = np.tri(size, dtype=np.bool_) & visible
        mask[row, 0, :size, :size][earlier] = 0
        for place in np.nonzero(weight)[0]:
            # A branch begins with the question, so the token before an answer's token is in the same branch.
            predicting.append((row, place - 1))
            targets.append(ids[place])
            weights.append(weight[place])
        pointing.extend((row, end) for end in ends)
    return QuestionTrees(
        torch.from_numpy(tokens).to(device),
        torch.from_numpy(positions).to(device),
        torch.from_numpy(mask).to(device),
        torch.tensor(predicting, device=device),
        torch.tensor(targets, device=device),
        torch.tensor(weights, dtype=torch.float32, device=device),
        torch.tensor(pointing, dtype=torch.int64, device=device).view(-1, 2),
        torch.tensor(
            [branch.box for each in branches for branch in each if branch.box is not None], device=device
        ).view(-1, 4),
    )


def _tree(
    before: Sequence[int],
    size: ImageSize,
    rest: Sequence[int],
    stem: Sequence[int],
    branches: Sequence[Branch],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], list[int]]:
    """Lay out one sequence.

    Returns:
        (length,) tokens, (3, length) positions, (length,) owners, (length,) weights of predicting each
        token, and the index of the last token of each question that has a box.
    """
    rows, columns = size.height // (PATCH * MERGE), size.width // (PATCH * MERGE)
    start = len(before)
    y, x = np.mgrid[:rows, :columns].reshape(2, -1)
    after = start + max(rows, columns)
    trunk_end = after + len(rest)
    places = [
        _line(0, start),
        start + np.stack([np.zeros_like(y), y, x]),
        _line(after, len(rest)),
        _line(trunk_end, len(stem)),
    ]
    tokens = [*before, *[-1] * (rows * columns), *rest, *stem]
    owners = [0] * (len(tokens) - len(stem)) + [1] * len(stem)
    weights = [0.0] * len(tokens)
    ends = []
    for number, branch in enumerate(branches, start=2):
        if branch.box is not None:
            ends.append(len(tokens) + int(np.flatnonzero(branch.weights)[0]) - 1)
        places.append(_line(trunk_end + len(stem) * branch.on_stem, len(branch.tokens)))
        tokens.extend(branch.tokens)
        owners.extend([number if branch.on_stem else -number] * len(branch.tokens))
        weights.extend(branch.weights)
    return np.array(tokens), np.concatenate(places, axis=1), np.array(owners), np.array(weights), ends


def _line(start: int, length: int) -> NDArray[np.int64]:
    """(3, length): positions of text, the same on the three axes."""
    return np.broadcast_to(np.arange(start, start + length), (3, length))


def predict(
    model: Qwen2_5_VLForConditionalGeneration, visual_tokens: Tensor, trees: QuestionTrees
) -> tuple[Tensor, Tensor]:
    """Run the language model.

    Returns:
        (predictions, vocabulary) logits of the predicted tokens, and (boxes, WIDTH) states after layer
        `POINTING_LAYER` at the last tokens of questions that have a box.
    """
    text: Any = model.model.language_model
    embedded = text.embed_tokens(trees.tokens.clamp(min=0))
    holds_image = trees.tokens == -1
    real = torch.arange(visual_tokens.shape[1], device=embedded.device) < holds_image.sum(1, keepdim=True)
    embedded = embedded.masked_scatter(holds_image[..., None], visual_tokens[real].to(embedded.dtype))
    outputs = text(
        inputs_embeds=embedded,
        attention_mask=trees.mask.to(embedded.dtype),
        position_ids=trees.positions,
        use_cache=False,
        output_hidden_states=True,
    )
    logits: Tensor = model.lm_head(outputs.last_hidden_state[trees.predicting[:, 0], trees.predicting[:, 1]])
    halfway = outputs.hidden_states[POINTING_LAYER]
    return logits.float(), halfway[trees.pointing[:, 0], trees.pointing[:, 1]].float()
