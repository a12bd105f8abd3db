"""Bench of a large gallery: its size and memory, searches warm and cold, and the commands that keep it.

    python -m tests.bench.bench_large [--quick] [--photos 200000] [--kind "B/32 nouns"] [--folder FOLDER]
        [--steps search,find,lines,ls,info,sync,merge,compact]

The vectors are those of `bench_search`; each photo is a file in a folder beside the gallery, a hard link to
one of a few tiny files. The gallery is written once: with --folder it is kept there, and a run that is
stopped goes on with the next photo. Nothing that grows with the number of photos is in memory but each
photo's best score for each query in float32, from which recall is computed. Commands run as whole processes;
the text tower is that of `bench_find`. Merging and compacting need room for as much again as the gallery has.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import apsw
import numpy as np

from matir_cli import masks
from matir_cli.gallery.database import GalleryFile
from matir_cli.photos.discover import stat_file
from matir_cli.records import PhotoRecord, Region
from matir_cli.search.encoding import EncodedQuery
from matir_cli.search.index import seal_index, store_quantised
from matir_cli.search.quantisation import quantise_finely
from matir_cli.search.rank import rank_photos
from matir_cli.search.stage_1 import rank_each
from tests.bench import bench_find, bench_search
from tests.bench.bench_search import AT_REST, PHOTOS_AT_ONCE, QUERIES, REGIONS, TOP, Floats, World
from tests.bench.measuring import (
    AnonymousPeak,
    BenchParser,
    MeasuredProcess,
    Timings,
    drop_from_cache,
    format_seconds,
    in_new_process,
    measure_process,
    print_columns,
    print_heading,
    print_row,
    time_once,
)

FILES_PER_FOLDER = 1000
"""Files in a folder, all links to one."""

SEALED_EVERY = 4000
"""Photos between two makings of the index while the gallery is written; `matir add` makes it more often."""

LINES = 50
"""Queries of `matir find -`."""

PROCESSES = 5
"""Processes of `matir find` that are timed with the gallery in the system's cache; a third with nothing."""


@dataclass(slots=True)
class Progress:
    """How far the writing of a gallery is, kept beside it."""

    kind: str
    photos: int
    """Photos that the gallery is to have."""
    written: int = 0
    """Photos that it has."""
    writing: float = 0.0
    """Seconds for quantising and writing them."""
    sealing: float = 0.0
    """Seconds for the index."""

    def save(self, folder: Path) -> None:
        """Replace the record in the folder."""
        beside = folder / "progress.new"
        beside.write_text(json.dumps(asdict(self)))
        beside.replace(folder / "progress.json")


def write_gallery(folder: Path, photos: int, kind: str) -> Progress:
    """Write `gallery.db`, `queries.npy`, `best.npy` and the files of the photos, or what of that is missing.

    `best.npy` holds the largest cosine of each photo with each query, in float32.
    """
    record = folder / "progress.json"
    done = Progress(**json.loads(record.read_text())) if record.exists() else Progress(kind, photos)
    if (done.kind, done.photos) != (kind, photos):
        raise SystemExit(f"{folder} has a gallery of {done.photos} photos of the kind {done.kind}")
    queries = World(kind, seed=1).queries(QUERIES)
    np.save(folder / "queries.npy", queries)
    world = World(kind)
    shape, mode = (photos, QUERIES), "r+" if (folder / "best.npy").exists() else "w+"
    best = np.lib.format.open_memmap(folder / "best.npy", mode, np.float32, shape)
    with GalleryFile.open(folder / "gallery.db", create=True) as gallery:
        done.written = gallery.count_photos()
        for first in range(done.written, photos, PHOTOS_AT_ONCE):
            world.rng = np.random.default_rng(first)  # so that a run that goes on draws the same
            (rows,) = world.photos(min(PHOTOS_AT_ONCE, photos - first))
            seconds, _ = time_once(partial(_write_photos, gallery, folder, rows, first))
            done.writing += seconds
            done.written = first + len(rows) // REGIONS
            best[first : done.written] = (rows @ queries.T).reshape(-1, REGIONS, QUERIES).max(axis=1)
            if done.written % SEALED_EVERY == 0 or done.written == photos:
                seconds, _ = time_once(partial(seal_index, gallery))
                done.sealing += seconds
                best.flush()
                done.save(folder)
                print(f"{done.written:,} photos", file=sys.stderr, flush=True)
    return done


def _write_photos(gallery: GalleryFile, folder: Path, rows: Floats, first: int) -> None:
    """Write photos with their files in one transaction.

    Args:
        rows: (n x 50, d) unit vectors.
        first: number of the first photo.
    """
    rle = masks.whole(8, 8)
    regions = [Region(rle, masks.box(rle), 64, 0.9, 0.95)] * REGIONS
    stored, residuals = quantise_finely(rows)
    with gallery.atomic():
        for number, start in enumerate(range(0, len(rows), REGIONS), start=first):
            file = stat_file(_link(folder, number))
            record = PhotoRecord(number.to_bytes(32), 8, 8, 8, 8, 1)
            photo_id, ids = gallery.add_photo(file, record, regions, None)
            part = slice(start, start + REGIONS)
            store_quantised(gallery, photo_id, ids, stored[part], residuals[part])


