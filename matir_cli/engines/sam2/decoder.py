"""SAM 2's mask decoder for many prompts about one picture.

The same function of the same weights as `MaskDecoder` and `TwoWayTransformer` (facebookresearch/sam2,
sam2/modeling/sam/mask_decoder.py and transformer.py), in an order that costs less:

- What all prompts share is computed once a picture: the first layer's keys and values, the
  sums with the position encoding, the skip connections.
- There are thousands of image tokens and about eight prompt tokens. So an attention's
  projections of the image side are moved to the prompt side, (x W) q = x (W q): the image
  tokens are multiplied once by heads x prompt tokens columns and never projected.
- Upscaling keeps channels last and its four subpixels as an axis, so that both transposed
  convolutions (kernel 2, stride 2) are matrix products, and only finished masks are reordered.
- The IoU head comes before the upscaling, so that a prompt whose masks are all dropped stops there.

Shapes: b prompts, t prompt tokens, n = g x g image tokens, c channels, h heads, d = channels a head.
"""

from dataclasses import dataclass

import torch
from sam2.modeling.sam.transformer import Attention, TwoWayAttentionBlock
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

_UPSCALED_ON_CPU = 4096
"""Image tokens, of all prompts, that are upscaled together where it should stay in a CPU's cache."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What all prompts about a picture share."""

    tokens: Tensor
    """(n, c): image embedding plus the "no mask given" embedding."""
    positions: Tensor
    """(n, c): position encoding of the image tokens."""
    placed: Tensor
    """(n, c): their sum."""
    first_keys: Tensor
    """(1, h, n, d): `placed` as the first layer's prompt tokens see it."""
    first_values: Tensor
    """(1, h, n, d)."""
    skip_half: Tensor
    """(n, 4 * c / 4): features of twice the grid, the four subpixels of a token side by side."""
    skip_full: Tensor
    """(4 * n, 4 * c / 8): features of four times the grid, likewise."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Prompts after the transformer; their masks are not made yet."""

    predicted_iou: Tensor
    """(b, 4): of the single-answer mask and of the three alternatives."""
    hyper: Tensor
    """(b, 4, c / 8): each mask as weights of the upscaled features."""
    tokens: Tensor
    """(b, n, c): the image tokens as the prompt changed them."""


