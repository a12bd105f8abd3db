"""Region proposer: agreement with upstream's mask generator, and time beside it, in one run.

    python -m tests.bench.bench_proposer [--device DEVICE] [--points 32] [--upstream-batch N] [PHOTO ...]

SAM 2.1 Hiera-T at 1024 pixels with seeded weights that were never trained but give local masks
(`tests.crafted_sam2`); both sides have the same weights and settings, and the thresholds let
through the same shares of upstream's own masks whatever the photo. Without a photo: a drawn
scene. Prints a Markdown table.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import torch
from PIL import Image, ImageOps

from matir_cli.engines.device import choose_device
from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.engines.sam2.proposer import Sam2Proposer
from matir_cli.records import ImageArray
from tests.support.crafted_sam2 import (
    choose_thresholds,
    craft_model,
    draw_scene,
    match_shares,
    upstream_generator,
    upstream_rles,
)

LIKELY, STABLE = 0.7, 0.4
"""Shares of masks that pass the predicted IoU, and of these the stability."""

Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--points", type=int, default=32, help="points a side")
    parser.add_argument(
        "--upstream-batch", type=int, help="upstream's default is 64; on a CPU 8 is kinder to it"
    )
    parser.add_argument("photos", type=Path, nargs="*", metavar="PHOTO")
    asked = parser.parse_args()
    device = choose_device(asked.device)
    batch = asked.upstream_batch or (8 if device == "cpu" else 64)
    photos = {path.name: _working_size(path) for path in asked.photos} or {
        "drawn scene": draw_scene(1024, 768)
    }
    options = Sam2Options(config="configs/sam2.1/sam2.1_hiera_t.yaml", points_per_side=asked.points)
    name = (
        torch.cuda.get_device_name() if device == "cuda" else f"{device}, {torch.get_num_threads()} threads"
    )
    print(
        f"SAM 2.1 Hiera-T, {asked.points} x {asked.points} points, {name}, upstream in batches of {batch}\n"
    )
    print(
        "| photo | predicted IoU > | stability >= | upstream | here | faster | masks | matched here / there |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for title, photo in photos.items():
        print(
            f"| {title} {photo.shape[1]} x {photo.shape[0]} | {_compare(photo, options, device, batch)} |",
            flush=True,
        )


def _working_size(path: Path) -> ImageArray:
    with Image.open(path) as opened:
        photo = ImageOps.exif_transpose(opened).convert("RGB")
    photo.thumbnail((1024, 1024), Image.Resampling.LANCZOS)
    return np.array(photo)  # upstream wants one that may be written to


def _compare(photo: ImageArray, options: Sam2Options, device: str, batch: int) -> str:
    """A row of the table, without its title."""
    model = craft_model(options, photo).to(device)
    with _upstream_precision(device):
        some_points = msgspec.structs.replace(options, points_per_side=12)
        found = choose_thresholds(model, some_points, photo, LIKELY, STABLE)
        options = msgspec.structs.replace(
            options, predicted_iou_threshold=found.predicted_iou, stability_threshold=found.stability
        )
        generator = upstream_generator(model, options, batch)
        if device != "cpu":
            generator.generate(photo)  # kernels are chosen on the first run
        theirs, upstream_seconds = _timed(lambda: upstream_rles(generator, photo), device)
    proposer = Sam2Proposer(model, options, device)
    if device != "cpu":
        proposer.propose(photo)
    ours, seconds = _timed(lambda: proposer.propose(photo), device)
    here, there = match_shares(ours, theirs)
    return (
        f"{found.predicted_iou:.3f} | {found.stability:.3f} | {upstream_seconds:.2f} s | {seconds:.2f} s | "
        f"{upstream_seconds / seconds:.1f}x | {len(theirs)} / {len(ours)} | {here:.1%} / {there:.1%}"
    )


def _upstream_precision(device: str) -> AbstractContextManager[object]:
    """As upstream's examples run it."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if device == "cuda" else nullcontext()


def _timed(work: Callable[[], Result], device: str) -> tuple[Result, float]:
    start = time.perf_counter()
    result = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
    main()
