"""Tests of what the benches share, and of the simulation of shards."""

import numpy as np
import pytest

from tests.bench.__main__ import main
from tests.bench.bench_scaling import simulate, size_of
from tests.bench.measuring import Timings, format_seconds


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--quick", "no-such-bench"])
    assert ended.value.code == 2
    assert "no such bench: no-such-bench; choose from add, encoder" in capsys.readouterr().err


def test_hedged_requests_hide_slow_and_lost_shards() -> None:
    ways = simulate(100, 2000)
    plain, hedged = ways["each shard once"], ways["hedged"]
    assert (hedged.seconds <= plain.seconds).all()
    assert np.quantile(hedged.seconds, 0.95) < 0.6 * np.quantile(plain.seconds, 0.95)
    assert 1.05 <= hedged.requests <= 1.06  # one in twenty is late by definition, and the cold ones
    assert np.isinf(ways["one shard lost"].seconds).all()
    assert np.isfinite(ways["one shard lost, hedged"].seconds).all()


def test_sizes_are_proportional() -> None:
    small, large = size_of(10**6), size_of(10**8)
    assert small.index_bytes == 105e9
    assert small.core_seconds == pytest.approx(4.5)
    assert large.core_seconds == pytest.approx(450)
    assert (small.machines, large.machines) == (1, 8)


def test_timings() -> None:
    timings = Timings(tuple(float(n) for n in range(1, 21)))
    assert timings.median == 10.5
    assert timings.p95 == 19.0
    assert Timings((0.25,)).p95 == 0.25
    assert str(timings) == "10.50 s (p95 19.00 s)"
    assert format_seconds(0.01234) == "12.3 ms"
