"""Tests of the distribution of photos over workers that end in any order, die, or are refused."""

import random
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.cluster.dispatch import (
    DEATHS,
    FAILED_STARTS,
    LOSSES,
    PER_WORKER,
    Answer,
    Dispatcher,
    Unseen,
    WorkerLost,
)
from matir_cli.errors import WorkerRefused, WorkersFailed
from matir_cli.indexing.in_progress import (
    EncodedPhoto,
    FileNote,
    KnownFile,
    NewFile,
    ProposedPhoto,
    RefusedFile,
)
from matir_cli.indexing.outcomes import Unchanged
from matir_cli.photos.decode import DecodedPhoto
from matir_cli.photos.siblings import DescribedFile
from matir_cli.records import FileMetadata, FileRecord, PhotoRecord


def digest(number: int) -> bytes:
    return number.to_bytes(32)


def new(number: int, folder: Path = Path("/photos")) -> NewFile:
    return NewFile(FileRecord(folder / f"{number}.jpg", 1, 1), digest(number), None)


def copy(number: int, name: str) -> KnownFile:
    return KnownFile(
        FileRecord(Path("/photos", name), 1, 1), digest(number), DescribedFile(FileMetadata(), None)
    )


def encoded(file: NewFile) -> EncodedPhoto:
    photo = DecodedPhoto(file.file, PhotoRecord(file.sha256, 1, 1, 1, 1, 1), np.empty((0, 0, 3), np.uint8))
    return EncodedPhoto(ProposedPhoto(photo, None, []), np.empty((0, 4), np.float32))


def refused(file: NewFile) -> RefusedFile:
    return RefusedFile(file.file.path, file.file, "junk")


@dataclass
class ScriptedWorkers:
    """Workers whose tasks end in a random order; some photos kill them, and some of them vanish."""

    chance: random.Random
    killers: frozenset[bytes] = frozenset()
    junk: frozenset[bytes] = frozenset()
    vanishing: float = 0.0
    """Share of the results in whose place the worker vanishes."""
    broken: bool = False
    """They do not start."""
    refusal: bool = False
    blind: bool = False
    """They see no file."""
    tasks: dict[int, tuple[int, NewFile | None, bytes | None]] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)
    deaths: Counter[bytes] = field(default_factory=Counter)
    started: int = 0
    most: int = 0
    """Photos on their way at a time, at most."""
    _next: int = 0

    def _task(self, worker: int, file: NewFile | None, content: bytes | None = None) -> int:
        self._next += 1
        self.tasks[self._next] = (worker, file, content)
        self.most = max(self.most, sum(each is not None for _, each, _ in self.tasks.values()))
        return self._next

    def start(self) -> tuple[int, int]:
        self.started += 1
        return self.started, self._task(self.started, None)

    def send(self, worker: int, file: NewFile, content: bytes | None, *, previews: bool) -> int:
        return self._task(worker, file, content)

    def wait(self, tasks: Sequence[int], seconds: float) -> Sequence[int]:
        assert {*tasks} <= {*self.tasks}
        return self.chance.sample([*tasks], self.chance.randint(1, len(tasks)))

    def result(self, worker: int, task: int) -> Answer | None:
        of, file, content = self.tasks.pop(task)
        assert of == worker
        if self.broken:
            raise WorkerLost("it has no disk", blameless=False)
        if file is None:
            if self.refusal:
                raise WorkerRefused("node", "other models")
            return None
        if worker in self.dead:
            raise WorkerLost("it is dead", blameless=False)
        if file.sha256 in self.killers:
            self.deaths[file.sha256] += 1
            raise WorkerLost("out of memory", blameless=False)
        if self.chance.random() < self.vanishing:
            raise WorkerLost("its node is gone", blameless=True)
        if self.blind and content is None:
            return Unseen()
        return refused(file) if file.sha256 in self.junk else encoded(file)

    def end(self, worker: int) -> None:
        self.dead.add(worker)
        self.tasks = {task: rest for task, rest in self.tasks.items() if rest[0] != worker}


def give(items: Sequence[NewFile | FileNote]) -> Generator[NewFile | FileNote, None, None]:
    yield from items


