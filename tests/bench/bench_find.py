"""`matir find --no-rerank` as a whole process against `import torch` alone.

    python -m tests.bench.bench_find

A gallery of 20,000 photos (50 regions each, vectors as in bench_search) and a full-size ViT-L/14
text tower with random weights. A search that encodes its text with torch cannot start before torch
is imported; `find` does not import it.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPTextModelWithProjection

from matir_cli.gallery.database import GalleryFile
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.weights import locate_files
from matir_cli.search.rank import rank_photos
from tests.bench import bench_search
from tests.support.clip_weights import random_text, save_text, save_vocabulary, text_config

TOML = """
name = "bench"
description = "random weights at full size"

[proposer]
name = "none"
engine = "sam2"
licence = "none"
files.checkpoint.path = "exact.npy"

[encoder]
name = "random_vit_l14"
engine = "alpha_clip"
licence = "none"
files.text.path = "text.safetensors"
files.vocabulary.path = "tokenizer.json"
"""


def prepare(folder: Path, photos: int) -> None:
    """A gallery, a text tower and a model set."""
    bench_search.build(folder, photos)
    save_text(_answering(np.load(folder / "queries.npy")[0]), folder / "text.safetensors")
    save_vocabulary(folder / "tokenizer.json")
    (folder / "bench.toml").write_text(TOML)
    encoder = locate_files(load_model_set(str(folder / "bench.toml")), "encoder")
    with GalleryFile.open(folder / "gallery.db") as gallery:
        gallery.bind_model("encoder", encoder.identity, str(folder / "bench.toml"))


def _answering(vector: bench_search.Floats) -> CLIPTextModelWithProjection:
    """A random ViT-L/14 text tower that gives every text the direction of `vector`, a query of that world.

    A random direction would be like no photo at all, and the search for it many times as long.
    """
    model = random_text(text_config(768, 12, 12, 768), seed=0)
    with torch.no_grad():
        ids = torch.tensor([[49406, 320, 1929, 49407]])
        hidden = model.text_model(ids).pooler_output[0]
        model.text_projection.weight.copy_(torch.outer(torch.from_numpy(vector), hidden / hidden.norm()))
    return model


def median_seconds(command: list[str], runs: int) -> float:
    """Wall time of a process, after one run that fills the page cache."""
    seconds = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def search_seconds(gallery: Path) -> float:
    """The search alone, in a warm process."""
    queries = bench_search.World().queries(12)
    seconds = []
    with GalleryFile.open(gallery) as opened:
        for query in queries:
            started = time.perf_counter()
            rank_photos(opened, query, 10)
            seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.photos)
        words = ["find", "--no-rerank", "a dog led by a rope", "--db", str(folder / "gallery.db")]
        ours = median_seconds([sys.executable, "-m", "matir_cli", *words], options.runs)
        importing = median_seconds([sys.executable, "-c", "import torch"], options.runs)
        alone = search_seconds(folder / "gallery.db")
    print(
        "| photos | `matir find --no-rerank` | `import torch` | the search alone | (find - search) / torch |"
    )
    print("|---|---|---|---|---|")
    ratio = (ours - alone) / importing
    print(f"| {options.photos:,} | {ours:.2f} s | {importing:.2f} s | {alone:.3f} s | **{ratio:.2f}x** |")


if __name__ == "__main__":
    main()
