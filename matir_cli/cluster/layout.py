"""Number and size of the workers on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matir_cli.cluster.options import RayOptions
from matir_cli.errors import ClusterTooSmall

_ROUNDING = 1e-6
"""Fractions of a GPU add up to this precision."""


@dataclass(frozen=True, slots=True)
class NodeSize:
    """Resources of one node."""

    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class WorkerLayout:
    """Number of workers, and the resources of each."""

    workers: int
    cpus: int
    gpus: float


def lay_out(nodes: Sequence[NodeSize], options: RayOptions, *, uses_gpus: bool) -> WorkerLayout:
    """Decide how many workers of what size a cluster gets.

    By default, each GPU has a worker, with its part of its node's CPUs; without GPUs, each node has one
    with all its CPUs, as `matir add` would use them there.

    Args:
        uses_gpus: workers may run the models on a GPU.

    Raises:
        ClusterTooSmall: the cluster has no room for the workers that are asked for.
    """
    gpus = options.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if uses_gpus and any(node.gpus >= 1 for node in nodes) else 0.0
    wanted = options.workers
    cpus = options.cpus_per_worker or _most_cpus(nodes, gpus, wanted)
    room = _count_room(nodes, cpus, gpus)
    if room < (wanted or 1):
        resources = f"{cpus} CPUs and {gpus:g} GPUs" if gpus else f"{cpus} CPUs"
        raise ClusterTooSmall(wanted or 1, resources, room)
    return WorkerLayout(wanted or room, cpus, gpus)


def _most_cpus(nodes: Sequence[NodeSize], gpus: float, wanted: int | None) -> int:
    """Return the most CPUs per worker that leave room for the workers wanted; at least 1."""
    if wanted is None:
        usable = [node for node in nodes if node.gpus >= gpus and node.cpus >= 1]
        if not gpus:
            return min((int(node.cpus) for node in usable), default=1)
        return min((max(1, int(node.cpus / _whole(node.gpus / gpus))) for node in usable), default=1)
    largest = max((int(node.cpus) for node in nodes), default=1)
    return next((n for n in range(largest, 1, -1) if _count_room(nodes, n, gpus) >= wanted), 1)


def _count_room(nodes: Sequence[NodeSize], cpus: int, gpus: float) -> int:
    by_cpus = (_whole(node.cpus / cpus) for node in nodes)
    if not gpus:
        return sum(by_cpus)
    by_gpus = (_whole(node.gpus / gpus) for node in nodes)
    return sum(map(min, by_cpus, by_gpus))


def _whole(quotient: float) -> int:
    return int(quotient + _ROUNDING)
