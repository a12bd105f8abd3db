"""Commands killed at a random moment: nothing committed is lost, and the next run completes the work.

A command runs in a process forked from this one, in which every module is imported but nothing has been
computed. It sends itself a signal at its n-th event: a call of a function or its return in the main thread,
or a write to the gallery in the middle of SQLite's work.
"""

from __future__ import annotations

import atexit
import importlib
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import apsw
import numpy as np
from PIL import Image

from matir_cli.cli.commands.demo import draw
from matir_cli.cli.group import COMMANDS, module_of
from matir_cli.cli.main import main
from matir_cli.gallery.brush_rle import encode_brush
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import known_files
from matir_cli.gallery.paths import decode_path, encode_path
from matir_cli.maintenance.doctor.findings import FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from tests.fuzz.campaign import main_of
from tests.support.second_set import make_second_set

OLD, NEW = 8, 3
"""Numbers of pictures that the gallery of a trial holds, and that are new to it."""

KINDS = ("event", "write")
"""What is counted."""

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

HEAVY = (
    *("torch", "torchvision.ops", "sam2.build_sam", "tokenizers", "lxml.etree", "pycocotools.mask", "yaml"),
    *map(module_of, COMMANDS),
    *("matir_cli.cli.result_files", "matir_cli.engines.sam2.proposer", "matir_cli.engines.sam2.model"),
    *("matir_cli.engines.clip.alpha_encoder", "matir_cli.engines.clip.text_encoder"),
    *("matir_cli.output.sidecars", "matir_cli.cli.boundary"),
)
"""Modules that a command imports when it needs them; a forked process has them already."""


@dataclass(frozen=True)
class Moment:
    """When a process sends itself a signal."""

    kind: str
    """"event" for calls and returns of functions, "write" for writes to the gallery."""
    number: int
    sign: signal.Signals


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    code: int
    """Exit code, or minus the signal that killed it."""
    said: str
    """Its standard error."""
    events: int
    writes: int


class _Counter:
    """Counts events and writes in a forked process, for both processes to see, and sends the signal."""

    def __init__(self, moment: Moment | None) -> None:
        self._moment = moment
        self._shared = mmap.mmap(-1, 16)

    def counted(self, kind: str) -> int:
        """Return how many there were so far."""
        start = KINDS.index(kind) * 8
        return int.from_bytes(self._shared[start : start + 8])

    def count(self, kind: str) -> None:
        """Count one more, and send the signal at its number."""
        number, start = self.counted(kind) + 1, KINDS.index(kind) * 8
        self._shared[start : start + 8] = number.to_bytes(8)
        moment = self._moment
        if moment is not None and (moment.kind, moment.number) == (kind, number):
            os.kill(os.getpid(), moment.sign)

    def watch(self) -> None:
        """Count from now on."""
        counter, system = self, apsw.vfs_names()[0]

        class File(apsw.VFSFile):
            def xWrite(self, data: bytes, offset: int) -> None:
                counter.count("write")
                super().xWrite(data, offset)

            def xSync(self, flags: int) -> None:
                counter.count("write")
                super().xSync(flags)

        class Files(apsw.VFS):
            def __init__(self) -> None:
                super().__init__("counting", system, makedefault=True)

            def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
                return File(system, name, flags)

        self.files = Files()
        sys.setprofile(lambda _frame, _event, _argument: self.count("event"))


def run(folder: Path, words: list[str], moment: Moment | None = None) -> Ended:
    """Run the command line in a forked process, and wait for its end."""
    said, counter = folder / "said", _Counter(moment)
    child = os.fork()
    if child == 0:
        try:
            _become_matir(words, said, counter)
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    text = said.read_text(errors="replace")
    said.unlink()
    return Ended(os.waitstatus_to_exitcode(status), text, *map(counter.counted, KINDS))


def _become_matir(words: list[str], said: Path, counter: _Counter) -> None:
    """Run `matir` in a process that was just forked; does not return."""
    nothing = os.open(os.devnull, os.O_RDWR)
    talk = os.open(said, os.O_WRONLY | os.O_CREAT)
    for descriptor, source in enumerate((nothing, nothing, talk)):
        os.dup2(source, descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(descriptor, mode) for descriptor, mode in enumerate(("r", "w", "w"))
    )
    for sign in SIGNALS[1:]:
        signal.signal(sign, signal.default_int_handler if sign == signal.SIGINT else signal.SIG_DFL)
    sys.argv = ["matir", *words]
    counter.watch()
    main()


