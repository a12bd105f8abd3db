"""Options, timings, tables and fresh processes, as all benches need them."""

import argparse
import math
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""Clocks by name: elapsed time, and the processor time of all threads of the process."""

WATCHED_EVERY = 0.005
"""Seconds between two looks at a process's memory."""


class BenchParser(argparse.ArgumentParser):
    """The command line of one bench, with two values for every size: the default and `--quick`'s."""

    def __init__(self, description: str | None, arguments: Sequence[str] | None) -> None:
        """Parse `arguments`, by default those of the process; `description` is the module's docstring."""
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._arguments = sys.argv[1:] if arguments is None else list(arguments)
        self.quick = "--quick" in self._arguments
        self.add_argument("--quick", action="store_true", help="smallest sizes: a check, not a measurement")

    def add_size(self, flag: str, default: int, quick: int, meaning: str) -> None:
        """Add an integer option; its default depends on `--quick`."""
        self.add_argument(
            flag,
            type=int,
            default=quick if self.quick else default,
            help=f"{meaning} (default: {default}; with --quick: {quick})",
        )

    def add_clock(self) -> None:
        """Add `--clock`, the name of one of `CLOCKS`."""
        self.add_argument(
            "--clock", choices=[*CLOCKS], default="wall", help="cpu: processor time, for a busy machine"
        )

    def options(self) -> argparse.Namespace:
        """Parse the arguments given to the constructor."""
        return self.parse_args(self._arguments)


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations of repeated runs of one piece of work."""

    seconds: tuple[float, ...]
    """In the order of the runs; at least one."""

    @property
    def median(self) -> float:
        """Median, seconds."""
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        """The shortest duration that 95% of the runs did not exceed, seconds."""
        return sorted(self.seconds)[math.ceil(0.95 * len(self.seconds)) - 1]

    def __str__(self) -> str:
        return f"{format_seconds(self.median)} (p95 {format_seconds(self.p95)})"


def format_seconds(seconds: float) -> str:
    """A duration in milliseconds below one second, else in seconds."""
    return f"{1e3 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def time_once(
    work: Callable[[], Result], clock: Callable[[], float] = time.perf_counter
) -> tuple[float, Result]:
    """Seconds that `work` takes, and its result."""
    started = clock()
    result = work()
    return clock() - started, result


def time_rounds(
    work: Callable[[], Result], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[Timings, Result]:
    """Timings of `rounds` runs and the result of the last; several follow one that warms up."""
    if rounds > 1:
        work()
    runs = [time_once(work, clock) for _ in range(rounds)]
    return Timings(tuple(seconds for seconds, _ in runs)), runs[-1][1]


def time_process(command: Sequence[str], rounds: int) -> Timings:
    """Timings of a whole process, as `time_rounds` takes them; it must exit with 0."""
    timings, _ = time_rounds(lambda: subprocess.run(command, check=True, capture_output=True), rounds)
    return timings


def preload(*modules: str) -> None:
    """Import `modules` in the server that new processes are forked from, before its first use.

    They are then imported once, not once per process. Only for modules whose import starts no
    computation, and where peak memory is not compared.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))


def in_new_process(
    function: Callable[Parameters, Result], *arguments: Parameters.args, **options: Parameters.kwargs
) -> Result:
    """Call a module's function in a process of its own; return its result or raise its exception.

    The process is forked from a server that has computed nothing: it shares no threads, no memory and
    no caches with any other call. Arguments and result are pickled.
    """
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as executor:
        return executor.submit(function, *arguments, **options).result()


def peak_memory() -> int:
    """The largest resident size that this process has had, bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class AnonymousPeak:
    """Watches the memory of a process's own, without mapped files, until it is left.

    Files that are mapped count as memory of the process in other figures, though they are the system's cache.
    """

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._ended = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self.bytes = 0
        """Largest size so far; 0 where the system does not tell."""

    def __enter__(self) -> "AnonymousPeak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(WATCHED_EVERY):
            try:
                lines = self._status.read_text().splitlines()
            except OSError:  # not Linux, or the process has ended
                return
            anonymous = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
            self.bytes = max(self.bytes, *(1024 * int(size) for size in anonymous), 0)


@dataclass(frozen=True, slots=True)
class MeasuredProcess:
    """A whole process that has ended."""

    seconds: float
    anonymous: int
    """Largest size of its own memory, without mapped files, bytes."""


def measure_process(command: Sequence[str], given: Path | None = None) -> MeasuredProcess:
    """Run a process, which must exit with 0; its output is thrown away, and `given` is its standard input."""
    started = time.perf_counter()
    with (
        open(given or os.devnull, "rb") as source,  # noqa: PTH123 - either
        subprocess.Popen(command, stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process,
        AnonymousPeak(process.pid) as peak,
    ):
        _, errors = process.communicate()
        seconds = time.perf_counter() - started
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=errors)
    return MeasuredProcess(seconds, peak.bytes)


def drop_from_cache(*paths: Path) -> bool:
    """Let the system forget what it has cached of files; False where it cannot be told."""
    if not hasattr(os, "posix_fadvise"):
        return False
    os.sync()  # pages that are not written yet would stay
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True


def print_heading(data: str, likeness: str, *settings: str) -> None:
    """Print what is measured on, how far it is like users' data, and the machine and settings."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    machine = [f"{platform.system()} {platform.machine()}", f"{os.cpu_count()} cores", f"load {load}"]
    print(f"Data: {data}\n")
    print(f"Like users' data? {likeness}\n")
    print(f"Machine: {', '.join([*machine, *settings])}\n", flush=True)


def print_columns(*titles: str) -> None:
    """Print the first two lines of a Markdown table."""
    print_row(*titles)
    print("|" + "---|" * len(titles), flush=True)


def print_row(*cells: object) -> None:
    """Print one line of a Markdown table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
