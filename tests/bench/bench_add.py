"""Bench of `matir add` beside the plain loop and its own steps in one thread.

    python -m tests.bench.bench_add [--quick] [--full] [--photos N] [--points N] [--rounds N] [--threads N]

The plain loop opens each photo, runs upstream's `SAM2AutomaticMaskGenerator`, and sends the whole
photo and each region through upstream's Alpha-CLIP tower one at a time; its vectors stay in memory.
`matir add` also hashes the files, makes previews and writes a fresh gallery. All ways have the same
weights and settings, loaded and warmed up beforehand. In every round each way runs in a process of
its own: in one process, the thread pool of the first way would slow down the others'. The second table
shows where the processor time of the last way goes, with one thread of torch.

The shipped tiny models on pictures of the drawn world; with --full, Hiera-T at 1024 pixels and
ViT-B/16 with seeded weights that were never trained (`tests.support.crafted_sam2`,
`tests.support.clip_weights`) on drawn scenes.
"""

import cProfile
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

import msgspec
import numpy as np
import torch
from PIL import Image
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

from matir_cli import masks
from matir_cli.cli.commands.demo import draw
from matir_cli.engines.clip.alpha_encoder import AlphaClipEncoder, load_alpha_clip_encoder
from matir_cli.engines.device import choose_device
from matir_cli.engines.options import read_options
from matir_cli.engines.registry import has_own_processor, proposals_at_once
from matir_cli.engines.sam2.model import load_model
from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.engines.sam2.proposer import Sam2Proposer
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.outcomes import Added
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.weights import locate_files
from matir_cli.photos.decode import decode_photo
from matir_cli.photos.discover import find_photo_files, hash_file, stat_file
from matir_cli.photos.preview import encode_preview
from matir_cli.records import EngineConfig, FloatArray, ImageArray, Region, Rle
from matir_cli.search.index import seal_index, store_vectors
from tests.bench.bench_encoder import AlphaClip, random_alpha_clip, unit
from tests.bench.bench_proposer import HIERA_T, LIKELY, STABLE, device_name, upstream_precision
from tests.bench.measuring import (
    BenchParser,
    format_seconds,
    in_new_process,
    preload,
    print_columns,
    print_heading,
    print_row,
)
from tests.support.clip_weights import VISION_B16, alpha_clip_config
from tests.support.crafted_sam2 import (
    choose_thresholds,
    craft_model,
    draw_scene,
    upstream_generator,
    upstream_rles,
)


@dataclass(frozen=True, slots=True)
class Setup:
    """What all ways index, and the models they index it with."""

    photos: Path
    """A folder of PNG files."""
    options: Sam2Options
    checkpoint: Path
    """SAM 2's weights."""
    encoder: EngineConfig
    """Alpha-CLIP's files and options."""
    heads: int
    """Attention heads of its visual tower."""
    device: str
    threads: int | None
    """Threads of torch; None leaves its own choice."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """One run of one way over all photos."""

    wall: float
    """Elapsed time, seconds."""
    processor: float
    """Processor time of all threads, seconds."""
    regions: list[list[Rle]]
    """Per photo in the order of their names; the whole photo comes first."""
    vectors: FloatArray
    """(regions of the first photo, d) float32."""
    steps: Mapping[str, float]
    """Processor time of each step, seconds; empty unless the way is `STEPWISE`."""


class Models:
    """The models of a `Setup`, loaded."""

    def __init__(self, setup: Setup) -> None:
        """Load the weights and run each model once on the first photo."""
        if setup.threads:
            torch.set_num_threads(setup.threads)
        self.device = setup.device
        model = load_model(setup.options, setup.checkpoint).to(setup.device)
        batch = setup.options.points_per_batch or (8 if setup.device == "cpu" else 64)
        self.generator: SAM2AutomaticMaskGenerator = upstream_generator(model, setup.options, batch)
        self.proposer = Sam2Proposer(model, setup.options, setup.device)
        self.encoder: AlphaClipEncoder = load_alpha_clip_encoder(setup.encoder, setup.device)
        state = torch.load(setup.encoder.files["visual"], weights_only=True)
        self.tower = AlphaClip(state, setup.heads).to(setup.device)
        self.warm_up(open_photo(min(setup.photos.iterdir())))

    def warm_up(self, image: ImageArray) -> None:
        """Run each model once."""
        whole = [masks.whole(*image.shape[:2])]
        self.upstream_regions(image)
        self.proposer.propose(image)
        self.encoder.encode(image, whole)
        self.tower.encode_one_by_one(image, whole)

    def upstream_regions(self, image: ImageArray) -> list[Rle]:
        """The masks of upstream's generator, in the precision of its examples."""
        with torch.inference_mode(), upstream_precision(self.device):
            return upstream_rles(self.generator, image)


