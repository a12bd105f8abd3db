"""SAM 2's mask decoder, reordered for many prompts about one image.

Computes the same function of the same weights as `MaskDecoder` and `TwoWayTransformer`
(facebookresearch/sam2, sam2/modeling/sam/mask_decoder.py and transformer.py), in a cheaper order:

- Values that all prompts share are computed once per image: the first layer's keys, values and queries
  of the image tokens, the sums with the position encoding, the skip connections.
- The last attention computes only the prompt tokens that are read.
- There are thousands of image tokens and about eight prompt tokens. So an attention's projections of
  the image tokens are moved to the prompt tokens, (x W) q = x (W q): the image tokens are multiplied
  once, by a matrix of (heads x prompt tokens) columns, and never projected.
- Upscaling keeps channels last and the four subpixels as an axis, so that both transposed convolutions
  (kernel 2, stride 2) are matrix products, and only finished masks are reordered.
- The IoU head runs before the upscaling, so that a prompt whose masks are all dropped stops there.

Shapes: b prompts, t prompt tokens, n = g x g image tokens, c channels, h heads, d = channels per head.
"""

from dataclasses import dataclass

import torch
from sam2.modeling.sam.transformer import Attention, TwoWayAttentionBlock
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

_UPSCALED_ON_CPU = 4096
"""Image tokens of all prompts that are upscaled together on a CPU, so that they stay in its cache."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An encoded image, and the values that all prompts about it share."""

    tokens: Tensor
    """(n, c): image embedding plus the "no mask given" embedding."""
    positions: Tensor
    """(n, c): position encoding of the image tokens."""
    positioned: Tensor
    """(n, c): sum of `tokens` and `positions`."""
    first_keys: Tensor
    """(1, h, n, d): keys of the first layer's attention from prompt to image, from `positioned`."""
    first_values: Tensor
    """(1, h, n, d): values of the same attention, from `tokens`."""
    first_queries: Tensor
    """(h, n, d): queries of the first layer's attention from image to prompt, from `positioned`."""
    skip_half: Tensor
    """(n, 4 * c / 4): features on twice the grid, the four subpixels of a token side by side."""
    skip_full: Tensor
    """(4 * n, 4 * c / 8): features on four times the grid, likewise."""


@dataclass(frozen=True, slots=True)
class DecodedPrompts:
    """Prompts after the transformer, before their masks are computed."""

    predicted_iou: Tensor
    """(b, 4): predicted IoU of the single-answer mask and of the three alternatives."""
    hyper: Tensor
    """(b, 4, c / 8): the weights that turn upscaled features into each mask."""
    tokens: Tensor
    """(b, n, c): the image tokens after attention to the prompt."""


