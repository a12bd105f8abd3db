"""Simulation of one search over many galleries on many machines, from measured times of a single one.

    python -m tests.bench.bench_shards [--quick] [--photos 20000] [--queries 2000]

A query goes to all shards at once, and is answered when the last of them has answered. Each shard lies on two
machines. An answer takes a time drawn from those measured on one gallery of this size; now and then it is a
straggler: its machine is busy, or has to read its gallery from the disk. A hedged request (Dean and Barroso,
"The Tail at Scale", 2013) asks a shard's second machine once the first has taken longer than 95% of the
measured answers do, and takes what comes first. Requests do not wait for each other in queues, so the load is
a light one. Networks and the merging of the answers, 100 photos of each shard, are left out.
"""

import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.bench.bench_search import (
    ONE_QUERY,
    REGIONS,
    TOP,
    Search,
    build,
    open_gallery,
    time_cold,
)
from tests.bench.measuring import (
    BenchParser,
    Timings,
    format_seconds,
    in_new_process,
    print_columns,
    print_heading,
    print_row,
    time_once,
    time_rounds,
)

BUSY, SLOWER = 0.01, 10.0
"""Share of answers by a busy machine, and how many times longer they take."""
UNREAD = 0.001
"""Share of answers for which a gallery must be read from the disk."""
HEDGED_AFTER = 0.95
"""Share of measured answers that have come when a second machine is asked."""

Seconds = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """Times of a single gallery, seconds."""

    warm: Seconds
    """Of searches in a warm process, (n,)."""
    cold: float
    """Of a search whose gallery has to be read from the disk."""

    @property
    def hedged_after(self) -> float:
        """Seconds after which a second machine is asked."""
        return float(np.quantile(self.warm, HEDGED_AFTER))

    def draw(self, rng: np.random.Generator, *shape: int) -> Seconds:
        """Times of independent answers, stragglers included."""
        times = rng.choice(self.warm, shape)
        straggling = rng.random(shape)
        times[straggling < BUSY] *= SLOWER
        times[straggling > 1 - UNREAD] = self.cold
        return times


@dataclass(frozen=True, slots=True)
class Simulated:
    """Queries to a number of shards; each time is that until the last shard has answered, (queries,)."""

    plain: Seconds
    """One machine is asked for each shard."""
    hedged: Seconds
    """A second machine is asked where the first takes long."""
    asked_twice: float
    """Share of requests with a second one."""
    one_down: Seconds
    """As `hedged`, while one machine does not answer at all."""
    missing: NDArray[np.int64]
    """How many of the best photos lie in one shard, and are missing if both of its machines are down."""


def simulate(measured: Measured, shards: int, queries: int, rng: np.random.Generator) -> Simulated:
    """Put queries to so many shards."""
    plain, hedged, one_down = (np.empty(queries) for _ in range(3))
    twice = 0
    for query in range(queries):
        first, second = measured.draw(rng, 2, shards)
        best = np.minimum(first, measured.hedged_after + second)
        plain[query], hedged[query] = first.max(), best.max()
        twice += int((first > measured.hedged_after).sum())
        best[0] = measured.hedged_after + second[0]
        one_down[query] = best.max()
    missing = rng.binomial(TOP, 1 / shards, queries)
    return Simulated(plain, hedged, twice / (shards * queries), one_down, missing)


def time_searches(folder: Path, rounds: int) -> tuple[float, ...]:
    """Seconds of all queries, `rounds` times, in a warm process."""
    search: Search = open_gallery(folder)
    queries = np.load(folder / "queries.npy")
    search(queries[0])
    return tuple(time_once(partial(search, query))[0] for _ in range(rounds) for query in queries)


def measure(photos: int, rounds: int) -> Measured:
    """Write a gallery and search it warm and cold."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_new_process(build, folder, photos)
        warm = in_new_process(time_searches, folder, rounds)
        command = [sys.executable, "-c", ONE_QUERY, str(folder), str(TOP)]
        started, _ = time_rounds(lambda: subprocess.run(command, check=True), 3)
        cold = time_cold(folder) or started.median
    return Measured(np.array(warm), max(cold - started.median, 0.0) + Timings(warm).median)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one gallery and print a row for each number of shards."""
    parser = BenchParser(__doc__, arguments)
    parser.add_size("--photos", 20_000, 200, "photos of a shard")
    parser.add_size("--queries", 2_000, 50, "simulated queries")
    parser.add_size("--rounds", 8, 1, "searches of each measured query")
    options = parser.options()
    measured = measure(options.photos, options.rounds)
    print_heading(
        f"times measured on a gallery of {options.photos:,} photos with {REGIONS} regions each "
        f"(warm {Timings(tuple(measured.warm))}, read from the disk {format_seconds(measured.cold)}), "
        f"{BUSY:.0%} of answers {SLOWER:.0f} times slower, {UNREAD:.1%} read from the disk",
        "Times are those of vectors with real statistics; the stragglers and their shares are assumed.",
        f"second machine asked after {format_seconds(measured.hedged_after)}",
    )
    columns = ("shards", "photos", "one machine per shard, median", "p95", "hedged, median", "p95")
    print_columns(*columns, "asked twice", "one machine down, p95", "a shard lost: missing of 100", "p95")
    rng = np.random.default_rng(0)
    for shards in (1, 10, 100) if parser.quick else (1, 10, 50, 500, 5_000):
        done = simulate(measured, shards, options.queries, rng)
        plain, hedged, down = (Timings(tuple(times)) for times in (done.plain, done.hedged, done.one_down))
        print_row(
            f"{shards:,}",
            f"{shards * options.photos:,}",
            format_seconds(plain.median),
            format_seconds(plain.p95),
            format_seconds(hedged.median),
            format_seconds(hedged.p95),
            f"{done.asked_twice:.1%}",
            format_seconds(down.p95),
            f"{done.missing.mean():.2f}",
            math.ceil(np.quantile(done.missing, 0.95)),
        )


if __name__ == "__main__":
    main()
