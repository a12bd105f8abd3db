"""Bench of stage-1 search beside FAISS and a plain matrix product.

    python -m tests.bench.bench_search [--quick] [--sizes 10000,100000,1000000]

For each size, the same vectors and queries go into a gallery file and to the two peers. Each is
searched by a process of its own with at most two threads, and the top 100 photos are compared with
those of the exact float32 product. The question is the same for all: which photos are best by the
largest cosine of their 50 regions? FAISS (`IndexFlatIP`, all vectors in memory) answers it by asking
for more regions until 100 photos are among them; the product has all vectors in memory, too, and is
reduced to photos.
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.bench.measuring import (
    BenchParser,
    Timings,
    format_seconds,
    in_new_process,
    peak_memory,
    print_columns,
    print_heading,
    print_row,
    time_once,
    time_process,
)

DIMENSIONS = 768
REGIONS = 50
"""Regions per photo."""
QUERIES = 24
TOP = 100
THREADS = "2"
CONCEPTS = 2000
PHOTOS_AT_ONCE = 400
PROCESSES = 5
"""New processes that are timed with one query each."""

ONE_QUERY = """
import sys
from pathlib import Path
import numpy as np
from matir_cli.gallery.database import GalleryFile
from matir_cli.search.rank import rank_photos
folder = Path(sys.argv[1])
with GalleryFile.open(folder / "gallery.db") as gallery:
    rank_photos(gallery, np.load(folder / "queries.npy")[0], int(sys.argv[2]))
"""

Floats = NDArray[np.float32]


class World:
    """Vectors like CLIP's: concepts, photos with a theme, a narrow cone, a gap, and outlier dimensions.

    A region is a mixture of one of 2000 concepts (some far more frequent than others), its photo's
    theme and a remainder, all drawn from a normal distribution whose spectrum falls as i**-0.8. Half of
    its squared length is a direction common to all regions, in which three dimensions are far larger
    than the rest; queries have another common direction.
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
        """(d,) a random unit vector with `outliers`, by dimension, added before scaling."""
        direction = self.rng.standard_normal(DIMENSIONS)
        direction[list(outliers)] += list(outliers.values())
        return (direction / np.linalg.norm(direction)).astype(np.float32)

    def _draw(self, count: int) -> Floats:
        """(count, d) normal vectors with an expected length of 1."""
        drawn: Floats = self.rng.standard_normal((count, DIMENSIONS), dtype=np.float32) @ self.shape
        return drawn

    def photos(self, count: int) -> Iterator[Floats]:
        """Blocks of (n x 50, d) unit vectors, the regions of up to 400 photos each."""
        for start in range(0, count, PHOTOS_AT_ONCE):
            photos = min(PHOTOS_AT_ONCE, count - start)
            concepts = self.concepts[self.rng.choice(CONCEPTS, photos * REGIONS, p=self.frequency)]
            themes = np.repeat(self._draw(photos), REGIONS, axis=0)
            content = 0.75 * concepts + 0.45 * themes + 0.45 * self._draw(len(concepts))
            yield _unit(0.71 * content / np.sqrt(0.75**2 + 2 * 0.45**2) + 0.7 * self.cone)

    def queries(self, count: int) -> Floats:
        """(count, d) unit vectors."""
        concepts = self.concepts[self.rng.choice(CONCEPTS, count, p=self.frequency)]
        return _unit(0.71 * (0.75 * concepts + 0.66 * self._draw(count)) + 0.7 * self.text_cone)


