"""Rules for the keys and tensors of Qwen2.5-VL's two GGUF files.

llama.cpp refuses some invalid files with an error, and aborts the process for others. So every key that it
reads for these two architectures, and every tensor that its graphs use, is checked here before it sees the
file. The keys are those of `llama_model_base::load_hparams`, `llama_vocab::impl::load` and
`clip_model_loader::load_hparams` in the llama.cpp that llama-cpp-python 0.3.36 contains. A key that is not
listed is not read, and may have any value.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from matir_cli.engines.llama_cpp.gguf_header import GgufHeader, GgufTensor, GgufValue
from matir_cli.engines.qwen_vl.boxes import FACTOR
from matir_cli.errors import CheckpointInvalid

TOKENS_KEY = "tokenizer.ggml.tokens"

_KIND_NAMES = {
    "u16": "an unsigned 16-bit number",
    "u32": "an unsigned 32-bit number",
    "i32": "a signed 32-bit number",
    "f32": "a 32-bit float",
    "bool": "true or false",
    "str": "a text",
    "[str]": "a list of texts",
    "[i32]": "a list of signed 32-bit numbers",
    "[f32]": "a list of 32-bit floats",
}

_F32, _BF16 = 0, 30
"""`GGML_TYPE_F32` and `GGML_TYPE_BF16` of ggml.h."""

_MATRIX_TYPES = frozenset(
    {_F32, 1, 2, 3, 6, 7, 8, *range(10, 15), *range(16, 24), 29, _BF16, 34, 35, 39, 40, 41, 42}
)
"""Types of the numbers of a matrix: floats, and the quantised types that can be multiplied."""

_PATCH_TYPES = frozenset({_F32, 1, _BF16})
"""Types of a patch embedding, which is a convolution."""

_VECTOR_TYPES = frozenset({_F32})
"""Type of norms and biases."""

_FEW = 1 << 16
_MANY = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class _Rule:
    """Type and range of a key; without a range, any value of the type."""

    kind: str
    least: float = -math.inf
    """Smallest number; of a list, of each element."""
    most: float = math.inf
    required: bool = False
    shortest: int = 1
    """Smallest number of elements of a list."""
    longest: int = _MANY
    choices: tuple[str, ...] = ()
    """Accepted texts; empty for any."""

    def fault(self, value: GgufValue) -> str | None:
        """Return what is expected instead of `value`, None if it is accepted."""
        if value.kind != self.kind:
            return _KIND_NAMES[self.kind]
        if self.choices and value.text not in self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind.startswith("[") and not self.shortest <= value.length <= self.longest:
            return f"{self.shortest} elements or more"
        numbers = value.value if isinstance(value.value, tuple) else (value.value,)
        if not all(
            self.least <= number <= self.most for number in numbers if isinstance(number, int | float)
        ):
            return f"a number from {self.least:g} to {self.most:g}"
        return None


def _number(least: float, most: float, *, required: bool = True) -> _Rule:
    return _Rule("u32", least, most, required=required)


_ZERO = _Rule("u32", 0, 0)
"""A number of things that Qwen2.5-VL does not have."""

_FACTOR = _Rule("f32", 0, 1e6)
"""A factor of positions; 0 stands for none."""

_EPSILON = _Rule("f32", 0, 1, required=True)

_NAME = _Rule("str")

_FLAG = _Rule("bool")

_COMMON: Mapping[str, _Rule] = {
    "general.name": _NAME,
    "general.description": _NAME,
    "general.file_type": _Rule("u32"),
    "split.count": _Rule("u16", 0, 1),
    "split.no": _Rule("u16", 0, 0),
}
"""Keys of both files."""

TEXT_KEYS: Mapping[str, _Rule] = {
    "context_length": _number(1, _MANY),
    "embedding_length": _number(1, _FEW),
    "embedding_length_out": _ZERO,
    "block_count": _number(1, 512),
    "feed_forward_length": _number(1, 1 << 20),
    "vocab_size": _number(1, 1 << 22, required=False),
    "pooling_type": _ZERO,
    "nextn_predict_layers": _ZERO,
    "expert_count": _ZERO,
    "expert_used_count": _ZERO,
    "expert_group_count": _ZERO,
    "expert_group_used_count": _ZERO,
    "attention.causal": _Rule("bool", 1, 1),
    "attention.head_count": _number(1, 4096),
    "attention.head_count_kv": _number(1, 4096, required=False),
    "attention.key_length": _number(1, _FEW, required=False),
    "attention.key_length_swa": _number(1, _FEW, required=False),
    "attention.value_length": _number(1, _FEW, required=False),
    "attention.value_length_swa": _number(1, _FEW, required=False),
    "attention.layer_norm_rms_epsilon": _EPSILON,
    "classifier.output_labels": _Rule("[str]", longest=0),
    "rope.dimension_count": _number(1, _FEW, required=False),
    "rope.dimension_count_swa": _number(1, _FEW, required=False),
    "rope.dimension_sections": _Rule("[i32]", 0, _FEW, required=True, shortest=4, longest=4),
    "rope.freq_base": _Rule("f32", 1, 1e12),
    "rope.scale_linear": _FACTOR,
    "rope.scaling.alpha": _FACTOR,
    "rope.scaling.attn_factor": _FACTOR,
    "rope.scaling.factor": _FACTOR,
    "rope.scaling.finetuned": _FLAG,
    "rope.scaling.original_context_length": _number(1, _MANY, required=False),
    "rope.scaling.type": _Rule("str", choices=("none", "linear", "yarn")),
}
"""Keys of the text model, without "qwen2vl."."""

TOKENIZER_KEYS: Mapping[str, _Rule] = {
    "tokenizer.ggml.model": _Rule("str", required=True, choices=("gpt2",)),
    "tokenizer.ggml.pre": _NAME,
    TOKENS_KEY: _Rule("[str]", required=True),
    "tokenizer.ggml.token_type": _Rule("[i32]", required=True),
    "tokenizer.ggml.token_type_count": _Rule("u32"),
    "tokenizer.ggml.scores": _Rule("[f32]"),
    "tokenizer.ggml.merges": _Rule("[str]", required=True),
    "tokenizer.ggml.suppress_tokens": _Rule("[i32]", longest=0),
    "tokenizer.ggml.remove_extra_whitespaces": _FLAG,
    "tokenizer.ggml.normalizer.lowercase": _FLAG,
    "tokenizer.ggml.normalizer.strip_accents": _FLAG,
    **{f"tokenizer.ggml.add_{name}": _FLAG for name in ("space_prefix", "bos_token", "eos_token")},
    "tokenizer.ggml.add_sep_token": _FLAG,
    **{
        f"tokenizer.ggml.{name}_token_id": _Rule("u32", 0, _MANY)
        for name in (
            *("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask", "cls", "sep"),
            *("prefix", "suffix", "middle", "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep"),
        )
    },
}
"""Keys of the vocabulary; "seperator" is llama.cpp's spelling."""

