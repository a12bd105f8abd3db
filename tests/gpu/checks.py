"""The checks of `make gpu-check`: each returns its figures in words, or raises AssertionError with them.

The references are those of the parity tests: upstream's mask generator, the plain Alpha-CLIP tower and
transformers' Qwen2.5-VL, on the same device with the same crafted weights, and this program on the CPU.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import torch
from PIL import Image

from matir_cli import masks
from matir_cli.api import Gallery
from matir_cli.engines.clip.alpha_encoder import load_alpha_clip_encoder
from matir_cli.engines.llama_cpp.bindings import gpu_available
from matir_cli.engines.protocols import JudgePhoto, MaskedPhoto
from matir_cli.engines.qwen_vl.judge import load_qwen_vl_judge
from matir_cli.engines.qwen_vl.options import RERANK
from matir_cli.engines.registry import load_proposer, load_region_encoder
from matir_cli.engines.sam2.proposer import Sam2Proposer
from matir_cli.indexing.prefetch import prefetch_groups
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import locate_part
from matir_cli.model_sets.trial.run import locate_trial_parts, try_part
from matir_cli.models.tiny.world import SPLITS, picture
from matir_cli.progress import no_progress
from matir_cli.records import ImageArray, Rle
from tests.bench.bench_encoder import AlphaClip, random_alpha_clip
from tests.bench.bench_proposer import HIERA_T, LIKELY, SMALL, STABLE, upstream_precision
from tests.support.clip_weights import VISION_L14, VISION_SMALL, alpha_clip_config, random_photo, unit
from tests.support.crafted_sam2 import (
    choose_thresholds,
    craft_model,
    draw_scene,
    match_shares,
    upstream_generator,
    upstream_rles,
)
from tests.support.small_qwen import make_model, photo

Result = TypeVar("Result")


class NotRun(Exception):
    """The check cannot run here; the message says why."""


def check_proposer(device: str, quick: bool) -> str:
    """Compare SAM 2's regions with upstream's on the device, and with those of the CPU in float32."""
    scene = draw_scene(320, 240) if quick else draw_scene(1024, 768)
    options = msgspec.structs.replace(SMALL if quick else HIERA_T, points_per_side=8 if quick else 32)
    model = craft_model(options, scene)
    fewer = msgspec.structs.replace(options, points_per_side=min(12, options.points_per_side))
    chosen = choose_thresholds(model, fewer, scene, LIKELY, STABLE)
    options = msgspec.structs.replace(
        options, predicted_iou_threshold=chosen.predicted_iou, stability_threshold=chosen.stability
    )
    on_cpu = [region.rle for region in Sam2Proposer(model, options, "cpu").propose(scene)]
    proposer = Sam2Proposer(model, options, device)
    seconds, ours = _timed(lambda: proposer.propose(scene), device)
    memory = _peak_memory(device)
    generator = upstream_generator(model, options, 8 if device == "cpu" else 64)
    with upstream_precision(device):
        upstream_seconds, theirs = _timed(lambda: upstream_rles(generator, scene), device)
    upstream = min(match_shares(ours, theirs))
    float32 = min(match_shares(ours, on_cpu))
    result = (
        f"{len(ours)} regions, {upstream:.1%} matched with upstream's, {float32:.1%} with the CPU's in "
        f"float32; {1 / seconds:.2f} photos/s, upstream {1 / upstream_seconds:.2f}; {memory}"
    )
    # In bfloat16, masks at the thresholds fall on either side of them.
    least = 0.98 if device == "cpu" else 0.8
    assert ours, result
    assert min(upstream, float32) >= least, result
    return result


def check_adaptive(device: str, quick: bool) -> str:
    """Compare SAM 2's regions with adaptive points on the device with those on the CPU in float32."""
    scene = draw_scene(320, 240) if quick else draw_scene(1024, 768)
    options = msgspec.structs.replace(SMALL if quick else HIERA_T, points_per_side=12 if quick else 32)
    model = craft_model(options, scene)
    chosen = choose_thresholds(
        model, msgspec.structs.replace(options, points_per_side=8), scene, LIKELY, STABLE
    )
    options = msgspec.structs.replace(
        options,
        points="adaptive",
        predicted_iou_threshold=chosen.predicted_iou,
        stability_threshold=chosen.stability,
    )
    exact = Sam2Proposer(model, msgspec.structs.replace(options, precision="float32"), "cpu").propose(scene)
    proposer = Sam2Proposer(model, options, device)
    seconds, found = _timed(lambda: proposer.propose(scene), device)
    overlap = masks.iou([region.rle for region in found], [region.rle for region in exact])
    share = float((overlap.max(axis=0) >= 0.75).mean())
    result = (
        f"{proposer.prompts_asked // 2} points, {len(found)} regions in {seconds:.2f} s; {share:.1%} of the "
        f"CPU's {len(exact)} among them"
    )
    assert exact, result
    # Where rounding moves a mask over a threshold, other points are asked.
    assert share >= (0.98 if device == "cpu" else 0.6), result
    return result


