"""Errors about a cluster of machines and the workers on it."""

from dataclasses import dataclass

from matir_cli.errors.base import MatirError


class ClusterError(MatirError):
    """An error about a cluster or its workers; photos that were indexed before are kept."""


@dataclass(eq=False)
class ClusterUnavailable(ClusterError):
    """The cluster at `address` (None: one on this machine) cannot be used because of `reason`."""

    address: str | None
    reason: str

    def __str__(self) -> str:
        if self.address is None:
            return f"no Ray cluster can be started on this machine: {self.reason}."
        return f"the Ray cluster at {self.address} cannot be joined: {self.reason}."


@dataclass(eq=False)
class ClusterTooSmall(ClusterError):
    """There is room for only `room` of `workers` workers with `resources` each, such as "4 CPUs"."""

    workers: int
    resources: str
    room: int

    def __str__(self) -> str:
        wanted = f"{self.workers} workers wanted, with {self.resources} each"
        return f"the cluster has room for only {self.room} of the {wanted}."


@dataclass(eq=False)
class WorkerRefused(ClusterError):
    """The worker on `node` must not index photos because of `reason`: they would not be the same."""

    node: str
    reason: str

    def __str__(self) -> str:
        return f"the worker on {self.node} is refused: {self.reason}."


@dataclass(eq=False)
class WorkersFailed(ClusterError):
    """No worker can go on because of `reason`."""

    reason: str

    def __str__(self) -> str:
        return f"the workers cannot go on: {self.reason}."
