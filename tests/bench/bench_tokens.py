"""Bench of region tokens with SigLIP 2: cost per photo and per query, beside Alpha-CLIP and CLIP.

    python -m tests.bench.bench_tokens [--quick] [--regions 50] [--rounds 3] [--photos 2] [--points 12]

Random weights in the official formats, at the sizes of the sets `lite` and `open-lite`: Alpha-CLIP ViT-B/16
and SigLIP 2 base at 256 pixels, the text tower of CLIP ViT-L/14 (seven prompts), and those of SigLIP 2 base
and So400m with a vocabulary of 256,000 tokens and 580,000 merges. Then `matir add` and
`matir find "perro con correa"` with Hiera-T at 1,024 pixels and SigLIP 2, as processes of their own, without
a judge. With --quick, small towers.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from PIL import Image
from transformers import CLIPTextConfig, CLIPVisionConfig, SiglipConfig, SiglipModel

from matir_cli.engines.clip.alpha_encoder import load_alpha_clip_encoder
from matir_cli.engines.registry import load_region_encoder
from matir_cli.engines.sam2.options import Sam2Options
from tests.bench.bench_encoder import SMALL_VISION, ellipse, photo, random_alpha_clip
from tests.bench.bench_proposer import HIERA_T, LIKELY, SMALL, STABLE
from tests.bench.measuring import (
    BenchParser,
    format_seconds,
    in_new_process,
    preload,
    print_columns,
    print_heading,
    print_row,
    time_once,
    time_process,
    time_rounds,
)
from tests.support.clip_weights import (
    VISION_B16,
    alpha_clip_config,
    random_text,
    randomise,
    save_text,
    save_vocabulary,
    text_config,
)
from tests.support.crafted_sam2 import choose_thresholds, craft_model, draw_scene
from tests.support.siglip_weights import (
    TEXT,
    VISION,
    random_strings,
    region_tokens_config,
    save_gemma_tokenizer,
    save_large_gemma_tokenizer,
    save_siglip,
)

QUERY = "perro con correa"

ONE_QUERY = """
import json, sys
from pathlib import Path
from matir_cli.engines.registry import load_text_encoder
from matir_cli.records import EngineConfig, ModelIdentity
engine, files, query, options = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
files = {role: Path(path) for role, path in files.items()}
load_text_encoder(EngineConfig(engine, options, files, ModelIdentity("", ""))).encode(query)
"""

BASE: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
}  # fmt: skip

SO400M: dict[str, Any] = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of what is measured."""

    name: str
    """The sizes in words."""
    vision: dict[str, Any]
    """SigLIP's image tower."""
    text: dict[str, Any]
    """SigLIP's text tower."""
    options: dict[str, object]
    """Options of region tokens for these towers."""
    large_text: dict[str, Any]
    """The text tower of a larger SigLIP."""
    alpha: CLIPVisionConfig
    clip_text: CLIPTextConfig
    proposer: Sam2Options
    side: tuple[int, int]
    """Width and height of the photos that are added."""


FULL = Sizes(
    "Alpha-CLIP ViT-B/16, SigLIP 2 base at 256 pixels",
    {**BASE, "image_size": 256, "patch_size": 16},
    {**BASE, "max_position_embeddings": 64, "vocab_size": 256000, "bos_token_id": 2, "eos_token_id": 1},
    {},
    {**SO400M, "max_position_embeddings": 64, "vocab_size": 256000, "bos_token_id": 2, "eos_token_id": 1},
    VISION_B16,
    text_config(768, 12, 12, 768),
    HIERA_T,
    (1024, 768),
)

