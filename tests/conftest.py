import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from matir_cli.cli.commands.demo import draw
from tests.support.process import PHOTOS, Indexed, matir
from tests.support.server import end_servers

# A shell lets background processes ignore Ctrl-C, and nohup SIGHUP; the processes that tests interrupt must
# not inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# pytest-xdist sets the size of the terminal that the tests run in; those that they open have their own.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)

# Test processes that run side by side have cores of their own: threads that wait for those of another
# process, as llama.cpp's do, make both ten times as slow.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    _worker = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    _cores = sorted(os.sched_getaffinity(0))[_worker :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]
    if _cores:
        os.sched_setaffinity(0, _cores)


@pytest.fixture(scope="session", autouse=True)
def _state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's own defaults, state and runtime folders out of the tests and of their processes.

    At the end, servers that failed tests have left running are ended.
    """
    os.environ["MATIR_CONFIG"] = ""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    os.environ["XDG_RUNTIME_DIR"] = str(tmp_path_factory.mktemp("run"))
    yield
    end_servers()


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    """A gallery of drawn pictures, made by `matir add` from a folder that holds junk as well."""
    folder = tmp_path_factory.mktemp("indexed")
    photos, gallery = folder / "photos", folder / "gallery.db"
    draw(photos, PHOTOS)
    (photos / "zero.jpg").write_bytes(b"")
    (photos / "a\x1b[31mred\nname.jpg").write_bytes(b"junk")
    (photos / "notes.txt").write_bytes(b"not a photo")
    added = matir("add", photos, "--db", gallery, "--models", "tiny")
    return Indexed(photos, gallery, added)


@pytest.fixture(scope="session")
def model_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny set with a random judge beside it."""
    # Imported here because it imports transformers, which most tests do not need.
    from tests.support.judged_set import make_set

    return make_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="session")
def slow_set(model_set: Path) -> Path:
    """The model set with a judge that sees much larger pictures, and so takes its time."""
    slow = model_set.with_name("slow_server.toml")
    slow.write_text(model_set.read_text().replace("max_pixels = 50176", "min_pixels = 802816"))
    return slow
