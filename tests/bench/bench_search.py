"""Bench of stage-1 search beside FAISS and a plain matrix product.

    python -m tests.bench.bench_search [--quick] [--sizes 10000,100000,1000000] [--kinds "L/14 nouns"]

For each size, the same vectors and queries go into a gallery file and to the peers. Each peer is searched by
a process of its own with at most two threads; the queries go to one process after the other in turn, so that
all meet the same load. The top 100 photos are compared with those of the exact float32 product. The question
is the same for all: which photos are best by the largest cosine of their 50 regions? FAISS holds all vectors
in memory, as float32 (`IndexFlatIP`) or as bytes (`IndexScalarQuantizer`), and answers it by asking for more
regions until 100 photos are among them, and so does usearch's HNSW of int8, if usearch is installed; the
product has all vectors in memory, too, and is reduced to photos.
"""

import math
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.bench.measuring import (
    AnonymousPeak,
    BenchParser,
    Timings,
    drop_from_cache,
    format_seconds,
    in_new_process,
    peak_memory,
    print_columns,
    print_heading,
    print_row,
    time_once,
    time_process,
)

REGIONS = 50
"""Regions per photo."""
QUERIES = 24
TOP = 100
THREADS = "2"
PHOTOS_AT_ONCE = 400
TRAINED_ON = 100_000
"""Vectors added at once to a FAISS index, and those that it is trained on."""
AT_REST = 0.1
"""Seconds between two searches, in which the threads of the last one fall asleep; OpenBLAS's take 30 ms."""
MEMORY_ROUNDS = 10
"""Searches during which the memory is watched."""
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


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of real image and text vectors of one CLIP model, fitted to published feature files."""

    dimensions: int
    image_mean: float
    """Length of the mean of unit image vectors."""
    text_mean: float
    """Length of the mean of unit text vectors."""
    means: float
    """Cosine of the two means."""
    image_variances: tuple[float, ...]
    """Variances of image vectors along their main directions, in millionths: means over the ranges between
    `RANGES`."""
    text_variances: tuple[float, ...]
    """Variances of text vectors along these directions, in millionths."""
    text_mean_squares: tuple[float, ...]
    """Squares of the components of the mean text vector along these directions, in millionths."""


RANGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384, 512, 768)
"""Ranks of main directions at which the ranges of `Statistics` begin and end."""

FITTED = {
    "L/14 nouns": Statistics(
        768,
        0.739,
        0.844,
        0.193,
        (3.12e04, 2.5e04, 1.36e04, 9980, 7070, 4520, 2740, 1300, 600, 400, 200, 100, 30),
        (680, 1200, 714, 1220, 945, 1070, 824, 633, 490, 286, 272, 269, 269),
        (82.8, 847, 3600, 632, 1030, 408, 261, 231, 264, 300, 300, 300, 300),
    ),
    "B/16 nouns": Statistics(
        512,
        0.73,
        0.877,
        0.3,
        (4.52e04, 2.54e04, 1.99e04, 1.28e04, 7670, 3920, 2070, 995, 456, 215, 70, 20),
        (1940, 549, 749, 737, 662, 682, 726, 614, 545, 466, 367, 258),
        (1150, 1060, 292, 691, 571, 277, 211, 220, 210, 259, 411, 400),
    ),
    "B/32 nouns": Statistics(
        512,
        0.73,
        0.862,
        0.298,
        (3.84e04, 3.24e04, 1.76e04, 1.08e04, 6480, 3580, 1830, 971, 567, 363, 181, 42.9),
        (466, 499, 478, 486, 502, 505, 560, 608, 574, 537, 413, 473),
        (6.98, 291, 1760, 449, 150, 379, 295, 134, 194, 136, 194, 200),
    ),
    "B/32 captions": Statistics(
        512,
        0.73,
        0.71,
        0.305,
        (3.84e04, 3.24e04, 1.76e04, 1.08e04, 6480, 3580, 1830, 971, 567, 363, 181, 42.9),
        (2420, 2210, 4190, 2400, 2940, 2450, 1660, 1330, 1070, 827, 657, 529),
        (943, 5030, 17.7, 2250, 789, 476, 522, 368, 372, 325, 345, 300),
    ),
}
"""Statistics by model and kind of query: images of THINGS, COCO and Flickr, names of things and captions.
Of ViT-L/14 there were 200 images; variances beyond rank 128 are extrapolated."""

EXEMPLARS = 3000
"""Distinct things that regions show."""
MAIN, THEME, OWN, NOISE, MAIN_NOISE = 0.35, 0.1, 0.1, 0.08, 0.05
"""Share of a photo's regions that show its theme; shares of variance: the theme in other regions, the photo's
own part of its theme, and each region's own part in other regions and in those that show the theme."""


