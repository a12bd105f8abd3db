import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import Indexed
from tests.support.server import Server, run_server


@pytest.fixture(scope="session")
def server(indexed: Indexed, model_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for a copy of the indexed gallery, with a random judge."""
    gallery = Path(shutil.copy(indexed.gallery, tmp_path_factory.mktemp("served") / "gallery.db"))
    with run_server(gallery, model_set) as running:
        yield running


@pytest.fixture(scope="session")
def slow_set(model_set: Path) -> Path:
    """The model set with a judge that sees much larger pictures, and so takes its time."""
    slow = model_set.with_name("slow_server.toml")
    slow.write_text(model_set.read_text().replace("max_pixels = 50176", "min_pixels = 802816"))
    return slow


@pytest.fixture
def gallery(indexed: Indexed, tmp_path: Path) -> Path:
    """A copy of the indexed gallery, without any verdict."""
    return Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))
