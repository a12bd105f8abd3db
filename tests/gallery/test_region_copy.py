"""Copies of a gallery's regions for other vectors."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.region_copy import open_region_copy
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from tests.support.fakes import ColourEncoder, ColourProposer
from tests.support.pictures import save_scenes, scene


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return save_scenes(tmp_path / "photos", **{"a": "green", "b": "red green"})


@pytest.fixture
def gallery(tmp_path: Path, paths: list[Path]) -> Iterator[GalleryFile]:
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as opened:
        list(add_photos(opened, paths, IndexingModels(ColourProposer, ColourEncoder), previews=True))
        yield opened


def test_a_copy_has_the_same_regions_and_is_remade_when_the_gallery_changes(
    gallery: GalleryFile, paths: list[Path], tmp_path: Path
) -> None:
    regions = "select count(*) from main.regions"
    with open_region_copy(gallery, tmp_path / "copies" / "c.db") as other:
        assert other.connection.execute(regions).get == gallery.connection.execute(regions).get
        other.connection.execute("insert into main.vectors values (1, 1, x'01')")
    with open_region_copy(gallery, tmp_path / "copies" / "c.db") as other:  # kept
        assert other.connection.execute("select count(*) from main.vectors").get == 1
    scene("blue", seed=99).save(paths[0])
    list(add_photos(gallery, paths, IndexingModels(ColourProposer, ColourEncoder), previews=True))
    with open_region_copy(gallery, tmp_path / "copies" / "c.db") as other:
        assert other.connection.execute("select count(*) from main.vectors").get == 0
        assert other.connection.execute(regions).get == gallery.connection.execute(regions).get