def set_up_tiny(folder: Path, count: int, device: str, threads: int | None) -> Setup:
    """The shipped set, and `count` pictures of its world."""
    photos = folder / "photos"
    draw(photos, count)
    shipped = load_model_set("tiny")
    proposer, encoder = locate_files(shipped, "proposer"), locate_files(shipped, "encoder")
    options = read_options(proposer.options, Sam2Options, "sam2")
    heads = int(str(encoder.options["heads"]))
    return Setup(photos, options, proposer.files["checkpoint"], encoder, heads, device, threads)


def set_up_full(folder: Path, count: int, device: str, threads: int | None, points: int) -> Setup:
    """Full-size models with random weights, and `count` drawn scenes."""
    if threads:
        torch.set_num_threads(threads)
    photos = folder / "photos"
    photos.mkdir()
    scenes = [draw_scene(1024, 768, seed) for seed in range(count)]
    for seed, image in enumerate(scenes):
        Image.fromarray(image).save(photos / f"{seed:04}.png")
    options = msgspec.structs.replace(HIERA_T, points_per_side=points)
    model = craft_model(options, scenes[0]).to(device)
    with upstream_precision(device):
        fewer_points = msgspec.structs.replace(options, points_per_side=min(12, points))
        chosen = choose_thresholds(model, fewer_points, scenes[0], LIKELY, STABLE)
    options = msgspec.structs.replace(
        options, predicted_iou_threshold=chosen.predicted_iou, stability_threshold=chosen.stability
    )
    torch.save({"model": model.cpu().state_dict()}, folder / "sam2.pt")
    tower = random_alpha_clip(VISION_B16)
    torch.save(tower.state, folder / "visual.pth")
    encoder = alpha_clip_config({"transform": "squash"}, visual=folder / "visual.pth")
    return Setup(photos, options, folder / "sam2.pt", encoder, tower.heads, device, threads)


def open_photo(path: Path) -> ImageArray:
    """The photo as (h, w, 3) uint8 RGB."""
    with Image.open(path) as opened:
        return np.array(opened.convert("RGB"))


def loop_plainly(models: Models, photos: Path, _: Path) -> None:
    """Share nothing between regions and store nothing."""
    for path in sorted(photos.iterdir()):
        image = open_photo(path)
        rles = [masks.whole(*image.shape[:2]), *models.upstream_regions(image)]
        unit(models.tower.encode_one_by_one(image, rles))


def add(models: Models, photos: Path, gallery_path: Path) -> None:
    """Run `matir add` as it is: its stages overlap."""
    indexing = IndexingModels(
        lambda: models.proposer,
        lambda: models.encoder,
        lambda: has_own_processor(models.device),
        lambda: proposals_at_once(models.device),
    )
    with GalleryFile.open(gallery_path, create=True) as gallery:
        for outcome in add_photos(gallery, [photos], indexing, previews=True):
            assert isinstance(outcome, Added), outcome


