"""Workers as Ray actors, on a cluster that is joined or on one that is started on this machine."""

from __future__ import annotations

import logging
import os
import platform
import re
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matir_cli.cluster.dispatch import PER_WORKER, Answer, Dispatcher, Unseen, WorkerLost
from matir_cli.cluster.layout import NodeSize, WorkerLayout, lay_out
from matir_cli.cluster.options import AUTO, RayOptions
from matir_cli.cluster.worker import Fault, PhotoWorker, installed_version
from matir_cli.cluster.worker_models import ShippedFile, WorkerModels
from matir_cli.engines.options import PRECISION_VARIABLE
from matir_cli.errors import ClusterUnavailable, PackageMissing, WorkerRefused, WorkersFailed
from matir_cli.indexing.in_progress import EncodedPhoto, FileNote, NewFile, RefusedFile
from matir_cli.indexing.pipeline import IndexingModels
from matir_cli.model_sets.session import INDEXING_PARTS, ModelSession
from matir_cli.model_sets.weights import sha256_of
from matir_cli.photos.decode import decode_timeout
from matir_cli.progress import no_progress

ADDRESS_VARIABLE = "RAY_ADDRESS"
"""Environment variable that names the cluster to join, as in all of Ray's programs."""

LOCAL = "local"
"""Ray's address for a cluster that is started on this machine."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would send statistics to Ray's makers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # workers without GPUs: Ray warns about a change to come
}
"""Settings that Ray reads when it is imported and started; those of the user come first."""

_CONNECT_SECONDS = 10.0
"""Seconds that a cluster has to answer."""

_LONGEST_FOLDER = 20
"""Characters of a folder of temporary files that leaves room for the names of Ray's sockets."""

_LOST_NODE = re.compile("its node has died|actor's node was terminated")
"""Ray's words for a worker that has ended with its node."""

_REASON_LENGTH = 200
"""Characters of Ray's explanations that are shown."""


class PhotoActor(PhotoWorker):
    """A worker that says where it is."""

    def report(self) -> tuple[str, str, Fault | None]:
        """Load the models; return the node's id (hex), its name, and why the worker must not be used."""
        import ray

        return ray.get_runtime_context().get_node_id(), platform.node(), self.start()


@dataclass(slots=True)
class _Actor:
    """A worker with the node that it is on, once that is known."""

    handle: Any
    node_id: str = ""


class RayStages:
    """`RemoteStages` on a Ray cluster, which is joined or started when the first new photo is met.

    Use it as a context manager, or call `close`.
    """

    def __init__(
        self, options: RayOptions, load_models: Callable[[], Callable[[], IndexingModels]], device: str
    ) -> None:
        """Create the stages; neither Ray nor a model is loaded yet.

        Args:
            load_models: returns what workers call to load their models; called once the cluster is there.
            device: "auto", "cuda", "mps" or "cpu".

        Raises:
            PackageMissing: Ray is not installed.
        """
        self._options = options
        self._load_models = load_models
        self._device = device
        self._cluster: RayCluster | None = None
        self._dispatcher: Dispatcher[_Actor, Any] | None = None

    def __enter__(self) -> RayStages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(
        self, items: Generator[NewFile | FileNote, None, None], previews: bool
    ) -> Generator[EncodedPhoto | FileNote, None, None]:
        """Yield the photos of the new files, in any order, and pass all else on; closes `items`.

        Raises:
            ClusterUnavailable, ClusterTooSmall: there is no place to index photos.
            WorkerRefused, WorkersFailed: the workers cannot be used.
        """
        try:
            first = None
            for item in items:
                if isinstance(item, NewFile):
                    first = item
                    break
                yield item
            if first is None:
                return
            yield from self._started()(_chain(first, items), previews)
        finally:
            items.close()

    def _started(self) -> Dispatcher[_Actor, Any]:
        if self._dispatcher is None:
            self._cluster = RayCluster(self._options.address)
            layout = lay_out(self._cluster.nodes(), self._options, uses_gpus=self._device in ("auto", "cuda"))
            workers = RayWorkers(self._cluster, layout, self._load_models())
            self._dispatcher = Dispatcher(workers, layout.workers, shared_files=self._options.shared_files)
        return self._dispatcher

    def close(self) -> None:
        """End the workers, leave the cluster, and end it if it was started here."""
        dispatcher, self._dispatcher = self._dispatcher, None
        cluster, self._cluster = self._cluster, None
        if dispatcher is not None:
            dispatcher.close()
        if cluster is not None:
            cluster.close()