def check_encoder(device: str, quick: bool) -> str:
    """Compare Alpha-CLIP's vectors with the plain tower's on the device, in every precision."""
    with tempfile.TemporaryDirectory() as name:
        tower, path = _save_tower(Path(name), quick=quick)
        image, rles = _regions(3 if quick else 64)
        expected = unit(tower.encode_one_by_one(image, rles).float())
        plain = unit(tower.to(device).encode_one_by_one(image, rles).float())
        least: dict[str, float] = {}
        rates = []
        for precision in ("float32", "float16", "bfloat16"):
            options = {"transform": "squash", "precision": precision, "heads": tower.heads}
            encoder = load_alpha_clip_encoder(alpha_clip_config(options, visual=path), device)
            seconds, vectors = _timed(lambda: encoder.encode(image, rles), device)  # noqa: B023
            least[precision] = float((vectors * expected).sum(axis=1).min())
            rates.append(f"{precision} {least[precision]:.5f}, {len(rles) / seconds:.0f} regions/s")
    result = (
        f"least cosine with the plain tower in float32: {'; '.join(rates)}; the plain tower on the device "
        f"{float((plain * expected).sum(axis=1).min()):.5f}; {_peak_memory(device)}"
    )
    limits = {"float32": 0.9999, "float16": 0.999, "bfloat16": 0.99}
    assert all(least[precision] >= limit for precision, limit in limits.items()), result
    return result


def check_together(device: str, quick: bool) -> str:
    """Compare photos proposed two at a time, and encoded together, with the same photos one by one."""
    scenes = [draw_scene(*((320, 240) if quick else (1024, 768)), seed) for seed in range(3 if quick else 8)]
    options = msgspec.structs.replace(SMALL if quick else HIERA_T, points_per_side=8 if quick else 32)
    model = craft_model(options, scenes[0])
    fewer = msgspec.structs.replace(options, points_per_side=min(12, options.points_per_side))
    chosen = choose_thresholds(model, fewer, scenes[0], LIKELY, STABLE)
    options = msgspec.structs.replace(
        options, predicted_iou_threshold=chosen.predicted_iou, stability_threshold=chosen.stability
    )
    proposer = Sam2Proposer(model, options, device)
    in_turn, regions = _timed(lambda: [proposer.propose(scene) for scene in scenes], device)
    in_threads, groups = _timed(
        lambda: list(prefetch_groups(scenes, proposer.propose, depth=4, workers=2, full=lambda _: True)),
        device,
    )
    shares = [
        min(match_shares(ours, [region.rle for region in theirs]))
        for (ours,), theirs in zip(groups, regions, strict=True)
    ]
    photos = [
        MaskedPhoto(scene, [masks.whole(*scene.shape[:2]), *(region.rle for region in found)])
        for scene, found in zip(scenes, regions, strict=True)
    ]
    with tempfile.TemporaryDirectory() as name:
        tower, path = _save_tower(Path(name), quick=quick)
        config = alpha_clip_config({"heads": tower.heads}, visual=path)
        encoder = load_alpha_clip_encoder(config, device)
        alone, expected = _timed(lambda: [encoder.encode(each.image, each.masks) for each in photos], device)
        together, vectors = _timed(lambda: encoder.encode_photos(photos), device)
    least = float((np.concatenate(vectors) * np.concatenate(expected)).sum(axis=1).min())
    count = len(photos)
    result = (
        f"{count} photos, {len(np.concatenate(vectors))} regions; proposed one by one {count / in_turn:.2f} "
        f"photos/s, two at a time {count / in_threads:.2f}, {min(shares):.1%} the same; encoded one by one "
        f"{count / alone:.2f} photos/s, together {count / together:.2f}, least cosine {least:.5f}; "
        f"{_peak_memory(device)}"
    )
    assert all(regions), result
    assert min(shares) >= (1 if device == "cpu" else 0.98), result
    assert least >= 0.999, result
    return result


