"""Writer of a transformers Qwen2.5-VL model as llama.cpp's two GGUF files.

    write_gguf(model, tokenizer, Path("text.gguf"), Path("projector.gguf"), precision="f16")

Keys, tensor names, shapes, types and their meaning are those of llama.cpp's own converter
(`conversion/qwenvl.py`, llama.cpp as bundled with llama-cpp-python 0.3.36); a test compares
them with a listing of its output. Free-text keys (`general.name`, `general.size_label`)
are the only differences allowed.

For transformers and llama.cpp to agree, a small config must satisfy these constraints:

* text: `hidden_size = num_attention_heads * head_dim`, `num_attention_heads` a multiple of
  `num_key_value_heads`, `head_dim` even, and `rope_parameters["mrope_section"]` three
  numbers that sum to `head_dim / 2` (llama.cpp rotates the whole head). 16 with [2, 3, 3] works.
* vision: `patch_size` 14, `spatial_merge_size` 2, `temporal_patch_size` 2, `window_size` 112
  (all four are constants in llama.cpp), `hidden_size / num_heads` a multiple of 4,
  `out_hidden_size` equal to the text's `hidden_size`, `hidden_act` "silu".
* `fullatt_block_indexes` evenly spaced and starting one step in: [n-1, 2n-1, 3n-1, ...]
  up to the depth, since the file holds only n. [1, 3] for depth 4; [0, 1] is every block.
* the vision tower's RMSNorm epsilon is always 1e-6: transformers ignores the config's value, and the
  file holds 1e-6 too.
* `vocab_size` at least `len(tokenizer)`; the remaining ids are filled with unused tokens.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from gguf import MODEL_ARCH, GGUFWriter
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""RGB mean that Qwen2.5-VL's preprocessor subtracts from pixels in 0..1 (OpenAI CLIP's)."""

IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
"""RGB standard deviation that Qwen2.5-VL's preprocessor divides by (OpenAI CLIP's)."""

VISION_EPSILON = 1e-6
"""Epsilon with which transformers builds every RMSNorm of the vision tower."""

VISION_IMAGE_SIZE = 560
"""Placeholder that the converter writes for a fixed image size, which the model does not have;
llama.cpp does not use it."""


def write_gguf(
    model: "Qwen2_5_VLForConditionalGeneration",
    tokenizer: "PreTrainedTokenizerFast",
    text_path: Path,
    projector_path: Path,
    *,
    precision: Literal["f16", "f32"] = "f16",
    name: str = "qwen2.5-vl",
) -> None:
    """Write the text model and the vision projector of `model`.

    Args:
        model: of any float type; its config must satisfy the constraints above.
        tokenizer: byte-level BPE with Qwen's special tokens, as `build_tokenizer` makes it.
        text_path: file of the text model (role "model" of the judge).
        projector_path: file of the vision tower and its merger (role "projector").
        precision: type of matrices; vectors (norms, biases) are always float32.
        name: free text, stored in both files.

    Raises:
        ValueError: the config violates one of the constraints; the message names it.
    """
    check_config(model.config, len(tokenizer))
    _write_text(model, tokenizer, text_path, precision, name)
    _write_projector(model, projector_path, precision, name)


def check_config(config: "Qwen2_5_VLConfig", tokens: int) -> None:
    """Check that llama.cpp computes the same as transformers for `config`.

    Args:
        tokens: number of tokens in the tokenizer.

    Raises:
        ValueError: it does not, or it would refuse the file; the message names the first reason.
    """
    text, vision = _text_config(config), _vision_config(config)
    head = text.hidden_size // text.num_attention_heads
    full = list(vision.fullatt_block_indexes)
    step = full[0] + 1 if full else 0
    rules = {
        "text hidden_size must be num_attention_heads * head_dim": (
            text.hidden_size == head * text.num_attention_heads and head % 2 == 0
        ),
        "num_attention_heads must be a multiple of num_key_value_heads": (
            text.num_attention_heads % text.num_key_value_heads == 0
        ),
        "mrope_section must be three numbers that sum to head_dim / 2": (
            len(text.rope_parameters["mrope_section"]) == 3
            and sum(text.rope_parameters["mrope_section"]) * 2 == head
        ),
        "vision needs patch_size 14, spatial_merge_size 2, temporal_patch_size 2, window_size 112": (
            vision.patch_size,
            vision.spatial_merge_size,
            vision.temporal_patch_size,
            vision.window_size,
        )
        == (14, 2, 2, 112),
        "vision hidden_size / num_heads must be a multiple of 4": (
            vision.hidden_size % (4 * vision.num_heads) == 0
        ),
        "out_hidden_size must be the text's hidden_size": vision.out_hidden_size == text.hidden_size,
        "both towers need hidden_act silu": (vision.hidden_act, text.hidden_act) == ("silu", "silu"),
        "fullatt_block_indexes must be n-1, 2n-1, ... up to the depth": (
            step > 0 and full == list(range(step - 1, vision.depth, step))
        ),
        "vocab_size must be at least the tokenizer's": text.vocab_size >= tokens,
    }
    for rule, satisfied in rules.items():
        if not satisfied:
            raise ValueError(rule)


def _text_config(config: "Qwen2_5_VLConfig") -> Any:
    """The text part of `config`; untyped, since its class declares wider types than it ever holds."""
    return config.text_config


def _vision_config(config: "Qwen2_5_VLConfig") -> Any:
    """The vision part of `config`."""
    return config.vision_config


