"""Rules for the keys, the vocabulary and the tensors of a text model of Qwen2.5-VL or Qwen3-VL."""

from collections.abc import Mapping
from pathlib import Path

from matir_cli.engines.llama_cpp.gguf_header import GgufHeader
from matir_cli.engines.qwen_vl.family import QwenFamily
from matir_cli.engines.qwen_vl.gguf_rules import (
    COMMON_KEYS,
    EPSILON,
    FEW,
    FLAG,
    MANY,
    MATRIX_TYPES,
    NAME,
    SCALE,
    VECTOR_TYPES,
    ZERO,
    Rule,
    check_keys,
    check_type,
    number_rule,
)
from matir_cli.errors import CheckpointInvalid

TOKENS_KEY = "tokenizer.ggml.tokens"

_TEXT_KEYS: Mapping[str, Rule] = {
    "context_length": number_rule(1, MANY),
    "embedding_length": number_rule(1, FEW),
    "embedding_length_out": ZERO,
    "block_count": number_rule(1, 512),
    "feed_forward_length": number_rule(1, 1 << 20),
    "vocab_size": number_rule(1, 1 << 22, required=False),
    "pooling_type": ZERO,
    "nextn_predict_layers": ZERO,
    "expert_count": ZERO,
    "expert_used_count": ZERO,
    "expert_group_count": ZERO,
    "expert_group_used_count": ZERO,
    "attention.causal": Rule("bool", 1, 1),
    "attention.head_count": number_rule(1, 4096),
    "attention.head_count_kv": number_rule(1, 4096, required=False),
    "attention.key_length": number_rule(1, FEW, required=False),
    "attention.key_length_swa": number_rule(1, FEW, required=False),
    "attention.value_length": number_rule(1, FEW, required=False),
    "attention.value_length_swa": number_rule(1, FEW, required=False),
    "attention.layer_norm_rms_epsilon": EPSILON,
    "classifier.output_labels": Rule("[str]", longest=0),
    "rope.dimension_count": number_rule(1, FEW, required=False),
    "rope.dimension_count_swa": number_rule(1, FEW, required=False),
    "rope.dimension_sections": Rule("[i32]", 0, FEW, required=True, shortest=4, longest=4),
    "rope.freq_base": Rule("f32", 1, 1e12),
    "rope.scale_linear": SCALE,
    "rope.scaling.alpha": SCALE,
    "rope.scaling.attn_factor": SCALE,
    "rope.scaling.factor": SCALE,
    "rope.scaling.finetuned": FLAG,
    "rope.scaling.original_context_length": number_rule(1, MANY, required=False),
    "rope.scaling.type": Rule("str", choices=("none", "linear", "yarn")),
}
"""Keys of the text model, without the architecture's name before them."""

_DEEPSTACK_KEYS: Mapping[str, Rule] = {"n_deepstack_layers": number_rule(0, 64, required=False)}
"""Further keys of a family with deepstack features."""

TOKENIZER_KEYS: Mapping[str, Rule] = {
    "tokenizer.ggml.model": Rule("str", required=True, choices=("gpt2",)),
    "tokenizer.ggml.pre": NAME,
    TOKENS_KEY: Rule("[str]", required=True),
    "tokenizer.ggml.token_type": Rule("[i32]", required=True),
    "tokenizer.ggml.token_type_count": Rule("u32"),
    "tokenizer.ggml.scores": Rule("[f32]"),
    "tokenizer.ggml.merges": Rule("[str]", required=True),
    "tokenizer.ggml.suppress_tokens": Rule("[i32]", longest=0),
    "tokenizer.ggml.remove_extra_whitespaces": FLAG,
    "tokenizer.ggml.normalizer.lowercase": FLAG,
    "tokenizer.ggml.normalizer.strip_accents": FLAG,
    **{f"tokenizer.ggml.add_{name}": FLAG for name in ("space_prefix", "bos_token", "eos_token")},
    "tokenizer.ggml.add_sep_token": FLAG,
    **{
        f"tokenizer.ggml.{name}_token_id": Rule("u32", 0, MANY)
        for name in (
            *("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask", "cls", "sep"),
            *("prefix", "suffix", "middle", "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep"),
        )
    },
}
"""Keys of the vocabulary; "seperator" is llama.cpp's spelling."""


def text_keys(family: QwenFamily) -> dict[str, Rule]:
    """Return the rules of all keys that llama.cpp reads from a text model of the family."""
    own = {**_TEXT_KEYS, **(_DEEPSTACK_KEYS if family.deepstack else {})}
    named = {f"{family.architecture}.{key}": rule for key, rule in own.items()}
    return {**COMMON_KEYS, **named, **TOKENIZER_KEYS}


def check_text_model(path: Path, header: GgufHeader, family: QwenFamily) -> None:
    """Check the keys, the vocabulary and the types of the tensors of a text model; llama.cpp checks shapes.

    Raises:
        CheckpointInvalid: a key or a tensor is not one that llama.cpp can use.
    """
    check_keys(path, header, text_keys(family))
    _check_heads(path, header, family)
    layers = int(header.number(f"{family.architecture}.block_count"))
    # The last layer computes for the tokens whose logits are asked for alone; llama.cpp aborts if it is to
    # add features of all tokens there.
    if (deepstack := count_text_deepstack(header, family)) >= layers:
        raise CheckpointInvalid(path, f"{deepstack} layers with deepstack features, but {layers} in all")
    _check_vocabulary(path, header)
    for name, tensor in header.tensors.items():
        check_type(path, name, tensor, VECTOR_TYPES if tensor.shape[1] == 1 else MATRIX_TYPES)


def count_text_deepstack(header: GgufHeader, family: QwenFamily) -> int:
    """Return the number of layers of a text model that receive deepstack features."""
    return int(header.number(f"{family.architecture}.n_deepstack_layers")) if family.deepstack else 0


def _check_heads(path: Path, header: GgufHeader, family: QwenFamily) -> None:
    """Check that width, attention heads and rotary sections go together."""
    prefix = family.architecture
    width, heads = (
        int(header.number(f"{prefix}.{key}")) for key in ("embedding_length", "attention.head_count")
    )
    key_heads = int(header.number(f"{prefix}.attention.head_count_kv")) or heads
    given = int(header.number(f"{prefix}.attention.key_length")) if family.free_heads else 0
    head = given or width // heads
    sections = header.values[f"{prefix}.rope.dimension_sections"].value
    assert isinstance(sections, tuple)
    numbers = [int(section) for section in sections if not isinstance(section, bytes)]
    uneven = width % heads and not given
    if uneven or heads % key_heads or head % 2 or not 0 < sum(numbers[:3]) <= sum(numbers) <= head:
        raise CheckpointInvalid(
            path, f"{width} numbers in {heads} heads, {key_heads} of keys, do not go together"
        )
    for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        for full in (f"{prefix}.{key}", f"{prefix}.{key}_swa"):
            if full in header.values and header.number(full) != head:
                raise CheckpointInvalid(
                    path, f"{full} is {header.number(full)}, but a head has {head} numbers"
                )
    if given and given != width // heads and f"{prefix}.attention.value_length" not in header.values:
        raise CheckpointInvalid(path, f"{prefix}.attention.value_length is missing from its metadata")


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
