"""Tests of indexing on real Ray clusters: `make test-ray`.

They are run by name only: they need `pip install -e '.[ray]'`, and Ray's processes take seconds to start.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import ray
from PIL import Image
from ray.cluster_utils import Cluster

from matir_cli import Added, Gallery, RayOptions, Skipped
from matir_cli.cli.commands.demo import draw
from matir_cli.cluster.ray_workers import RayStages
from matir_cli.cluster.worker_models import WorkerModels
from matir_cli.errors import ClusterTooSmall, WorkerRefused
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import INDEXING_PARTS, locate_part
from tests.cluster.content import content_of
from tests.cluster.crafted import load_fragile
from tests.support.fakes import COLOURS, ColourEncoder, ColourProposer
from tests.support.pictures import save_scenes
from tests.support.process import MATIR, matir

DRAWN = 24
"""Drawn pictures: enough for a node to be lost in the middle."""

TINY = {"models": "tiny", "device": "cpu"}
OPTIONS = RayOptions(workers=2, cpus_per_worker=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictures, a copy of one of them, and junk."""
    folder = tmp_path_factory.mktemp("photos")
    draw(folder, DRAWN)
    shutil.copy(folder / "0003.png", folder / "z.png")
    (folder / "junk.jpg").write_bytes(b"junk")
    return folder


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery made without Ray, with one thread as the workers have."""
    path = tmp_path_factory.mktemp("plain") / "gallery.db"
    assert matir("add", photos, "--db", path, "--models", "tiny", OMP_NUM_THREADS="1").returncode == 3
    return path


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[tuple[Cluster, Any]]:
    """A cluster of two nodes with a CPU each, joined by this process; the second node may be lost."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster: Any = Cluster()  # typed only where Ray is installed
    cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=100 << 20)
    second = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    ray.init(address=cluster.address, log_to_driver=False)
    cluster.wait_for_nodes()
    yield cluster, second
    ray.shutdown()
    cluster.shutdown()


def nodes_of_actors() -> list[str]:
    """Ids of the nodes on which actors live."""
    state: Any = ray._private.state  # typed only where Ray is installed
    actors = state.actors().values()
    return [actor["Address"]["NodeID"] for actor in actors if actor["State"] == "ALIVE"]


# The tests that use `two_nodes` run in this order: the second node is lost in the last of them.
@pytest.mark.usefixtures("two_nodes")
def test_a_photo_that_kills_its_worker_is_skipped(tmp_path: Path) -> None:
    save_scenes(tmp_path / "photos", a="green", b="blue", c="red green", d="red", e="blue green", f="green")
    Image.new("RGB", (80, 60), COLOURS["red"]).save(tmp_path / "photos" / "deadly.png")
    options = RayOptions(workers=2, cpus_per_worker=1, gpus_per_worker=0)
    with (
        GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery,
        RayStages(options, lambda: load_fragile, "cpu") as stages,
    ):
        models = IndexingModels(ColourProposer, ColourEncoder, remote=stages)
        outcomes = [*add_photos(gallery, [tmp_path / "photos"], models, previews=True)]
    skipped, *others = [outcome for outcome in outcomes if isinstance(outcome, Skipped)]
    assert (skipped.path.name, others) == ("deadly.png", [])
    assert skipped.reason.startswith("it ended the worker that indexed it 2 times: ")
    assert sum(isinstance(outcome, Added) for outcome in outcomes) == 6
    assert ray.is_initialized()  # the connection that was there before is kept
    assert nodes_of_actors() == []


@pytest.mark.usefixtures("two_nodes")
def test_a_worker_with_other_models_is_refused(photos: Path, tmp_path: Path) -> None:
    tiny = load_model_set("tiny")
    configs = {part: locate_part(tiny, part) for part in INDEXING_PARTS}
    other = WorkerModels(tiny, {**configs, "encoder": configs["proposer"]}, "cpu", None)
    with (
        GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery,
        RayStages(OPTIONS, lambda: other, "cpu") as stages,
        pytest.raises(WorkerRefused, match="is another one than here"),
    ):
        models = IndexingModels(ColourProposer, ColourEncoder, remote=stages)
        [*add_photos(gallery, [photos], models, previews=True)]
    with GalleryFile.open(tmp_path / "gallery.db") as gallery:
        assert gallery.count_photos() == 0


