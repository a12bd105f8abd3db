"""Trains the tiny set again: `python -m matir_cli.models.tiny.train all --out DIR`.

Everything is drawn from seeds. An interrupted training goes on from its last checkpoint
in DIR when the same command is given again. The finished files lie in DIR under the names
that `models/tiny.toml` gives them; nothing in the package is replaced.
"""

import argparse
import logging
import sys
import time
import tomllib
from pathlib import Path

import torch

from matir_cli.engines.options import read_options
from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.models.tiny import recipe, train_alpha_clip, train_qwen_vl, train_sam2

MODELS = ("sam2", "alpha_clip", "qwen_vl")
MODEL_SET = Path(__file__).parent.parent / "tiny.toml"


def main(arguments: list[str]) -> None:
    """Trains what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m matir_cli.models.tiny.train", description=__doc__)
    parser.add_argument("model", choices=[*MODELS, "all"])
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, log and weights")
    parser.add_argument("--steps-scale", type=float, default=1.0, help="factor on every number of steps")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's own choice if not given")
    wanted = parser.parse_args(arguments)
    wanted.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=_handlers(wanted.out))
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
    device = recipe.best_device()
    for model in MODELS if wanted.model == "all" else (wanted.model,):
        started = time.monotonic()
        for path in _train(model, wanted.out, wanted.steps_scale, device):
            recipe.log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)
        recipe.log.info("%s took %.0f minutes on %s", model, (time.monotonic() - started) / 60, device)


def _train(model: str, folder: Path, scale: float, device: torch.device) -> tuple[Path, ...]:
    """The files written."""
    written: tuple[Path, ...]
    if model == "sam2":
        options = tomllib.loads(MODEL_SET.read_text())["proposer"]["options"]
        written = (train_sam2.train(folder, read_options(options, Sam2Options, "sam2"), scale, device),)
    elif model == "alpha_clip":
        written = train_alpha_clip.train(folder, scale, device)
    else:
        written = train_qwen_vl.train(folder, scale, device)
    return written


def _handlers(folder: Path) -> list[logging.Handler]:
    return [logging.StreamHandler(), logging.FileHandler(folder / "train.log")]


if __name__ == "__main__":
    main(sys.argv[1:])
