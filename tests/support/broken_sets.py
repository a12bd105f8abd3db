"""Copies of the tiny set with crafted faults in their files or options."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, ReaderTensor
from safetensors.torch import load_file, save_file
from torch import Tensor

from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import locate_part
from matir_cli.models.tiny.clip_tokenizer import END, START

State = dict[str, Tensor]
Fault = Callable[[Path], None]
"""Damages the copy in a folder."""


def copy_tiny(folder: Path) -> Path:
    """Copy the tiny set's TOML and model files into `folder`; return the TOML."""
    tiny = load_model_set("tiny")
    places = [path for part in tiny.parts for path in locate_part(tiny, part.kind).files.values()]
    (folder / "tiny").mkdir(parents=True)
    for place in places:
        shutil.copy(place, folder / "tiny" / place.name)
    toml = folder / "tiny.toml"
    # One thread: the tests run several sets side by side.
    text = (places[0].parents[1] / "tiny.toml").read_text()
    toml.write_text(text.replace("[judge.options]\n", "[judge.options]\nthreads = 1\n"))
    return toml


def set_option(old: str, new: str) -> Fault:
    """Make a fault of the TOML: the text `old`, which it holds once, becomes `new`."""

    def damage(folder: Path) -> None:
        text = (folder / "tiny.toml").read_text()
        assert text.count(old) == 1
        (folder / "tiny.toml").write_text(text.replace(old, new))

    return damage


def change_proposer(change: Callable[[State], object]) -> Fault:
    """Make a fault of SAM 2's weights."""

    def damage(folder: Path) -> None:
        file = torch.load(folder / "tiny/sam2.pt", weights_only=True)
        change(file["model"])
        torch.save(file, folder / "tiny/sam2.pt")

    return damage


def change_visual(change: Callable[[State], object]) -> Fault:
    """Make a fault of Alpha-CLIP's visual tower."""

    def damage(folder: Path) -> None:
        state = torch.load(folder / "tiny/alpha_clip.pth", weights_only=True)
        change(state)
        torch.save(state, folder / "tiny/alpha_clip.pth")

    return damage


def change_text(change: Callable[[State], object]) -> Fault:
    """Make a fault of CLIP's text tower."""

    def damage(folder: Path) -> None:
        state = load_file(folder / "tiny/clip_text.safetensors")
        change(state)
        save_file(state, folder / "tiny/clip_text.safetensors")

    return damage


def change_gguf(name: str, change: Callable[[dict[str, ReaderTensor]], object]) -> Fault:
    """Make a fault of the tensors in a GGUF file, in place; their data are numpy arrays."""

    def damage(folder: Path) -> None:
        reader = GGUFReader(folder / "tiny" / name, "r+")
        change({tensor.name: tensor for tensor in reader.tensors})
        reader.data.flush()

    return damage


def shuffle_vocabulary(folder: Path) -> None:
    """Give the tokens of CLIP's vocabulary each other's ids, but for start and end."""
    path = folder / "tiny/tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokens = [token for token in vocabulary if token not in (START, END)]
    ids = np.random.default_rng(0).permutation([vocabulary[token] for token in tokens])
    vocabulary.update(zip(tokens, ids.tolist(), strict=True))
    path.write_text(json.dumps(tokenizer))


def exchange_input_channels(name: str) -> Callable[[State], object]:
    """Return a change: the convolution `name` reads blue for red and red for blue."""
    return lambda state: state.update({name: state[name].flip(1).contiguous()})


def exchange_projector_channels(tensors: dict[str, ReaderTensor]) -> None:
    """Exchange red and blue in the projector's two patch embeddings."""
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        tensors[name].data[...] = tensors[name].data[:, ::-1].copy()


def randomise(state: State) -> None:
    """Draw all weights anew, with the mean and deviation of each tensor."""
    generator = torch.Generator().manual_seed(0)
    for name, value in state.items():
        if value.is_floating_point() and value.numel() > 1:
            drawn = torch.randn(value.shape, generator=generator) * value.float().std() + value.float().mean()
            state[name] = drawn.to(value.dtype)


def randomise_gguf(tensors: dict[str, ReaderTensor]) -> None:
    """Draw all weights anew, with the mean and deviation of each tensor."""
    rng = np.random.default_rng(0)
    for tensor in tensors.values():
        values = tensor.data.astype(np.float32)
        drawn = rng.standard_normal(values.shape) * values.std() + values.mean()
        tensor.data[...] = drawn.astype(tensor.data.dtype)


def zero_alpha(state: State) -> None:
    """Zero the weights through which a mask is seen."""
    state["conv1_alpha.weight"].zero_()


def zero_projection(tensors: dict[str, ReaderTensor]) -> None:
    """Zero the projector's last layer: the image's tokens have no length, and the logits are no numbers."""
    for name in ("mm.2.weight", "mm.2.bias"):
        tensors[name].data[...] = 0


def shuffle_token_rows(tensors: dict[str, ReaderTensor]) -> None:
    """Give the judge's tokens each other's embeddings, as a vocabulary of another model would."""
    rows = tensors["token_embd.weight"].data
    rows[...] = rows[np.random.default_rng(0).permutation(len(rows))]


def activate_by_silu(state: State) -> None:
    """Turn the visual tower's QuickGELU, x sigmoid(1.702 x), into SiLU, x sigmoid(x), by scaling."""
    for name in state:
        if ".mlp.c_fc." in name:
            state[name] /= 1.702
        elif name.endswith(".mlp.c_proj.weight"):
            state[name] *= 1.702


def activate_text_by_silu(state: State) -> None:
    """Turn the text tower's QuickGELU into SiLU in the same way."""
    for name in state:
        if ".mlp.fc1." in name:
            state[name] /= 1.702
        elif name.endswith(".mlp.fc2.weight"):
            state[name] *= 1.702
