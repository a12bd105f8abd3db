"""Rules for the keys and tensors of a projector: a vision tower with what maps it to the text model."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from matir_cli.engines.llama_cpp.gguf_header import GgufHeader, GgufTensor
from matir_cli.engines.qwen_vl.family import QwenFamily
from matir_cli.engines.qwen_vl.gguf_rules import (
    COMMON_KEYS,
    EPSILON,
    F32,
    FEW,
    FLAG,
    MATRIX_TYPES,
    NAME,
    PATCH_TYPES,
    VECTOR_TYPES,
    ZERO,
    Rule,
    check_keys,
    check_type,
    number_rule,
)
from matir_cli.errors import CheckpointInvalid

_Expected: TypeAlias = tuple[str, tuple[tuple[int, int, int, int], frozenset[int]]]
"""Name of a tensor, its shape and the accepted types of its numbers."""

_VISION_KEYS: Mapping[str, Rule] = {
    "has_vision_encoder": Rule("bool", 1, 1, required=True),
    "has_audio_encoder": Rule("bool", 0, 0),
    "has_gen_audio_encoder": Rule("bool", 0, 0),
    "projector_type": NAME,
    "use_gelu": FLAG,
    "use_silu": FLAG,
    "minicpmv_version": Rule("i32", 0, 0),
    "minicpmv_query_num": ZERO,
    "vision.projector_type": NAME,
    "vision.embedding_length": number_rule(1, FEW),
    "vision.feed_forward_length": number_rule(0, 1 << 20),
    # llama.cpp's graph of the vision tower has room for some 200 blocks.
    "vision.block_count": number_rule(1, 128),
    "vision.projection_dim": number_rule(1, FEW),
    "vision.image_size": number_rule(1, FEW),
    "vision.spatial_merge_size": number_rule(2, 2, required=False),
    "vision.attention.head_count": number_rule(1, 1024),
    "vision.attention.head_count_kv": number_rule(1, 1024, required=False),
    "vision.attention.head_dim": number_rule(1, FEW, required=False),
    "vision.attention.layer_norm_epsilon": EPSILON,
    "vision.feature_layer": Rule("[i32]", longest=0),
    "vision.image_grid_pinpoints": Rule("[i32]", longest=0),
    "vision.mm_patch_merge_type": NAME,
    "vision.image_mean": Rule("[f32]", -1e3, 1e3, required=True, shortest=3, longest=16),
    "vision.image_std": Rule("[f32]", 1e-6, 1e3, required=True, shortest=3, longest=16),
}
"""Keys of the projector that have the same rule in each family, without "clip."."""


def vision_keys(family: QwenFamily) -> dict[str, Rule]:
    """Return the rules of all keys that llama.cpp reads from a projector of the family."""
    own = {
        **_VISION_KEYS,
        "vision.patch_size": number_rule(family.patch_side, family.patch_side),
        "vision.n_wa_pattern": number_rule(0, 512, required=family.windowed),
    }
    return {**COMMON_KEYS, **{f"clip.{key}": rule for key, rule in own.items()}}


def check_projector(path: Path, header: GgufHeader, family: QwenFamily) -> None:
    """Check the keys of a projector, and the names, shapes and types of all its tensors.

    Raises:
        CheckpointInvalid: a key or a tensor is not one that llama.cpp can use.
    """
    check_keys(path, header, vision_keys(family))
    width, heads = (
        int(header.number(f"clip.vision.{key}")) for key in ("embedding_length", "attention.head_count")
    )
    key_heads = header.number("clip.vision.attention.head_count_kv") or heads
    head = header.number("clip.vision.attention.head_dim") or width // heads
    if width % (4 * heads) or key_heads != heads or head != width // heads:
        raise CheckpointInvalid(path, f"{width} numbers in {heads} heads: its metadata contradict each other")
    if family.windowed and header.number("clip.vision.n_wa_pattern") == 1:
        raise CheckpointInvalid(path, "n_wa_pattern is 1, but must be 0 for a vision tower without windows")
    if header.number("clip.use_gelu") and header.number("clip.use_silu"):
        raise CheckpointInvalid(path, "both clip.use_gelu and clip.use_silu are true")
    _check_tensors(path, header, family)


def count_vision_deepstack(header: GgufHeader) -> int:
    """Return the number of blocks of a vision tower that give deepstack features."""
    return len(_deepstack_blocks(header))


def _check_tensors(path: Path, header: GgufHeader, family: QwenFamily) -> None:
    """Check that the projector has the tensors of its architecture, and no others."""
    expected = dict(_qwen3_shapes(header) if family.deepstack else _qwen2_5_shapes(header))
    for name in expected.keys() - header.tensors.keys():
        raise CheckpointInvalid(
            path, f"{name} is missing: its metadata and its tensors contradict each other"
        )
    for name, tensor in header.tensors.items():
        if name not in expected:
            raise CheckpointInvalid(
                path, f"it has the tensor {name[:60]}, which no projector of {family.name} has"
            )
        shape, types = expected[name]
        if tensor.shape != shape:
            reason = f"{name} has shape {list(tensor.shape)}, expected {list(shape)}"
            raise CheckpointInvalid(path, f"{reason}: its metadata and its tensors contradict each other")
        check_type(path, name, tensor, types)


def _qwen2_5_shapes(header: GgufHeader) -> Iterator[_Expected]:
    """Yield each tensor of a projector of Qwen2.5-VL."""
    width = int(header.number("clip.vision.embedding_length"))
    yield from _patches_and_merger(header, width, side=14)
    yield "v.post_ln.weight", ((width, 1, 1, 1), VECTOR_TYPES)
    for block in _blocks(header):
        for name in ("ln1", "ln2"):
            yield f"{block}.{name}.weight", ((width, 1, 1, 1), VECTOR_TYPES)
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            yield from _linear(f"{block}.{name}", width, width)
        wide = _inner_width(header, block)
        for name in ("ffn_gate", "ffn_up"):
            yield from _linear(f"{block}.{name}", width, wide)
        yield from _linear(f"{block}.ffn_down", wide, width)


def _qwen3_shapes(header: GgufHeader) -> Iterator[_Expected]:
    """Yield each tensor of a projector of Qwen3-VL."""
    width = int(header.number("clip.vision.embedding_length"))
    yield from _patches_and_merger(header, width, side=16)
    yield "v.patch_embd.bias", ((width, 1, 1, 1), VECTOR_TYPES)
    # Positions on a square grid, which are interpolated to the size of the image: two by two at least.
    positions = header.tensors.get("v.position_embd.weight", _NO_TENSOR).shape[1]
    yield "v.position_embd.weight", ((width, max(2, math.isqrt(positions)) ** 2, 1, 1), VECTOR_TYPES)
    yield from _layer_norm("v.post_ln", width)
    for block in _blocks(header):
        yield from _layer_norm(f"{block}.ln1", width)
        yield from _layer_norm(f"{block}.ln2", width)
        yield from _linear(f"{block}.attn_qkv", width, 3 * width)
        yield from _linear(f"{block}.attn_out", width, width)
        wide = _inner_width(header, block)
        yield from _linear(f"{block}.ffn_up", width, wide)
        yield from _linear(f"{block}.ffn_down", wide, width)
    projected = int(header.number("clip.vision.projection_dim"))
    for number in _deepstack_blocks(header):
        yield from _layer_norm(f"v.deepstack.{number}.norm", 4 * width)
        yield from _linear(f"v.deepstack.{number}.fc1", 4 * width, 4 * width)
        yield from _linear(f"v.deepstack.{number}.fc2", 4 * width, projected)


def _blocks(header: GgufHeader) -> Iterator[str]:
    """Yield the prefix of the names of each block's tensors."""
    for number in range(int(header.number("clip.vision.block_count"))):
        yield f"v.blk.{number}"