def test_the_command_joins_a_cluster(two_nodes: tuple[Cluster, Any], photos: Path, tmp_path: Path) -> None:
    some = [photos / f"{number:04}.png" for number in range(3)]
    for name, words in (("plain.db", ()), ("gallery.db", ("--ray", "--workers", 1))):
        variables = {"RAY_ADDRESS": two_nodes[0].address, "OMP_NUM_THREADS": "1"}
        done = matir("add", *some, "--db", tmp_path / name, "--models", "tiny", *words, **variables)
        assert (done.returncode, b"3 added" in done.stderr) == (0, True), done.stderr
    assert content_of(tmp_path / "gallery.db") == content_of(tmp_path / "plain.db")
    untyped: Any = ray  # typed only where it is installed
    assert len([node for node in untyped.nodes() if node["Alive"]]) == 2  # the cluster goes on


@pytest.mark.usefixtures("two_nodes")
def test_more_workers_than_there_is_room_for_are_refused(photos: Path, tmp_path: Path) -> None:
    with (
        Gallery(tmp_path / "gallery.db", **TINY) as gallery,
        pytest.raises(ClusterTooSmall, match="only 2 of the 3 workers wanted"),
    ):
        [*gallery.add(photos, ray=RayOptions(workers=3))]


def test_a_node_that_is_lost_costs_only_time(
    two_nodes: tuple[Cluster, Any], photos: Path, plain: Path, tmp_path: Path
) -> None:
    cluster, second = two_nodes
    done = 0
    with Gallery(tmp_path / "gallery.db", **TINY) as gallery:
        for outcome in gallery.add(photos, ray=OPTIONS):
            done += isinstance(outcome, Added)
            if done == DRAWN // 3 and second is not None:
                assert second.node_id in nodes_of_actors()
                cluster.remove_node(second, allow_graceful=False)
                second = None
    assert second is None
    assert done == DRAWN
    assert content_of(tmp_path / "gallery.db") == content_of(plain)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder of temporary files whose path is as short as Ray's sockets need it."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as name:
        yield Path(name)


def test_a_cluster_that_is_started_listens_on_loopback_only(temporary: Path) -> None:
    script = (
        "import sys, signal; from matir_cli.cluster.ray_workers import RayCluster; "
        "before = signal.getsignal(signal.SIGTERM); cluster = RayCluster('auto'); "
        "assert signal.getsignal(signal.SIGTERM) is before; "
        "print(len(cluster.nodes()), flush=True); sys.stdin.read(); cluster.close()"
    )
    with subprocess.Popen(
        [MATIR[0], "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        addresses = listening_addresses(process.pid)
        _, errors = process.communicate()
    assert addresses
    assert addresses <= LOOPBACK
    assert (process.returncode, errors) == (0, b"")
    assert [*temporary.iterdir()] == []


def test_the_command_gives_the_same_gallery(
    photos: Path, plain: Path, tmp_path: Path, temporary: Path
) -> None:
    cache = tmp_path / "cache"
    words = ["--ray", "--workers", 2, "--cpus-per-worker", 1, "--shared-files", "--ship-models"]
    variables = {"TMPDIR": str(temporary), "XDG_CACHE_HOME": str(cache)}
    gallery = tmp_path / "gallery.db"
    command = [*MATIR, "add", photos, "--db", gallery, "--models", "tiny", *words]
    with subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **variables},
    ) as process:
        await_photos(process, gallery)
        lost, *_ = [pid for pid in children(process.pid) if b"PhotoActor" in command_line(pid)]
        os.kill(lost, signal.SIGKILL)
        output, errors = process.communicate()
    assert (process.returncode, output) == (3, b"")
    _, *lines = errors.decode().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"skipped {photos}/junk.jpg: ")
    assert lines[1] == f"matir: {DRAWN} added, 1 recognised, 0 unchanged, 1 skipped"
    assert content_of(gallery) == content_of(plain)
    assert len([*cache.glob("matir/shipped/*/lock")]) >= 2
    assert [*temporary.glob("matir*")] == []  # torch leaves a folder of its own
    # Nothing new: no cluster is joined.
    again = matir("add", photos / "0000.png", "--db", gallery, "--ray=127.0.0.1:1")
    assert (again.returncode, b"1 unchanged" in again.stderr) == (0, True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_is_continued(
    photos: Path, plain: Path, tmp_path: Path, temporary: Path, number: signal.Signals
) -> None:
    gallery = tmp_path / "gallery.db"
    words = ["add", str(photos), "--db", str(gallery), "--models", "tiny", "--ray", "--workers", "1"]
    variables = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*MATIR, *words], stderr=subprocess.PIPE, env=variables) as process:
        await_photos(process, gallery)
        below = children(process.pid)
        process.send_signal(number)
        _, errors = process.communicate()
    assert below
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert b"run the same command again to go on" in errors
    assert 3 <= count(gallery) < DRAWN
    assert left_of(below) == []
    assert subprocess.run([*MATIR, *words], env=variables, check=False).returncode == 3
    assert content_of(gallery) == content_of(plain)


