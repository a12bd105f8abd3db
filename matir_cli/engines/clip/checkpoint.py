"""CLIP checkpoints of OpenAI, open_clip and transformers, read tower by tower.

OpenAI and open_clip use the same tensor names ("visual.conv1.weight", "transformer.resblocks.0...");
transformers has its own, those of Hugging Face's CLIPModel ("vision_model...", "text_model..."). Whichever
a file uses, its image tower is returned under OpenAI's names and its text tower under Hugging Face's.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from matir_cli.engines.clip.options import PlainClipOptions, model_file
from matir_cli.engines.clip.text_encoder import ClipTextEncoder
from matir_cli.engines.clip.tokenizer import load_tokenizer
from matir_cli.engines.options import read_options
from matir_cli.engines.tensors.torch_checkpoint import read_tensors
from matir_cli.engines.tensors.torchscript import is_torchscript, read_torchscript_tensors
from matir_cli.errors import CheckpointInvalid
from matir_cli.records import EngineConfig, FloatArray

_IMAGE_TOWER = ("visual.", "vision_model.", "visual_projection.")
"""Prefixes of tensor names in the image tower, of both kinds."""

_TEXT_TOWER = (
    *("text_model.", "text_projection", "token_embedding.", "positional_embedding"),
    *("transformer.resblocks.", "ln_final."),
)
"""Prefixes of tensor names in the text tower, of both kinds."""

_NO_WEIGHTS = (".num_batches_tracked", ".position_ids")
"""Suffixes of tensors that are not weights."""

_LAYER_NAMES = (
    ("transformer.resblocks.", "encoder.layers."),
    (".attn.", ".self_attn."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
"""Parts of tensor names in both towers: OpenAI's, Hugging Face's."""

_IMAGE_NAMES = (
    ("conv1.", "embeddings.patch_embedding."),
    ("class_embedding", "embeddings.class_embedding"),
    ("positional_embedding", "embeddings.position_embedding.weight"),
    ("ln_pre.", "pre_layrnorm."),
    ("ln_post.", "post_layernorm."),
)
"""Parts of tensor names in the image tower: OpenAI's, Hugging Face's."""

_TEXT_NAMES = (
    ("token_embedding.", "embeddings.token_embedding."),
    ("positional_embedding", "embeddings.position_embedding.weight"),
    ("ln_final.", "final_layer_norm."),
)
"""Parts of tensor names in the text tower: OpenAI's, Hugging Face's."""

_HUB_ATTENTION = re.compile(r"(.*\.attn)\.([qkv])_proj\.(weight|bias)")

_OPENAI_ATTENTION = re.compile(r"(.*\.self_attn)\.in_proj_(weight|bias)")


class InMemoryTensors:
    """Fulfils `safetensors_mmap.NamedTensors` with tensors read from a file that cannot be mapped."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Hold `tensors`, of any floating-point dtype, that were read from `path`."""
        self.path = path
        self._tensors = tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of tensor `name`; CheckpointInvalid if it is missing."""
        if name not in self._tensors:
            raise CheckpointInvalid(self.path, f"{name} is missing")
        return tuple(self._tensors[name].shape)

    def read(self, name: str, *shape: int) -> FloatArray:
        """Return tensor `name` as float32; CheckpointInvalid if missing or not of shape `shape`."""
        found = self.shape(name)
        if found != shape:
            raise CheckpointInvalid(self.path, f"{name} has shape {list(found)}, expected {list(shape)}")
        return np.asarray(self._tensors[name].float().numpy())

    def read_rows(self, name: str, shape: tuple[int, int], index: NDArray[np.intp]) -> FloatArray:
        """Return (len(index), shape[1]) float32: the rows `index` of a matrix; errors as in `read`."""
        return np.asarray(self.read(name, *shape)[index])


def read_image_tower(path: Path) -> dict[str, Tensor]:
    """Read the image tower in the file at `path`, under OpenAI's names without "visual.".

    The joint projection of query, key and value is "attn.in_proj.weight", as in Alpha-CLIP's checkpoints.

    Raises:
        CheckpointInvalid: the file cannot be read, or holds no image tower.
    """
    state = _read_tower(path, _IMAGE_TOWER, "image")
    if any(name.startswith("visual.") for name in state):
        state = {name.removeprefix("visual."): value for name, value in state.items()}
        return {re.sub(r"\.attn\.in_proj_", ".attn.in_proj.", name): value for name, value in state.items()}
    return _convert_hub_image_tower(path, state)


def read_text_tower(path: Path) -> InMemoryTensors:
    """Read the text tower in the file at `path`, under Hugging Face's names (CLIPTextModelWithProjection).

    Raises:
        CheckpointInvalid: the file cannot be read, or holds no text tower.
    """
    state = _read_tower(path, _TEXT_TOWER, "text")
    if any(name.startswith("text_model.") for name in state):
        return InMemoryTensors(path, state)
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name == "text_projection":
            renamed["text_projection.weight"] = _transpose(path, name, value)
            continue
        hub = "text_model." + _rename(name, (*_LAYER_NAMES, *_TEXT_NAMES))
        if split := _OPENAI_ATTENTION.fullmatch(hub):
            parts = zip("qkv", value.chunk(3), strict=False)
            renamed |= {f"{split[1]}.{part}_proj.{split[2]}": piece for part, piece in parts}
        else:
            renamed[hub] = value
    return InMemoryTensors(path, renamed)


def load_checkpoint_text_encoder(config: EngineConfig) -> ClipTextEncoder:
    """Load a model set's text encoder from its files "checkpoint" (a CLIP) and "vocabulary" (tokenizer.json).

    Raises:
        ModelSetInvalid: an option is invalid, or the model set does not name a file.
        CheckpointInvalid: a file is damaged or of the wrong kind.
    """
    options = read_options(config.options, PlainClipOptions, config.engine)
    weights = read_text_tower(model_file(config, "checkpoint"))
    return ClipTextEncoder(weights, load_tokenizer(model_file(config, "vocabulary")), options)


def _read_tower(path: Path, prefixes: tuple[str, ...], tower: str) -> dict[str, Tensor]:
    """Read the weights whose names have one of `prefixes`; `tower` is its name in error messages."""

    def keep(name: str) -> bool:
        return name.startswith(prefixes) and not name.endswith(_NO_WEIGHTS)

    scripted = is_torchscript(path)
    state = read_torchscript_tensors(path, keep) if scripted else read_tensors(path, None, keep)
    if not state:
        raise CheckpointInvalid(path, f"not a CLIP: it has no {tower} tower under a known name")
    for name, value in state.items():
        if not value.is_floating_point():
            raise CheckpointInvalid(path, f"{name} is not a floating-point tensor")
        if value.ndim == 0:
            raise CheckpointInvalid(path, f"{name} is a single number")
    return state


def _transpose(path: Path, name: str, value: Tensor) -> Tensor:
    """Transpose a matrix; CheckpointInvalid if `value` is none."""
    if value.ndim != 2:
        raise CheckpointInvalid(path, f"{name} has shape {list(value.shape)}, expected a matrix")
    return value.T


def _convert_hub_image_tower(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert an image tower from Hugging Face's names to OpenAI's, joining query, key and value."""
    converted: dict[str, Tensor] = {}
    attention: dict[str, dict[str, Tensor]] = {}
    to_openai = tuple((hub, openai) for openai, hub in (*_LAYER_NAMES, *_IMAGE_NAMES))
    for name, value in state.items():
        if name == "visual_projection.weight":
            converted["proj"] = _transpose(path, name, value).contiguous()
            continue
        openai = _rename(name.removeprefix("vision_model."), to_openai)
        if split := _HUB_ATTENTION.fullmatch(openai):
            attention.setdefault(f"{split[1]}.in_proj.{split[3]}", {})[split[2]] = value
        else:
            converted[openai] = value
    for name, parts in attention.items():
        if parts.keys() != set("qkv") or len({part.shape for part in parts.values()}) != 1:
            raise CheckpointInvalid(path, f"query, key and value of {name} do not fit together")
        converted[name] = torch.cat([parts[part] for part in "qkv"])
    return converted


def _rename(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    """Replace the first of each of `pairs` in `name` by the second."""
    for old, new in pairs:
        name = name.replace(old, new)
    return name