class PromptDecoder:
    """The mask decoder of `model`; make a new one once its weights have changed."""

    def __init__(self, model: SAM2Base) -> None:
        self._model = model
        self._decoder = model.sam_mask_decoder
        first, _, _, second, _ = self._decoder.output_upscaling
        self._to_half, self._to_full = _as_matrix(first.weight), _as_matrix(second.weight)
        self._half_bias, self._full_bias = first.bias.repeat(4), second.bias.repeat(4)

    def picture(self, pixels: Tensor) -> Picture:
        """Encode `pixels` ((1, 3, s, s), normalised)."""
        model, decoder = self._model, self._decoder
        pyramid = model.forward_image(pixels)["backbone_fpn"]
        full, half, embedding = (level[0] for level in pyramid[-3:])
        tokens = embedding.flatten(1).T
        if model.directly_add_no_mem_embed:
            tokens = tokens + model.no_mem_embed[0]
        tokens = (tokens + model.sam_prompt_encoder.no_mask_embed.weight).contiguous()
        positions = model.sam_prompt_encoder.get_dense_pe()[0].flatten(1).T.contiguous()
        placed = tokens + positions
        attention = decoder.transformer.layers[0].cross_attn_token_to_image
        return Picture(
            tokens=tokens,
            positions=positions,
            placed=placed,
            first_keys=_heads(attention, attention.k_proj(placed)[None]),
            first_values=_heads(attention, attention.v_proj(tokens)[None]),
            skip_half=(_subpixels(half, 1) + self._half_bias).to(half.dtype),
            skip_full=(_subpixels(full, 2) + self._full_bias).to(full.dtype),
        )

    def decode(self, picture: Picture, points: Tensor, labels: Tensor) -> Decoded:
        """Run the transformer for `points` ((b, p, 2), x and y in the square) of `labels` ((b, p))."""
        decoder = self._decoder
        sparse, _ = self._model.sam_prompt_encoder(points=(points, labels), boxes=None, masks=None)
        own = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        if decoder.pred_obj_scores:
            own.insert(0, decoder.obj_score_token.weight)
        learned = torch.cat(own)
        prompt = torch.cat([learned.expand(len(sparse), -1, -1), sparse], dim=1)

        queries, tokens = self._transform(picture, prompt)
        start = int(decoder.pred_obj_scores)
        masks = queries[:, start + 1 : start + 1 + decoder.num_mask_tokens]
        hyper = [mlp(masks[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        return Decoded(decoder.iou_prediction_head(queries[:, start]), torch.stack(hyper, dim=1), tokens)

    def _transform(self, picture: Picture, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """The two-way transformer: (b, t, c) prompt tokens in, those and (b, n, c) image tokens out."""
        transformer = self._decoder.transformer
        first, *others = transformer.layers
        queries = first.norm1(first.self_attn(q=prompt, k=prompt, v=prompt))
        attention = first.cross_attn_token_to_image
        queries = queries + _attend_shared(attention, queries + prompt, picture)
        queries, tokens = _finish_layer(first, queries, prompt, picture.tokens, picture.placed)
        for layer in others:
            placed_queries = queries + prompt
            queries = layer.norm1(queries + layer.self_attn(q=placed_queries, k=placed_queries, v=queries))
            placed = tokens + picture.positions
            attention = layer.cross_attn_token_to_image
            queries = queries + _attend_image(attention, queries + prompt, placed, tokens)
            queries, tokens = _finish_layer(layer, queries, prompt, tokens, placed)
        attention = transformer.final_attn_token_to_image
        placed = tokens + picture.positions
        queries = queries + _attend_image(attention, queries + prompt, placed, tokens)
        return transformer.norm_final_attn(queries), tokens

    def masks(self, picture: Picture, decoded: Decoded, keep: Tensor) -> Tensor:
        """Mask logits, (number kept, 4 * g, 4 * g), of the masks where `keep` ((b, 4) bool) holds.

        Ordered by prompt, then by mask. A prompt with nothing kept costs nothing.
        """
        prompts = keep.any(dim=1).nonzero()[:, 0]
        grid = self._model.sam_image_embedding_size
        if not len(prompts):
            return decoded.tokens.new_zeros((0, 4 * grid, 4 * grid))
        at_once = max(1, _UPSCALED_ON_CPU // grid**2) if keep.device.type == "cpu" else len(prompts)
        parts = [
            self._upscale(picture, decoded.tokens[some], decoded.hyper[some])[keep[some]]
            for some in torch.split(prompts, at_once)
        ]
        # Row and column of the token, of its quarter, of the quarter's quarter: rows first, then columns.
        nested = torch.cat(parts).view(-1, grid, grid, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        return nested.reshape(-1, 4 * grid, 4 * grid)

    def single(self, picture: Picture, decoded: Decoded) -> tuple[Tensor, Tensor]:
        """Each prompt's one answer: logits (b, 4 * g, 4 * g) and predicted IoU (b,).

        The single-answer mask if it is stable, else the best of the three alternatives
        (upstream's `_dynamic_multimask_via_stability`).
        """
        decoder = self._decoder
        logits = self.masks(picture, decoded, torch.ones_like(decoded.predicted_iou, dtype=torch.bool))
        logits = logits.view(-1, decoder.num_mask_tokens, *logits.shape[1:])
        delta = decoder.dynamic_multimask_stability_delta
        inner, outer = ((logits[:, 0] > cut).sum(dim=(1, 2)) for cut in (delta, -delta))
        # An empty mask counts as stable: nothing is an answer.
        stable = inner >= decoder.dynamic_multimask_stability_thresh * outer
        best = 1 + decoded.predicted_iou[:, 1:].argmax(dim=1)
        chosen = torch.where(stable, torch.zeros_like(best), best)
        rows = torch.arange(len(chosen), device=chosen.device)
        return logits[rows, chosen], decoded.predicted_iou[rows, chosen]

    def _upscale(self, picture: Picture, tokens: Tensor, hyper: Tensor) -> Tensor:
        """Logits (b, 4, 16 * n) in nested order, from image tokens (b, n, c) and `hyper` (b, 4, c / 8)."""
        _, norm, activate, _, activate_again = self._decoder.output_upscaling
        prompts, channels = len(tokens), len(norm.weight)
        # (b, n, c) -> (b, 4 n, c / 4) -> (b, 16 n, c / 8)
        half = _add_product(picture.skip_half, tokens, self._to_half).view(prompts, -1, channels)
        half = activate(F.layer_norm(half, (channels,), norm.weight, norm.bias, norm.eps))
        full = _add_product(picture.skip_full, half, self._to_full).view(prompts, -1, hyper.shape[-1])
        logits: Tensor = hyper @ activate_again(full).mT
        return logits


def _add_product(base: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """`base` + `left` @ `right`: (b, n, i) @ (b, i, o) or (i, o), added to (b, n, o) or (n, o)."""
    if torch.is_autocast_enabled(left.device.type):
        return base + left @ right  # the sum in the precision of `base`, as upstream has it
    count = len(left)
    return torch.baddbmm(base.expand(count, -1, -1), left, right.expand(count, -1, -1))  # one pass less


def _as_matrix(kernel: Tensor) -> Tensor:
    """A transposed convolution's (in, out, 2, 2) kernel as (in, 4 * out): stride 2, so nothing overlaps."""
    return kernel.permute(0, 2, 3, 1).flatten(1).contiguous()


def _subpixels(features: Tensor, doublings: int) -> Tensor:
    """(c, s, s) features as rows of four subpixels, in the nested order of so many doublings of the grid."""
    grid, halves = features.shape[1] >> doublings, [2] * doublings
    split = features.reshape(-1, grid, *halves, grid, *halves)
    rows, columns = range(1, doublings + 2), range(doublings + 2, 2 * doublings + 3)
    order = [axis for pair in zip(rows, columns, strict=True) for axis in pair]
    return split.permute(*order, 0).reshape(-1, 4 * len(features))


def _by_head(attention: Attention, projected: Tensor) -> Tensor:
    """(..., h * d) -> (..., h, d)."""
    heads: int = attention.num_heads
    return projected.reshape(*projected.shape[:-1], heads, -1)


def _heads(attention: Attention, projected: Tensor) -> Tensor:
    """(b, t, h * d) -> (b, h, t, d)."""
    return _by_head(attention, projected).transpose(1, 2)


def _attend_shared(attention: Attention, queries: Tensor, picture: Picture) -> Tensor:
    """First layer, prompt to image: (b, t, c); the prompts stand in one row, for they see the same tokens."""
    row = _heads(attention, attention.q_proj(queries).flatten(0, 1)[None])
    seen = F.scaled_dot_product_attention(row, picture.first_keys, picture.first_values)
    answer: Tensor = attention.out_proj(seen.transpose(1, 2).reshape(*queries.shape[:2], -1))
    return answer


def _attend_image(attention: Attention, queries: Tensor, placed: Tensor, tokens: Tensor) -> Tensor:
    """Prompt (b, t, c) to image: keys from `placed`, values from `tokens`, both (b, n, c)."""
    q = _by_head(attention, attention.q_proj(queries))
    key_weight = _by_head(attention, attention.k_proj.weight.T)
    value_weight = _by_head(attention, attention.v_proj.weight.T)
    # The keys' bias adds the same to all scores of a query, and softmax does not see it.
    rows = torch.einsum("bthd,chd->bhtc", q * q.shape[-1] ** -0.5, key_weight)
    weights = (rows.flatten(1, 2) @ placed.mT).softmax(dim=-1)  # (b, h * t, n)
    seen = (weights @ tokens).view_as(rows)
    values = torch.einsum("bhtc,chd->bthd", seen, value_weight).flatten(2)
    # Weights add up to one, so the values' bias comes through whole.
    answer: Tensor = attention.out_proj(values + attention.v_proj.bias)
    return answer


def _finish_layer(
    layer: TwoWayAttentionBlock, queries: Tensor, prompt: Tensor, tokens: Tensor, placed: Tensor
) -> tuple[Tensor, Tensor]:
    """From a layer's second norm on: the prompt's MLP, then image to prompt; `tokens` (b, n, c) or (n, c)."""
    queries = layer.norm2(queries)
    queries = layer.norm3(queries + layer.mlp(queries))
    attention = layer.cross_attn_image_to_token
    k = _by_head(attention, attention.k_proj(queries + prompt))
    v = _by_head(attention, attention.v_proj(queries))
    k = k * k.shape[-1] ** -0.5
    query_weight = _by_head(attention, attention.q_proj.weight.T)
    out_weight = _by_head(attention, attention.out_proj.weight)
    rows = torch.einsum("bthd,chd->bhtc", k, query_weight)
    bias = torch.einsum("bthd,hd->bht", k, _by_head(attention, attention.q_proj.bias))
    scores = (rows.flatten(1, 2) @ placed.mT).view(*bias.shape, -1) + bias[..., None]
    weights = scores.softmax(dim=2).flatten(1, 2)  # (b, h * t, n)
    # Each head's weights add up to one: a share of the bias with every row makes the whole.
    news = torch.einsum("bthd,chd->bhtc", v, out_weight) + attention.out_proj.bias / attention.num_heads
    return queries, layer.norm4(_add_product(tokens, weights.mT, news.flatten(1, 2)))