class World:
    """Vectors with the statistics of real ones: photos with a theme and 50 regions, and texts as queries.

    Regions show things; a thing's vector is normal with the fitted variances. A photo's theme is a thing,
    too, which a third of its regions show.
    """

    def __init__(self, kind: str = "L/14 nouns", seed: int = 0) -> None:
        self.fitted = fitted = FITTED[kind]
        self.rng = np.random.default_rng(seed)
        d = fitted.dimensions
        basis = np.linalg.qr(self.rng.standard_normal((d, d)))[0].T
        self.factor = (_by_rank(fitted.image_variances, d)[:, np.newaxis] ** 0.5 * basis).astype(np.float32)
        # The directions of least variance hold the two means: they add nothing to the spread of cosines.
        self.mean = (fitted.image_mean * basis[-1]).astype(np.float32)
        along = self.rng.choice([-1.0, 1.0], d) * _by_rank(fitted.text_mean_squares, d) ** 0.5
        along[-1] = fitted.means * fitted.text_mean
        along[-2] = (fitted.text_mean**2 - along[:-2] @ along[:-2] - along[-1] ** 2) ** 0.5
        self.text_mean = (along @ basis).astype(np.float32)
        self.text_factor = (_by_rank(fitted.text_variances, d)[:, np.newaxis] ** 0.5 * basis).astype(
            np.float32
        )
        self.things = self._draw(EXEMPLARS)

    def _draw(self, count: int) -> Floats:
        """(count, d) normal vectors with the variances of images."""
        drawn: Floats = self.rng.standard_normal((count, len(self.mean)), dtype=np.float32) @ self.factor
        return drawn

    def photos(self, count: int) -> Iterator[Floats]:
        """Blocks of (n x 50, d) unit vectors, the regions of up to 400 photos each."""
        for start in range(0, count, PHOTOS_AT_ONCE):
            photos = min(PHOTOS_AT_ONCE, count - start)
            theme = self.things[self.rng.integers(0, EXEMPLARS, photos)]
            theme = np.repeat(_mixed((1 - OWN, theme), (OWN, self._draw(photos))), REGIONS, axis=0)
            shown = self.things[self.rng.integers(0, EXEMPLARS, len(theme))]
            noise = self._draw(len(theme))
            rows = _mixed((1 - THEME - NOISE, shown), (THEME, theme), (NOISE, noise))
            main = self.rng.random(len(theme)) < MAIN
            rows[main] = _mixed((1 - MAIN_NOISE, theme[main]), (MAIN_NOISE, noise[main]))
            yield _unit(rows + self.mean)

    def queries(self, count: int) -> Floats:
        """(count, d) unit vectors."""
        drawn = self.rng.standard_normal((count, len(self.mean)), dtype=np.float32)
        return _unit(drawn @ self.text_factor + self.text_mean)


def _by_rank(means: tuple[float, ...], dimensions: int) -> NDArray[np.float64]:
    """(d,) values by rank, from their means over the ranges: straight lines between them on log scales."""
    ranges = [(first, last) for first, last in pairwise(RANGES) if last <= dimensions]
    middles = [((first + 1) * last) ** 0.5 for first, last in ranges]
    ranks = np.log(np.arange(1, dimensions + 1))
    return 1e-6 * np.exp(np.interp(ranks, np.log(middles), np.log(means)))


def _mixed(*parts: tuple[float, Floats]) -> Floats:
    """Sum of vectors, each weighted by the square root of its share."""
    return np.asarray(sum(np.float32(share**0.5) * rows for share, rows in parts), np.float32)


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
class Answer:
    """What one way of searching says to one query."""

    photos: list[int]
    """The photos found, best first, numbered from 0."""
    seconds: float


