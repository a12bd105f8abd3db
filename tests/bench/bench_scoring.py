"""Bench of scoring: from scores and predicted masks to the two figures.

    python -m tests.bench.bench_scoring [--quick] [--plain-queries 20]

Data of the size of the paper's two sets, all of it random: the photos that fulfil a query, one to
five instances in each of them, masks that are wobbly ellipses. A query's scores are noise, raised for
relevant photos so that about half of the first 50 are relevant: masks are compared only there. Half
of the predicted masks are an instance's own, moved a little; the others lie anywhere. In the last row
photos are 1280 x 960, so that masks predicted at working size are scaled first.

The plain way, for the first queries: sort all photos, decode both masks and compare them pixel by
pixel. Its hits must be the same, except where masks were scaled.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matir_cli import masks
from matir_cli.evaluation import metrics
from matir_cli.evaluation.datasets.dataset import Dataset, EvalImage, EvalQuery
from matir_cli.records import Rle
from tests.bench.measuring import BenchParser, format_seconds, print_columns, print_heading, print_row


@dataclass(frozen=True)
class Size:
    """Size of a data set."""

    name: str
    photos: int
    queries: int
    relevant: int
    """Positive (photo, query) pairs."""
    width: int = 640
    height: int = 480
    predicted_at: float = 1.0
    """Side of a predicted mask as a fraction of the photo's side."""
    pool: int = 200
    """Different masks."""


SIZES = (
    Size("COCO val2017", 5000, 80, 14_600),
    Size("D3", 10_578, 422, 18_000),
    Size("D3, larger photos", 10_578, 422, 18_000, 1280, 960, 0.8),
)

QUICK_SIZES = (
    Size("COCO val2017", 100, 4, 80, pool=10),
    Size("D3", 100, 4, 60, pool=10),
    Size("D3, larger photos", 100, 4, 60, 1280, 960, 0.8, pool=10),
)


@dataclass
class Clock:
    """Seconds spent in each step."""

    steps: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def at(self, step: str) -> Iterator[None]:
        """Add the time of the block to `step`."""
        started = time.perf_counter()
        yield
        self.steps[step] = self.steps.get(step, 0.0) + time.perf_counter() - started


def blob(rng: np.random.Generator, width: int, height: int) -> Callable[[float, float, float], Rle]:
    """A function that draws one shape, at a scale and moved by fractions of its size."""
    across, down = width * rng.beta(1.2, 5) + 6, height * rng.beta(1.2, 5) + 6
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    waves, depth = rng.integers(3, 15), rng.uniform(0, 0.3)

    def draw(scale: float, right: float, below: float) -> Rle:
        rows, columns = np.ogrid[: round(height * scale), : round(width * scale)]
        u = (columns / scale - x) / across - right
        v = (rows / scale - y) / down - below
        return masks.encode(u * u + v * v < (1 + depth * np.sin(waves * np.arctan2(v, u))) ** 2)

    return draw


def make_dataset(size: Size, rng: np.random.Generator) -> tuple[Dataset, list[Rle], list[Rle]]:
    """A data set, its pool of masks, and the same masks at the predictions' size, moved a little."""
    shapes = [blob(rng, size.width, size.height) for _ in range(size.pool)]
    pool = [draw(1.0, 0.0, 0.0) for draw in shapes]
    near = [draw(size.predicted_at, *rng.normal(0, 0.1, 2)) for draw in shapes]
    share = rng.lognormal(0, 1, size.queries)
    counts = np.clip(share / share.sum() * size.relevant, 5, size.photos).astype(int)
    truth = {
        query: {
            int(photo): tuple(pool[i] for i in rng.integers(0, size.pool, rng.integers(1, 6)))
            for photo in rng.choice(size.photos, count, replace=False)
        }
        for query, count in enumerate(counts)
    }
    images = tuple(EvalImage(n, str(n), Path(str(n)), size.width, size.height) for n in range(size.photos))
    queries = tuple(EvalQuery(n, str(n)) for n in range(size.queries))
    return Dataset(size.name, images, queries, truth, ""), pool, near