def test_a_cluster_that_does_not_answer_is_named(photos: Path, tmp_path: Path) -> None:
    done = matir("add", photos, "--db", tmp_path / "gallery.db", "--models", "tiny", "--ray=127.0.0.1:1")
    assert done.returncode == 2
    *_, last = done.stderr.decode().splitlines()
    assert last.startswith("matir: the Ray cluster at 127.0.0.1:1 cannot be joined: ")


def test_the_bench_prints_its_tables() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.ray_workers", "--quick"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    for first in (
        "`matir add`",
        "--ray, workers: 1",
        "--ray, workers: 2",
        "8 of 320 x 240",
        "8 of 2048 x 1536",
    ):
        assert any(row.startswith(f"| {first} |") for row in rows), first


def await_photos(process: subprocess.Popen[bytes], gallery: Path, least: int = 3) -> None:
    """Wait until the process has added some photos; it must not end before."""
    while count(gallery) < least:
        with pytest.raises(subprocess.TimeoutExpired):  # not in a loop of its own: it would take a core
            process.wait(0.2)


def count(gallery: Path) -> int:
    """Photos in a gallery that another process writes."""
    if not gallery.exists():
        return 0
    with GalleryFile.open(gallery) as opened:
        return opened.count_photos()


def parents() -> dict[int, int]:
    """Process to its parent, of all processes that are alive."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
                if state != "Z":
                    found[int(folder.name)] = int(parent)
    return found


def command_line(pid: int) -> bytes:
    """Command line of a process; empty if it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children(pid: int) -> set[int]:
    """Processes below a process, at any depth."""
    known = parents()
    below, found = {pid}, set[int]()
    while below:
        below = {child for child, parent in known.items() if parent in below}
        found |= below
    return found


def left_of(processes: set[int], seconds: float = 90) -> list[bytes]:
    """Wait until none of these processes is alive; return the command lines of those that still are."""
    end = time.monotonic() + seconds
    while (left := processes & {*parents()}) and time.monotonic() < end:
        select.select([], [], [], 0.2)
    return [command_line(pid) for pid in left]


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
"""127.0.0.1 as /proc/net writes it, for IPv4 and IPv6."""


def listening_addresses(pid: int) -> set[str]:
    """Addresses (hex, as in /proc/net) on which a process and those below it listen."""
    inodes = set[str]()
    for process in {pid, *children(pid)}:
        for link in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                inodes.add(os.fspath(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    files = [Path("/proc/net", name).read_text() for name in ("tcp", "tcp6")]
    rows = [line.split() for text in files for line in text.splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}