@dataclass(slots=True)
class Searched:
    """One way of searching, in a process of its own."""

    answers: list[Answer]
    """One per query."""
    memory: int
    """Largest size of the process's own memory during a search, without mapped files, bytes."""
    opening: float
    """Seconds until it could search: for the peers, the time to build the index."""

    @property
    def timings(self) -> Timings:
        """Of the queries, one by one."""
        return Timings(tuple(answer.seconds for answer in self.answers))


def build(folder: Path, photos: int, kind: str = "L/14 nouns") -> Built:
    """Write `gallery.db`, all vectors as `exact.npy` and the queries as `queries.npy` into `folder`."""
    from matir_cli import masks
    from matir_cli.gallery.database import GalleryFile
    from matir_cli.records import FileRecord, PhotoRecord, Region
    from matir_cli.search.index import seal_index, store_vectors

    world = World(kind)
    dimensions = world.fitted.dimensions
    rle = masks.whole(8, 8)
    regions = [Region(rle, masks.box(rle), 64, 0.9, 0.95)] * REGIONS
    exact = np.lib.format.open_memmap(folder / "exact.npy", "w+", np.float32, (photos * REGIONS, dimensions))
    seconds, photo = 0.0, 0
    with GalleryFile.open(folder / "gallery.db", create=True) as gallery:

        def write(rows: Floats, first: int) -> None:
            with gallery.atomic():
                for number, vectors in enumerate(rows.reshape(-1, REGIONS, dimensions), start=first):
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
    return Built(seconds, sum(sizes.get(table, 0) for table in ("vectors", "residuals", "codes")) / photos)


Search = Callable[[Floats], list[int]]


def open_gallery(folder: Path) -> Search:
    """Search the gallery as `matir find` does, in a warm process."""
    from matir_cli.gallery.database import GalleryFile
    from matir_cli.search.rank import rank_photos

    gallery = GalleryFile.open(folder / "gallery.db")
    return lambda query: [candidate.photo_id - 1 for candidate in rank_photos(gallery, query, TOP)]


