"""Random CLIP models in the official file formats, with transformers as reference."""

import gzip
import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPImageProcessorPil, CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig
from transformers import CLIPVisionModelWithProjection as CLIPVision
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from matir_cli.records import EngineConfig, FloatArray, ImageArray, ModelIdentity

VISION_B16 = CLIPVisionConfig(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
    image_size=224, patch_size=16, projection_dim=512,
)  # fmt: skip
VISION_L14 = CLIPVisionConfig(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
    image_size=224, patch_size=14, projection_dim=768,
)  # fmt: skip
VISION_SMALL = CLIPVisionConfig(
    hidden_size=48, intermediate_size=192, num_hidden_layers=3, num_attention_heads=3,
    image_size=40, patch_size=8, projection_dim=24,
)  # fmt: skip

SMALL_VOCABULARY = 516
"""Tokens of `save_small_vocabulary`."""

START_TOKEN, END_TOKEN = 49406, 49407
"""Ids in CLIP's full vocabulary."""

_VISUAL_NAMES = (
    (r"^vision_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"\.self_attn\.", ".attn."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"^vision_model\.embeddings\.class_embedding$", "class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "ln_pre."),
    (r"^vision_model\.post_layernorm\.", "ln_post."),
)


def text_config(
    width: int, layers: int, heads: int, dimensions: int, vocabulary: int = 49408
) -> CLIPTextConfig:
    """Return OpenAI's text tower in other sizes; the end token is the last of the vocabulary."""
    return CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, projection_dim=dimensions, max_position_embeddings=77,
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1,
    )  # fmt: skip


def random_vision(config: CLIPVisionConfig, seed: int) -> CLIPVision:
    """Create a vision tower whose vectors differ between images, unlike transformers' own random ones."""
    model = CLIPVision(config)
    model.train(False)
    randomise(model, seed)
    return model


def random_text(config: CLIPTextConfig, seed: int) -> CLIPTextModelWithProjection:
    """Create a text tower whose vectors differ between texts."""
    model = CLIPTextModelWithProjection(config)
    model.train(False)
    randomise(model, seed)
    return model


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> None:
    """Draw weights: matrices that preserve the length of their input, biases and norms that matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.normal_(generator=generator)
        if "embedding" in name and "patch" not in name:
            parameter.mul_(0.5)
        elif parameter.ndim >= 2:
            parameter.mul_(parameter[0].numel() ** -0.5)
        elif name.endswith("bias"):
            parameter.mul_(0.1)
        else:
            parameter.mul_(0.1).add_(1)


def to_openai(vision: CLIPVision) -> dict[str, Tensor]:
    """Return the state dict of `vision` under the names of an Alpha-CLIP checkpoint, `conv1_alpha` zero."""
    state = {}
    for name, value in vision.state_dict().items():
        for pattern, replacement in _VISUAL_NAMES:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901
        state[name] = value.clone()
    state["proj"] = state.pop("visual_projection.weight").T.contiguous()
    for n in range(vision.config.num_hidden_layers):
        attention = f"transformer.resblocks.{n}.attn"
        for kind in ("weight", "bias"):
            parts = [state.pop(f"{attention}.{part}_proj.{kind}") for part in "qkv"]
            state[f"{attention}.in_proj.{kind}"] = torch.cat(parts)
    state.pop("vision_model.embeddings.position_ids", None)
    state["conv1_alpha.weight"] = torch.zeros_like(state["conv1.weight"][:, :1])
    return state


def plain_tower(state: Mapping[str, Tensor], heads: int, rgb: Tensor, alpha: Tensor) -> Tensor:
    """Compute upstream's tower for one region with torch's own attention, without any shortcut."""
    width, patch = state["conv1.weight"].shape[0], state["conv1.weight"].shape[2]
    x = functional.conv2d(rgb, state["conv1.weight"], stride=patch)
    x = x + functional.conv2d(alpha, state["conv1_alpha.weight"], stride=patch)
    x = torch.cat([state["class_embedding"][None], x[0].flatten(1).T]) + state["positional_embedding"]

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, (width,), state[f"{name}.weight"], state[f"{name}.bias"])

    x = norm(x, "ln_pre")
    for n in range(sum(name.endswith("ln_1.weight") for name in state)):
        name = f"transformer.resblocks.{n}"
        y = norm(x, f"{name}.ln_1")[:, None]
        attention, _ = functional.multi_head_attention_forward(
            y, y, y, width, heads,
            state[f"{name}.attn.in_proj.weight"], state[f"{name}.attn.in_proj.bias"], None, None, False, 0.0,
            state[f"{name}.attn.out_proj.weight"], state[f"{name}.attn.out_proj.bias"], training=False,
        )  # fmt: skip
        x = x + attention[:, 0]
        y = norm(x, f"{name}.ln_2") @ state[f"{name}.mlp.c_fc.weight"].T + state[f"{name}.mlp.c_fc.bias"]
        y = y * torch.sigmoid(1.702 * y)
        x = x + y @ state[f"{name}.mlp.c_proj.weight"].T + state[f"{name}.mlp.c_proj.bias"]
    return norm(x, "ln_post")[:1] @ state["proj"]


def random_photo(height: int, width: int, seed: int) -> ImageArray:
    """Return (height, width, 3) uint8: blocks of 8 x 8 pixels in random colours."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def unit(vectors: Tensor) -> FloatArray:
    """Scale the rows of `vectors` (n, d) to unit length."""
    return np.asarray((vectors / vectors.norm(dim=-1, keepdim=True)).numpy())


