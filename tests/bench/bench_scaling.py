"""Simulation of galleries on many machines: the answer of all shards, and what sizes take.

    python -m tests.bench.bench_scaling [--quick] [--queries N]

Nothing is measured here. The latencies of a shard are drawn so that median and 95th percentile are those of
stage 1 on the performance page; a small share of the requests finds nothing in the system's cache and takes
what was measured for that. A query waits for the slowest shard. Hedged requests go to a second copy of the
shard when the first has not answered after a delay; a lost shard never answers. The second table is
arithmetic on the costs that `Costs` states, measured or assumed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.bench.measuring import BenchParser, format_seconds, print_columns, print_heading, print_row

LatencyArray = NDArray[np.float64]
"""(queries, shards) float64, seconds."""

Z95 = 1.6449
"""Standard normal quantile of 0.95."""


@dataclass(frozen=True, slots=True)
class ShardLatency:
    """Latency of stage 1 on a shard of a million regions."""

    median: float
    """Seconds, with the index in the system's cache."""
    p95: float
    """Seconds, likewise."""
    cold: float
    """Seconds, with nothing in the cache."""
    cold_share: float
    """Share of the requests that find nothing in the cache."""

    def draw(self, random: np.random.Generator, queries: int, shards: int) -> LatencyArray:
        """Draw latencies: log-normal, and cold ones that vary by as much."""
        sigma = math.log(self.p95 / self.median) / Z95
        warm = self.median * np.exp(sigma * random.standard_normal((queries, shards)))
        cold = self.cold * np.exp(sigma * random.standard_normal((queries, shards)))
        return np.where(random.random((queries, shards)) < self.cold_share, cold, warm)


BUSY = ShardLatency(median=0.296, p95=0.393, cold=1.35, cold_share=0.005)
"""The busy machine of the performance page, and a search with nothing in the cache; its share is assumed."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Latencies of whole queries, and the requests that they cost."""

    seconds: NDArray[np.float64]
    """(queries,) float64; infinite where a shard never answers."""
    requests: float
    """Requests per shard and query."""

    def quantile(self, share: float) -> str:
        """Return a quantile of the latencies for people."""
        value = float(np.quantile(self.seconds, share, method="higher"))
        return format_seconds(value) if math.isfinite(value) else "never"


def ask_once(first: LatencyArray) -> Answers:
    """Wait for all shards."""
    return Answers(first.max(axis=1), 1.0)


def ask_hedged(first: LatencyArray, second: LatencyArray, delay: float) -> Answers:
    """Ask a second copy of each shard that is late by `delay` seconds; the first answer counts."""
    late = first > delay
    each = np.where(late, np.minimum(first, delay + second), first)
    return Answers(each.max(axis=1), 1.0 + float(late.mean()))


def simulate(shards: int, queries: int, latency: ShardLatency = BUSY) -> dict[str, Answers]:
    """Return the answers of each way to ask `shards` shards, by its name."""
    random = np.random.default_rng(shards)
    first, second = (latency.draw(random, queries, shards) for _ in range(2))
    lost = first.copy()
    lost[:, 0] = np.inf
    return {
        "each shard once": ask_once(first),
        "hedged": ask_hedged(first, second, latency.p95),
        "one shard lost": ask_once(lost),
        "one shard lost, hedged": ask_hedged(lost, second, latency.p95),
    }


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs per photo of 50 regions, and per query."""

    index_bytes: float = 105e3
    """Vectors, codes, rows and masks; 100 to 110 kB, estimated on the scaling page."""
    preview_bytes: float = 150e3
    """100 to 200 kB, estimated likewise."""
    code_bytes: float = 50 * 392
    """Codes that every query reads: 392 MB per million regions, measured."""
    query_seconds: float = 50 * 90e-9
    """Processor time of stage 1: 90 ms per million regions, measured."""
    gpu_seconds: float = 2.0
    """Proposing and encoding on a GPU with 24 GB: calculated on the evaluation page, never measured."""
    write_seconds: float = 3.5e-3
    """Storing, measured: what one file can take in."""
    gpu_price: float = 0.6
    """USD per hour for such a GPU, 0.40 to 0.80."""
    memory_per_machine: float = 256e9
    """Bytes for codes in a machine's cache; assumed."""
    cores_per_machine: int = 64
    """Assumed."""


COSTS = Costs()


@dataclass(frozen=True, slots=True)
class Size:
    """What a number of photos takes."""

    index_bytes: float
    preview_bytes: float
    gpu_days: float
    gpu_money: float
    write_days: float
    """For a single file."""
    machines: int
    """That hold all codes in memory."""
    core_seconds: float
    """Processor time of stage 1 per query."""
    least_seconds: float
    """Time of stage 1 if all cores of these machines work on it at once, without stragglers."""


def size_of(photos: float, costs: Costs = COSTS) -> Size:
    """Compute what `photos` photos take."""
    machines = math.ceil(photos * costs.code_bytes / costs.memory_per_machine)
    core_seconds = photos * costs.query_seconds
    return Size(
        index_bytes=photos * costs.index_bytes,
        preview_bytes=photos * costs.preview_bytes,
        gpu_days=photos * costs.gpu_seconds / 86400,
        gpu_money=photos * costs.gpu_seconds / 3600 * costs.gpu_price,
        write_days=photos * costs.write_seconds / 86400,
        machines=machines,
        core_seconds=core_seconds,
        least_seconds=core_seconds / (machines * costs.cores_per_machine),
    )


def format_bytes(count: float) -> str:
    """A number of bytes in GB, TB or PB."""
    for unit, size in (("PB", 1e15), ("TB", 1e12)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e9:.0f} GB"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = BenchParser(__doc__, arguments)
    parser.add_size("--queries", 20_000, 500, "simulated queries per number of shards")
    options = parser.options()
    print_heading(
        "latencies drawn with the median and the 95th percentile of a shard of a million regions",
        "A simulation. The latencies of a shard are those of a busy machine; that shards are independent and "
        "that one request in 200 finds a cold cache are assumptions.",
    )
    print_columns("shards, way", "median", "p95", "p99", "requests per shard")
    for shards in (1, 10, 100, 1000):
        queries = max(100, options.queries // max(1, shards // 100))
        for way, answers in simulate(shards, queries).items():
            quantiles = [answers.quantile(share) for share in (0.5, 0.95, 0.99)]
            print_row(f"{shards:,}, {way}", *quantiles, f"{answers.requests:.3f}")
    print()
    print_columns(
        "photos", "index", "previews", "GPU days", "GPU money", "writing to one file", "machines", "stage 1"
    )
    for exponent in (6, 8, 10):
        size = size_of(10**exponent)
        print_row(
            f"10^{exponent}",
            format_bytes(size.index_bytes),
            format_bytes(size.preview_bytes),
            f"{size.gpu_days:,.0f}",
            f"{size.gpu_money:,.0f}",
            f"{size.write_days:,.1f} days",
            size.machines,
            f"{size.core_seconds:,.1f} core s, {format_seconds(size.least_seconds)} at least",
        )


if __name__ == "__main__":
    main()