def _link(folder: Path, number: int) -> Path:
    """Make the file of a photo: a link to the first one of its folder."""
    inside = folder / "photos" / f"{number // FILES_PER_FOLDER:03}"
    original, path = inside / ".original", inside / f"{number:06}.jpg"
    if not original.exists():
        inside.mkdir(parents=True)
        original.write_bytes(b"\xff\xd8\xff\xd9")
    path.unlink(missing_ok=True)
    path.hardlink_to(original)
    return path


@dataclass(frozen=True, slots=True)
class Searches:
    """Searches in a warm process."""

    timings: Timings
    recalls: tuple[float, ...]
    """Share of the best photos in float32 that each query finds."""
    anonymous: int
    """Largest size of the process's own memory, bytes."""
    together: float
    """Seconds for all queries, several in each pass over the codes."""
    anonymous_together: int
    """Largest size of the process's own memory then."""


def search(folder: Path) -> Searches:
    """Search for all queries, after one that reads the file."""
    queries, best = np.load(folder / "queries.npy"), np.load(folder / "best.npy", mmap_mode="r")
    seconds, recalls = [], []
    with GalleryFile.open(folder / "gallery.db") as gallery:
        with AnonymousPeak(os.getpid()) as peak:
            rank_photos(gallery, queries[0], TOP)
            for number, query in enumerate(queries):
                time.sleep(AT_REST)
                taken, found = time_once(partial(rank_photos, gallery, query, TOP))
                seconds.append(taken)
                truth = np.argpartition(best[:, number], len(best) - TOP)[len(best) - TOP :]
                recalls.append(len({*truth.tolist()} & {each.photo_id - 1 for each in found}) / TOP)
        with AnonymousPeak(os.getpid()) as peak_together:
            encoded = [EncodedQuery(query[np.newaxis], truncated=False) for query in queries]
            together, _ = time_once(lambda: [*rank_each(gallery, encoded, TOP)])
    timings = Timings(tuple(seconds))
    return Searches(timings, tuple(recalls), peak.bytes, together, peak_together.bytes)


def matir(folder: Path, *words: object) -> list[str]:
    """The command line of `matir` on the gallery."""
    return [sys.executable, "-m", "matir_cli", *map(str, words), "--db", str(folder / "gallery.db")]


def print_process(name: str, runs: Sequence[MeasuredProcess], note: str = "") -> None:
    """Print the row of a command."""
    timings = Timings(tuple(run.seconds for run in runs))
    memory = max(run.anonymous for run in runs)
    p95 = format_seconds(timings.p95) if len(runs) > 1 else ""
    print_row(name, format_seconds(timings.median), p95, f"{memory / 1e6:.0f} MB", note)


def measure_search(folder: Path) -> None:
    """Measure searches in a warm process."""
    found = in_new_process(search, folder)
    recalls = f"recall {statistics.mean(found.recalls):.4f}, least {min(found.recalls):.2f}"
    timings, memory = found.timings, f"{found.anonymous / 1e6:.0f} MB"
    times = (format_seconds(timings.median), format_seconds(timings.p95))
    print_row(f"search of {QUERIES} queries, warm process", *times, memory, recalls)
    memory = f"{found.anonymous_together / 1e6:.0f} MB"
    each = format_seconds(found.together / QUERIES)
    print_row(f"the same {QUERIES} queries together, per query", each, "", memory, "")


