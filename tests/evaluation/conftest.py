"""Fixtures of the evaluation tests: coloured scenes, indexed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from matir_cli.evaluation.image_index import locate_images
from matir_cli.evaluation.methods import EvaluationSetup
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from tests.evaluation.scenes import SCENES, dataset_of
from tests.support.fakes import ColourEncoder, ColourProposer
from tests.support.pictures import save_scenes


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return save_scenes(tmp_path / "photos", **SCENES)


@pytest.fixture
def gallery(tmp_path: Path, paths: list[Path]) -> Iterator[GalleryFile]:
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as opened:
        list(add_photos(opened, paths, IndexingModels(ColourProposer, ColourEncoder), previews=True))
        yield opened


@pytest.fixture
def setup(gallery: GalleryFile, paths: list[Path]) -> EvaluationSetup:
    dataset = dataset_of(paths)
    return EvaluationSetup(dataset, gallery, locate_images(gallery, dataset))
