"""Reader of the weights in a judge's two GGUF files, for training to go on from them.

The files hold the tensors that `gguf_writer` writes, under the same names; metadata and vocabulary are
not read, since the recipe makes both anew, the same every time.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from gguf import MODEL_ARCH, GGUFReader, get_tensor_name_map

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Qwen2_5_VLForConditionalGeneration


def read_gguf(model: "Qwen2_5_VLForConditionalGeneration", text_path: Path, projector_path: Path) -> None:
    """Replace the weights of `model`, whose config must be that of the files.

    Args:
        text_path: file of the language model; one without an output matrix has tied embeddings.
        projector_path: file of the vision tower and its merger.

    Raises:
        ValueError: a tensor is missing, or has another shape than the model's; nothing is replaced.
    """
    language, vision = model.model.language_model, model.model.visual
    stored = _tensors(text_path), _tensors(projector_path)
    blocks = len(language.layers), len(vision.blocks)
    text_names = get_tensor_name_map(MODEL_ARCH.QWEN2VL, blocks[0])
    vision_names = get_tensor_name_map(MODEL_ARCH.MMPROJ, blocks[1])

    def find(tensors: "dict[str, Tensor]", name: str | None, described: str) -> "Tensor":
        if name is None or name not in tensors:
            raise ValueError(f"the files lack {described}")
        return tensors[name]

    def text_tensor(name: str) -> "Tensor":
        return find(stored[0], text_names.get_name(name, (".weight", ".bias")), name)

    def vision_tensor(name: str) -> "Tensor":
        if name == "patch_embed.proj.weight":  # one 2-D convolution for each of the two frames
            frames = [find(stored[1], f"v.patch_embd.weight{end}", name) for end in ("", ".1")]
            return torch.stack(frames, dim=2)
        if ".qkv." in name:
            return torch.cat([vision_tensor(name.replace("qkv", part)) for part in "qkv"])
        return find(stored[1], vision_names.get_name(f"visual.{name}", (".weight", ".bias")), name)

    read = [
        (tensor, text_tensor(f"model.{name}"), name) for name, tensor in language.state_dict().items()
    ] + [(tensor, vision_tensor(name), name) for name, tensor in vision.state_dict().items()]
    if model.lm_head.weight is not language.embed_tokens.weight:
        read.append((model.lm_head.weight, text_tensor("lm_head.weight"), "lm_head.weight"))
    for tensor, value, name in read:
        if tensor.shape != value.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, not {tuple(tensor.shape)}")
    with torch.no_grad():
        for tensor, value, _ in read:
            tensor.copy_(value)


def _tensors(path: Path) -> "dict[str, Tensor]":
    """The tensors of a file by name, float32, with transformers' order of dimensions."""
    return {
        tensor.name: torch.from_numpy(tensor.data.astype(np.float32)) for tensor in GGUFReader(path).tensors
    }