def _deepstack_blocks(header: GgufHeader) -> list[int]:
    """Return the numbers of the blocks whose features llama.cpp passes on to the text model."""
    blocks = range(int(header.number("clip.vision.block_count")))
    return [number for number in blocks if f"v.deepstack.{number}.fc1.weight" in header.tensors]


def _patches_and_merger(header: GgufHeader, width: int, side: int) -> Iterator[_Expected]:
    """Yield the weights of the patch embedding, one per frame, and the layers that merge 2 x 2 patches."""
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        yield name, ((side, side, 3, width), PATCH_TYPES)
    yield from _linear("mm.0", 4 * width, 4 * width)
    yield from _linear("mm.2", 4 * width, int(header.number("clip.vision.projection_dim")))


def _inner_width(header: GgufHeader, block: str) -> int:
    """Return the inner width of a block's feed-forward layers, from their shape.

    The key feed_forward_length is 0 in some files; llama.cpp does not use it.
    """
    return max(1, header.tensors.get(f"{block}.ffn_up.weight", _NO_TENSOR).shape[1])


_NO_TENSOR = GgufTensor((0, 0, 0, 0), F32)


def _layer_norm(name: str, width: int) -> Iterator[_Expected]:
    """Yield the weight and the bias of a layer norm."""
    for part in ("weight", "bias"):
        yield f"{name}.{part}", ((width, 1, 1, 1), VECTOR_TYPES)


def _linear(name: str, inputs: int, outputs: int) -> Iterator[_Expected]:
    """Yield the weight and the bias of a linear layer."""
    yield f"{name}.weight", ((inputs, outputs, 1, 1), MATRIX_TYPES)
    yield f"{name}.bias", ((outputs, 1, 1, 1), VECTOR_TYPES)