def normalised(square: Image.Image) -> Tensor:
    """Return (1, 3, side, side) float32: a square image with CLIP's normalisation."""
    mean, std = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)
    rgb = torch.from_numpy(np.array(square)).permute(2, 0, 1) / 255
    return ((rgb - mean.view(3, 1, 1)) / std.view(3, 1, 1))[None]


def clip_pixels(images: Sequence[ImageArray], side: int) -> Tensor:
    """Return (n, 3, side, side) float32: images as transformers prepares them for CLIP."""
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=side)
    return torch.cat([processor(image, return_tensors="pt")["pixel_values"] for image in images])


def save_text(
    model: CLIPTextModelWithProjection, path: Path, extra: Mapping[str, Tensor] | None = None
) -> None:
    """Write `model` as on the Hugging Face hub; `extra` are further tensors in the file."""
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file({**state, **(extra or {})}, path, metadata={"format": "pt"})


def alpha_clip_config(options: Mapping[str, object] | None = None, **files: Path) -> EngineConfig:
    """Return the configuration of an engine `alpha_clip`."""
    return EngineConfig("alpha_clip", options or {}, files, ModelIdentity("random", "0" * 64))


def clip_config(options: Mapping[str, object] | None = None, **files: Path) -> EngineConfig:
    """Return the configuration of an engine `clip`."""
    return EngineConfig("clip", options or {}, files, ModelIdentity("random", "0" * 64))


def reference_tokenizer() -> ModuleType:
    """Import open_clip's copy of OpenAI's tokenizer without open_clip, which takes seconds to import."""
    spec = importlib.util.spec_from_file_location("openai_tokenizer", _open_clip() / "tokenizer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ReferenceTokenizer(Protocol):
    """OpenAI's tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, without start and end token."""
        ...


@cache
def openai_tokenizer() -> ReferenceTokenizer:
    """Return OpenAI's tokenizer with CLIP's full vocabulary."""
    tokenizer: ReferenceTokenizer = reference_tokenizer().SimpleTokenizer()
    return tokenizer


def openai_ids(text: str, limit: int = 77) -> list[int]:
    """Return the ids of OpenAI's `clip.tokenize(text, truncate=True)`, without its padding."""
    ids = [START_TOKEN, *openai_tokenizer().encode(text), END_TOKEN]
    return ids if len(ids) <= limit else [*ids[: limit - 1], END_TOKEN]


def save_vocabulary(path: Path) -> None:
    """Write CLIP's full vocabulary as a `tokenizer.json`, as on the hub."""
    lines = gzip.decompress((_open_clip() / "bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode().split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    tokens += [merge.replace(" ", "") for merge in merges]
    save_tokenizer(path, [*tokens, "<|startoftext|>", "<|endoftext|>"], merges)


def save_small_vocabulary(path: Path) -> None:
    """Write a `tokenizer.json` of 516 tokens: bytes, two merges that make up "dog", start and end."""
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), "do", "dog</w>"]
    save_tokenizer(path, [*tokens, "<|startoftext|>", "<|endoftext|>"], ["d o", "do g</w>"])


def byte_of_symbol() -> dict[str, int]:
    """Return the byte that each of GPT-2's 256 byte-level symbols stands for, in the vocabulary's order."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in kept]
    return {chr(byte): byte for byte in kept} | {chr(256 + n): byte for n, byte in enumerate(others)}


def byte_symbols() -> list[str]:
    """Return OpenAI's 256 byte symbols in the order of its vocabulary."""
    return list(byte_of_symbol())


def save_tokenizer(path: Path, tokens: list[str], merges: list[str]) -> None:
    """Write a `tokenizer.json` with the structure of CLIP's."""
    split = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    made = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": len(tokens) - 2 + n, "content": tokens[n - 2], **flags} for n in range(2)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": split}, "behavior": "Removed", "invert": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        ]},
        "post_processor": {
            "type": "RobertaProcessing", "sep": [tokens[-1], len(tokens) - 1],
            "cls": [tokens[-2], len(tokens) - 2], "trim_offsets": False, "add_prefix_space": False,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": tokens[-1], "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": False,
            "vocab": {token: n for n, token in enumerate(tokens)}, "merges": merges,
        },
    }  # fmt: skip
    path.write_text(json.dumps(made), encoding="utf-8")


def _open_clip() -> Path:
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def save_torchscript(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a scripted module whose state dict is `state`, the format of OpenAI's own models."""
    root = nn.Module()
    for name, value in state.items():
        *folders, leaf = name.split(".")
        module = root
        for folder in folders:
            if not hasattr(module, folder):
                module.add_module(folder, nn.Module())
            module = getattr(module, folder)
        module.register_buffer(leaf, value)
    torch.jit.save(torch.jit.script(root), path)