def _chain(
    first: NewFile, items: Generator[NewFile | FileNote, None, None]
) -> Generator[NewFile | FileNote, None, None]:
    yield first
    yield from items


def indexing_on_ray(session: ModelSession, options: RayOptions) -> RayStages:
    """Return stages that index with the models of a session, which its gallery is bound to.

    Raises:
        PackageMissing: Ray is not installed.
        ModelSetError: as `ModelSession.config`.
    """
    if find_spec("ray") is None:
        raise PackageMissing("ray")
    configs = {part: session.config(part) for part in INDEXING_PARTS}

    def load_models() -> WorkerModels:
        paths = {path for config in configs.values() for path in config.files.values()}
        shipped = {path: _ship(path) for path in paths} if options.ship_models else None
        return WorkerModels(session.models, configs, session.device, shipped)

    return RayStages(options, load_models, session.device)


def _ship(path: Path) -> ShippedFile:
    import ray

    reference = ray.put(np.fromfile(path, np.uint8))
    return ShippedFile(path.name, sha256_of(path, path.name, no_progress), partial(_fetch, reference))


def _fetch(reference: Any) -> NDArray[np.uint8]:
    import ray

    content: NDArray[np.uint8] = ray.get(reference)
    return content


class RayCluster:
    """A connection to a cluster; the process may have made it before, and keeps it then."""

    def __init__(self, address: str) -> None:
        """Join the cluster at `address`, or the one in RAY_ADDRESS for "auto", else start one here.

        Raises:
            ClusterUnavailable: that failed.
        """
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import ray

        self.ray: Any = ray  # typed only where it is installed
        self._folder: Path | None = None
        self._is_ours = not ray.is_initialized()
        if not self._is_ours:
            return
        named = os.environ.get(ADDRESS_VARIABLE) if address == AUTO else address
        wanted = None if named in ("", LOCAL) else named
        try:
            with _kept_signals():
                if wanted:
                    self._join(wanted)
                else:
                    self._start()
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            self.close()
            raise ClusterUnavailable(wanted, _brief(error)) from error
        except BaseException:
            self.close()
            raise

    def _join(self, address: str) -> None:
        if address != AUTO:
            _check_port(address)
        self._connect(address=address)

    def _start(self) -> None:
        """Start a cluster that listens on the loopback interface only.

        Ray replaces 127.0.0.1 by an address that others can reach, except where it supports no clusters.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="matir-ray-", dir=_short_folder()))
        constants = self.ray._private.ray_constants
        supported, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False
        try:
            self._connect(
                address=LOCAL,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(self._folder),
            )
        finally:
            constants.ENABLE_RAY_CLUSTER = supported

    def _connect(self, **settings: Any) -> None:
        self.ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **settings)
        # Ray would still print what it says about lost workers, on standard output.
        self.ray._private.worker._worker_logs_enabled = False

    def nodes(self) -> list[NodeSize]:
        """Return the resources of the living nodes."""
        alive = (node["Resources"] for node in self.ray.nodes() if node["Alive"])
        return [NodeSize(each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in alive]

    def has_node(self, node_id: str) -> bool:
        """Return True if the node with this id (hex) is alive."""
        return any(node["NodeID"] == node_id and node["Alive"] for node in self.ray.nodes())

    def close(self) -> None:
        """Leave the cluster, which ends this process's workers; end it if it was started here."""
        if self._is_ours:
            self.ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class RayWorkers:
    """`Workers` as actors: Ray starts none of them again, since others index their photos."""

    def __init__(
        self, cluster: RayCluster, layout: WorkerLayout, load_models: Callable[[], IndexingModels]
    ) -> None:
        """Prepare the workers; none is started yet. `load_models` is sent to them."""
        self._cluster = cluster
        self._ray = cluster.ray
        self._load_models = cluster.ray.put(load_models)
        self._actor = cluster.ray.remote(PhotoActor).options(
            num_cpus=layout.cpus,
            num_gpus=layout.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=PER_WORKER,
            scheduling_strategy="SPREAD",
        )

    def start(self) -> tuple[_Actor, Any]:
        """Begin to start a worker; the task ends when it has loaded its models."""
        precision = os.environ.get(PRECISION_VARIABLE)
        handle = self._actor.remote(installed_version(), self._load_models, decode_timeout(), precision)
        return _Actor(handle), handle.report.remote()

    def send(self, worker: _Actor, new: NewFile, content: bytes | None, *, previews: bool) -> Any:
        """Let a worker index a photo: from these bytes, or from its file."""
        return worker.handle.index.remote(new, content, previews)

    def wait(self, tasks: Sequence[Any], seconds: float) -> Sequence[Any]:
        """Return tasks that have ended; if there are none, wait for one, this long at most."""
        done, rest = self._ray.wait([*tasks], timeout=seconds)
        more, _ = self._ray.wait(rest, num_returns=len(rest), timeout=0) if rest else ((), ())
        return [*done, *more]

    def result(self, worker: _Actor, task: Any) -> Answer | None:
        """Return what a task that has ended returned; None if it was to start the worker.

        Raises:
            WorkerLost: the worker has ended.
            WorkerRefused, WorkersFailed: an error of the worker, not of a photo.
        """
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(task)
        except errors.RayTaskError as error:
            raise WorkersFailed(_brief(error.cause)) from error
        except errors.RayError as error:
            raise WorkerLost(_why_lost(error), blameless=self._is_blameless(worker, error)) from error
        if isinstance(answer, tuple):
            worker.node_id, node, fault = answer
            if fault is not None:
                raise WorkerRefused(node, fault.reason)
            return None
        if isinstance(answer, Fault):
            raise WorkersFailed(answer.reason)
        assert isinstance(answer, EncodedPhoto | RefusedFile | Unseen)
        return answer

    def end(self, worker: _Actor) -> None:
        """End a worker, whatever it does."""
        self._ray.kill(worker.handle)

    def _is_blameless(self, worker: _Actor, error: Exception) -> bool:
        """Return True if it is not the photos of a worker that have ended it."""
        if not isinstance(error, self._ray.exceptions.ActorDiedError) or _LOST_NODE.search(str(error)):
            return True
        return bool(worker.node_id) and not self._cluster.has_node(worker.node_id)


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Put the handlers of signals back, of which Ray sets its own."""
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if is_main}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


def _check_port(address: str) -> None:
    """Check that somebody listens at HOST:PORT, which Ray itself takes minutes to give up on.

    Raises:
        OSError, ValueError: nobody does, or that is no address.
    """
    host, _, port = address.rpartition(":")
    if "/" in host or not port.isdecimal():
        raise ValueError("it is no HOST:PORT")
    socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()


def _short_folder() -> str | None:
    """Return a folder for temporary files; None for the usual one.

    Ray keeps sockets in it, whose paths must be short on every system.
    """
    usual = tempfile.gettempdir()
    return "/tmp" if len(usual) > _LONGEST_FOLDER and Path("/tmp").is_dir() else None  # noqa: S108


def _why_lost(error: BaseException) -> str:
    """Return why a worker has ended; Ray says it in a paragraph."""
    text = str(error).strip()
    if "creation task" in text:
        return text.splitlines()[-1].strip()[:_REASON_LENGTH]
    if _LOST_NODE.search(text):
        return "the node is gone"
    return "too little memory on its node" if "running low on memory" in text else "its process crashed"


def _brief(error: BaseException) -> str:
    """Return the first line of a message of Ray, without a full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:_REASON_LENGTH].rstrip(".")
