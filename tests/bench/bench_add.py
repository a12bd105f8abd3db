"""`matir add` beside the plain loop over photos, and its overlapping stages beside one thread, in one run.

    python -m tests.bench.bench_add [--full] [--photos N] [--points N] [--rounds N] [--threads N]

The plain loop opens each photo, runs upstream's `SAM2AutomaticMaskGenerator`, and sends the whole
photo and each region through the same Alpha-CLIP tower one at a time; its vectors stay in memory.
`matir add` also hashes, makes previews and writes a fresh gallery. All have the same weights and
settings, loaded beforehand, and take turns. The shipped tiny models on pictures of the drawn world;
with --full, Hiera-T at 1024 pixels and ViT-B/16 with seeded weights that were never trained
(`tests.crafted_sam2`, `tests.clip_weights`) on drawn scenes. Seconds are of the fastest round;
processor time, which a busy machine disturbs less, of the one that took least. Prints a Markdown table.

All ways run in one process, which is hard on `matir add` on a CPU: OpenMP holds back the threads of a
second pool, and the plain loop has already made one. Time the command itself as well.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import numpy as np
import torch
from PIL import Image
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from torch import Tensor

from matir_cli import masks
from matir_cli.cli.commands.demo import draw
from matir_cli.engines.clip.alpha_encoder import (
    AlphaClipEncoder,
    compute_placement,
    load_alpha_clip_encoder,
    render_alpha,
)
from matir_cli.engines.device import choose_device
from matir_cli.engines.options import read_options
from matir_cli.engines.sam2.model import load_model
from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.engines.sam2.proposer import Sam2Proposer
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import Added, IndexingModels, _encode, _propose, _read, _write, add_photos
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.weights import locate_files
from matir_cli.records import FloatArray, ImageArray, Rle
from matir_cli.search.index import seal_index
from tests.bench.bench_proposer import LIKELY, STABLE, _upstream_precision
from tests.support.clip_weights import VISION_B16, alpha_clip_config, normalised, random_vision, to_openai
from tests.support.crafted_sam2 import (
    choose_thresholds,
    craft_model,
    draw_scene,
    upstream_generator,
    upstream_rles,
)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Engines:
    """What both sides run, on the same weights."""

    title: str
    generator: SAM2AutomaticMaskGenerator
    """Upstream's."""
    proposer: Sam2Proposer
    encoder: AlphaClipEncoder
    device: str

    @property
    def models(self) -> IndexingModels:
        return IndexingModels(lambda: self.proposer, lambda: self.encoder)


Regions = list[list[Rle]]
"""Of each photo; the whole photo is the first."""


def tiny(folder: Path, count: int, device: str) -> Engines:
    """The shipped set, and `count` pictures that it knows, in `folder`."""
    draw(folder, count)
    shipped = load_model_set("tiny")
    seen = locate_files(shipped, "proposer")
    options = read_options(seen.options, Sam2Options, "sam2")
    model = load_model(options, seen.files["checkpoint"]).to(device)
    batch = options.points_per_batch or 64
    return Engines(
        f"tiny set, {options.points_per_side} x {options.points_per_side} points",
        upstream_generator(model, options, batch),
        Sam2Proposer(model, options, device),
        load_alpha_clip_encoder(locate_files(shipped, "encoder"), device),
        device,
    )


def full(folder: Path, count: int, device: str, points: int) -> Engines:
    """Full-size models with random weights, and `count` scenes in `folder`."""
    folder.mkdir()
    scenes = [draw_scene(1024, 768, seed) for seed in range(count)]
    for seed, image in enumerate(scenes):
        Image.fromarray(image).save(folder / f"{seed:04}.png")
    options = Sam2Options(config="configs/sam2.1/sam2.1_hiera_t.yaml", points_per_side=points)
    model = craft_model(options, scenes[0]).to(device)
    with _upstream_precision(device):
        some_points = msgspec.structs.replace(options, points_per_side=12)
        found = choose_thresholds(model, some_points, scenes[0], LIKELY, STABLE)
    options = msgspec.structs.replace(
        options, predicted_iou_threshold=found.predicted_iou, stability_threshold=found.stability
    )
    state = to_openai(random_vision(VISION_B16, 1))
    noise = torch.randn(state["conv1_alpha.weight"].shape, generator=torch.Generator().manual_seed(2))
    torch.save({**state, "conv1_alpha.weight": 0.1 * noise}, folder.parent / "visual.pth")
    return Engines(
        f"Hiera-T at 1024, {points} x {points} points, ViT-B/16",
        upstream_generator(model, options, 8 if device == "cpu" else 64),
        Sam2Proposer(model, options, device),
        load_alpha_clip_encoder(
            alpha_clip_config({"transform": "squash"}, visual=folder.parent / "visual.pth"), device
        ),
        device,
    )


def plain_loop(engines: Engines, folder: Path) -> tuple[Regions, list[FloatArray]]:
    """Nothing shared between regions, nothing stored."""
    regions, vectors = [], []
    for path in sorted(folder.iterdir()):
        image = opened(path)
        with torch.inference_mode(), _upstream_precision(engines.device):
            found = upstream_rles(engines.generator, image)
        regions.append([masks.whole(*image.shape[:2]), *found])
        vectors.append(one_at_a_time(engines.encoder, image, regions[-1]))
    return regions, vectors


