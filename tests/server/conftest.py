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


@pytest.fixture
def gallery(indexed: Indexed, tmp_path: Path) -> Path:
    """A copy of the indexed gallery, without any verdict."""
    return Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))
