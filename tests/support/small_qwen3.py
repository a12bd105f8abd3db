"""Small random Qwen3-VL models by transformers, in llama.cpp's two files."""

from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from matir_cli.models.tiny.qwen_tokenizer import build_tokenizer
from tests.support.qwen3_gguf import IMAGE_MEAN, IMAGE_STD, write_qwen3_gguf
from tests.support.small_qwen import CORPUS, Precision, SmallQwen, randomise_qwen


def make_qwen3(
    folder: Path,
    *,
    seed: int,
    precision: Precision = "f32",
    tied: bool = False,
    vision: dict[str, Any] | None = None,
    **text: int,
) -> SmallQwen:
    """Create a model with random weights, larger than usual so that its answers depend on the question.

    Args:
        folder: folder to write the GGUF files into.
        seed: seed of the weights.
        precision: precision of the GGUF files.
        tied: use the token embeddings as output projection, too.
        vision: changes to the configuration of the vision tower.
        text: changes to the configuration of the text model.
    """
    tokenizer = build_tokenizer(CORPUS, 400)
    ids = tokenizer.get_vocab()
    width = text.pop("hidden_size", 64)
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer) + 4,
            "hidden_size": width,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5000000.0,
                "mrope_section": [3, 3, 2],
                "mrope_interleaved": True,
            },
            **text,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_heads": 4,
            "out_hidden_size": width,
            "num_position_embeddings": 144,
            "deepstack_visual_indexes": [0, 2],
            **(vision or {}),
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=tied,
    )
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config)
    randomise_qwen(model)
    small = SmallQwen(
        model,
        tokenizer,
        folder / "text.gguf",
        folder / "projector.gguf",
        engine="qwen3_vl",
        writer=write_qwen3_gguf,
        normalisation=(IMAGE_MEAN, IMAGE_STD),
    )
    small.write(precision)
    return small