class PromptDecoder:
    """The mask decoder of `model`, in evaluation mode; create a new one if its weights change."""

    def __init__(self, model: SAM2Base, dtype: torch.dtype = torch.float32) -> None:
        """Decode with `model`.

        Args:
            model: SAM 2.
            dtype: dtype of the matrix products in the image encoder and in the upscaling, where rounding
                hardly moves a mask's edge; the rest is float32. Autocast around the decoder goes before it.
        """
        self._model = model
        self._dtype = dtype
        self._decoder = model.sam_mask_decoder
        first, _, _, second, _ = self._decoder.output_upscaling
        self._to_half, self._to_full = (_as_matrix(each.weight).to(dtype) for each in (first, second))
        self._half_bias, self._full_bias = first.bias.repeat(4), second.bias.repeat(4)

    def encode(self, pixels: Tensor) -> EncodedImage:
        """Encode `pixels` ((1, 3, s, s) float32, normalised with ImageNet's mean and deviation)."""
        model, decoder = self._model, self._decoder
        full, half, embedding = self._encode_image(pixels)
        tokens = embedding.flatten(1).T
        if model.directly_add_no_mem_embed:
            tokens = tokens + model.no_mem_embed[0]
        tokens = (tokens + model.sam_prompt_encoder.no_mask_embed.weight).contiguous()
        positions = model.sam_prompt_encoder.get_dense_pe()[0].flatten(1).T.contiguous()
        positioned = tokens + positions
        attention = decoder.transformer.layers[0].cross_attn_token_to_image
        from_image = decoder.transformer.layers[0].cross_attn_image_to_token
        return EncodedImage(
            tokens=tokens,
            positions=positions,
            positioned=positioned,
            first_keys=_heads_first(attention, attention.k_proj(positioned)[None]),
            first_values=_heads_first(attention, attention.v_proj(tokens)[None]),
            first_queries=_heads_first(from_image, from_image.q_proj(positioned)[None])[0],
            skip_half=(_subpixels(half, 1) + self._half_bias).to(half.dtype),
            skip_full=(_subpixels(full, 2) + self._full_bias).to(full.dtype),
        )

    def _encode_image(self, pixels: Tensor) -> list[Tensor]:
        """Return (c, s / stride, s / stride) features at strides 4, 8 and 16."""
        if self._dtype == torch.float32:
            return [level[0] for level in self._model.forward_image(pixels)["backbone_fpn"][-3:]]
        with torch.autocast(pixels.device.type, dtype=self._dtype):
            pyramid = self._model.forward_image(pixels)["backbone_fpn"]
        return [level[0].float() for level in pyramid[-3:]]

    def features_at(self, encoded: EncodedImage, points: Tensor) -> Tensor:
        """Return (p, c / 4) float32: the features on twice the grid of image tokens, interpolated at points.

        Args:
            encoded: the image.
            points: (p, 2) float32, x and y in pixels of the square input.
        """
        grid = self._model.sam_image_embedding_size
        nested = encoded.skip_half.float().view(grid, grid, 2, 2, -1)  # rows and columns, of subpixels too
        features = nested.permute(4, 0, 2, 1, 3).reshape(1, -1, 2 * grid, 2 * grid)
        # Clamped here to the centres of the outermost features: MPS has no `padding_mode="border"`.
        edge = 1 - 1 / (2 * grid)
        where = (points[None, None] * (2 / self._model.image_size) - 1).clamp(-edge, edge)
        found = F.grid_sample(features, where, mode="bilinear", align_corners=False)
        return found[0, :, 0].T

    def decode(self, encoded: EncodedImage, points: Tensor, labels: Tensor) -> DecodedPrompts:
        """Run the transformer for b prompts.

        Args:
            encoded: the image.
            points: (b, p, 2) float32, x and y in pixels of the square input.
            labels: (b, p) int, upstream's labels of points and box corners.
        """
        decoder = self._decoder
        sparse, _ = self._model.sam_prompt_encoder(points=(points, labels), boxes=None, masks=None)
        own = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        if decoder.pred_obj_scores:
            own.insert(0, decoder.obj_score_token.weight)
        learned = torch.cat(own)
        prompt = torch.cat([learned.expand(len(sparse), -1, -1), sparse], dim=1)

        start = int(decoder.pred_obj_scores)
        read = slice(start, start + 1 + decoder.num_mask_tokens)
        queries, tokens = self._transform(encoded, prompt, read)
        hyper = [mlp(queries[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        return DecodedPrompts(decoder.iou_prediction_head(queries[:, 0]), torch.stack(hyper, dim=1), tokens)

    def _transform(self, encoded: EncodedImage, prompt: Tensor, read: slice) -> tuple[Tensor, Tensor]:
        """Run the two-way transformer on (b, t, c) prompt tokens.

        Returns:
            The prompt tokens in `read`, and (b, n, c) image tokens.
        """
        transformer = self._decoder.transformer
        first, *others = transformer.layers
        queries = first.norm1(first.self_attn(q=prompt, k=prompt, v=prompt))
        attention = first.cross_attn_token_to_image
        queries = queries + _attend_shared(attention, queries + prompt, encoded)
        queries, keys = _finish_prompts(first, queries, prompt)
        tokens = _update_image(first, queries, _score_shared(keys, encoded.first_queries), encoded.tokens)
        for layer in others:
            positioned_queries = queries + prompt
            queries = layer.norm1(
                queries + layer.self_attn(q=positioned_queries, k=positioned_queries, v=queries)
            )
            positioned = tokens + encoded.positions
            attention = layer.cross_attn_token_to_image
            queries = queries + _attend_image(attention, queries + prompt, positioned, tokens)
            queries, keys = _finish_prompts(layer, queries, prompt)
            scores = _score_image(layer.cross_attn_image_to_token, keys, positioned)
            tokens = _update_image(layer, queries, scores, tokens)
        attention = transformer.final_attn_token_to_image
        positioned = tokens + encoded.positions
        queries = queries[:, read]
        queries = queries + _attend_image(attention, queries + prompt[:, read], positioned, tokens)
        return transformer.norm_final_attn(queries), tokens

    def mask_logits(self, encoded: EncodedImage, decoded: DecodedPrompts, keep: Tensor) -> Tensor:
        """Return (number kept, 4 * g, 4 * g) logits of the masks for which `keep` ((b, 4) bool) is True.

        Ordered by prompt, then by mask. A prompt without such masks costs nothing.
        """
        prompts = keep.any(dim=1).nonzero()[:, 0]
        grid = self._model.sam_image_embedding_size
        if not len(prompts):
            return decoded.tokens.new_zeros((0, 4 * grid, 4 * grid))
        at_once = max(1, _UPSCALED_ON_CPU // grid**2) if keep.device.type == "cpu" else len(prompts)
        parts = []
        for batch in torch.split(prompts, at_once):
            tokens, hyper, kept = decoded.tokens, decoded.hyper[batch], keep[batch]
            if len(batch) == 1:  # without a copy, and without the masks that are dropped
                (prompt,) = batch.tolist()
                logits = self._upscale(encoded, tokens[prompt : prompt + 1], hyper[kept][None])[0]
            else:
                logits = self._upscale(encoded, tokens[batch], hyper)[kept]
            parts.append(logits)
        # Axes: row and column of the token, of its subpixel, of the subpixel's subpixel. All row axes first,
        # then all column axes.
        nested = torch.cat(parts).view(-1, grid, grid, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        return nested.reshape(-1, 4 * grid, 4 * grid)

    def single_mask_logits(self, encoded: EncodedImage, decoded: DecodedPrompts) -> tuple[Tensor, Tensor]:
        """Return one mask per prompt: logits (b, 4 * g, 4 * g) and predicted IoU (b,).

        The single-answer mask if it is stable, else the best of the three alternatives (upstream's
        `_dynamic_multimask_via_stability`).
        """
        decoder = self._decoder
        logits = self.mask_logits(encoded, decoded, torch.ones_like(decoded.predicted_iou, dtype=torch.bool))
        logits = logits.view(-1, decoder.num_mask_tokens, *logits.shape[1:])
        delta = decoder.dynamic_multimask_stability_delta
        inner, outer = ((logits[:, 0] > cut).sum(dim=(1, 2)) for cut in (delta, -delta))
        # An empty mask counts as stable: it says that there is no object.
        stable = inner >= decoder.dynamic_multimask_stability_thresh * outer
        best = 1 + decoded.predicted_iou[:, 1:].argmax(dim=1)
        chosen = torch.where(stable, torch.zeros_like(best), best)
        rows = torch.arange(len(chosen), device=chosen.device)
        return logits[rows, chosen], decoded.predicted_iou[rows, chosen]

    def _upscale(self, encoded: EncodedImage, tokens: Tensor, hyper: Tensor) -> Tensor:
        """Return (b, m, 16 * n) logits in nested order; `tokens` (b, n, c), `hyper` (b, m, c / 8)."""
        _, norm, activate, _, activate_again = self._decoder.output_upscaling
        prompts, channels = len(tokens), len(norm.weight)
        # (b, n, c) -> (b, 4 n, c / 4) -> (b, 16 n, c / 8)
        half = _add_product(encoded.skip_half, tokens, self._to_half).view(prompts, -1, channels)
        half = activate(F.layer_norm(half, (channels,), norm.weight, norm.bias, norm.eps))
        full = _add_product(encoded.skip_full, half, self._to_full).view(prompts, -1, hyper.shape[-1])
        logits: Tensor = hyper @ activate_again(full).mT
        return logits


def _add_product(base: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return `base` + `left` @ `right`: (b, n, i) @ (b, i, o) or (i, o), added to (b, n, o) or (n, o)."""
    if torch.is_autocast_enabled(left.device.type):
        return base + left @ right  # sum in the precision of `base`, as upstream
    if left.dtype != right.dtype:
        return base + left.to(right.dtype) @ right
    count = len(left)
    return torch.baddbmm(
        base.expand(count, -1, -1), left, right.expand(count, -1, -1)
    )  # saves a pass over memory


def _as_matrix(kernel: Tensor) -> Tensor:
    """Reshape a transposed convolution's (in, out, 2, 2) kernel to (in, 4 * out); stride 2 has no overlap."""
    return kernel.permute(0, 2, 3, 1).flatten(1).contiguous()


def _subpixels(features: Tensor, doublings: int) -> Tensor:
    """Reorder (c, s, s) features to rows of four subpixels, nested as `doublings` doublings of the grid."""
    grid, halves = features.shape[1] >> doublings, [2] * doublings
    split = features.reshape(-1, grid, *halves, grid, *halves)
    rows, columns = range(1, doublings + 2), range(doublings + 2, 2 * doublings + 3)
    order = [axis for pair in zip(rows, columns, strict=True) for axis in pair]
    return split.permute(*order, 0).reshape(-1, 4 * len(features))


def _split_heads(attention: Attention, projected: Tensor) -> Tensor:
    """Reshape (..., h * d) to (..., h, d)."""
    heads: int = attention.num_heads
    return projected.reshape(*projected.shape[:-1], heads, -1)


def _heads_first(attention: Attention, projected: Tensor) -> Tensor:
    """Reshape (b, t, h * d) to (b, h, t, d)."""
    return _split_heads(attention, projected).transpose(1, 2)


def _attend_shared(attention: Attention, queries: Tensor, encoded: EncodedImage) -> Tensor:
    """Attend from prompts (b, t, c) to the image in the first layer; returns (b, t, c).

    All prompts see the same image tokens there, so they form one sequence of b * t queries.
    """
    row = _heads_first(attention, attention.q_proj(queries).flatten(0, 1)[None])
    seen = F.scaled_dot_product_attention(row, encoded.first_keys, encoded.first_values)
    output: Tensor = attention.out_proj(seen.transpose(1, 2).reshape(*queries.shape[:2], -1))
    return output


def _attend_image(attention: Attention, queries: Tensor, positioned: Tensor, tokens: Tensor) -> Tensor:
    """Attend from prompts (b, t, c) to keys from `positioned` and values from `tokens`, both (b, n, c)."""
    q = _split_heads(attention, attention.q_proj(queries))
    key_weight = _split_heads(attention, attention.k_proj.weight.T)
    value_weight = _split_heads(attention, attention.v_proj.weight.T)
    # The keys' bias adds the same number to all scores of a query, which softmax cancels.
    rows = torch.einsum("bthd,chd->bhtc", q * q.shape[-1] ** -0.5, key_weight)
    weights = (rows.flatten(1, 2) @ positioned.mT).softmax(dim=-1)  # (b, h * t, n)
    seen = (weights @ tokens).view_as(rows)
    values = torch.einsum("bhtc,chd->bthd", seen, value_weight).flatten(2)
    # The weights add up to one, so the values' bias is added once.
    output: Tensor = attention.out_proj(values + attention.v_proj.bias)
    return output


def _finish_prompts(layer: TwoWayAttentionBlock, queries: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """Run a layer's norms and MLP on the prompts; return them and their keys for the image, (b, t, h, d)."""
    queries = layer.norm2(queries)
    queries = layer.norm3(queries + layer.mlp(queries))
    attention = layer.cross_attn_image_to_token
    keys = _split_heads(attention, attention.k_proj(queries + prompt))
    return queries, keys * keys.shape[-1] ** -0.5


def _score_shared(keys: Tensor, image_queries: Tensor) -> Tensor:
    """Return (b, h, t, n) scores of keys (b, t, h, d) and queries (h, n, d) that all prompts share."""
    prompts, length, heads, _ = keys.shape
    scores = keys.permute(2, 0, 1, 3).flatten(1, 2) @ image_queries.mT  # (h, b * t, n)
    return scores.view(heads, prompts, length, -1).transpose(0, 1)


def _score_image(attention: Attention, keys: Tensor, positioned: Tensor) -> Tensor:
    """Return (b, h, t, n) scores of keys (b, t, h, d) and queries from `positioned` (b, n, c)."""
    query_weight = _split_heads(attention, attention.q_proj.weight.T)
    rows = torch.einsum("bthd,chd->bhtc", keys, query_weight)
    bias = torch.einsum("bthd,hd->bht", keys, _split_heads(attention, attention.q_proj.bias))
    return (rows.flatten(1, 2) @ positioned.mT).view(*bias.shape, -1) + bias[..., None]


def _update_image(layer: TwoWayAttentionBlock, queries: Tensor, scores: Tensor, tokens: Tensor) -> Tensor:
    """Let the image tokens attend to the prompts (b, t, c); returns (b, n, c).

    `tokens` is (b, n, c), or (n, c) in the first layer, where all prompts share the image tokens.
    """
    attention = layer.cross_attn_image_to_token
    v = _split_heads(attention, attention.v_proj(queries))
    weights = scores.softmax(dim=2).flatten(1, 2)  # (b, h * t, n)
    out_weight = _split_heads(attention, attention.out_proj.weight)
    # Each head's weights add up to one, so its share of the bias in every row adds up to the whole bias.
    update = torch.einsum("bthd,chd->bhtc", v, out_weight) + attention.out_proj.bias / attention.num_heads
    updated: Tensor = layer.norm4(_add_product(tokens, weights.mT, update.flatten(1, 2)))
    return updated
