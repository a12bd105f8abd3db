"""Command line that trains the tiny set: `python -m matir_cli.models.tiny.train`.

    python -m matir_cli.models.tiny.train all --out DIR

Everything is drawn from seeds. An interrupted training continues from its last checkpoint in DIR when
the same command is run again. The finished files are in DIR under the names that `models/tiny.toml`
gives them; nothing in the package is replaced.
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
from matir_cli.models.tiny import (
    recipe,
    train_alpha_clip,
    train_clip,
    train_qwen_vl,
    train_qwen_vl_together,
    train_sam2,
)

MODELS = ("sam2", "alpha_clip", "qwen_vl")
FURTHER = "qwen_vl_further"
PLAIN = "clip"
MODEL_SET = Path(__file__).parent.parent / "tiny.toml"


def main(arguments: list[str]) -> None:
    """Train the models that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m matir_cli.models.tiny.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        choices=[*MODELS, FURTHER, PLAIN, "all"],
        help=f"{FURTHER}: trains the judge in the package further, all of its weights together; "
        f"{PLAIN}: a CLIP without masks, for comparison",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, log and weights")
    parser.add_argument(
        "--steps-scale", type=float, default=1.0, help="factor for the number of steps of every stage"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=_handlers(options.out))
    if options.threads:
        torch.set_num_threads(options.threads)
    device = recipe.best_device()
    for model in MODELS if options.model == "all" else (options.model,):
        started = time.monotonic()
        for path in _train(model, options.out, options.steps_scale, device):
            recipe.log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)
        recipe.log.info("%s took %.0f minutes on %s", model, (time.monotonic() - started) / 60, device)


def _train(model: str, folder: Path, scale: float, device: torch.device) -> tuple[Path, ...]:
    """Train one of `MODELS`, the judge further, or the plain CLIP; return the files written."""
    written: tuple[Path, ...]
    if model == "sam2":
        options = tomllib.loads(MODEL_SET.read_text())["proposer"]["options"]
        written = (train_sam2.train(folder, read_options(options, Sam2Options, "sam2"), scale, device),)
    elif model == "alpha_clip":
        written = train_alpha_clip.train(folder, scale, device)
    elif model == PLAIN:
        written = train_clip.train(folder, scale, device)
    elif model == FURTHER:
        written = train_qwen_vl_together.train(folder, scale, device)
    else:
        written = train_qwen_vl.train(folder, scale, device)
    return written


def _handlers(folder: Path) -> list[logging.Handler]:
    """Log to stderr and to `train.log`."""
    return [logging.StreamHandler(), logging.FileHandler(folder / "train.log")]


if __name__ == "__main__":
    main(sys.argv[1:])