def add_in_one_thread(models: Models, photos: Path, gallery_path: Path) -> None:
    """Take the steps of `matir add` one photo after the other."""
    with GalleryFile.open(gallery_path, create=True) as gallery:
        for path in find_photo_files([photos]):
            file = stat_file(path)
            photo = decode_photo(file, hash_file(file))
            height, width = photo.image.shape[:2]
            rle = masks.whole(height, width)
            whole = Region(rle, masks.box(rle), height * width, 1.0, 1.0)
            regions = [whole, *models.proposer.propose(photo.image)]
            preview = encode_preview(photo.image)
            vectors = models.encoder.encode(photo.image, [region.rle for region in regions])
            with gallery.atomic():
                photo_id, region_ids = gallery.add_photo(file, photo.record, regions, preview)
                store_vectors(gallery, photo_id, region_ids, vectors)
        seal_index(gallery)


PLAIN, OURS, STEPWISE = "plain loop", "`matir add`", "its steps in one thread"

WAYS: dict[str, Callable[[Models, Path, Path], None]] = {
    PLAIN: loop_plainly,
    OURS: add,
    STEPWISE: add_in_one_thread,
}

STEPS = {
    "decoding the file, and its preview": (
        "photos/decode.py:decode_photo",
        "photos/preview.py:encode_preview",
    ),
    "SAM 2's image encoder": ("sam2/decoder.py:_encode_image",),
    "its prompts' transformer": ("sam2/decoder.py:decode",),
    "upscaling of masks": ("sam2/decoder.py:mask_logits",),
    "stability, areas and boxes at full size": ("sam2/proposer.py:_measure",),
    "NMS, run-length encoding": ("sam2/proposer.py:_suppress", "sam2/proposer.py:_to_regions"),
    "drawing regions for the encoder": (
        "clip/alpha_encoder.py:render_rgb",
        "clip/alpha_encoder.py:render_alpha",
    ),
    "the encoder's tower": ("clip/alpha_tower.py:encode_patches",),
    "writing": (
        "gallery/database.py:add_photo",
        "search/index.py:store_vectors",
        "search/index.py:seal_index",
    ),
}
"""Functions whose time is that of a step; none of them calls another."""


def run(way: str, setup: Setup, gallery_path: Path) -> Indexed:
    """Index all photos in one of `WAYS`; to be called in a process of its own."""
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
    # OpenMP keeps a pool of threads for every thread that has computed, and a second pool gets fewer:
    # the thread that loads and warms up must be gone, with its pool, before `matir add` makes its own.
    with ThreadPoolExecutor(max_workers=1) as executor:
        models = executor.submit(Models, setup).result()
    wall, processor = time.perf_counter(), time.process_time()
    WAYS[way](models, setup.photos, gallery_path)
    if setup.device == "cuda":
        torch.cuda.synchronize()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    paths = sorted(setup.photos.iterdir())
    images = [open_photo(path) for path in paths]
    if way == PLAIN:
        regions = [[masks.whole(*image.shape[:2]), *models.upstream_regions(image)] for image in images]
        vectors = unit(models.tower.encode_one_by_one(images[0], regions[0]))
    else:
        with GalleryFile.open(gallery_path) as gallery:
            ids = [gallery.photo_with(hash_file(stat_file(path))) for path in paths]
            stored = [gallery.regions(photo_id) for photo_id in ids if photo_id is not None]
        regions = [[row.region.rle for row in rows] for rows in stored]
        vectors = models.encoder.encode(images[0], regions[0])
    steps = profile_steps(models, setup.photos, gallery_path.with_suffix(".steps")) if way == STEPWISE else {}
    return Indexed(wall, processor, regions, vectors, steps)


def profile_steps(models: Models, photos: Path, gallery_path: Path) -> dict[str, float]:
    """Index all photos once more under a profiler; return the processor time of each of `STEPS`, seconds."""
    torch.set_num_threads(1)  # the profiler sees this thread alone
    profile = cProfile.Profile(time.process_time)
    begun = time.process_time()
    profile.runcall(add_in_one_thread, models, photos, gallery_path)
    seconds = time.process_time() - begun
    spent = {
        "/".join(Path(entry.code.co_filename).parts[-2:]) + f":{entry.code.co_name}": entry.totaltime
        for entry in profile.getstats()
        if isinstance(entry.code, CodeType)
    }
    steps = {step: sum(spent.get(name, 0.0) for name in names) for step, names in STEPS.items()}
    assert all(steps.values()), steps
    return {**steps, "everything else": seconds - sum(steps.values())}