@cache
def template() -> Path:
    """A folder with pictures, a gallery of the old ones, and one of others to merge."""
    for name in HEAVY:
        importlib.import_module(name)
    folder = Path(tempfile.mkdtemp(prefix="matir-kills-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    draw(folder / "drawn", OLD + 2 * NEW)
    drawn = sorted((folder / "drawn").iterdir())
    for part, (start, end) in {"old": (0, OLD), "new": (OLD, OLD + NEW), "other": (OLD + NEW, None)}.items():
        (folder / part).mkdir()
        for path in drawn[start:end]:
            path.rename(folder / part / path.name)
    for gallery, part in (("gallery.db", "old"), ("other.db", "other")):
        words = ["add", str(folder / part), "--db", str(folder / gallery), "--models", "tiny"]
        ended = run(folder, words)
        assert ended.code == 0, ended.said
    make_second_set(folder / "second")
    return folder


@dataclass(frozen=True)
class State:
    """What a gallery holds."""

    files: dict[Path, bytes]
    """SHA-256 of the photo by file."""
    regions: dict[bytes, int]
    """Number of regions by SHA-256 of the photo."""


def state_of(path: Path) -> State:
    """Read what a gallery holds, rolling back what was interrupted."""
    with GalleryFile.open(path) as gallery:
        rows = gallery.connection.execute("select path, sha256 from files join photos on id = photo_id")
        files = {decode_path(name): bytes(digest) for name, digest in rows}
        assert len(files) == sum(1 for _ in known_files(gallery))
        select = "select sha256, count(*) from photos join regions on photo_id = photos.id group by photos.id"
        regions = {bytes(digest): int(count) for digest, count in gallery.connection.execute(select)}
    return State(files, regions)


@dataclass(frozen=True)
class Job:
    """A command to kill, and what it may and must change."""

    words: list[str]
    removable: frozenset[Path] = frozenset()
    """Files that it may take out of the gallery."""
    given: int = 0
    """Regions that it gives to each photo that it changes, all at once."""
    photos: int = 0
    """Number of photos that it gives regions to."""


def prepare(folder: Path) -> None:
    """Copy pictures and gallery into the folder of a trial."""
    source = template()
    for part in ("old", "new"):
        shutil.copytree(source / part, folder / "photos" / part)
    for name in ("gallery.db", "other.db"):
        shutil.copy(source / name, folder / name)
    with GalleryFile.open(folder / "gallery.db") as gallery, gallery.atomic():
        for known in list(known_files(gallery, source)):
            moved = folder / "photos" / known.path.relative_to(source)
            pair = (encode_path(moved), encode_path(known.path))
            gallery.connection.execute("update files set path = ? where path = ?", pair)


def _add(_rng: random.Random, folder: Path) -> Job:
    return Job(["add", str(folder / "photos")])


def _sync(rng: random.Random, folder: Path) -> Job:
    old = sorted((folder / "photos" / "old").iterdir())
    gone, renamed = rng.sample(old, 2)
    gone.unlink()
    renamed.rename(folder / "photos" / "renamed.png")
    if rng.random() < 0.7:  # without the models
        shutil.rmtree(folder / "photos" / "new")
    return Job(["sync", str(folder / "photos")], frozenset({gone, renamed}))


def _rm(rng: random.Random, folder: Path) -> Job:
    old = sorted((folder / "photos" / "old").iterdir())
    chosen = rng.sample(old, 4)
    return Job(["rm", *map(str, chosen)], frozenset(chosen))


def _compact(_rng: random.Random, _folder: Path) -> Job:
    return Job(["compact"])


def _merge(_rng: random.Random, folder: Path) -> Job:
    return Job(["merge", str(folder / "other.db")])


def _split(rng: random.Random, folder: Path) -> Job:
    key = rng.choice(["order", "date", "folder"])
    return Job(["split", str(folder / "parts"), "--into", "3", "--by", key, "--force"])


def _reencode(_rng: random.Random, _folder: Path) -> Job:
    return Job(["reencode", "--models", str(template() / "second" / "set.toml")])


def _find(rng: random.Random, folder: Path) -> Job:
    words = ["find", "red house", "--no-rerank", "-n", "5", "--masks", str(folder / "masks")]
    more = ["--overlays", str(folder / "overlays"), "--coco", str(folder / "coco.json"), "--force"]
    return Job(words + more if rng.random() < 0.5 else words)


def _tag(_rng: random.Random, _folder: Path) -> Job:
    return Job(["tag", "red house", "--no-rerank", "-n", "5", "--label", "house"])


def _add_regions(_rng: random.Random, folder: Path) -> Job:
    photos = sorted((folder / "photos").rglob("*.png"))
    images = [
        {"id": number, "file_name": str(path.relative_to(folder / "photos"))}
        for number, path in enumerate(photos)
    ]
    shapes = ({"bbox": [8, 8, 60, 60]}, {"segmentation": [[2, 2, 50, 2, 50, 40, 2, 40]]})
    annotations = [{"image_id": image["id"], **shape} for image in images for shape in shapes]
    content = {"images": images, "annotations": annotations, "categories": []}
    (folder / "instances.json").write_text(json.dumps(content))
    words = ["add", str(folder / "photos"), "--regions", str(folder / "instances.json")]
    return Job(words, given=len(shapes), photos=len(photos))


def _import_corrections(_rng: random.Random, folder: Path) -> Job:
    photos = sorted((folder / "photos" / "old").iterdir())
    tasks = []
    for path in photos:
        with Image.open(path) as picture:
            width, height = picture.size
        mask = np.zeros((height, width), np.bool_)
        mask[5:40, 7:50] = True
        value = {"format": "rle", "rle": encode_brush(mask), "brushlabels": ["house"]}
        result = {"type": "brushlabels", "original_width": width, "original_height": height, "value": value}
        known = {"sha256": sha256(path.read_bytes()).hexdigest(), "query": "house", "predicted": []}
        tasks.append({"data": {"matir": known}, "annotations": [{"result": [result]}]})
    (folder / "export.json").write_text(json.dumps(tasks))
    return Job(["import-corrections", str(folder / "export.json")], given=1, photos=len(photos))


JOBS: tuple[Callable[[random.Random, Path], Job], ...] = (
    *(_add, _sync, _rm, _compact, _merge, _reencode, _find, _tag, _add_regions, _import_corrections),
    _split,
)


def vectors_of(path: Path) -> tuple[str, dict[tuple[bytes, int], bytes]]:
    """The name of a gallery's encoder, and its vectors and residuals by SHA-256 and ordinal."""
    with GalleryFile.open(path) as gallery:
        name = gallery.connection.execute("select name from models where role = 'encoder'").get
        rows = gallery.connection.execute(
            "select sha256, ordinal, vector, residuals from photos "
            "join regions on regions.photo_id = photos.id "
            "join vectors on region_id = regions.id join residuals on residuals.photo_id = photos.id"
        )
        return str(name), {
            (bytes(digest), int(ordinal)): bytes(vector) + bytes(more)
            for digest, ordinal, vector, more in rows
        }


@cache
def reencoded() -> tuple[str, dict[tuple[bytes, int], bytes]]:
    """What `vectors_of` says after `reencode` that nobody kills."""
    with tempfile.TemporaryDirectory(prefix="matir-kills-") as name:
        folder = Path(name)
        prepare(folder)
        ended = run(folder, [*_reencode(random.Random(1), folder).words, "--db", str(folder / "gallery.db")])
        assert ended.code == 0, ended.said
        return vectors_of(folder / "gallery.db")


def _mixture(gallery: Path) -> str | None:
    """Return a fault if vectors of one encoder bear the name of another."""
    name, vectors = vectors_of(gallery)
    new, made = reencoded()
    are_new = all(vectors[key] == made[key] for key in vectors.keys() & made.keys())
    return None if are_new == (name == new) else f"the vectors are not those of {name}"


@cache
def usual_counts(make: Callable[[random.Random, Path], Job]) -> tuple[int, int]:
    """Numbers of events and writes of a command that nobody kills."""
    with tempfile.TemporaryDirectory(prefix="matir-kills-") as name:
        folder = Path(name)
        prepare(folder)
        job = make(random.Random(1), folder)
        ended = run(folder, [*job.words, "--db", str(folder / "gallery.db")])
    assert ended.code == 0, ended.said
    return ended.events, ended.writes


def trial(rng: random.Random, folder: Path) -> str | None:
    """Kill a random command, check what is left, and run it again to its end."""
    template()
    make = rng.choice(JOBS)
    events, writes = usual_counts(make)
    sign = rng.choice(SIGNALS)
    # In the middle of SQLite's work only SIGKILL takes effect; others wait until it returns to Python.
    kind = "write" if writes and sign == signal.SIGKILL and rng.random() < 0.5 else "event"
    moment = Moment(kind, rng.randint(1, max(1, writes if kind == "write" else events)), sign)
    prepare(folder)
    return _kill(make(rng, folder), moment, folder)


def kill_reencoding(kind: str, times: int, folder: Path) -> Iterator[str | None]:
    """Kill `reencode` at moments spread evenly over its events or writes; yield what each trial found."""
    template()
    last = usual_counts(_reencode)[KINDS.index(kind)]
    for turn in range(times):
        place = folder / str(turn)
        place.mkdir()
        prepare(place)
        number = 1 + (last - 1) * turn // max(1, times - 1)
        yield _kill(_reencode(random.Random(turn), place), Moment(kind, number, signal.SIGKILL), place)


def _kill(job: Job, moment: Moment, folder: Path) -> str | None:
    """Kill a command in a prepared folder, check what is left, and run it again to its end."""
    gallery = folder / "gallery.db"
    words = [*job.words, "--db", str(gallery)]
    before = state_of(gallery)
    ended = run(folder, words, moment)
    what = f"{words[0]} {moment}"
    expected = -moment.sign if moment.sign == signal.SIGKILL else 128 + moment.sign
    if ended.code not in (0, expected) or "Traceback" in ended.said or "Exception ignored" in ended.said:
        return f"{what}: exit code {ended.code}: {ended.said}"
    after = state_of(gallery)
    if found := _damage(gallery) or _loss(before, after, job) or _mixture(gallery):
        return f"{what}: {found}"
    for part in (folder / "parts").glob("*.db"):
        if found := _damage(part):
            return f"{what}: {part.name}: {found}"
    again = run(folder, words)
    if again.code not in ((0, 1, 3) if words[0] == "rm" else (0,)):  # its files may be forgotten already
        return f"{what}: the next run ends with {again.code}: {again.said}"
    left = [*folder.rglob(".matir-*"), *folder.glob("*-journal")]
    if left:
        return f"{what}: left behind: {left}"
    if found := _damage(gallery) or _loss(after, state_of(gallery), job) or _unfinished(job, gallery):
        return f"{what}: after the next run: {found}"
    return None


def _damage(gallery: Path) -> str | None:
    findings = [found for found in examine_gallery(gallery, deep=True) if found.state is FindingState.PROBLEM]
    return f"damage: {findings}" if findings else None


def _loss(before: State, after: State, job: Job) -> str | None:
    """Return what is in `before` and not in `after`, except for what the command may remove."""
    lost = [path for path, digest in before.files.items() if after.files.get(path) != digest]
    if lost := [path for path in lost if path not in job.removable]:
        return f"lost files: {lost}"
    kept = {digest for path, digest in before.files.items() if path not in job.removable}
    lost_regions = [
        digest
        for digest in kept
        if after.regions.get(digest) not in (before.regions[digest], before.regions[digest] + job.given)
    ]
    return f"lost regions of {len(lost_regions)} photos" if lost_regions else None


def _unfinished(job: Job, gallery: Path) -> str | None:
    """Return what the command should have done when it was run again."""
    files = state_of(gallery).files
    with GalleryFile.open(gallery) as opened:
        given = opened.connection.execute("select count(*) from region_origins").get
    if given != job.given * job.photos:
        return f"{given} regions were given to {job.photos} photos"
    if left := job.removable & files.keys():
        return f"not removed: {sorted(left)}"
    if job.words[0] in ("add", "sync"):
        on_disk = set(Path(job.words[1]).rglob("*.png"))
        return None if on_disk <= files.keys() else f"not added: {sorted(on_disk - files.keys())}"
    if job.words[0] == "reencode":
        name, vectors = vectors_of(gallery)
        return None if (name, vectors) == reencoded() else f"vectors of {name} are not those of a whole run"
    if job.words[0] == "split":
        parts = sorted(Path(job.words[1]).iterdir())
        held = [path for part in parts for path in state_of(part).files]
        return None if sorted(held) == sorted(files) else f"{len(held)} files in {len(parts)} parts"
    if job.words[0] == "merge" and len(files) != OLD + NEW:
        return f"{len(files)} files after a merge"
    return None


if __name__ == "__main__":
    main_of("kills", trial, count=300)
