"""Bench of `matir add --ray`: overhead per photo, and how many workers one process keeps busy.

    python -m tests.bench.ray_workers [--quick] [--photos N] [--rounds N] [--simulated N] [--seconds S]

Not one of `make bench`, since it needs the extra ray. The first table indexes drawn pictures with the tiny
set: `matir add`, and the same with one and two workers of one CPU, each as a whole process. What the start
of Ray and of the workers takes is told apart by a run with a single photo. In the second one, simulated
workers take a fixed time per photo without using a core. They live in a few processes of Ray, several to
each; they get photos and give back as much as workers do. So it shows what the process that walks, hashes and
writes can keep up with.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from matir_cli.cli.commands.demo import draw
from matir_cli.cluster.dispatch import PER_WORKER, Answer, Dispatcher
from matir_cli.cluster.options import AUTO
from matir_cli.cluster.ray_workers import RayCluster
from matir_cli.cluster.worker import PhotoWorker, installed_version
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.in_progress import EncodedPhoto, NewFile
from matir_cli.indexing.outcomes import Added
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from tests.bench.measuring import BenchParser, print_columns, print_heading, print_row
from tests.search.vectors import unit
from tests.support.fakes import ColourEncoder, ColourProposer

HOSTS = 4
"""Processes that simulated workers share."""

REGIONS, DIMENSIONS = 50, 768
"""Regions per photo that simulated workers give back, and the length of their vectors."""


class Host:
    """Simulated workers in one process: each takes a fixed time per photo, without using a core.

    What they give back is what was made of the first photo, as large as that of real models.
    """

    def __init__(self, workers: int, seconds: float) -> None:
        """Start them; each photo takes `seconds`."""
        self._worker = PhotoWorker(
            installed_version(),
            lambda: IndexingModels(ColourProposer, ColourEncoder),
            decode_seconds=60,
            precision=None,
        )
        assert self._worker.start() is None
        self._busy = [threading.Lock() for _ in range(workers)]
        self._making = threading.Lock()
        self._made: EncodedPhoto | None = None
        self._seconds = seconds

    def ready(self) -> None:
        """Return once the workers are there."""

    def index(self, place: int, new: NewFile, content: bytes | None, previews: bool) -> EncodedPhoto:
        """Let one of the workers index a photo; they take one photo at a time."""
        with self._making:
            if self._made is None:
                self._made = self._make(new, content, previews)
        with self._busy[place]:
            time.sleep(self._seconds)
        proposed = self._made.proposed
        record = replace(proposed.photo.record, sha256=new.sha256)
        photo = replace(proposed.photo, file=new.file, record=record)
        return replace(self._made, proposed=replace(proposed, photo=photo))

    def _make(self, new: NewFile, content: bytes | None, previews: bool) -> EncodedPhoto:
        made = self._worker.index(new, content, previews)
        assert isinstance(made, EncodedPhoto)
        regions = [made.proposed.regions[0]] * REGIONS
        vectors = np.random.default_rng(0).standard_normal((REGIONS, DIMENSIONS)).astype(np.float32)
        return EncodedPhoto(replace(made.proposed, regions=regions), unit(vectors))


class SimulatedWorkers:
    """`Workers` that share processes of Ray."""

    def __init__(self, ray: Any, count: int, seconds: float) -> None:
        """Start the processes and wait for them."""
        self._ray = ray
        self._started = 0
        each = -(-count // HOSTS)
        host = ray.remote(Host).options(num_cpus=0, max_concurrency=each * PER_WORKER)
        self._hosts = [host.remote(each, seconds) for _ in range(HOSTS)]
        ray.get([each.ready.remote() for each in self._hosts])

    def start(self) -> tuple[tuple[Any, int], Any]:
        """Take the next worker."""
        host, place = self._hosts[self._started % HOSTS], self._started // HOSTS
        self._started += 1
        return (host, place), host.ready.remote()

    def send(self, worker: tuple[Any, int], new: NewFile, content: bytes | None, *, previews: bool) -> Any:
        """Let a worker index a photo."""
        host, place = worker
        return host.index.remote(place, new, content, previews)

    def wait(self, tasks: Sequence[Any], seconds: float) -> Sequence[Any]:
        """Return tasks that have ended."""
        done, rest = self._ray.wait([*tasks], timeout=seconds)
        more, _ = self._ray.wait(rest, num_returns=len(rest), timeout=0) if rest else ((), ())
        return [*done, *more]

    def result(self, worker: tuple[Any, int], task: Any) -> Answer | None:
        """Return what a task returned."""
        answer: Answer | None = self._ray.get(task)
        return answer

    def end(self, worker: tuple[Any, int]) -> None:
        """Do nothing: the processes end with the cluster."""


def add_seconds(photos: Path, gallery: Path, *words: str) -> float:
    """Seconds that the command `matir add` takes for all photos."""
    command = [
        sys.executable,
        "-m",
        "matir_cli",
        "add",
        str(photos),
        "--db",
        str(gallery),
        "--models",
        "tiny",
    ]
    begun = time.perf_counter()
    subprocess.run(
        [*command, *words], check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return time.perf_counter() - begun


def compare_ways(folder: Path, count: int, rounds: int) -> None:
    """Print photos per second without and with Ray."""
    draw(folder / "photos", count)
    draw(folder / "one", 1)
    print_columns("way", "whole process", "of it the start", "photos/s after the start", "per photo")
    ways: dict[str, list[str]] = {"`matir add`": []}
    ways |= {
        f"--ray, workers: {n}": ["--ray=auto", "--workers", str(n), "--cpus-per-worker", "1"] for n in (1, 2)
    }
    runs: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(rounds):
        for place, (way, words) in enumerate(ways.items()):
            start = add_seconds(folder / "one", folder / f"one {number} {place}.db", *words)
            whole = add_seconds(folder / "photos", folder / f"{number} {place}.db", *words)
            runs[way].append((start, whole))
    for way, times in runs.items():
        start, whole = min(start for start, _ in times), min(whole for _, whole in times)
        each = (whole - start) / (count - 1)
        print_row(way, f"{whole:.1f} s", f"{start:.1f} s", f"{1 / each:.2f}", f"{1e3 * each:.0f} ms")


def keep_busy(folder: Path, count: int, workers: int, seconds: float) -> None:
    """Print how busy one process keeps simulated workers, with small and with larger photos."""
    print_columns("photos", "workers", "photos/s", "photos/s at most", "busy")
    cluster = RayCluster(AUTO)
    for name, size in (("320 x 240", (320, 240)), ("2048 x 1536", (2048, 1536))):
        photos = folder / name
        photos.mkdir()
        noise = np.random.default_rng(0).integers(100, 140, (size[1], size[0], 3), dtype=np.uint8)
        for number in range(count):
            Image.fromarray(noise).save(photos / f"{number:05}.jpg", quality=75, comment=str(number))
        dispatcher = Dispatcher(SimulatedWorkers(cluster.ray, workers, seconds), workers)
        models = IndexingModels(ColourProposer, ColourEncoder, remote=dispatcher)
        with GalleryFile.open(folder / f"{name}.db", create=True) as gallery:
            begun = time.perf_counter()
            added = sum(
                isinstance(outcome, Added) for outcome in add_photos(gallery, [photos], models, previews=True)
            )
            taken = time.perf_counter() - begun
        assert added == count
        print_row(
            f"{count} of {name}",
            workers,
            f"{count / taken:.1f}",
            f"{workers / seconds:.0f}",
            f"{count * seconds / workers / taken:.0%}",
        )
    cluster.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = BenchParser(__doc__, arguments)
    parser.add_size("--photos", 60, 4, "drawn pictures")
    parser.add_size("--rounds", 3, 1, "runs of each way, of which the fastest counts")
    parser.add_size("--simulated", 64, 4, "simulated workers")
    parser.add_argument("--seconds", type=float, default=0.5, help="time per photo of a simulated worker")
    options = parser.options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        likeness = "No. Pictures of 112 to 320 pixels and tiny models: overheads weigh more than in use."
        print_heading(f"{options.photos} drawn pictures, the tiny set", likeness, "one thread per worker")
        compare_ways(folder, options.photos, options.rounds)
        print()
        likeness = "In size: one photo per half second is what a small GPU does; the content is noise."
        print_heading("photos of noise, engines that sleep", likeness)
        count = 20 * options.simulated if not parser.quick else 2 * options.simulated
        keep_busy(folder, count, options.simulated, options.seconds)


if __name__ == "__main__":
    main()
