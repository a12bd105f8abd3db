"""Stage-1 search against FAISS holding everything in memory: time, recall, memory, bytes.

    python -m tests.bench.bench_search --sizes 10000,100000,1000000

Every size is one run: the same vectors and queries go into a gallery file and to FAISS, each is
searched by a process of its own with two threads at most, and the top 100 photos are compared with
those of the exact float32 product. The question is the same for all: the best photos by the largest
cosine of their 50 regions. FAISS answers it by asking for more regions until 100 photos are among
them; a plain matrix product with all vectors in memory, reduced to photos, stands beside it.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 768
REGIONS = 50
"""Regions a photo."""
QUERIES = 24
TOP = 100
THREADS = "2"
CONCEPTS = 2000
PHOTOS_AT_ONCE = 400

Floats = NDArray[np.float32]


class World:
    """Vectors like CLIP's: concepts, photos with a theme, a narrow cone, a gap, and outlier dimensions.

    A region is a mix of one of 2000 concepts (some far more frequent than others), its photo's theme
    and a remainder, all drawn from a normal distribution whose spectrum falls as i**-0.8. Half of its
    squared length is a direction common to all regions, three dimensions of which tower over the
    rest; queries have another common direction.
    """

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        basis = np.linalg.qr(self.rng.standard_normal((DIMENSIONS, DIMENSIONS)))[0]
        spectrum = np.arange(1, DIMENSIONS + 1) ** -0.4
        self.shape = (basis * spectrum / np.linalg.norm(spectrum)).T.astype(np.float32)
        self.cone = self._direction({3: 45, 133: -70, 400: 30})
        self.text_cone = self._direction({3: 60, 133: 30})
        self.concepts = self._draw(CONCEPTS)
        frequency = np.arange(1, CONCEPTS + 1) ** -0.7
        self.frequency = frequency / frequency.sum()

    def _direction(self, outliers: dict[int, float]) -> Floats:
        direction = self.rng.standard_normal(DIMENSIONS)
        direction[list(outliers)] += list(outliers.values())
        return (direction / np.linalg.norm(direction)).astype(np.float32)

    def _draw(self, count: int) -> Floats:
        """(count, d) with an expected length of 1."""
        return self.rng.standard_normal((count, DIMENSIONS), dtype=np.float32) @ self.shape

    def photos(self, count: int) -> Iterator[Floats]:
        """(n x 50, d) unit vectors of up to 400 photos at a time."""
        for start in range(0, count, PHOTOS_AT_ONCE):
            photos = min(PHOTOS_AT_ONCE, count - start)
            concepts = self.concepts[self.rng.choice(CONCEPTS, photos * REGIONS, p=self.frequency)]
            themes = np.repeat(self._draw(photos), REGIONS, axis=0)
            content = 0.75 * concepts + 0.45 * themes + 0.45 * self._draw(len(concepts))
            yield _unit(0.71 * content / np.sqrt(0.75**2 + 2 * 0.45**2) + 0.7 * self.cone)

    def queries(self, count: int) -> Floats:
        concepts = self.concepts[self.rng.choice(CONCEPTS, count, p=self.frequency)]
        return _unit(0.71 * (0.75 * concepts + 0.66 * self._draw(count)) + 0.7 * self.text_cone)


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


# Each of these runs in a process of its own and prints one JSON object.


def build(folder: Path, photos: int) -> dict[str, Any]:
    from matir_cli import masks
    from matir_cli.gallery.database import GalleryFile
    from matir_cli.records import FileRecord, PhotoRecord, Region
    from matir_cli.search.index import seal_index, store_vectors

    world = World()
    rle = masks.whole(8, 8)
    regions = [Region(rle, masks.box(rle), 64, 0.9, 0.95)] * REGIONS
    exact = np.lib.format.open_memmap(folder / "exact.npy", "w+", np.float32, (photos * REGIONS, DIMENSIONS))
    seconds, photo = 0.0, 0
    with GalleryFile.open(folder / "gallery.db", create=True) as gallery:
        for rows in world.photos(photos):
            exact[photo * REGIONS : photo * REGIONS + len(rows)] = rows
            started = time.perf_counter()
            with gallery.atomic():
                for vectors in rows.reshape(-1, REGIONS, DIMENSIONS):
                    record = PhotoRecord(photo.to_bytes(32), 8, 8, 8, 8, 1)
                    file = FileRecord(Path(f"/{photo}"), 0, 0)
                    photo_id, region_ids = gallery.add_photo(file, record, regions, None)
                    store_vectors(gallery, photo_id, region_ids, vectors)
                    photo += 1
            seal_index(gallery)
            seconds += time.perf_counter() - started
        sizes = dict(gallery.connection.execute("select name, sum(pgsize) from dbstat group by name"))
    exact.flush()
    np.save(folder / "queries.npy", world.queries(QUERIES))
    bytes_a_photo = (sizes["vectors"] + sizes.get("blocks", 0)) / photos
    return {"seconds": seconds, "bytes": bytes_a_photo}


def gallery(folder: Path) -> dict[str, Any]:
    """The project's search by a warm process."""
    from matir_cli.gallery.database import GalleryFile
    from matir_cli.search.rank import rank_photos

    with GalleryFile.open(folder / "gallery.db") as opened:

        def ask(query: Floats) -> list[int]:
            return [found.photo_id - 1 for found in rank_photos(opened, query, TOP)]

        return _timed(ask, np.load(folder / "queries.npy"))