VISION_KEYS: Mapping[str, _Rule] = {
    "has_vision_encoder": _Rule("bool", 1, 1, required=True),
    "has_audio_encoder": _Rule("bool", 0, 0),
    "has_gen_audio_encoder": _Rule("bool", 0, 0),
    "projector_type": _NAME,
    "use_gelu": _FLAG,
    "use_silu": _FLAG,
    "minicpmv_version": _Rule("i32", 0, 0),
    "minicpmv_query_num": _ZERO,
    "vision.projector_type": _NAME,
    "vision.embedding_length": _number(1, _FEW),
    "vision.feed_forward_length": _number(0, 1 << 20),
    # llama.cpp's graph of the vision tower has room for some 200 blocks.
    "vision.block_count": _number(1, 128),
    "vision.projection_dim": _number(1, _FEW),
    "vision.image_size": _number(1, _FEW),
    "vision.patch_size": _number(FACTOR // 2, FACTOR // 2),
    "vision.spatial_merge_size": _number(2, 2, required=False),
    "vision.n_wa_pattern": _number(0, 512),
    "vision.attention.head_count": _number(1, 1024),
    "vision.attention.head_count_kv": _number(1, 1024, required=False),
    "vision.attention.head_dim": _number(1, _FEW, required=False),
    "vision.attention.layer_norm_epsilon": _EPSILON,
    "vision.feature_layer": _Rule("[i32]", longest=0),
    "vision.image_grid_pinpoints": _Rule("[i32]", longest=0),
    "vision.mm_patch_merge_type": _NAME,
    "vision.image_mean": _Rule("[f32]", -1e3, 1e3, required=True, shortest=3, longest=16),
    "vision.image_std": _Rule("[f32]", 1e-6, 1e3, required=True, shortest=3, longest=16),
}
"""Keys of the projector, without "clip."."""


def check_text_model(path: Path, header: GgufHeader) -> None:
    """Check the keys, the vocabulary and the types of the tensors of a text model; llama.cpp checks shapes.

    Raises:
        CheckpointInvalid: a key or a tensor is not one that llama.cpp can use.
    """
    rules = {f"qwen2vl.{key}": rule for key, rule in TEXT_KEYS.items()}
    _check_keys(path, header, {**_COMMON, **rules, **TOKENIZER_KEYS})
    width, heads = (
        int(header.number(f"qwen2vl.{key}")) for key in ("embedding_length", "attention.head_count")
    )
    key_heads = int(header.number("qwen2vl.attention.head_count_kv")) or heads
    head = width // heads
    sections = header.values["qwen2vl.rope.dimension_sections"].value
    assert isinstance(sections, tuple)
    numbers = [int(section) for section in sections if not isinstance(section, bytes)]
    if width % heads or heads % key_heads or head % 2 or not 0 < sum(numbers[:3]) <= sum(numbers) <= head:
        raise CheckpointInvalid(
            path, f"{width} numbers in {heads} heads, {key_heads} of keys, do not go together"
        )
    for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        for full in (f"qwen2vl.{key}", f"qwen2vl.{key}_swa"):
            if full in header.values and header.number(full) != head:
                raise CheckpointInvalid(
                    path, f"{full} is {header.number(full)}, but a head has {head} numbers"
                )
    _check_vocabulary(path, header)
    for name, tensor in header.tensors.items():
        _check_type(path, name, tensor, _VECTOR_TYPES if tensor.shape[1] == 1 else _MATRIX_TYPES)


def _check_vocabulary(path: Path, header: GgufHeader) -> None:
    """Check that the tokens are distinct, and that there is one type per token."""
    tokens = header.values[TOKENS_KEY]
    assert isinstance(tokens.value, tuple)
    if len(set(tokens.value)) != tokens.length or b"" in tokens.value:
        raise CheckpointInvalid(path, "its vocabulary has a token twice, or an empty one")
    for key in ("token_type", "scores"):
        listed = header.values.get(f"tokenizer.ggml.{key}")
        if listed is not None and listed.length < tokens.length:
            raise CheckpointInvalid(path, f"tokenizer.ggml.{key} has fewer elements than there are tokens")


def check_projector(path: Path, header: GgufHeader) -> None:
    """Check the keys of a projector, and the names, shapes and types of all its tensors.

    Raises:
        CheckpointInvalid: a key or a tensor is not one that llama.cpp can use.
    """
    rules = {f"clip.{key}": rule for key, rule in VISION_KEYS.items()}
    _check_keys(path, header, {**_COMMON, **rules})
    width, heads = (
        int(header.number(f"clip.vision.{key}")) for key in ("embedding_length", "attention.head_count")
    )
    key_heads = header.number("clip.vision.attention.head_count_kv") or heads
    head = header.number("clip.vision.attention.head_dim") or width // heads
    if width % (4 * heads) or key_heads != heads or head != width // heads:
        raise CheckpointInvalid(path, f"{width} numbers in {heads} heads: its metadata contradict each other")
    if header.number("clip.vision.n_wa_pattern") == 1:
        raise CheckpointInvalid(path, "n_wa_pattern is 1, but must be 0 for a vision tower without windows")
    if header.number("clip.use_gelu") and header.number("clip.use_silu"):
        raise CheckpointInvalid(path, "both clip.use_gelu and clip.use_silu are true")
    _check_projector_tensors(path, header, width)


def _check_projector_tensors(path: Path, header: GgufHeader, width: int) -> None:
    """Check that the projector has the tensors of its architecture, and no others."""
    expected = dict(_projector_shapes(header, width))
    for name in expected.keys() - header.tensors.keys():
        raise CheckpointInvalid(
            path, f"{name} is missing: its metadata and its tensors contradict each other"
        )
    for name, tensor in header.tensors.items():
        if name not in expected:
            raise CheckpointInvalid(
                path, f"it has the tensor {name[:60]}, which no projector of Qwen2.5-VL has"
            )
        shape, types = expected[name]
        if tensor.shape != shape:
            reason = f"{name} has shape {list(tensor.shape)}, expected {list(shape)}"
            raise CheckpointInvalid(path, f"{reason}: its metadata and its tensors contradict each other")
        _check_type(path, name, tensor, types)


def _projector_shapes(
    header: GgufHeader, width: int
) -> Iterator[tuple[str, tuple[tuple[int, int, int, int], frozenset[int]]]]:
    """Yield the name, the shape and the accepted types of each tensor of a projector."""
    side, projected = FACTOR // 2, int(header.number("clip.vision.projection_dim"))
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        yield name, ((side, side, 3, width), _PATCH_TYPES)
    for name, outputs in (("mm.0", 4 * width), ("mm.2", projected)):
        yield from _linear(name, 4 * width, outputs)
    yield "v.post_ln.weight", ((width, 1, 1, 1), _VECTOR_TYPES)
    for number in range(int(header.number("clip.vision.block_count"))):
        block = f"v.blk.{number}"
        for name in ("ln1", "ln2"):
            yield f"{block}.{name}.weight", ((width, 1, 1, 1), _VECTOR_TYPES)
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            yield from _linear(f"{block}.{name}", width, width)
        # The key feed_forward_length is 0 in some files; llama.cpp does not use it.
        wide = max(1, header.tensors.get(f"{block}.ffn_up.weight", _NO_TENSOR).shape[1])
        for name in ("ffn_gate", "ffn_up"):
            yield from _linear(f"{block}.{name}", width, wide)
        yield from _linear(f"{block}.ffn_down", wide, width)


_NO_TENSOR = GgufTensor((0, 0, 0, 0), _F32)


def _linear(
    name: str, inputs: int, outputs: int
) -> Iterator[tuple[str, tuple[tuple[int, int, int, int], frozenset[int]]]]:
    """Yield the weight and the bias of a linear layer."""
    yield f"{name}.weight", ((inputs, outputs, 1, 1), _MATRIX_TYPES)
    yield f"{name}.bias", ((outputs, 1, 1, 1), _VECTOR_TYPES)


def _check_keys(path: Path, header: GgufHeader, rules: Mapping[str, _Rule]) -> None:
    """Check each key that has a rule."""
    for key, rule in rules.items():
        value = header.values.get(key)
        if value is None:
            if rule.required:
                raise CheckpointInvalid(path, f"{key} is missing from its metadata")
        elif (expected := rule.fault(value)) is not None:
            raise CheckpointInvalid(path, f"{key} is {_shown(value)}, expected {expected}")


def _shown(value: GgufValue) -> str:
    """Return the value as a short text for messages."""
    if value.kind.startswith("["):
        return f"a list of {value.length} elements"
    return repr(value.value[:40]) if isinstance(value.value, str) else f"{value.value} ({value.kind})"


def _check_type(path: Path, name: str, tensor: GgufTensor, types: frozenset[int]) -> None:
    if tensor.type not in types:
        raise CheckpointInvalid(
            path, f"{name[:60]} has numbers of the type {tensor.type}, which cannot be used"
        )