def _unit(rows: Floats) -> Floats:
    """`rows` scaled to length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@dataclass(frozen=True, slots=True)
class Built:
    """A gallery file that has been written."""

    seconds: float
    """Time for writing, without drawing the vectors."""
    bytes_per_photo: float
    """Size of the vectors and of the search index."""


@dataclass(frozen=True, slots=True)
class Searched:
    """One way of searching, in a process of its own."""

    photos: list[list[int]]
    """The photos found for each query, best first, numbered from 0."""
    timings: Timings
    """Of the queries, one by one."""
    peak: int
    """Peak memory of the process, bytes."""


def build(folder: Path, photos: int) -> Built:
    """Write `gallery.db`, all vectors as `exact.npy` and the queries as `queries.npy` into `folder`."""
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

        def write(rows: Floats, first: int) -> None:
            with gallery.atomic():
                for number, vectors in enumerate(rows.reshape(-1, REGIONS, DIMENSIONS), start=first):
                    record = PhotoRecord(number.to_bytes(32), 8, 8, 8, 8, 1)
                    file = FileRecord(Path(f"/{number}"), 0, 0)
                    photo_id, region_ids = gallery.add_photo(file, record, regions, None)
                    store_vectors(gallery, photo_id, region_ids, vectors)
            seal_index(gallery)

        for rows in world.photos(photos):
            exact[photo * REGIONS : photo * REGIONS + len(rows)] = rows
            taken, _ = time_once(partial(write, rows, photo))
            seconds += taken
            photo += len(rows) // REGIONS
        sizes = dict(gallery.connection.execute("select name, sum(pgsize) from dbstat group by name"))
    exact.flush()
    np.save(folder / "queries.npy", world.queries(QUERIES))
    return Built(seconds, (sizes["vectors"] + sizes.get("blocks", 0)) / photos)


def search_gallery(folder: Path) -> Searched:
    """Search the gallery as `matir find` does, in a warm process."""
    from matir_cli.gallery.database import GalleryFile
    from matir_cli.search.rank import rank_photos

    with GalleryFile.open(folder / "gallery.db") as gallery:
        return _search(
            lambda query: [candidate.photo_id - 1 for candidate in rank_photos(gallery, query, TOP)], folder
        )


def search_faiss(folder: Path) -> Searched:
    """Search FAISS's exact index, asking for more regions until enough photos are among them."""
    import faiss

    index = faiss.IndexFlatIP(DIMENSIONS)
    index.add(np.load(folder / "exact.npy", mmap_mode="r"))

    def search(query: Floats) -> list[int]:
        regions = 2 * TOP
        while True:
            _, nearest = index.search(query[np.newaxis], min(regions, index.ntotal))
            photos, first = np.unique(nearest[0] // REGIONS, return_index=True)
            if photos.size >= TOP or regions >= index.ntotal:
                return [int(photo) for photo in photos[np.argsort(first)][:TOP]]
            regions *= 2

    return _search(search, folder)


def search_product(folder: Path) -> Searched:
    """Search by the plain matrix product and its maximum per photo; this is the truth as well."""
    exact = np.load(folder / "exact.npy")
    starts = np.arange(0, len(exact), REGIONS)

    def search(query: Floats) -> list[int]:
        best = np.maximum.reduceat(exact @ query, starts)
        top = np.argpartition(best, best.size - TOP)[best.size - TOP :]
        return [int(photo) for photo in top[np.argsort(-best[top])]]

    return _search(search, folder)


def _search(search: Callable[[Floats], list[int]], folder: Path) -> Searched:
    """Time `search` query by query, after one that reads the file and wakes the threads."""
    queries = np.load(folder / "queries.npy")
    search(queries[0])
    runs = [time_once(partial(search, query)) for query in queries]
    timings = Timings(tuple(seconds for seconds, _ in runs))
    return Searched([photos for _, photos in runs], timings, peak_memory())


def score_spread() -> float:
    """Standard deviation of the cosines of a query with regions, averaged over queries."""
    world = World()
    regions = next(world.photos(PHOTOS_AT_ONCE))
    return float((regions @ world.queries(QUERIES).T).std(axis=0).mean())


def measure(photos: int, folder: Path) -> None:
    """Print one row of the table."""
    built = in_new_process(build, folder, photos)
    ours = in_new_process(search_gallery, folder)
    new_process = time_process([sys.executable, "-c", ONE_QUERY, str(folder), str(TOP)], PROCESSES)
    exact, theirs = in_new_process(search_product, folder), in_new_process(search_faiss, folder)
    recall = statistics.mean(
        len(set(found) & set(truth)) / TOP for found, truth in zip(ours.photos, exact.photos, strict=True)
    )
    print_row(
        f"{photos * REGIONS:,}",
        ours.timings,
        theirs.timings,
        f"**{ours.timings.median / theirs.timings.median:.2f}x**",
        exact.timings,
        f"{ours.timings.median / exact.timings.median:.2f}x",
        f"{recall:.4f}",
        f"{ours.peak / 1e6:.0f} MB",
        f"{theirs.peak / 1e6:.0f} MB",
        new_process,
        f"{built.bytes_per_photo / 1e3:.1f} kB",
        format_seconds(built.seconds),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every size and print the table."""
    parser = BenchParser(__doc__, arguments)
    parser.add_argument(
        "--sizes",
        default="10000" if parser.quick else "10000,100000,1000000",
        help=f"regions, separated by commas; a multiple of {REGIONS}, at least {REGIONS * TOP}",
    )
    options = parser.options()
    # Read by the libraries of every process that starts from here on.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), THREADS)
    print_heading(
        f"random vectors, d = {DIMENSIONS}, {REGIONS} regions per photo, drawn around {CONCEPTS} concepts",
        "In part. Like CLIP's, they lie in a narrow cone with outlier dimensions; but the cosines of a query "
        f"with regions spread by {score_spread():.3f}, where real CLIP vectors give 0.020 to 0.026. The "
        "smaller the spread, the more regions a search has to score.",
        f"{THREADS} threads",
    )
    print_columns(
        "regions",
        f"search, top {TOP} photos",
        "FAISS `IndexFlatIP`",
        "search / FAISS",
        "plain product",
        "search / product",
        "recall",
        "peak memory",
        "FAISS's",
        "one query, new process",
        "disk per photo",
        "writing",
    )
    for size in options.sizes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            measure(int(size) // REGIONS, Path(folder))


if __name__ == "__main__":
    main()