QUICK = Sizes(
    "small towers",
    VISION,
    {**TEXT, "vocab_size": 1200},
    {"heads": 3, "text_heads": 3},
    {**TEXT, "num_hidden_layers": 3, "vocab_size": 1200},
    SMALL_VISION,
    text_config(64, 2, 1, 32),
    SMALL,
    (320, 240),
)


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that has ended."""

    seconds: float
    peak: int
    """The largest resident size, bytes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = BenchParser(__doc__, arguments)
    parser.add_size("--regions", 50, 3, "regions of one photo")
    parser.add_size("--rounds", 3, 1, "runs of each way, after one that warms up")
    parser.add_size("--photos", 2, 1, "photos that are added")
    parser.add_size("--points", 12, 4, "points per side; SAM 2's own default is 32")
    options = parser.options()
    preload("torch", "transformers", "sam2.automatic_mask_generator", "tests.support.clip_weights")
    sizes = QUICK if parser.quick else FULL
    print_heading(
        f"one photo of 1024 x 768, {options.regions} elliptic regions, one query; {sizes.name}, untrained",
        "The work is: it depends on the sizes of the towers and of the photo, not on weights or content.",
        f"cpu, {torch.get_num_threads()} threads",
        f"torch {torch.__version__}",
    )
    print_columns("work", "time", "beside Alpha-CLIP or CLIP")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_models(folder, sizes, quick=parser.quick)
        compare_regions(folder, sizes, options.regions, options.rounds)
        compare_queries(folder, sizes, options.rounds)
        in_new_process(save_set, folder, sizes, options.points)
        add_and_find(folder, sizes, options.photos)


def save_models(folder: Path, sizes: Sizes, *, quick: bool) -> None:
    """Write the weights and vocabularies."""
    model = SiglipModel(SiglipConfig(text_config=sizes.text, vision_config=sizes.vision))
    randomise(model, 1)
    save_siglip(model, folder / "model.safetensors")
    if quick:
        save_gemma_tokenizer(folder, random_strings(300, 1))
    else:
        save_large_gemma_tokenizer(folder / "tokenizer.json")
    torch.save(random_alpha_clip(sizes.alpha).state, folder / "visual.pth")
    save_text(random_text(sizes.clip_text, 3), folder / "text.safetensors")
    save_vocabulary(folder / "clip_tokenizer.json")


def compare_regions(folder: Path, sizes: Sizes, count: int, rounds: int) -> None:
    """All regions of a photo: one pass each with Alpha-CLIP, one pass per crop with region tokens."""
    image, rles = photo(1), [ellipse(seed) for seed in range(count)]
    alpha = load_alpha_clip_encoder(alpha_clip_config(visual=folder / "visual.pth"), "cpu")
    plain, _ = time_rounds(lambda: alpha.encode(image, rles), rounds)
    print_row(f"{count} regions of a photo, Alpha-CLIP", plain, "")
    for crops in (2, 3):
        config = region_tokens_config(
            {**sizes.options, "crops": crops}, checkpoint=folder / "model.safetensors"
        )
        encoder = load_region_encoder(config, "cpu")
        ours, _ = time_rounds(partial(encoder.encode, image, rles), rounds)
        ratio = f"{ours.median / plain.median:.2f}x"
        print_row(f"{count} regions of a photo, region tokens, crops = {crops}", ours, ratio)


def compare_queries(folder: Path, sizes: Sizes, rounds: int) -> None:
    """A process that encodes a query with each text tower."""
    clip = {"text": folder / "text.safetensors", "vocabulary": folder / "clip_tokenizer.json"}
    siglip = {"checkpoint": folder / "model.safetensors", "vocabulary": folder / "tokenizer.json"}
    plain = time_process(one_query("alpha_clip", clip, {}), rounds)
    ours = time_process(one_query("region_tokens", siglip, sizes.options), rounds)
    print_row("a process that encodes a query, CLIP", plain, "")
    print_row("a process that encodes a query, SigLIP 2", ours, f"{ours.median / plain.median:.2f}x")
    in_new_process(save_large_text, folder, sizes)
    siglip["checkpoint"] = folder / "large.safetensors"
    large = time_process(one_query("region_tokens", siglip, sizes.options), rounds)
    siglip["checkpoint"].unlink()  # gigabytes
    print_row("the same with the text tower of So400m", large, f"{large.median / plain.median:.2f}x")


