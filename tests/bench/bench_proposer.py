"""Bench of the region proposer beside upstream's mask generator.

    python -m tests.bench.bench_proposer [--quick] [--device DEVICE] [--points 32] [--rounds 3]
        [--upstream-batch N] [PHOTO ...]

SAM 2.1 Hiera-T at 1024 pixels with seeded weights that were never trained but give local masks
(`tests.support.crafted_sam2`); with --quick, a small model at 256 pixels. Both sides have the same
weights and settings, and the thresholds pass the same shares of upstream's own masks whatever the
photo. Without a PHOTO, a drawn scene is measured. "Adaptive" is `points = "adaptive"`, with the share of
the grid's masks that it finds (IoU >= 0.75).
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import torch
from PIL import Image, ImageOps

from matir_cli import masks
from matir_cli.engines.device import choose_device
from matir_cli.engines.sam2.options import Architecture, Sam2Options
from matir_cli.engines.sam2.proposer import Sam2Proposer
from matir_cli.records import ImageArray
from tests.bench.measuring import (
    BenchParser,
    Timings,
    print_columns,
    print_heading,
    print_row,
    time_rounds,
)
from tests.support.crafted_sam2 import (
    choose_thresholds,
    craft_model,
    draw_scene,
    match_shares,
    upstream_generator,
    upstream_rles,
)

LIKELY, STABLE = 0.7, 0.4
"""Shares of masks that pass the threshold on predicted IoU, and of these the one on stability."""

HIERA_T = Sam2Options(config="configs/sam2.1/sam2.1_hiera_t.yaml")

SMALL = msgspec.structs.replace(
    HIERA_T,
    image_size=256,
    architecture=Architecture(
        embed_dim=32,
        stages=(1, 2, 2, 1),
        global_att_blocks=(4,),
        window_spec=(8, 4, 8, 4),
        d_model=128,
        memory_layers=0,
    ),
)
"""The options of the small model of --quick."""

Result = TypeVar("Result")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every photo and print the table."""
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
    parser = BenchParser(__doc__, arguments)
    parser.add_argument("--device", default="cpu")
    parser.add_size("--points", 32, 8, "points per side")
    parser.add_size("--rounds", 3, 1, "runs of each way, after one that warms up")
    parser.add_argument(
        "--upstream-batch", type=int, help="points per batch upstream (default: 8 on a CPU, else 64, its own)"
    )
    parser.add_argument("photos", type=Path, nargs="*", metavar="PHOTO")
    options = parser.options()
    device = choose_device(options.device)
    batch = options.upstream_batch or (8 if device == "cpu" else 64)
    model = msgspec.structs.replace(SMALL if parser.quick else HIERA_T, points_per_side=options.points)
    drawn = draw_scene(320, 240) if parser.quick else draw_scene(1024, 768)
    photos = {path.name: _read(path) for path in options.photos} or {"drawn scene": drawn}
    print_heading(
        f"{'small SAM 2' if parser.quick else 'SAM 2.1 Hiera-T'} at {model.image_size} pixels, untrained; "
        f"{options.points} x {options.points} points",
        "The time for points is, since it does not depend on the weights; the number of masks is not: "
        "the thresholds are set to pass fixed shares.",
        device_name(device),
        f"upstream in batches of {batch}",
    )
    print_columns(
        "photo",
        "predicted IoU >",
        "stability >=",
        "upstream",
        "here",
        "faster",
        "masks upstream / here",
        "matched here / upstream",
        "adaptive",
        "faster than here",
        "its masks",
        "of the grid's",
    )
    for title, photo in photos.items():
        _compare(f"{title} {photo.shape[1]} x {photo.shape[0]}", photo, model, device, batch, options.rounds)


def device_name(device: str) -> str:
    """The GPU's name, or the CPU with its number of threads."""
    return (
        torch.cuda.get_device_name() if device == "cuda" else f"{device}, {torch.get_num_threads()} threads"
    )


def _read(path: Path) -> ImageArray:
    """The photo upright, at a long side of at most 1024 pixels."""
    with Image.open(path) as opened:
        photo = ImageOps.exif_transpose(opened).convert("RGB")
    photo.thumbnail((1024, 1024), Image.Resampling.LANCZOS)
    return np.array(photo)  # upstream needs a writable array


def _compare(
    title: str, photo: ImageArray, options: Sam2Options, device: str, batch: int, rounds: int
) -> None:
    """Print one row of the table."""
    model = craft_model(options, photo).to(device)
    with upstream_precision(device):
        fewer_points = msgspec.structs.replace(options, points_per_side=min(12, options.points_per_side))
        chosen = choose_thresholds(model, fewer_points, photo, LIKELY, STABLE)
        options = msgspec.structs.replace(
            options, predicted_iou_threshold=chosen.predicted_iou, stability_threshold=chosen.stability
        )
        generator = upstream_generator(model, options, batch)
        theirs_time, theirs = _timed(lambda: upstream_rles(generator, photo), device, rounds)
    proposer = Sam2Proposer(model, options, device)
    ours_time, ours = _timed(lambda: proposer.propose(photo), device, rounds)
    here, there = match_shares(ours, theirs)
    adaptive = Sam2Proposer(model, msgspec.structs.replace(options, points="adaptive"), device)
    fewer_time, fewer = _timed(lambda: adaptive.propose(photo), device, rounds)
    overlap = masks.iou([region.rle for region in fewer], [region.rle for region in ours])
    print_row(
        title,
        f"{chosen.predicted_iou:.3f}",
        f"{chosen.stability:.3f}",
        theirs_time,
        ours_time,
        f"{theirs_time.median / ours_time.median:.1f}x",
        f"{len(theirs)} / {len(ours)}",
        f"{here:.1%} / {there:.1%}",
        fewer_time,
        f"{ours_time.median / fewer_time.median:.1f}x",
        len(fewer),
        f"{(overlap.max(axis=0) >= 0.75).mean():.1%}",
    )


def upstream_precision(device: str) -> AbstractContextManager[object]:
    """The precision in which upstream's examples run."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if device == "cuda" else nullcontext()


def _timed(work: Callable[[], Result], device: str, rounds: int) -> tuple[Timings, Result]:
    """Timings with all work on the device done, and the last result."""

    def finished() -> Result:
        result = work()
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    return time_rounds(finished, rounds)


if __name__ == "__main__":
    main()
