"""Options of indexing on a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass

from matir_cli.records import check_range

AUTO = "auto"
"""Address that stands for the cluster in RAY_ADDRESS, or else one that is started on this machine."""


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Where photos are indexed, by how many workers, and how these get photos and models.

    Raises:
        OutOfRange: a number is impossible; this is also a ValueError.
    """

    address: str = AUTO
    """HOST:PORT of a cluster that this machine is part of, or "auto"."""
    workers: int | None = None
    """Number of workers; None: as many as the cluster has room for."""
    gpus_per_worker: float | None = None
    """GPUs of each worker, such as 0.5; None: 1 if the cluster has GPUs and the device may be one."""
    cpus_per_worker: int | None = None
    """CPUs, and threads, of each worker; None: as many as there are for that number of workers."""
    shared_files: bool = False
    """Workers see the photos under the same paths, and read them there."""
    ship_models: bool = False
    """Send the files of the models to the workers, once per node, instead of looking for them there."""

    def __post_init__(self) -> None:
        check_range("workers", self.workers, 1)
        check_range("gpus_per_worker", self.gpus_per_worker, 0)
        check_range("cpus_per_worker", self.cpus_per_worker, 1)
