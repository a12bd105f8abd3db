"""Scoring alone: from scores and predicted masks to mAP@50, mAP@50@50 and their intervals.

    python -m tests.bench.bench_scoring

Data of the size of the paper's two sets, all of it random: how many photos fulfil a query, one to
five instances in each of them, wobbly ellipses for masks. A query's scores are noise, raised for
relevant photos so that about half of the first 50 are relevant: only there masks are compared.
Half of the predicted masks are an instance's own, moved a little; the others lie anywhere. In the
last row photos are 1280 x 960, so that masks predicted at working size are scaled before.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matir_cli import masks
from matir_cli.evaluation import metrics
from matir_cli.evaluation.datasets.dataset import Dataset, EvalImage, EvalQuery
from matir_cli.records import Rle

POOL = 200
"""Different masks."""


@dataclass(frozen=True)
class Size:
    """How large a data set is."""

    name: str
    photos: int
    queries: int
    relevant: int
    """Positive (photo, query) pairs."""
    width: int = 640
    height: int = 480
    predicted_at: float = 1.0
    """Side of a predicted mask as a fraction of the photo's."""


SIZES = (
    Size("COCO val2017", 5000, 80, 14_600),
    Size("D3", 10_578, 422, 18_000),
    Size("D3, larger photos", 10_578, 422, 18_000, 1280, 960, 0.8),
)


@dataclass
class Clock:
    """Seconds spent in each step."""

    steps: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def at(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.steps[step] = self.steps.get(step, 0.0) + time.perf_counter() - started


def blob(rng: np.random.Generator, width: int, height: int) -> Callable[[float, float, float], Rle]:
    """Draws one shape, at a scale and moved by fractions of its size."""
    across, down = width * rng.beta(1.2, 5) + 6, height * rng.beta(1.2, 5) + 6
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    waves, depth = rng.integers(3, 15), rng.uniform(0, 0.3)

    def draw(scale: float, right: float, below: float) -> Rle:
        rows, columns = np.ogrid[: round(height * scale), : round(width * scale)]
        u = (columns / scale - x) / across - right
        v = (rows / scale - y) / down - below
        return masks.encode(u * u + v * v < (1 + depth * np.sin(waves * np.arctan2(v, u))) ** 2)

    return draw


def made(size: Size, rng: np.random.Generator) -> tuple[Dataset, list[Rle], list[Rle]]:
    """The data set; its pool of masks, moved a little; and the same anywhere else."""
    shapes = [blob(rng, size.width, size.height) for _ in range(POOL)]
    pool = [draw(1.0, 0.0, 0.0) for draw in shapes]
    near = [draw(size.predicted_at, *rng.normal(0, 0.1, 2)) for draw in shapes]
    share = rng.lognormal(0, 1, size.queries)
    counts = np.clip(share / share.sum() * size.relevant, 5, size.photos).astype(int)
    truth = {
        query: {
            int(photo): tuple(pool[i] for i in rng.integers(0, POOL, rng.integers(1, 6)))
            for photo in rng.choice(size.photos, count, replace=False)
        }
        for query, count in enumerate(counts)
    }
    images = tuple(EvalImage(n, str(n), Path(str(n)), size.width, size.height) for n in range(size.photos))
    queries = tuple(EvalQuery(n, str(n)) for n in range(size.queries))
    return Dataset(size.name, images, queries, truth, ""), pool, near


def scores_of(dataset: Dataset, query: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(photos,) noise; as many irrelevant photos as relevant ones (50 at most) reach to the top."""
    scores = rng.random(len(dataset.images))
    relevant = np.fromiter(dataset.relevant_images(query), int)
    scores[relevant] += 1.0
    scores[rng.choice(scores.size, min(50, relevant.size), replace=False)] += 1.0
    scores[rng.choice(relevant, relevant.size // 2)] += 0.3
    return scores


def guesses(
    dataset: Dataset, query: int, ranking: list[int], like: dict[bytes, Rle], rng: np.random.Generator
) -> list[Rle]:
    """One mask a photo: near one of its instances, or anywhere."""
    everywhere = list(like.values())
    return [
        like[shown[0].counts]
        if (shown := dataset.instances(query, photo)) and rng.random() < 0.5
        else everywhere[rng.integers(POOL)]
        for photo in ranking
    ]


def measure(size: Size) -> str:
    """One row of the table."""
    rng = np.random.default_rng(0)
    dataset, pool, near = made(size, rng)
    like = {mask.counts: moved for mask, moved in zip(pool, near, strict=True)}
    ids = np.arange(size.photos)
    clock, at_image, at_object, compared = Clock(), [], [], 0
    for query in range(size.queries):
        scores = scores_of(dataset, query, rng)
        with clock.at("ranking"):
            ranking = metrics.rank_images(ids, scores, depth=metrics.DEPTH).tolist()
        predicted = guesses(dataset, query, ranking, like, rng)
        with clock.at("image level"):
            relevant = len(dataset.relevant_images(query))
            hits = metrics.image_hits(dataset, query, ranking)
            at_image.append(metrics.average_precision(hits, relevant))
        compared += int(hits.sum())
        with clock.at("object level"):
            hits = metrics.object_hits(dataset, query, ranking, predicted)
            at_object.append(metrics.average_precision(hits, relevant))
    with clock.at("intervals"):
        summaries = metrics.summarise(at_image), metrics.summarise(at_object)
    cells = [
        f"{size.name}: {size.photos:,} x {size.queries}",
        f"{compared:,}",
        *(f"{seconds:.2f} s" for seconds in clock.steps.values()),
        f"**{sum(clock.steps.values()):.1f} s**",
        *(f"{100 * summary.mean_by_relevant:.1f}" for summary in summaries),
    ]
    return "| " + " | ".join(cells) + " |"


HEADER = (
    "| photos x queries | masks compared | ranking | image level | object level | intervals | all "
    "| mAP@50 | mAP@50@50 |\n|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    print(HEADER, flush=True)
    for size in SIZES:
        print(measure(size), flush=True)


if __name__ == "__main__":
    main()