def check_add(device: str, quick: bool) -> str:
    """Index drawn pictures on the device and on the CPU, and compare regions and time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        start = SPLITS["demo"].start
        images = [picture(seed).image for seed in range(start, start + (3 if quick else 100))]
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / "photos" / f"{number}.png")
        counts, seconds = {}, {}
        for run in dict.fromkeys((device, "cpu")):
            begun = time.monotonic()
            with Gallery(folder / f"{run}.db", models="tiny", device=run) as gallery:
                added = sum(1 for _ in gallery.add(folder / "photos"))
                counts[run] = [len(gallery.regions(stored)) for stored in gallery.photos()]
            seconds[run] = time.monotonic() - begun
            assert added == len(images), f"{added} of {len(images)} photos on {run}"
        alone = _one_after_the_other(images, device)
    ours, theirs = sum(counts[device]), sum(counts["cpu"])
    result = (
        f"{len(images)} photos, {ours} regions ({theirs} on the CPU) in {seconds[device]:.1f} s with loading "
        f"({seconds['cpu']:.1f} s on the CPU); proposer and encoder one after the other {alone:.1f} s"
    )
    assert abs(ours - theirs) <= 0.1 * theirs, result
    return result


def check_memory(device: str, quick: bool) -> str:
    """Encode more regions at a time than a small share of the memory holds: batches must get smaller."""
    with tempfile.TemporaryDirectory() as name:
        tower, path = _save_tower(Path(name), quick=quick)
        image, rles = _regions(8 if quick else 512)
        settings = {"transform": "squash", "heads": tower.heads}
        small = load_alpha_clip_encoder(alpha_clip_config({**settings, "batch_size": 4}, visual=path), device)
        expected = small.encode(image, rles)
        large = load_alpha_clip_encoder(
            alpha_clip_config({**settings, "batch_size": len(rles)}, visual=path), device
        )
        share = _limit_memory(device, spare=1 << 30)
        try:
            vectors = large.encode(image, rles)
        finally:
            _unlimit_memory(device)
    least = float((vectors * expected).sum(axis=1).min())
    result = f"{len(rles)} regions at a time in {share}: least cosine with batches of 4 {least:.5f}"
    assert least >= 0.999, result
    return result


def check_judge(device: str, quick: bool) -> str:
    """Compare the judge's margins on the device with transformers' in float32."""
    if device == "cuda" and not gpu_available():
        raise NotRun("llama.cpp was built without CUDA: see `matir help hardware`")
    with tempfile.TemporaryDirectory() as name:
        small = make_model(Path(name), seed=1)
        images = [photo(seed, 224, 280) for seed in range(2 if quick else 16)]
        queries = ["dog led by rope", "striped red house"]
        differences, expected = [], []
        begun = time.monotonic()
        with load_qwen_vl_judge(small.config(), device) as judge:
            for key, image in enumerate(images):
                for query, given in zip(queries, judge.rerank(JudgePhoto(key, image), queries), strict=True):
                    logits = small.logits(image, RERANK + query).astype(np.float64)
                    margin = float(logits[small.token_id("True")] - logits[small.token_id("False")])
                    expected.append(margin)
                    assert given is not None
                    differences.append(given.margin - margin)
    largest, scale = float(np.abs(differences).max()), float(np.std(expected))
    result = (
        f"{len(differences)} margins differ from transformers' by at most {largest:.4f} "
        f"(their deviation: {scale:.2f}), {time.monotonic() - begun:.1f} s with transformers"
    )
    assert largest <= (0.05 if device == "cpu" else 0.3), result
    return result


def check_trial(device: str, quick: bool) -> str:
    """Try the tiny set, as `matir models try tiny` does; llama.cpp takes the CPU if it has no GPU."""
    tiny, shown = load_model_set("tiny"), []
    kinds = ["encoder"] if quick else ["proposer", "encoder", "judge"]
    failed = False
    for part, config in locate_trial_parts(tiny, kinds):
        on = "auto" if part.kind == "judge" and device == "cuda" else device
        for found in try_part(tiny, part, config, on, no_progress):
            failed |= found.failed
            shown.append(f"{part.kind} {found.name} {found.seen}")
    result = "; ".join(shown)
    assert not failed, result
    return result


CHECKS: dict[str, Callable[[str, bool], str]] = {
    "proposer": check_proposer,
    "adaptive": check_adaptive,
    "encoder": check_encoder,
    "together": check_together,
    "trial": check_trial,
    "add": check_add,
    "memory": check_memory,
    "judge": check_judge,
}
"""Checks by name, called with the device and whether small sizes are wanted."""


def _save_tower(folder: Path, *, quick: bool) -> tuple[AlphaClip, Path]:
    """Write a seeded Alpha-CLIP tower in upstream's format."""
    tower = random_alpha_clip(VISION_SMALL if quick else VISION_L14)
    torch.save(dict(tower.state), folder / "visual.pth")
    return tower, folder / "visual.pth"