def opened(path: Path) -> ImageArray:
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


@torch.inference_mode()
def one_at_a_time(encoder: AlphaClipEncoder, image: ImageArray, regions: list[Rle]) -> FloatArray:
    """(len(regions), d): the tower once a region, with a batch of one."""
    tower = encoder._tower
    side, like = tower.architecture.side, tower.proj
    squeezed = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    rgb = normalised(squeezed).to(like.device, like.dtype)
    squash = compute_placement("squash", *image.shape[:2], side)

    def vector(rle: Rle) -> Tensor:
        alpha = (render_alpha([rle], squash, side, encoder._resampler) - 0.5) / 0.26
        found = tower(rgb, alpha.to(like.device, like.dtype)).float()
        return (found / found.norm(dim=1, keepdim=True)).cpu()

    return torch.cat([vector(rle) for rle in regions]).numpy()


def overlapping(engines: Engines, folder: Path, gallery: Path) -> Path:
    """`matir add` as it is."""
    with GalleryFile.open(gallery, create=True) as written:
        for outcome in add_photos(written, [folder], engines.models, previews=True):
            assert isinstance(outcome, Added), outcome
    return gallery


def in_one_thread(engines: Engines, folder: Path, gallery: Path) -> Path:
    """The stages of `matir add`, a photo after the other."""
    with GalleryFile.open(gallery, create=True) as written:
        read = _read(gallery, [folder], set())
        proposed = _propose(read, engines.models.proposer, previews=True)
        for item in _encode(proposed, engines.models.encoder):
            assert isinstance(_write(written, item), Added)
        seal_index(written)
    return gallery


def stored(gallery: Path, count: int) -> Regions:
    """The regions that `matir add` wrote, photos in the order in which they were read."""
    with GalleryFile.open(gallery) as written:
        return [[region.region.rle for region in written.regions(photo + 1)] for photo in range(count)]


def matched(ours: Regions, theirs: Regions) -> float:
    """The share of upstream's regions with a partner of IoU >= 0.95 here."""
    best = [masks.iou(here, there).max(axis=0) for here, there in zip(ours, theirs, strict=True)]
    return float((np.concatenate(best) >= 0.95).mean())


class Clock(Generic[Result]):
    """One way of doing it: its seconds, the least of all rounds, and what came out of the last."""

    def __init__(self, work: Callable[[int], Result], device: str) -> None:
        self._work, self._device = work, device
        self.wall = self.processor = float("inf")

    def measure(self, number: int) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        self.result = self._work(number)
        if self._device == "cuda":
            torch.cuda.synchronize()
        self.wall = min(self.wall, time.perf_counter() - wall)
        self.processor = min(self.processor, time.process_time() - processor)


def compare(engines: Engines, folder: Path, rounds: int) -> None:
    """Take turns, and print a row for each way."""
    results = folder.parent
    plain = Clock(lambda _: plain_loop(engines, folder), engines.device)
    ours = Clock(lambda n: overlapping(engines, folder, results / f"overlap{n}.db"), engines.device)
    serial = Clock(lambda n: in_one_thread(engines, folder, results / f"serial{n}.db"), engines.device)
    clocks = {"plain loop": plain, "`matir add`": ours, "its stages in one thread": serial}
    for number in range(rounds):
        # Each begins in turn, on caches that another one filled.
        order = [*clocks.values()]
        for clock in order[number % 3 :] + order[: number % 3]:
            clock.measure(number)

    theirs, vectors = plain.result
    count = len(theirs)
    for name, clock in clocks.items():
        print(
            f"| {name} | {count / clock.wall:.2f} | **{plain.wall / clock.wall:.2f}x** "
            f"| {clock.processor / count:.2f} s | {plain.processor / clock.processor:.2f}x |"
        )
    here = stored(ours.result, count)
    image = opened(min(folder.iterdir()))
    difference = np.abs(engines.encoder.encode(image, theirs[0]) - vectors[0]).max()
    print(
        f"\nRegions: {sum(map(len, theirs))} by the plain loop, {sum(map(len, here))} by `matir add`; "
        f"{matched(here, theirs):.1%} of the former are among the latter (IoU >= 0.95). "
        f"Vectors of the first photo's regions differ by {difference:.0e} at most."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, help="how many; 40, or 3 with --full")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--full", action="store_true", help="full-size models with random weights")
    parser.add_argument("--points", type=int, default=12, help="points a side, with --full; SAM 2's are 32")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--threads", type=int, help="of torch; 1 on a busy machine, where two wait for each other"
    )
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    device = choose_device(asked.device)
    count = asked.photos or (3 if asked.full else 40)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        engines = full(folder, count, device, asked.points) if asked.full else tiny(folder, count, device)
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        hardware = torch.cuda.get_device_name() if device == "cuda" else device
        print(
            f"{engines.title}; {count} photos; {hardware}, {torch.get_num_threads()} threads, load {load}\n"
        )
        print("| way | photos/s | faster | processor time a photo | less of it |\n|---|---|---|---|---|")
        compare(engines, folder, asked.rounds)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
    main()