def _write_text(
    model: "Qwen2_5_VLForConditionalGeneration",
    tokenizer: "PreTrainedTokenizerFast",
    path: Path,
    precision: Literal["f16", "f32"],
    name: str,
) -> None:
    """Write the language model and its vocabulary, architecture "qwen2vl"."""
    from gguf import MODEL_ARCH, GGUFType, GGUFWriter

    config = _text_config(model.config)
    rope = config.rope_parameters
    writer = GGUFWriter(path, "qwen2vl")
    parameters = model.num_parameters() - model.model.visual.num_parameters()
    add_general(writer, GGUFType.MODEL, name, precision, parameters)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_sections([*rope["mrope_section"], 0])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    add_vocabulary(writer, tokenizer, config.vocab_size)
    add_tensors(writer, _text_tensors(model), MODEL_ARCH.QWEN2VL, config.num_hidden_layers, precision)
    write_file(writer)


def _write_projector(
    model: "Qwen2_5_VLForConditionalGeneration", path: Path, precision: Literal["f16", "f32"], name: str
) -> None:
    """Write the vision tower and the merger that maps it to the text's width, architecture "clip"."""
    from gguf import MODEL_ARCH, GGUFType, GGUFWriter, VisionProjectorType

    config = _vision_config(model.config)
    writer = GGUFWriter(path, "clip")
    add_general(writer, GGUFType.MMPROJ, name, precision, model.model.visual.num_parameters())
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(VisionProjectorType.QWEN25VL)
    writer.add_vision_projection_dim(config.out_hidden_size)
    writer.add_vision_image_size(VISION_IMAGE_SIZE)
    writer.add_vision_patch_size(config.patch_size)
    writer.add_vision_embedding_length(config.hidden_size)
    writer.add_vision_feed_forward_length(config.intermediate_size)
    writer.add_vision_block_count(config.depth)
    writer.add_vision_head_count(config.num_heads)
    writer.add_vision_image_mean(IMAGE_MEAN)
    writer.add_vision_image_std(IMAGE_STD)
    writer.add_vision_use_silu(True)
    pattern = config.fullatt_block_indexes[0] + 1
    # 1 means that every block is global; llama.cpp then prepares a mask that no block uses, and aborts.
    # 0 means the same and works.
    writer.add_vision_n_wa_pattern(pattern if pattern > 1 else 0)
    writer.add_vision_attention_layernorm_eps(VISION_EPSILON)
    add_tensors(writer, _vision_tensors(model), MODEL_ARCH.MMPROJ, config.depth, precision)
    write_file(writer)


def add_general(writer: "GGUFWriter", kind: str, name: str, precision: str, parameters: int) -> None:
    """Add the keys that every GGUF file has."""
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    writer.add_type(kind)
    writer.add_name(name)
    writer.add_size_label(f"{max(1, round(parameters / 1000))}K")
    writer.add_file_type(LlamaFileType.MOSTLY_F16 if precision == "f16" else LlamaFileType.ALL_F32)
    writer.add_quantization_version(GGML_QUANT_VERSION)


def add_vocabulary(writer: "GGUFWriter", tokenizer: "PreTrainedTokenizerFast", vocab_size: int) -> None:
    """Add the tokens in the order of their ids, the BPE merges, and the tokens with a role."""
    import json

    from gguf import TokenType

    added = tokenizer.get_added_vocab()
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(vocab_size)]
    types = [
        TokenType.UNUSED
        if number not in by_id
        else TokenType.CONTROL
        if by_id[number] in added
        else TokenType.NORMAL
        for number in range(vocab_size)
    ]
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    special = tokenizer.get_vocab()
    writer.add_eos_token_id(special["<|im_end|>"])
    writer.add_pad_token_id(special["<|endoftext|>"])
    writer.add_bos_token_id(special["<|endoftext|>"])


def _text_tensors(model: "Qwen2_5_VLForConditionalGeneration") -> "Iterator[tuple[str, Tensor]]":
    """The language model's tensors under the names that gguf's table knows."""
    for name, tensor in model.model.language_model.state_dict().items():
        yield f"model.{name}", tensor
    # A tied output matrix is left out: llama.cpp then uses the embedding matrix.
    if model.lm_head.weight is not model.model.language_model.embed_tokens.weight:
        yield "lm_head.weight", model.lm_head.weight


def _vision_tensors(model: "Qwen2_5_VLForConditionalGeneration") -> "Iterator[tuple[str, Tensor]]":
    """The vision tower's tensors, split where llama.cpp expects separate ones."""
    for name, tensor in model.model.visual.state_dict().items():
        if name == "patch_embed.proj.weight":
            # (out, 3, 2, 14, 14): one 2-D convolution for each of the two frames
            yield "v.patch_embd.weight", tensor[:, :, 0]
            yield "v.patch_embd.weight.1", tensor[:, :, 1]
        elif ".qkv." in name:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                yield f"visual.{name.replace('qkv', part)}", third
        else:
            yield f"visual.{name}", tensor


def add_tensors(
    writer: "GGUFWriter",
    tensors: "Iterator[tuple[str, Tensor]]",
    architecture: "MODEL_ARCH",
    blocks: int,
    precision: Literal["f16", "f32"],
) -> None:
    """Add each tensor under llama.cpp's name; names that already are llama.cpp's are kept."""
    import numpy as np
    from gguf import get_tensor_name_map

    names = get_tensor_name_map(architecture, blocks)
    for name, tensor in tensors:
        target = name if name.startswith("v.") else names.get_name(name, (".weight", ".bias"))
        if target is None:
            raise ValueError(f"llama.cpp has no name for {name}")
        array = tensor.detach().float().cpu().numpy()
        # llama.cpp interpolates learned positions, which it does in float32 alone.
        matrix = array.ndim > 1 and precision == "f16" and target != "v.position_embd.weight"
        writer.add_tensor(target, np.ascontiguousarray(array.astype(np.float16) if matrix else array))


def write_file(writer: "GGUFWriter") -> None:
    """Write everything added so far to the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
