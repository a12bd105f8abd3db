import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import Agent, run_agent
from tests.support.process import Indexed


@pytest.fixture(scope="session")
def searched(indexed: Indexed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the indexed gallery."""
    return Path(shutil.copy(indexed.gallery, tmp_path_factory.mktemp("searched") / "gallery.db"))


@pytest.fixture(scope="session")
def agent(searched: Path, model_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A client of a `matir mcp` with a random judge that may write to one folder."""
    folder = tmp_path_factory.mktemp("written") / "here"
    with run_agent(searched, model_set, "--write-to", folder) as running:
        yield running


@pytest.fixture
def gallery(indexed: Indexed, tmp_path: Path) -> Path:
    """A copy of the indexed gallery of a test of its own."""
    return Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))