def report(runs: Mapping[str, Sequence[Indexed]]) -> None:
    """Print one row per way, and how far the results agree."""
    count = len(runs[PLAIN][0].regions)
    walls = {way: statistics.median(run.wall for run in rounds) for way, rounds in runs.items()}
    work = {way: statistics.median(run.processor for run in rounds) for way, rounds in runs.items()}
    print_columns(
        "way", "photos/s, median round", "slowest round", "faster", "processor time per photo", "less of it"
    )
    for way, rounds in runs.items():
        print_row(
            way,
            f"{count / walls[way]:.2f}",
            f"{count / max(run.wall for run in rounds):.2f}",
            f"**{walls[PLAIN] / walls[way]:.2f}x**",
            f"{work[way] / count:.2f} s",
            f"{work[PLAIN] / work[way]:.2f}x",
        )
    theirs, ours = runs[PLAIN][-1], runs[OURS][-1]
    pairs = zip(ours.regions, theirs.regions, strict=True)
    best = np.concatenate([masks.iou(here, there).max(axis=0) for here, there in pairs])
    print(
        f"\nRegions: {sum(map(len, theirs.regions))} by the plain loop, {sum(map(len, ours.regions))} by "
        f"`matir add`; {(best >= 0.95).mean():.1%} of the former are among the latter (IoU >= 0.95)."
    )
    # The whole photo, the first region, is the same on both sides.
    difference = np.abs(ours.vectors[0] - theirs.vectors[0]).max()
    print(f"A component of the first photo's vector differs by {difference:.0e} at most.\n", flush=True)
    steps = runs[STEPWISE][-1].steps
    print_columns("step", "processor time per photo", "share")
    for step, seconds in steps.items():
        print_row(step, format_seconds(seconds / count), f"{seconds / sum(steps.values()):.1%}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every way in turn and print the table."""
    parser = BenchParser(__doc__, arguments)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--full", action="store_true", help="full-size models with random weights")
    parser.add_size("--photos", 40, 2, "photos; with --full, 3 take minutes")
    parser.add_size("--points", 12, 4, "points per side with --full; SAM 2's own default is 32")
    parser.add_size("--rounds", 3, 1, "runs of each way")
    parser.add_argument("--threads", type=int, help="threads of torch; 1 on a busy machine")
    options = parser.options()
    device = choose_device(options.device)
    preload("torch", "transformers", "sam2.automatic_mask_generator", "tests.support.clip_weights")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.full:
            setup = in_new_process(
                set_up_full, folder, options.photos, device, options.threads, options.points
            )
            models = f"Hiera-T at 1024 pixels with {options.points} x {options.points} points and ViT-B/16"
            likeness = (
                "In size: photos of 1024 x 768 and full-size towers; not in content, as scenes are drawn."
            )
        else:
            setup = set_up_tiny(folder, options.photos, device, options.threads)
            models = f"the tiny set with {setup.options.points_per_side} points per side"
            likeness = "No. Pictures of 112 to 320 pixels and tiny models: overheads weigh more than in use."
        print_heading(f"{options.photos} drawn pictures, {models}", likeness, device_name(device))
        runs: dict[str, list[Indexed]] = {way: [] for way in WAYS}
        for number in range(options.rounds):
            # Each begins in turn, so that none always finds the file cache as another one left it.
            first = number % len(WAYS)
            for place, way in enumerate([*WAYS][first:] + [*WAYS][:first]):
                gallery_path = folder / f"{number}-{place}.db"
                runs[way].append(in_new_process(run, way, setup, gallery_path))
        report(runs)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
    main()
