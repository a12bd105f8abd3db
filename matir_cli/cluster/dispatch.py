"""Distribution of photos over workers that may die, in any order, with a bounded number on their way."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Generic, Protocol, TypeAlias, TypeVar

from matir_cli.errors import PhotoUnreadable, WorkersFailed
from matir_cli.indexing.in_progress import EncodedPhoto, FileNote, KnownFile, NewFile, RefusedFile
from matir_cli.indexing.steps import describe_photo, refuse
from matir_cli.photos.discover import read_file

PER_WORKER = 3
"""Photos that a worker has at a time: one in each of its steps."""

BETWEEN_LOOKS = 0.2
"""Seconds after which results are fetched although there is still room for photos."""

DEATHS = 2
"""Deaths of a worker after which the photo that it had is skipped."""

LOSSES = 5
"""Times that a photo is lost without its fault, with its node, before it is skipped."""

FAILED_STARTS = 3
"""Workers in a row that do not start, after which no other one is tried."""

LONGEST_WAIT = 600.0
"""Seconds without any worker after which the run ends."""

Handle = TypeVar("Handle")
Task = TypeVar("Task", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Unseen:
    """The worker does not see the file that it should read, or sees another one under its path."""


Answer: TypeAlias = EncodedPhoto | RefusedFile | Unseen


class WorkerLost(Exception):
    """A worker has ended, and the tasks that it had are lost."""

    def __init__(self, reason: str, *, blameless: bool) -> None:
        """Describe the loss.

        Args:
            blameless: it ended with its node, or the connection to it did: the photos are not the cause.
        """
        super().__init__(reason)
        self.reason = reason
        self.blameless = blameless


class Workers(Protocol[Handle, Task]):
    """Processes that index photos. Tasks are pending calls of theirs."""

    def start(self) -> tuple[Handle, Task]:
        """Begin to start a worker; the task ends when it is ready."""
        ...

    def send(self, worker: Handle, new: NewFile, content: bytes | None, *, previews: bool) -> Task:
        """Let a worker index a photo: from these bytes, or from its file."""
        ...

    def wait(self, tasks: Sequence[Task], seconds: float) -> Sequence[Task]:
        """Return tasks that have ended; if there are none, wait for one, this long at most."""
        ...

    def result(self, worker: Handle, task: Task) -> Answer | None:
        """Return what a task that has ended returned; None if it was to start the worker.

        Raises:
            WorkerLost: the worker has ended.
            MatirError: an error that ends the run, such as `WorkerRefused`.
        """
        ...

    def end(self, worker: Handle) -> None:
        """End a worker, whatever it does."""
        ...


@dataclass(slots=True, eq=False)
class _Job:
    """A photo to be indexed, with the copies of its file that wait for it."""

    new: NewFile
    copies: list[KnownFile] = field(default_factory=list)
    unseen: bool = False
    """Workers do not see its file."""
    deaths: int = 0
    """Workers that have died while they had it."""
    losses: int = 0
    """Workers that were lost with it for other reasons."""


@dataclass(slots=True, eq=False)
class _Seat(Generic[Handle, Task]):
    """A worker with the photos that it has."""

    worker: Handle
    starting: Task | None
    jobs: dict[Task, _Job] = field(default_factory=dict)
    alone: bool = False
    """It has a photo that may kill it, and gets no other one."""


class Dispatcher(Generic[Handle, Task]):
    """Distributes new photos over workers: `RemoteStages` on any `Workers`. Workers outlive a run."""

    def __init__(self, workers: Workers[Handle, Task], count: int, *, shared_files: bool = False) -> None:
        """Create a dispatcher; nothing is started yet.

        Args:
            count: number of workers.
            shared_files: workers see the photos' files.
        """
        self._workers = workers
        self._count = count
        self._shared = shared_files
        self._seats: list[_Seat[Handle, Task]] = []
        self._queue: deque[_Job] = deque()
        self._suspects: deque[_Job] = deque()
        self._jobs: dict[bytes, _Job] = {}
        self._undecodable: set[bytes] = set()
        self._ended: deque[EncodedPhoto | FileNote] = deque()
        self._failed_starts = 0
        self._looked = self._last_alive = monotonic()

    def __call__(
        self, items: Generator[NewFile | FileNote, None, None], previews: bool
    ) -> Generator[EncodedPhoto | FileNote, None, None]:
        """Yield the photos of the new files, in any order, and pass all else on; closes `items`.

        Raises:
            MatirError: an error that ends the run; what workers have is given up then.
        """
        self._looked = self._last_alive = monotonic()
        try:
            with closing(items):
                for item in items:
                    self._take(item)
                    self._assign(previews)
                    while self._queue:
                        self._look(BETWEEN_LOOKS)
                        self._assign(previews)
                        yield from self._give()
                    if self._jobs and monotonic() - self._looked > BETWEEN_LOOKS:
                        self._look(0)
                    yield from self._give()
                while self._jobs:
                    self._assign(previews)
                    self._look(BETWEEN_LOOKS)
                    yield from self._give()
        finally:
            self._give_up()

    def _take(self, item: NewFile | FileNote) -> None:
        """Let a new photo wait for a worker, and a copy of a photo on its way for that photo."""
        if isinstance(item, KnownFile) and (original := self._jobs.get(item.sha256)) is not None:
            original.copies.append(item)
        elif isinstance(item, KnownFile) and item.sha256 in self._undecodable:
            self._enqueue(_Job(_as_new(item)))
        elif isinstance(item, NewFile):
            self._enqueue(_Job(item))
        else:
            self._ended.append(item)

    def _enqueue(self, job: _Job) -> None:
        self._jobs[job.new.sha256] = job
        self._queue.append(job)

    def _give(self) -> Iterator[EncodedPhoto | FileNote]:
        while self._ended:
            yield self._ended.popleft()

    def _assign(self, previews: bool) -> None:
        """Start missing workers, and send what waits to those that have room."""
        if not self._seats:
            self._last_alive = monotonic()
        while len(self._seats) < self._count and self._jobs:
            worker, starting = self._workers.start()
            self._seats.append(_Seat(worker, starting))
        ready = [seat for seat in self._seats if seat.starting is None]
        for seat in [seat for seat in ready if not seat.jobs][: len(self._suspects)]:
            seat.alone = True
            self._send(seat, self._suspects.popleft(), previews)
        # Workers that a suspect waits for get no other photos: they would never be idle.
        ready = sorted((seat for seat in ready if not seat.alone), key=lambda seat: len(seat.jobs))
        ready = ready[len(self._suspects) :]
        while self._queue:
            room = [seat for seat in ready if len(seat.jobs) < PER_WORKER]
            if not room:
                break
            self._send(min(room, key=lambda seat: len(seat.jobs)), self._queue.popleft(), previews)

    def _send(self, seat: _Seat[Handle, Task], job: _Job, previews: bool) -> None:
        content = None
        if not self._shared or job.unseen:
            try:
                content = read_file(job.new.file)
            except PhotoUnreadable as error:
                seat.alone = False
                self._end(job, refuse(job.new.file.path, job.new.file, error))
                return
        seat.jobs[self._workers.send(seat.worker, job.new, content, previews=previews)] = job

    def _look(self, seconds: float) -> None:
        """Fetch what has ended; if nothing has, wait for it this long.

        Raises:
            MatirError: an error that ends the run.
        """
        tasks = {
            task: seat for seat in self._seats for task in (seat.starting, *seat.jobs) if task is not None
        }
        done = self._workers.wait([*tasks], seconds) if tasks else ()
        self._looked = monotonic()
        for task in done:
            seat = tasks[task]
            if seat not in self._seats:  # lost with another task
                continue
            try:
                answer = self._workers.result(seat.worker, task)
            except WorkerLost as loss:
                self._lose(seat, loss)
                continue
            if task == seat.starting:
                seat.starting = None
                self._failed_starts = 0
            else:
                self._receive(seat, task, answer)
        if any(seat.starting is None for seat in self._seats):
            self._last_alive = self._looked
        elif self._looked - self._last_alive > LONGEST_WAIT:
            raise WorkersFailed(f"the cluster had no room for any of them for {LONGEST_WAIT / 60:g} minutes")

    def _receive(self, seat: _Seat[Handle, Task], task: Task, answer: Answer | None) -> None:
        job = seat.jobs.pop(task)
        seat.alone = False
        assert answer is not None
        if isinstance(answer, Unseen):
            job.unseen = True
            self._queue.appendleft(job)
        else:
            self._end(job, answer)

    def _lose(self, seat: _Seat[Handle, Task], loss: WorkerLost) -> None:
        """Take the photos of a lost worker back; those that may have killed it are tried one at a time."""
        self._seats.remove(seat)
        self._workers.end(seat.worker)
        if seat.starting is not None:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise WorkersFailed(loss.reason)
        for job in seat.jobs.values():
            if loss.blameless:
                job.losses += 1
            else:
                job.deaths += 1
            if job.deaths >= DEATHS:
                self._skip(job, f"it ended the worker that indexed it {DEATHS} times: {loss.reason}")
            elif job.losses >= LOSSES:
                self._skip(job, f"the machines that indexed it were lost {LOSSES} times: {loss.reason}")
            else:
                (self._suspects if job.deaths else self._queue).appendleft(job)

    def _skip(self, job: _Job, reason: str) -> None:
        file = job.new.file
        self._end(job, RefusedFile(file.path, file, reason, job.new.sha256))

    def _end(self, job: _Job, result: EncodedPhoto | RefusedFile) -> None:
        """Hand a result on, and the copies of its file after it."""
        del self._jobs[job.new.sha256]
        if isinstance(result, EncodedPhoto):
            photo = describe_photo(result.proposed.photo, job.new.sidecar)
            result = replace(result, proposed=replace(result.proposed, photo=photo))
        self._ended.append(result)
        if isinstance(result, EncodedPhoto) or result.sha256 is not None:
            self._ended.extend(job.copies)
            return
        # The next copy is tried for itself: its name may tell more of its format, or it may be readable.
        self._undecodable.add(job.new.sha256)
        if job.copies:
            first, *others = job.copies
            self._enqueue(_Job(_as_new(first), others))

    def close(self) -> None:
        """End all workers."""
        self._end_workers(self._seats)

    def _end_workers(self, seats: Iterable[_Seat[Handle, Task]]) -> None:
        for seat in [*seats]:
            self._seats.remove(seat)
            self._workers.end(seat.worker)

    def _give_up(self) -> None:
        """Forget what is on its way; workers that still have some of it are ended."""
        self._end_workers(seat for seat in self._seats if seat.jobs)
        for waiting in (self._queue, self._suspects, self._ended):
            waiting.clear()
        self._jobs.clear()
        self._undecodable.clear()


def _as_new(copy: KnownFile) -> NewFile:
    return NewFile(copy.file, copy.sha256, copy.described.sidecar)