def once(folder: Path) -> dict[str, Any]:
    """One query by a new process; what is timed is the process, by its parent."""
    from matir_cli.gallery.database import GalleryFile
    from matir_cli.search.rank import rank_photos

    query = np.load(folder / "queries.npy")[0]
    with GalleryFile.open(folder / "gallery.db") as opened:
        return {"photos": len(rank_photos(opened, query, TOP))}


def faiss(folder: Path) -> dict[str, Any]:
    import faiss

    index = faiss.IndexFlatIP(DIMENSIONS)
    index.add(np.load(folder / "exact.npy", mmap_mode="r"))

    def ask(query: Floats) -> list[int]:
        regions = 2 * TOP
        while True:
            _, found = index.search(query[np.newaxis], min(regions, index.ntotal))
            photos, first = np.unique(found[0] // REGIONS, return_index=True)
            if photos.size >= TOP or regions >= index.ntotal:
                return [int(photo) for photo in photos[np.argsort(first)][:TOP]]
            regions *= 2

    return _timed(ask, np.load(folder / "queries.npy"))


def product(folder: Path) -> dict[str, Any]:
    """The plain matrix product, and the maximum of each photo: the truth, too."""
    exact = np.load(folder / "exact.npy")
    starts = np.arange(0, len(exact), REGIONS)

    def ask(query: Floats) -> list[int]:
        best = np.maximum.reduceat(exact @ query, starts)
        top = np.argpartition(best, best.size - TOP)[best.size - TOP :]
        return [int(photo) for photo in top[np.argsort(-best[top])]]

    return _timed(ask, np.load(folder / "queries.npy"))


def _timed(ask: Callable[[Floats], list[int]], queries: Floats) -> dict[str, Any]:
    ask(queries[0])  # the first one reads the file or wakes the threads
    found, seconds = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(ask(query))
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"found": found, "median": statistics.median(seconds), "slowest": max(seconds), "peak": peak}


def _in_new_process(name: str, folder: Path, photos: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-m", __spec__.name, "--step", name, str(folder), str(photos)]
    threads = {"OMP_NUM_THREADS": THREADS, "OPENBLAS_NUM_THREADS": THREADS, "MKL_NUM_THREADS": THREADS}
    done = subprocess.run(command, env=os.environ | threads, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def measure(photos: int, folder: Path) -> str:
    """One row of the table."""
    built = _in_new_process("build", folder, photos)
    ours = _in_new_process("gallery", folder)
    cold = []
    for _ in range(5):
        started = time.perf_counter()
        _in_new_process("once", folder)
        cold.append(time.perf_counter() - started)
    exact, theirs = _in_new_process("product", folder), _in_new_process("faiss", folder)
    recall = statistics.mean(
        len(set(ask) & set(truth)) / TOP for ask, truth in zip(ours["found"], exact["found"], strict=True)
    )
    cells = [
        f"{photos * REGIONS:,}",
        f"{1e3 * ours['median']:.1f} ms",
        f"{1e3 * ours['slowest']:.1f} ms",
        f"{1e3 * theirs['median']:.1f} ms",
        f"**{ours['median'] / theirs['median']:.2f}x**",
        f"{1e3 * exact['median']:.1f} ms",
        f"{ours['median'] / exact['median']:.2f}x",
        f"{recall:.4f}",
        f"{ours['peak'] / 1e6:.0f} MB",
        f"{theirs['peak'] / 1e6:.0f} MB",
        f"{statistics.median(cold):.2f} s",
        f"{built['bytes'] / 1e3:.1f} kB",
        f"{built['seconds']:.0f} s",
    ]
    return "| " + " | ".join(cells) + " |"


HEADER = (
    "| regions | search, median | slowest | FAISS `IndexFlatIP` | search / FAISS | plain product "
    "| search / product | recall of top 100 photos | peak memory | FAISS's | new process | bytes a photo "
    "| writing |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10000,100000,1000000", help="regions, separated by commas")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, folder, photos = options.step
        steps: dict[str, Callable[[Path], dict[str, Any]]] = {
            "build": lambda path: build(path, int(photos)),
            **{"gallery": gallery, "once": once, "faiss": faiss, "product": product},
        }
        print(json.dumps(steps[name](Path(folder))))
        return
    print(HEADER, flush=True)
    for size in options.sizes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            print(measure(int(size) // REGIONS, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
