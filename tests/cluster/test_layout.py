"""Tests of the number and size of workers."""

import pytest

from matir_cli.cluster.layout import NodeSize, WorkerLayout, lay_out
from matir_cli.cluster.options import RayOptions
from matir_cli.errors import ClusterTooSmall, OutOfRange

CPUS = [NodeSize(8, 0), NodeSize(4, 0)]
GPUS = [NodeSize(4, 0), NodeSize(16, 4), NodeSize(16, 2)]


@pytest.mark.parametrize(
    ("nodes", "options", "uses_gpus", "layout"),
    [
        ([NodeSize(8, 0)], RayOptions(), True, WorkerLayout(1, 8, 0)),
        (CPUS, RayOptions(), True, WorkerLayout(3, 4, 0)),
        (CPUS, RayOptions(workers=6), True, WorkerLayout(6, 2, 0)),
        (CPUS, RayOptions(workers=2), True, WorkerLayout(2, 4, 0)),
        (CPUS, RayOptions(cpus_per_worker=1), True, WorkerLayout(12, 1, 0)),
        (GPUS, RayOptions(), True, WorkerLayout(6, 4, 1)),
        (GPUS, RayOptions(), False, WorkerLayout(9, 4, 0)),
        (GPUS, RayOptions(gpus_per_worker=0.5), True, WorkerLayout(12, 2, 0.5)),
        (GPUS, RayOptions(workers=2), True, WorkerLayout(2, 16, 1)),
        ([NodeSize(2, 0.3)], RayOptions(gpus_per_worker=0.1), True, WorkerLayout(2, 1, 0.1)),
    ],
)
def test_workers_fill_the_cluster(
    nodes: list[NodeSize], options: RayOptions, uses_gpus: bool, layout: WorkerLayout
) -> None:
    assert lay_out(nodes, options, uses_gpus=uses_gpus) == layout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RayOptions(workers=13), "only 12 of the 13 workers wanted, with 1 CPUs each"),
        (
            RayOptions(cpus_per_worker=16),
            "only 0 of the 1 workers wanted, with 16 CPUs each",
        ),
        (RayOptions(gpus_per_worker=1), "only 0 of the 1 workers wanted, with 1 CPUs and 1 GPUs each"),
    ],
)
def test_a_cluster_that_is_too_small_is_refused(options: RayOptions, message: str) -> None:
    with pytest.raises(ClusterTooSmall, match=message):
        lay_out(CPUS, options, uses_gpus=True)


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(OutOfRange, match="workers"):
        RayOptions(workers=0)
    with pytest.raises(OutOfRange, match="cpus"):
        RayOptions(cpus_per_worker=0)
    with pytest.raises(OutOfRange, match="gpus"):
        RayOptions(gpus_per_worker=-1)