def draw_scores(dataset: Dataset, query: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(photos,) noise; as many irrelevant photos as relevant ones (50 at most) reach to the top."""
    scores = rng.random(len(dataset.images))
    relevant = np.fromiter(dataset.relevant_images(query), int)
    scores[relevant] += 1.0
    scores[rng.choice(scores.size, min(50, relevant.size), replace=False)] += 1.0
    scores[rng.choice(relevant, relevant.size // 2)] += 0.3
    return scores


def draw_predictions(
    dataset: Dataset, query: int, ranking: list[int], moved: dict[bytes, Rle], rng: np.random.Generator
) -> list[Rle]:
    """One mask per photo: near one of its instances, or anywhere."""
    anywhere = list(moved.values())
    return [
        moved[instances[0].counts]
        if (instances := dataset.instances(query, photo)) and rng.random() < 0.5
        else anywhere[rng.integers(len(anywhere))]
        for photo in ranking
    ]


def score_plainly(
    dataset: Dataset, query: int, scores: NDArray[np.float64], predicted: Sequence[Rle]
) -> NDArray[np.bool_]:
    """(depth,) object-level hits: photos sorted in Python, masks compared pixel by pixel."""
    order = sorted(range(scores.size), key=lambda photo: (-scores[photo], photo))[: metrics.DEPTH]
    hits = []
    for photo, rle in zip(order, predicted, strict=True):
        instances = dataset.instances(query, photo)
        hit = False
        for instance in instances:
            truth = masks.decode(instance)
            mask = masks.resize(masks.decode(rle), *truth.shape)
            hit |= bool((mask & truth).sum() >= metrics.MIN_IOU * (mask | truth).sum())
        hits.append(hit)
    return np.array(hits)


def measure(size: Size, plain_queries: int) -> None:
    """Print one row of the table."""
    rng = np.random.default_rng(0)
    dataset, pool, near = make_dataset(size, rng)
    moved = {mask.counts: other for mask, other in zip(pool, near, strict=True)}
    ids = np.arange(size.photos)
    clock, at_image, at_object, compared = Clock(), [], [], 0
    plain, same_queries = Clock(), 0.0
    for query in range(size.queries):
        scores = draw_scores(dataset, query, rng)
        with clock.at("ranking"):
            ranking = metrics.rank_images(ids, scores, depth=metrics.DEPTH).tolist()
        predicted = draw_predictions(dataset, query, ranking, moved, rng)
        with clock.at("image level"):
            relevant = len(dataset.relevant_images(query))
            hits = metrics.image_hits(dataset, query, ranking)
            at_image.append(metrics.average_precision(hits, relevant))
        compared += int(hits.sum())
        with clock.at("object level"):
            hits = metrics.object_hits(dataset, query, ranking, predicted)
            at_object.append(metrics.average_precision(hits, relevant))
        if query < plain_queries:
            same_queries = sum(clock.steps.values())
            with plain.at("all"):
                plain_hits = score_plainly(dataset, query, scores, predicted)
            if size.predicted_at == 1.0 and not np.array_equal(hits, plain_hits):
                raise SystemExit("the plain way finds other hits")
    with clock.at("intervals"):
        summaries = metrics.summarise(at_image), metrics.summarise(at_object)
    print_row(
        f"{size.name}: {size.photos:,} x {size.queries}",
        f"{compared:,}",
        *map(format_seconds, clock.steps.values()),
        f"**{format_seconds(sum(clock.steps.values()))}**",
        f"{plain.steps['all'] / same_queries:.0f}x",
        *(f"{100 * summary.mean_by_relevant:.1f}" for summary in summaries),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every size and print the table."""
    parser = BenchParser(__doc__, arguments)
    parser.add_size("--plain-queries", 20, 2, "queries that are scored the plain way as well")
    options = parser.options()
    print_heading(
        "random scores and masks in data sets of the sizes of COCO val2017 and D3",
        "In the number of photos, queries, relevant pairs and instances; masks are smoother than real ones, "
        "which have longer run lengths.",
    )
    print_columns(
        "photos x queries",
        "masks compared",
        "ranking",
        "image level",
        "object level",
        "intervals",
        "all",
        f"faster than the plain way ({options.plain_queries} queries)",
        "mAP@50",
        "mAP@50@50",
    )
    for size in QUICK_SIZES if parser.quick else SIZES:
        measure(size, options.plain_queries)


if __name__ == "__main__":
    main()
