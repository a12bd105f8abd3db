"""A second model set: the tiny one with an encoder of other vectors, in the same file formats."""

from __future__ import annotations

import re
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

ENCODER = "second_encoder"
"""Name of its encoder."""


def make_second_set(folder: Path, dimensions: int = 64) -> Path:
    """Write the set into `folder`; return its TOML file.

    Its vectors are those of the tiny set, mapped at random to `dimensions` numbers; texts alike.
    """
    root = Path(str(files("matir_cli.models")))
    folder.mkdir(parents=True, exist_ok=True)
    visual = torch.load(root / "tiny" / "alpha_clip.pth", weights_only=True)
    text = load_file(root / "tiny" / "clip_text.safetensors")
    width = visual["proj"].shape[1]
    drawn = np.random.default_rng(5).standard_normal((width, dimensions)) / width**0.5
    mapping = torch.from_numpy(drawn).float()
    visual["proj"] = (visual["proj"].float() @ mapping).half()
    text["text_projection.weight"] = (mapping.T @ text["text_projection.weight"].float()).half().contiguous()
    torch.save(visual, folder / "alpha_clip.pth")
    save_file(text, folder / "clip_text.safetensors")
    toml = (root / "tiny.toml").read_text()
    toml = toml.replace('name = "alpha_clip_tiny_drawn_world"', f'name = "{ENCODER}"')
    toml = toml.replace('path = "tiny/alpha_clip.pth"', 'path = "alpha_clip.pth"')
    toml = toml.replace('path = "tiny/clip_text.safetensors"', 'path = "clip_text.safetensors"')
    for name in re.findall(r'path = "tiny/(.+)"', toml):
        shutil.copy(root / "tiny" / name, folder / name)
    toml = toml.replace('path = "tiny/', 'path = "').replace('name = "tiny"', 'name = "second"')
    (folder / "set.toml").write_text(toml)
    return folder / "set.toml"