def open_faiss(kind: str, folder: Path) -> Search:
    """Search a FAISS index, asking for more regions until enough photos are among them."""
    import faiss

    exact = np.load(folder / "exact.npy", mmap_mode="r")
    index = faiss.index_factory(exact.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        index.train(exact[:: max(1, len(exact) // TRAINED_ON)])
    for start in range(0, len(exact), TRAINED_ON):
        index.add(exact[start : start + TRAINED_ON])

    def search(query: Floats) -> list[int]:
        regions = 2 * TOP
        while True:
            _, nearest = index.search(query[np.newaxis], min(regions, index.ntotal))
            photos, first = np.unique(nearest[0] // REGIONS, return_index=True)
            if photos.size >= TOP or regions >= index.ntotal:
                return [int(photo) for photo in photos[np.argsort(first)][:TOP]]
            regions *= 2

    return search


def open_graph(folder: Path) -> Search:
    """Search usearch's HNSW graph of int8 vectors, asking for more regions until enough photos are found."""
    from usearch.index import Index

    exact = np.load(folder / "exact.npy", mmap_mode="r")
    index = Index(ndim=exact.shape[1], metric="ip", dtype="i8", expansion_search=512)
    for start in range(0, len(exact), TRAINED_ON):
        rows = np.array(exact[start : start + TRAINED_ON])
        index.add(np.arange(start, start + len(rows)), rows, threads=int(THREADS))

    def search(query: Floats) -> list[int]:
        regions = 10 * TOP
        while True:
            found = index.search(query, min(regions, len(exact)))
            photos, first = np.unique(found.keys.astype(np.int64) // REGIONS, return_index=True)
            if photos.size >= TOP or regions >= len(exact):
                return [int(photo) for photo in photos[np.argsort(first)][:TOP]]
            regions *= 2

    return search


def open_product(folder: Path) -> Search:
    """Search by the plain matrix product and its maximum per photo; this is the truth as well."""
    exact = np.load(folder / "exact.npy")
    starts = np.arange(0, len(exact), REGIONS)

    def search(query: Floats) -> list[int]:
        best = np.maximum.reduceat(exact @ query, starts)
        top = np.argpartition(best, best.size - TOP)[best.size - TOP :]
        return [int(photo) for photo in top[np.argsort(-best[top])]]

    return search


WAYS: dict[str, Callable[[Path], Search]] = {
    "gallery": open_gallery,
    "flat": partial(open_faiss, "Flat"),
    "bytes": partial(open_faiss, "SQ8"),
    "product": open_product,
}
if find_spec("usearch"):
    WAYS["graph"] = open_graph
"""Ways of searching: each opens its index and returns the search."""

_opened: list[Search] = []
"""In a way's own process: its search."""


def _open(way: str, folder: Path) -> float:
    """Open a way's index in its own process; return the seconds that it took."""
    seconds, search = time_once(partial(WAYS[way], folder))
    _opened.append(search)
    return seconds


def _answer(query: Floats) -> Answer:
    seconds, photos = time_once(partial(_opened[0], query))
    return Answer(photos, seconds)


def search_in_turn(folder: Path) -> dict[str, Searched]:
    """Put each query to all ways of searching in turn, after one that reads the files."""
    queries = np.load(folder / "queries.npy")
    context = multiprocessing.get_context("forkserver")
    with ExitStack() as stack:
        processes = {way: stack.enter_context(ProcessPoolExecutor(1, context)) for way in WAYS}
        found = {
            way: Searched([], 0, process.submit(_open, way, folder).result())
            for way, process in processes.items()
        }
        for number, query in enumerate([queries[0], *queries]):
            for way, process in processes.items():
                answer = process.submit(_answer, query).result()
                time.sleep(AT_REST)
                if number:
                    found[way].answers.append(answer)
        for way, process in processes.items():
            found[way].memory = process.submit(_memory, queries[0]).result()
    return found


def _memory(query: Floats) -> int:
    """Largest size of this process's own memory during a search, bytes; see `AnonymousPeak`."""
    with AnonymousPeak(os.getpid()) as peak:
        for _ in range(MEMORY_ROUNDS):
            _opened[0](query)
            time.sleep(AT_REST)
    return peak.bytes or peak_memory()


def count_rows(folder: Path) -> list[int]:
    """Count the vectors that the search reads from the gallery, query by query."""
    from matir_cli.gallery.database import GalleryFile
    from matir_cli.search.rank import rank_photos

    rows: list[int] = []

    def trace(_: object, statement: str, bindings: Any) -> bool:
        if re.search(r"\bvector\b", statement) and "json_each" in statement:
            rows[-1] += next(each for each in bindings if isinstance(each, str)).count(",") + 1
        return True

    with GalleryFile.open(folder / "gallery.db") as gallery:
        gallery.connection.exec_trace = trace
        for query in np.load(folder / "queries.npy"):
            rows.append(0)
            rank_photos(gallery, query, TOP)
    return rows


def time_parts(folder: Path) -> tuple[Timings, Timings]:
    """Timings of plain queries, and of the same with another object left of which theirs is, in turn."""
    from matir_cli.gallery.database import GalleryFile
    from matir_cli.search.parts import PartQuery, Role, rank_by_parts
    from matir_cli.search.phrases.description import RelationKind
    from matir_cli.search.rank import rank_photos
    from matir_cli.search.sampling import sample_scores

    queries = np.load(folder / "queries.npy")
    plain, parts = [], []
    with GalleryFile.open(folder / "gallery.db") as gallery:
        samples = sample_scores(gallery, queries)
        spreads = samples.std(axis=1).tolist()
        offsets = (samples.mean(axis=1) / spreads).tolist()
        roles = [Role(q / np.float32(s), o) for q, s, o in zip(queries, spreads, offsets, strict=True)]
        for number, query in enumerate(queries):
            own, other = roles[number], roles[number - 1]
            target = Role(own.vector, own.offset, ((RelationKind.LEFT_OF, other),))
            asked = PartQuery(query[np.newaxis], target, 0.5 * spreads[number])
            if number == 0:
                rank_photos(gallery, query, TOP)
                rank_by_parts(gallery, asked, TOP)
            plain.append(time_once(partial(rank_photos, gallery, query, TOP))[0])
            parts.append(time_once(partial(rank_by_parts, gallery, asked, TOP))[0])
            time.sleep(AT_REST)
    return Timings(tuple(plain)), Timings(tuple(parts))


def score_spread(kind: str) -> float:
    """Standard deviation of the cosines of a query with regions: the median over queries."""
    world = World(kind)
    regions = next(world.photos(PHOTOS_AT_ONCE))
    return float(np.median((regions @ world.queries(QUERIES).T).std(axis=0)))


def time_cold(folder: Path) -> float | None:
    """Seconds of a new process with one query whose gallery the system has to read; None: not on Linux."""
    if not drop_from_cache(folder / "gallery.db"):
        return None
    seconds, _ = time_once(
        lambda: subprocess.run([sys.executable, "-c", ONE_QUERY, str(folder), str(TOP)], check=True)
    )
    return seconds


def measure(photos: int, kind: str, folder: Path) -> None:
    """Print one row of the table for each way of searching."""
    built = in_new_process(build, folder, photos, kind)
    new_process = time_process([sys.executable, "-c", ONE_QUERY, str(folder), str(TOP)], PROCESSES)
    cold = time_cold(folder)
    rows = in_new_process(count_rows, folder)
    found = search_in_turn(folder)
    flat = found["flat"].timings.median
    truth = [set(answer.photos) for answer in found["product"].answers]
    for way, searched in found.items():
        recalls = [len(right & set(a.photos)) / TOP for right, a in zip(truth, searched.answers, strict=True)]
        print_row(
            f"{photos * REGIONS:,}",
            kind,
            way,
            format_seconds(searched.timings.median),
            format_seconds(searched.timings.p95),
            f"{searched.timings.median / flat:.2f}x",
            f"{statistics.mean(recalls):.4f}",
            f"{min(recalls):.2f}",
            f"{searched.memory / 1e6:.0f} MB",
            format_seconds(built.seconds if way == "gallery" else searched.opening),
        )
    print(
        f"\nGallery: {statistics.median(rows):,.0f} rows scored (most: {max(rows):,}), "
        f"{built.bytes_per_photo / 1e3:.1f} kB of vectors and index per photo, one query in a new process "
        f"{new_process}, with nothing in the system's cache {format_seconds(cold or math.nan)}\n"
    )
    plain, parts = in_new_process(time_parts, folder)
    print(
        f"With another object and a relation: {parts}, without: {plain}, "
        f"{parts.median / plain.median:.1f}x\n",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every size and print the table."""
    parser = BenchParser(__doc__, arguments)
    parser.add_argument(
        "--sizes",
        default="10000" if parser.quick else "10000,100000,1000000",
        help=f"regions, separated by commas; a multiple of {REGIONS}, at least {REGIONS * TOP}",
    )
    parser.add_argument(
        "--kinds",
        default="L/14 nouns" if parser.quick else ",".join(FITTED),
        help=f"models and kinds of queries, separated by commas: {', '.join(FITTED)}",
    )
    options = parser.options()
    # Read by the libraries of every process that starts from here on.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), THREADS)
    kinds = options.kinds.split(",")
    spreads = ", ".join(f"{kind} {score_spread(kind):.3f}" for kind in kinds)
    print_heading(
        f"random vectors, {REGIONS} regions per photo, with means and variances fitted to real CLIP vectors",
        "Yes, in what the time depends on. The standard deviations of a query's cosines with regions are "
        f"{spreads}; real vectors give 0.020 to 0.026 for nouns and 0.037 to 0.042 for captions. The best "
        "photos stand out a little less than real ones, so that a search has to score more rows.",
        f"{THREADS} threads",
    )
    for size in options.sizes.split(","):
        for kind in kinds:
            print_columns(
                "regions",
                "vectors",
                "way",
                f"top {TOP} photos, median",
                "p95",
                "/ flat",
                "recall, mean",
                "least",
                "memory",
                "written or opened in",
            )
            with tempfile.TemporaryDirectory() as folder:
                measure(int(size) // REGIONS, kind, Path(folder))


if __name__ == "__main__":
    main()
