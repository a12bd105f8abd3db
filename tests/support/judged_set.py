"""A model set of the tiny proposer and encoder and a judge with random weights."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.weights import locate_files
from tests.support.small_qwen import make_model


def make_set(folder: Path) -> Path:
    """Write the set into `folder`; return its TOML file."""
    judge = make_model(folder, seed=1)
    return write_set(folder, judge.text_path, judge.projector_path, "max_pixels = 50176")


def write_set(folder: Path, model: Path, projector: Path, *options: str) -> Path:
    """Write a set into `folder` with the judge of these two files in it; return its TOML file.

    Args:
        options: the judge's, as lines of TOML.
    """
    tiny = load_model_set("tiny")
    lines = ['name = "random_judge"', 'description = "the tiny set and a random judge"']
    for kind in ("proposer", "encoder"):
        part, config = tiny.part(kind), locate_files(tiny, kind)
        lines += [f"[{kind}]", f'name = "{part.name}"', f'engine = "{part.engine}"', 'licence = "none"']
        lines += [f"[{kind}.options]", *_toml(part.options)]
        for role, path in config.files.items():
            shutil.copy(path, folder / path.name)
            lines += [f"[{kind}.files.{role}]", f'path = "{path.name}"']
    lines += ["[judge]", 'name = "random"', 'engine = "qwen_vl"', 'licence = "none"']
    lines += ["[judge.options]", *options, "threads = 1"]
    lines += ["[judge.files.model]", f'path = "{model.name}"']
    lines += ["[judge.files.projector]", f'path = "{projector.name}"']
    toml = folder / "set.toml"
    toml.write_text("\n".join(lines))
    return toml


def _toml(options: Mapping[str, object]) -> list[str]:
    """The options as lines of TOML, tables last."""
    plain = [
        f"{key} = {json.dumps(value)}" for key, value in options.items() if not isinstance(value, Mapping)
    ]
    tables = [
        f"{key} = {{ {', '.join(_toml(value))} }}"
        for key, value in options.items()
        if isinstance(value, Mapping)
    ]
    return plain + tables