def path_of(item: EncodedPhoto | FileNote) -> Path:
    match item:
        case EncodedPhoto():
            return item.proposed.photo.file.path
        case Unchanged() | RefusedFile():
            return item.path
        case _:
            return item.file.path


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    numbers=st.lists(st.integers(0, 25), max_size=60),
    killers=st.frozensets(st.integers(0, 25), max_size=3),
    junk=st.frozensets(st.integers(0, 25), max_size=5),
    count=st.integers(1, 5),
    vanishing=st.sampled_from([0.0, 0.05]),
)
def test_every_file_ends_once_whatever_happens(
    seed: int,
    numbers: list[int],
    killers: frozenset[int],
    junk: frozenset[int],
    count: int,
    vanishing: float,
) -> None:
    workers = ScriptedWorkers(
        random.Random(seed), frozenset(map(digest, killers)), frozenset(map(digest, junk)), vanishing
    )
    seen = set[int]()
    items: list[NewFile | FileNote] = []
    for place, number in enumerate(numbers):
        items.append(copy(number, f"copy {place}") if number in seen else new(number))
        items.append(Unchanged(Path(f"/photos/known {place}")))
        seen.add(number)
    dispatcher = Dispatcher(workers, count, shared_files=True)
    ended = [*dispatcher(give(items), previews=False)]
    assert Counter(map(path_of, ended)) == Counter(map(path_of_input, items))
    assert workers.most <= count * PER_WORKER
    place_of = {path_of(item): place for place, item in enumerate(ended)}
    for item in items:
        if isinstance(item, NewFile):
            result = ended[place_of[item.file.path]]
            if item.sha256 in workers.killers:
                assert isinstance(result, RefusedFile)
                assert result.reason.startswith(f"it ended the worker that indexed it {DEATHS} times")
                assert workers.deaths[item.sha256] == DEATHS
            elif item.sha256 in workers.junk:
                assert isinstance(result, RefusedFile)
                assert result.reason == "junk" or "were lost" in result.reason
        elif isinstance(item, KnownFile) and isinstance(ended[place_of[item.file.path]], KnownFile):
            original = new(int.from_bytes(item.sha256))
            assert place_of[original.file.path] < place_of[item.file.path]


def path_of_input(item: NewFile | FileNote) -> Path:
    return item.file.path if isinstance(item, NewFile) else path_of(item)


def test_photos_beside_a_killer_are_indexed() -> None:
    for seed in range(50):
        workers = ScriptedWorkers(random.Random(seed), killers=frozenset({digest(4)}))
        ended = [*Dispatcher(workers, 2, shared_files=True)(give([new(n) for n in range(12)]), previews=True)]
        bad = [item for item in ended if isinstance(item, RefusedFile)]
        assert [item.path.name for item in bad] == ["4.jpg"]
        assert len(ended) == 12


def test_a_node_that_vanishes_costs_only_time() -> None:
    workers = ScriptedWorkers(random.Random(1), vanishing=0.1)
    ended = [*Dispatcher(workers, 4, shared_files=True)(give([new(n) for n in range(200)]), previews=True)]
    assert all(isinstance(item, EncodedPhoto) for item in ended)
    assert workers.started > 4


def test_a_photo_whose_nodes_always_vanish_is_skipped() -> None:
    workers = ScriptedWorkers(random.Random(1), vanishing=1.0)
    (ended,) = Dispatcher(workers, 1, shared_files=True)(give([new(1)]), previews=True)
    assert isinstance(ended, RefusedFile)
    assert ended.reason == f"the machines that indexed it were lost {LOSSES} times: its node is gone"


def test_workers_that_do_not_start_end_the_run() -> None:
    workers = ScriptedWorkers(random.Random(1), broken=True)
    with pytest.raises(WorkersFailed, match="it has no disk"):
        [*Dispatcher(workers, 2, shared_files=True)(give([new(1)]), previews=True)]
    assert workers.started <= FAILED_STARTS + 2


def test_a_refused_worker_ends_the_run_before_a_photo_is_sent() -> None:
    workers = ScriptedWorkers(random.Random(1), refusal=True)
    with pytest.raises(WorkerRefused, match="the worker on node is refused: other models"):
        [*Dispatcher(workers, 2, shared_files=True)(give([new(1), new(2)]), previews=True)]
    assert workers.most == 0


def test_files_that_workers_do_not_see_are_sent(tmp_path: Path) -> None:
    workers = ScriptedWorkers(random.Random(1), blind=True)
    files = [new(number, tmp_path) for number in range(3)]
    for file in files[:2]:
        file.file.path.write_bytes(b"a photo")
    ended = [*Dispatcher(workers, 1, shared_files=True)(give(files), previews=True)]
    by_name = {path_of(item).name: item for item in ended}
    assert isinstance(by_name["0.jpg"], EncodedPhoto)
    assert isinstance(by_name["1.jpg"], EncodedPhoto)
    gone = by_name["2.jpg"]
    assert isinstance(gone, RefusedFile)
    assert (gone.file, gone.reason) == (None, "no such file or directory")


def test_no_worker_is_started_for_known_files() -> None:
    workers = ScriptedWorkers(random.Random(1))
    items: list[NewFile | FileNote] = [Unchanged(Path("a")), copy(1, "b")]
    assert [*Dispatcher(workers, 2)(give(items), previews=True)] == items
    assert workers.started == 0


def test_a_run_that_is_closed_leaves_nothing_behind() -> None:
    workers = ScriptedWorkers(random.Random(1))
    dispatcher = Dispatcher(workers, 2, shared_files=True)
    closed: list[bool] = []

    def source() -> Iterator[NewFile | FileNote]:
        try:
            yield from (new(number) for number in range(100))
        finally:
            closed.append(True)

    def items() -> Generator[NewFile | FileNote, None, None]:
        yield from source()

    run = dispatcher(items(), previews=True)
    next(run)
    run.close()
    assert closed == [True]
    assert all(file is None for _, file, _ in workers.tasks.values())
    again = [*dispatcher(give([new(number) for number in range(5)]), previews=True)]
    assert sorted(path_of(item).name for item in again) == [f"{number}.jpg" for number in range(5)]
