"""A model set with presets: the tiny one as a file, whose preset `fast` asks about fewer points."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

FAST = {"points_per_side": 6, "repeat_threshold": 0.9}
"""Options of the proposer that the preset replaces."""


def make_preset_set(folder: Path) -> Path:
    """Write the set into `folder`; return its TOML file."""
    shipped = Path(str(files("matir_cli.models")))
    shutil.copytree(shipped / "tiny", folder / "tiny", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    options = "".join(f"{name} = {value}\n" for name, value in FAST.items())
    path = folder / "mine.toml"
    path.write_text(f"{(shipped / 'tiny.toml').read_text()}\n[presets.fast.proposer]\n{options}")
    return path
