"""Writer of a transformers Qwen3-VL model as llama.cpp's two GGUF files.

    write_qwen3_gguf(model, tokenizer, Path("text.gguf"), Path("projector.gguf"), precision="f16")

Keys, tensor names, shapes and types are those of llama.cpp's own converter (`conversion/qwen3vl.py`,
llama.cpp as bundled with llama-cpp-python 0.3.36); a test compares them with a listing of its output. The
parts that are the same for Qwen2.5-VL are those of `models/tiny/gguf_writer.py`.

For transformers and llama.cpp to agree, the three sections of rotary positions must be interleaved without a
rest: the first as long as a third of `head_dim / 2`, rounded up, and so on. [3, 3, 2] for 16 works. With
another division llama.cpp leaves the last few frequencies unrotated, as it does with those of the published
models, where their angles are too small to matter.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from gguf import MODEL_ARCH, GGUFType, GGUFWriter, VisionProjectorType
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from matir_cli.models.tiny.gguf_writer import add_general, add_tensors, add_vocabulary, write_file

IMAGE_MEAN = IMAGE_STD = (0.5, 0.5, 0.5)
"""RGB mean and standard deviation of Qwen3-VL's preprocessor, of pixels in 0..1."""


def write_qwen3_gguf(
    model: Qwen3VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    text_path: Path,
    projector_path: Path,
    *,
    precision: Literal["f16", "f32"] = "f16",
    name: str = "qwen3-vl",
) -> None:
    """Write the text model and the vision projector of `model`; arguments as in `write_gguf`."""
    _write_text(model, tokenizer, text_path, precision, name)
    _write_projector(model, projector_path, precision, name)


def _write_text(
    model: Qwen3VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    path: Path,
    precision: Literal["f16", "f32"],
    name: str,
) -> None:
    """Write the language model and its vocabulary, architecture "qwen3vl"."""
    config = model.config.get_text_config()
    rope = config.rope_parameters
    writer = GGUFWriter(path, "qwen3vl")
    parameters = model.num_parameters() - model.model.visual.num_parameters()
    add_general(writer, GGUFType.MODEL, name, precision, parameters)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_sections([*rope["mrope_section"], 0])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_num_deepstack_layers(len(model.model.visual.deepstack_visual_indexes))
    add_vocabulary(writer, tokenizer, config.vocab_size)
    add_tensors(writer, _text_tensors(model), MODEL_ARCH.QWEN3VL, config.num_hidden_layers, precision)
    write_file(writer)


def _write_projector(
    model: Qwen3VLForConditionalGeneration, path: Path, precision: Literal["f16", "f32"], name: str
) -> None:
    """Write the vision tower, its merger and those of its inner blocks, architecture "clip"."""
    visual = model.model.visual
    config = visual.config
    writer = GGUFWriter(path, "clip")
    add_general(writer, GGUFType.MMPROJ, name, precision, visual.num_parameters())
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(VisionProjectorType.QWEN3VL)
    writer.add_vision_projection_dim(config.out_hidden_size)
    writer.add_vision_image_size(int(config.num_position_embeddings**0.5) * 16)
    writer.add_vision_patch_size(16)
    writer.add_vision_embedding_length(config.hidden_size)
    writer.add_vision_feed_forward_length(config.intermediate_size)
    writer.add_vision_block_count(config.depth)
    writer.add_vision_head_count(config.num_heads)
    writer.add_vision_image_mean(IMAGE_MEAN)
    writer.add_vision_image_std(IMAGE_STD)
    writer.add_vision_use_gelu(True)
    writer.add_vision_spatial_merge_size(config.spatial_merge_size)
    writer.add_vision_attention_layernorm_eps(model.config.get_text_config().rms_norm_eps)
    writer.add_vision_is_deepstack_layers(
        [number in visual.deepstack_visual_indexes for number in range(config.depth)]
    )
    add_tensors(writer, _vision_tensors(model), MODEL_ARCH.MMPROJ, config.depth, precision)
    write_file(writer)


def _text_tensors(model: Qwen3VLForConditionalGeneration) -> Iterator[tuple[str, Tensor]]:
    """Yield the language model's tensors under the names that gguf's table knows."""
    for name, tensor in model.model.language_model.state_dict().items():
        yield f"model.{name}", tensor
    # A tied output matrix is left out: llama.cpp then uses the embedding matrix.
    if model.lm_head.weight is not model.model.language_model.embed_tokens.weight:
        yield "lm_head.weight", model.lm_head.weight


def _vision_tensors(model: Qwen3VLForConditionalGeneration) -> Iterator[tuple[str, Tensor]]:
    """Yield the vision tower's tensors, under llama.cpp's own names where gguf's table has none."""
    visual = model.model.visual
    named = {
        "patch_embed.proj.bias": "v.patch_embd.bias",
        "pos_embed.weight": "v.position_embd.weight",
        "merger.norm": "v.post_ln",
        "merger.linear_fc1": "mm.0",
        "merger.linear_fc2": "mm.2",
    }
    for place, block in enumerate(visual.deepstack_visual_indexes):
        for part, target in (("norm", "norm"), ("linear_fc1", "fc1"), ("linear_fc2", "fc2")):
            named[f"deepstack_merger_list.{place}.{part}"] = f"v.deepstack.{block}.{target}"
    for name, tensor in visual.state_dict().items():
        module, _, kind = name.rpartition(".")
        if name == "patch_embed.proj.weight":
            # (out, 3, 2, 16, 16): one 2-D convolution for each of the two frames
            yield "v.patch_embd.weight", tensor[:, :, 0]
            yield "v.patch_embd.weight.1", tensor[:, :, 1]
        elif name in named:
            yield named[name], tensor
        elif module in named:
            yield f"{named[module]}.{kind}", tensor
        else:
            yield f"visual.{name}", tensor