def save_large_text(folder: Path, sizes: Sizes) -> None:
    """Write a SigLIP with a large text tower and a small image tower."""
    width = sizes.large_text["hidden_size"]
    vision = {**VISION, "hidden_size": width, "num_attention_heads": sizes.large_text["num_attention_heads"]}
    model = SiglipModel(SiglipConfig(text_config=sizes.large_text, vision_config=vision))
    randomise(model, 1)
    save_siglip(model, folder / "large.safetensors")


def one_query(engine: str, files: Mapping[str, Path], options: Mapping[str, object]) -> list[str]:
    """Return the command of a process that encodes `QUERY`."""
    paths = msgspec.json.encode({role: str(path) for role, path in files.items()}).decode()
    return [sys.executable, "-c", ONE_QUERY, engine, paths, QUERY, msgspec.json.encode(options).decode()]


def save_set(folder: Path, sizes: Sizes, points: int) -> None:
    """Write SAM 2's weights and the model set."""
    scene = draw_scene(*sizes.side)
    options = msgspec.structs.replace(sizes.proposer, points_per_side=points)
    model = craft_model(options, scene)
    chosen = choose_thresholds(
        model, msgspec.structs.replace(options, points_per_side=min(8, points)), scene, LIKELY, STABLE
    )
    options = msgspec.structs.replace(
        options, predicted_iou_threshold=chosen.predicted_iou, stability_threshold=chosen.stability
    )
    torch.save({"model": model.state_dict()}, folder / "sam2.pt")
    (folder / "set.toml").write_text(to_toml(options, sizes.options))


def to_toml(proposer: Sam2Options, encoder: Mapping[str, object]) -> str:
    """Return a model set without a judge; a JSON value is one of TOML, too, but for tables and null."""
    given = msgspec.to_builtins(proposer)
    architecture = given.pop("architecture", None) or {}
    tables = {
        "proposer": {"name": "hiera", "engine": "sam2", "licence": "none"},
        "proposer.options": given,
        "proposer.options.architecture": architecture,
        "proposer.files.checkpoint": {"path": "sam2.pt"},
        "encoder": {"name": "siglip2", "engine": "region_tokens", "licence": "none"},
        "encoder.options": encoder,
        "encoder.files.checkpoint": {"path": "model.safetensors"},
        "encoder.files.vocabulary": {"path": "tokenizer.json"},
    }
    lines = ['name = "bench"', 'description = "random weights"']
    for name, table in tables.items():
        lines.append(f"\n[{name}]")
        lines += [
            f"{key} = {msgspec.json.encode(value).decode()}"
            for key, value in table.items()
            if value is not None
        ]
    return "\n".join(lines)


def add_and_find(folder: Path, sizes: Sizes, count: int) -> None:
    """`matir add` and `matir find` as processes, with their peak memory."""
    photos, gallery = folder / "photos", folder / "gallery.db"
    photos.mkdir()
    for seed in range(count):
        Image.fromarray(draw_scene(*sizes.side, seed)).save(photos / f"{seed:04}.png")
    matir = [sys.executable, "-m", "matir_cli"]
    added = run_once([*matir, "add", str(photos), "--db", str(gallery), "--models", str(folder / "set.toml")])
    found = run_once([*matir, "find", QUERY, "--db", str(gallery), "--no-rerank"])
    print()
    print_columns("process", "time", "per photo", "peak memory")
    for name, done in (("`matir add`", added), ("`matir find`", found)):
        each = format_seconds(done.seconds / count)
        print_row(name, format_seconds(done.seconds), each, f"{done.peak / 1e6:,.0f} MB")


MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Program that runs another and prints its peak memory. A small one: a process counts the memory of the one
that it is forked from."""


def run_once(command: Sequence[str]) -> Finished:
    """Run a process to its end."""
    seconds, done = time_once(
        lambda: subprocess.run([sys.executable, "-c", MEASURED, *command], check=True, capture_output=True)
    )
    return Finished(seconds, int(done.stdout) * (1 if sys.platform == "darwin" else 1024))


if __name__ == "__main__":
    main()