def measure_find(folder: Path) -> None:
    """Measure `matir find --no-rerank`, with the gallery in the system's cache and without."""
    command = matir(folder, "find", "--no-rerank", "--no-server", "a dog led by a rope")
    command += ["--models", str(folder / "bench.toml")]
    measure_process(command)
    print_process("`find --no-rerank`, warm", [measure_process(command) for _ in range(PROCESSES)])
    cold = []
    for _ in range(-(-PROCESSES // 3)):
        if not drop_from_cache(folder / "gallery.db"):
            return
        cold.append(measure_process(command))
    print_process("`find --no-rerank`, nothing in the cache", cold)


def measure_lines(folder: Path) -> None:
    """Measure `matir find -` of some queries: from a file, and given one line after the other."""
    command = matir(folder, "find", "-", "--no-rerank", "--no-server", "--models", folder / "bench.toml")
    (folder / "lines.txt").write_text("".join(f"thing {number}\n" for number in range(LINES)))
    print_process(f"`find -`, a file of {LINES} lines", [measure_process(command, folder / "lines.txt")])
    started = time.perf_counter()
    with (
        (folder / "lines.txt").open("rb") as lines,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process,
        AnonymousPeak(process.pid) as peak,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        for line in lines:
            process.stdin.write(line)
            process.stdin.flush()
            process.stdout.readline()
        process.stdin.close()
        process.wait()
        run = MeasuredProcess(time.perf_counter() - started, peak.bytes)
    print_process(f"`find -`, {LINES} lines one after the other", [run])


def measure_ls(folder: Path) -> None:
    """Measure `matir ls`."""
    print_process("`ls`", [measure_process(matir(folder, "ls")) for _ in range(2)])


def measure_info(folder: Path) -> None:
    """Measure `matir info`."""
    print_process("`info`", [measure_process(matir(folder, "info")) for _ in range(2)])


def measure_sync(folder: Path) -> None:
    """Measure `matir sync` of files that have not changed."""
    command = matir(folder, "sync", folder / "photos", "--models", folder / "bench.toml")
    print_process("`sync`, all unchanged", [measure_process(command) for _ in range(2)])


def measure_merge(folder: Path) -> None:
    """Measure `matir merge` of the second half of the photos into a gallery of the first half."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        first, second = Path(name) / "first.db", Path(name) / "second.db"
        in_new_process(_write_half, folder, first, 0)
        in_new_process(_write_half, folder, second, 1)
        run = measure_process([sys.executable, "-m", "matir_cli", "merge", str(second), "--db", str(first)])
        print_process("`merge` of two halves", [run], f"of {second.stat().st_size / 1e9:.2f} GB each")


def _write_half(folder: Path, path: Path, half: int) -> None:
    """Write a gallery of every second photo, with an index."""
    GalleryFile.open(path, create=True).connection.close()
    db = apsw.Connection(str(path))
    db.pragma("synchronous", "off")
    db.execute("attach ? as whole", (str(folder / "gallery.db"),))
    chosen = "photo_id % 2 = ?"
    with db:
        db.execute("insert into main.models select * from whole.models")
        db.execute("insert into main.photos select * from whole.photos where id % 2 = ?", (half,))
        for table in ("files", "regions", "vectors", "residuals"):
            db.execute(f"insert into main.{table} select * from whole.{table} where {chosen}", (half,))
        db.execute("insert into main.loose select id from main.photos")
    db.close()
    with GalleryFile.open(path) as gallery:
        seal_index(gallery)


def measure_compact(folder: Path) -> None:
    """Measure `matir compact`, if the disk has room for it."""
    size = (folder / "gallery.db").stat().st_size
    if shutil.disk_usage(folder).free < 2 * size:
        print_row("`compact`", "", "", "", "the disk has no room for it")
        return
    print_process("`compact`", [measure_process(matir(folder, "compact"))])


STEPS: dict[str, Callable[[Path], None]] = {
    "search": measure_search,
    "find": measure_find,
    "lines": measure_lines,
    "ls": measure_ls,
    "info": measure_info,
    "sync": measure_sync,
    "merge": measure_merge,
    "compact": measure_compact,
}
"""What can be measured, in this order."""


def run(folder: Path, photos: int, kind: str, layers: int, steps: Sequence[str]) -> None:
    """Write the gallery if it is not there, and print the table."""
    done = in_new_process(write_gallery, folder, photos, kind)
    if not (folder / "bench.toml").exists():
        in_new_process(bench_find.bind_random_models, folder, layers)
    size = (folder / "gallery.db").stat().st_size
    print(
        f"The gallery has {photos:,} photos, {photos * REGIONS:,} regions and {size / 1e9:.2f} GB, "
        f"{size / photos / 1e3:.1f} kB per photo. Writing it took {format_seconds(done.writing)}, its index "
        f"{format_seconds(done.sealing)}.\n"
    )
    print_columns("step", "median", "p95", "its own memory, at most", "")
    for name, measure in STEPS.items():
        if name in steps:
            measure(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = BenchParser(__doc__, arguments)
    parser.add_size("--photos", 20_000, 200, "photos in the gallery")
    parser.add_size("--layers", 12, 1, "layers of the text tower; ViT-L/14 has 12")
    parser.add_argument("--kind", default="L/14 nouns", choices=[*bench_search.FITTED])
    parser.add_argument("--folder", type=Path, help="folder in which the gallery is kept")
    parser.add_argument(
        "--steps", default=",".join(STEPS), help="what is measured, separated by commas; none: only write"
    )
    options = parser.options()
    os.environ |= dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), bench_search.THREADS
    )
    print_heading(
        f"{options.photos:,} photos of {REGIONS} regions as bench_search draws them, kind {options.kind}",
        "The vectors and the processes are; masks have 8 x 8 pixels, and there are no previews.",
        f"{bench_search.THREADS} threads",
    )
    steps = options.steps.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["XDG_STATE_HOME"] = name  # where the use of that set is recorded
        run(folder.absolute(), options.photos, options.kind, options.layers, steps)


if __name__ == "__main__":
    main()
