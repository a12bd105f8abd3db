"""Bench of `matir find --no-rerank` as a process beside `import torch`.

    python -m tests.bench.bench_find [--quick] [--photos 20000] [--rounds 15]

The gallery is that of `bench_search`; the text tower is a ViT-L/14 at full size with random weights
(a small one with --quick). A search that encodes its text with torch cannot start before torch is
imported; `find` does not import it. The search alone, in a warm process, is timed as well, because
the time that `find` needs beyond it does not depend on the gallery.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from matir_cli.gallery.database import GalleryFile
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import INDEXING_PARTS
from matir_cli.model_sets.weights import locate_files
from matir_cli.search.rank import rank_photos
from tests.bench import bench_search
from tests.bench.measuring import (
    BenchParser,
    Timings,
    in_new_process,
    print_columns,
    print_heading,
    print_row,
    time_once,
    time_process,
)

RESULTS = 10
"""Photos that are searched for, the default of `matir find`."""

SET_TOML = """
name = "bench"
description = "random weights at full size"

[proposer]
name = "none"
engine = "sam2"
licence = "none"
files.checkpoint.path = "queries.npy"

[encoder]
name = "random_clip"
engine = "alpha_clip"
licence = "none"
files.text.path = "text.safetensors"
files.vocabulary.path = "tokenizer.json"
"""


def prepare(folder: Path, photos: int, layers: int) -> None:
    """Write a gallery, a text tower of `layers` layers and a model set into `folder`."""
    bench_search.build(folder, photos)
    bind_random_models(folder, layers)


def bind_random_models(folder: Path, layers: int) -> None:
    """Bind `gallery.db` in a folder with `queries.npy` to a new model set there, `bench.toml`."""
    _write_text_tower(folder, layers)
    (folder / "bench.toml").write_text(SET_TOML)
    models = load_model_set(str(folder / "bench.toml"))
    with GalleryFile.open(folder / "gallery.db") as gallery:
        for part in INDEXING_PARTS:
            gallery.bind_model(part, locate_files(models, part).identity, str(folder / "bench.toml"))


def _write_text_tower(folder: Path, layers: int) -> None:
    """Write a random text tower that maps every text to the direction of the first query.

    A random direction would be like no photo at all, and the search for it would take many times as long.
    """
    import torch

    from tests.support.clip_weights import random_text, save_text, save_vocabulary, text_config

    vector = torch.from_numpy(np.load(folder / "queries.npy")[0])
    model = random_text(text_config(768, layers, 12, len(vector)), seed=0)
    with torch.no_grad():
        ids = torch.tensor([[49406, 320, 1929, 49407]])
        hidden = model.text_model(ids).pooler_output[0]
        model.text_projection.weight.copy_(torch.outer(vector, hidden / hidden.norm()))
    save_text(model, folder / "text.safetensors")
    save_vocabulary(folder / "tokenizer.json")


def time_searches(folder: Path) -> Timings:
    """Timings of the search alone, query by query, after one that warms up."""
    first, *queries = np.load(folder / "queries.npy")
    with GalleryFile.open(folder / "gallery.db") as gallery:
        rank_photos(gallery, first, RESULTS)
        return Timings(
            tuple(time_once(partial(rank_photos, gallery, query, RESULTS))[0] for query in queries)
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = BenchParser(__doc__, arguments)
    parser.add_size("--photos", 20_000, 200, "photos in the gallery")
    parser.add_size("--rounds", 15, 1, "processes timed of each kind")
    parser.add_size("--layers", 12, 1, "layers of the text tower; ViT-L/14 has 12")
    options = parser.options()
    print_heading(
        f"{options.photos:,} photos as bench_search draws them; a text tower of {options.layers} layers with "
        "random weights",
        "The processes are; the vectors are in part, see bench_search.",
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_new_process(prepare, folder, options.photos, options.layers)
        words = ["find", "--no-rerank", "a dog led by a rope", "--db", str(folder / "gallery.db")]
        words += ["--models", str(folder / "bench.toml")]
        os.environ["XDG_STATE_HOME"] = name  # where the use of that set is recorded
        ours = time_process([sys.executable, "-m", "matir_cli", *words], options.rounds)
        torch_import = time_process([sys.executable, "-c", "import torch"], options.rounds)
        search = in_new_process(time_searches, folder)
    print_columns(
        "photos", "`matir find --no-rerank`", "`import torch`", "the search alone", "(find - search) / torch"
    )
    ratio = (ours.median - search.median) / torch_import.median
    print_row(f"{options.photos:,}", ours, torch_import, search, f"**{ratio:.2f}x**")


if __name__ == "__main__":
    main()