def _regions(count: int) -> tuple[ImageArray, list[Rle]]:
    """Return a photo and `count` discs on it."""
    image = random_photo(384, 512, 0)
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:384, :512]
    rles = []
    for _ in range(count):
        y, x, radius = rng.uniform(50, 330), rng.uniform(50, 460), rng.uniform(20, 120)
        rles.append(masks.encode(np.hypot(rows - y, columns - x) < radius))
    return image, rles


def _one_after_the_other(images: list[ImageArray], device: str) -> float:
    """Return the seconds that the tiny proposer and encoder take without overlapping, both loaded before."""
    tiny = load_model_set("tiny")
    proposer = load_proposer(locate_part(tiny, "proposer"), device)
    encoder = load_region_encoder(locate_part(tiny, "encoder"), device)
    begun = time.monotonic()
    for image in images:
        encoder.encode(
            image, [masks.whole(*image.shape[:2]), *(each.rle for each in proposer.propose(image))]
        )
    return time.monotonic() - begun


def _timed(work: Callable[[], Result], device: str) -> tuple[float, Result]:
    """Return the seconds of the second run, with all work on the device done, and its result."""
    work()
    begun = time.monotonic()
    result = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - begun, result


def _peak_memory(device: str) -> str:
    """Return the most memory that torch has used on the device since the check began, in words."""
    return (
        f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB" if device == "cuda" else "memory not measured"
    )


def _limit_memory(device: str, spare: int) -> str:
    """Let torch use only `spare` bytes more than now; return the limit in words."""
    if device != "cuda":
        return "all memory (no limit on a CPU)"
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + spare) / total)
    return f"{spare >> 20} MiB"


def _unlimit_memory(device: str) -> None:
    """Undo `_limit_memory`."""
    if device == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0)
