"""A CLIP in one file, as OpenAI, open_clip or transformers write it: its two towers, each for its engine.

OpenAI's names ("visual.conv1.weight", "transformer.resblocks.0...") are also open_clip's; those
of Hugging Face's CLIPModel ("vision_model...", "text_model...") come from transformers. The image
tower is handed on under the first, the text tower under the second, whichever the file has.
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

_TEXT_TOWER = (
    *("text_model.", "text_projection", "token_embedding.", "positional_embedding"),
    *("transformer.resblocks.", "ln_final."),
)

_NO_WEIGHTS = (".num_batches_tracked", ".position_ids")

# What OpenAI calls it, and what the hub does.
_LAYER_NAMES = (
    ("transformer.resblocks.", "encoder.layers."),
    (".attn.", ".self_attn."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)

_IMAGE_NAMES = (
    ("conv1.", "embeddings.patch_embedding."),
    ("class_embedding", "embeddings.class_embedding"),
    ("positional_embedding", "embeddings.position_embedding.weight"),
    ("ln_pre.", "pre_layrnorm."),
    ("ln_post.", "post_layernorm."),
)

_TEXT_NAMES = (
    ("token_embedding.", "embeddings.token_embedding."),
    ("positional_embedding", "embeddings.position_embedding.weight"),
    ("ln_final.", "final_layer_norm."),
)

_HUB_ATTENTION = re.compile(r"(.*\.attn)\.([qkv])_proj\.(weight|bias)")

_OPENAI_ATTENTION = re.compile(r"(.*\.self_attn)\.in_proj_(weight|bias)")


class HeldTensors:
    """Fulfils `mapped_tensors.NamedTensors`: what was read of a file that cannot be mapped."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """`tensors`, read from `path`; floating point of any precision."""
        self.path = path
        self._tensors = tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of tensor `name`; CheckpointInvalid if it is not there."""
        if name not in self._tensors:
            raise CheckpointInvalid(self.path, f"{name} is missing")
        return tuple(self._tensors[name].shape)

    def read(self, name: str, *shape: int) -> FloatArray:
        """Tensor `name` as float32; CheckpointInvalid if it is not there or does not have `shape`."""
        found = self.shape(name)
        if found != shape:
            raise CheckpointInvalid(self.path, f"{name} has shape {list(found)}, expected {list(shape)}")
        return np.asarray(self._tensors[name].float().numpy())

    def rows(self, name: str, shape: tuple[int, int], index: NDArray[np.intp]) -> FloatArray:
        """(len(index), shape[1]) float32: the given rows of a matrix; errors as in `read`."""
        return np.asarray(self.read(name, *shape)[index])


def image_tower(path: Path) -> dict[str, Tensor]:
    """The image tower in the file at `path`, under OpenAI's names without "visual.".

    Attention's one projection of three is "attn.in_proj.weight", as in Alpha-CLIP's checkpoints.

    Raises:
        CheckpointInvalid: the file cannot be read, or holds no image tower.
    """
    state = _read(path, _IMAGE_TOWER, "image")
    if any(name.startswith("visual.") for name in state):
        state = {name.removeprefix("visual."): value for name, value in state.items()}
        return {re.sub(r"\.attn\.in_proj_", ".attn.in_proj.", name): value for name, value in state.items()}
    return _image_tower_of_hub(path, state)


def text_tower(path: Path) -> HeldTensors:
    """The text tower in the file at `path`, under the names of Hugging Face's CLIPTextModelWithProjection.

    Raises:
        CheckpointInvalid: the file cannot be read, or holds no text tower.
    """
    state = _read(path, _TEXT_TOWER, "text")
    if any(name.startswith("text_model.") for name in state):
        return HeldTensors(path, state)
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name == "text_projection":
            renamed["text_projection.weight"] = value.T
            continue
        hub = "text_model." + _renamed(name, (*_LAYER_NAMES, *_TEXT_NAMES))
        if split := _OPENAI_ATTENTION.fullmatch(hub):
            parts = zip("qkv", value.chunk(3), strict=False)
            renamed |= {f"{split[1]}.{part}_proj.{split[2]}": piece for part, piece in parts}
        else:
            renamed[hub] = value
    return HeldTensors(path, renamed)


def load_checkpoint_text_encoder(config: EngineConfig) -> ClipTextEncoder:
    """The text encoder of a model set: files "checkpoint" (a CLIP) and "vocabulary" (tokenizer.json).

    Raises:
        ModelSetInvalid: an option is wrong, or a file is not named.
        CheckpointInvalid: a file is not what it should be.
    """
    options = read_options(config.options, PlainClipOptions, config.engine)
    weights = text_tower(model_file(config, "checkpoint"))
    return ClipTextEncoder(weights, load_tokenizer(model_file(config, "vocabulary")), options)


def _read(path: Path, prefixes: tuple[str, ...], tower: str) -> dict[str, Tensor]:
    def wanted(name: str) -> bool:
        return name.startswith(prefixes) and not name.endswith(_NO_WEIGHTS)

    if is_torchscript(path):
        state = read_torchscript_tensors(path, wanted)
    else:
        state = read_tensors(path, None, wanted)
    if not state:
        raise CheckpointInvalid(path, f"not a CLIP: it has no {tower} tower under a name that is known")
    other = next((name for name, value in state.items() if not value.is_floating_point()), None)
    if other is not None:
        raise CheckpointInvalid(path, f"{other} is not of floating point")
    return state


def _image_tower_of_hub(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    attention: dict[str, dict[str, Tensor]] = {}
    back = tuple((hub, openai) for openai, hub in (*_LAYER_NAMES, *_IMAGE_NAMES))
    for name, value in state.items():
        if name == "visual_projection.weight":
            found["proj"] = value.T.contiguous()
            continue
        openai = _renamed(name.removeprefix("vision_model."), back)
        if split := _HUB_ATTENTION.fullmatch(openai):
            attention.setdefault(f"{split[1]}.in_proj.{split[3]}", {})[split[2]] = value
        else:
            found[openai] = value
    for name, parts in attention.items():
        if parts.keys() != set("qkv") or len({part.shape for part in parts.values()}) != 1:
            raise CheckpointInvalid(path, f"query, key and value of {name} do not fit together")
        found[name] = torch.cat([parts[part] for part in "qkv"])
    return found


def _renamed(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for old, new in pairs:
        name = name.replace(old, new)
    return name
