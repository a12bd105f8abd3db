"""Fixtures of the tests of outputs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from matir_cli.gallery.database import GalleryFile


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as opened:
        yield opened
