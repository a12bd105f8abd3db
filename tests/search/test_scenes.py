"""Scenes and photos without regions stay findable, although the whole photo loses as an answer."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.records import ImageArray, Region
from matir_cli.search.pipeline import SearchOptions, run_search
from tests.search.fake_models import ColourModels
from tests.support.fakes import COLOURS, ColourEncoder, ColourProposer, near
from tests.support.pictures import save_scenes


class NearsightedProposer(ColourProposer):
    """Finds no region in a picture that shows blue."""

    def propose(self, image: ImageArray) -> list[Region]:
        return [] if near(image, "blue").any() else super().propose(image)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GalleryFile]:
    folder = tmp_path_factory.mktemp("scenes")
    save_scenes(
        folder / "photos",
        no_region="blue",
        no_region_either="red blue",
        red="red",
        green="green",
        red_green="red green",
        green_red="green red",
    )
    halves = np.full((90, 120, 3), COLOURS["red"], np.uint8)
    halves[:, 60:] = COLOURS["green"]
    Image.fromarray(halves).save(folder / "photos" / "scene.png")
    with GalleryFile.open(folder / "gallery.db", create=True) as opened:
        models = IndexingModels(NearsightedProposer, ColourEncoder)
        list(add_photos(opened, [folder / "photos"], models, previews=True))
        yield opened


@pytest.mark.parametrize("rerank", [False, True])
def test_a_photo_without_regions_is_found_by_the_whole_photo(gallery: GalleryFile, rerank: bool) -> None:
    found = run_search(gallery, ColourModels(), "blue", SearchOptions(rerank=rerank, limit=2)).results
    assert {each.path.stem for each in found} == {"no_region", "no_region_either"}
    if not rerank:
        assert [each.objects[0].region.ordinal for each in found if each.objects[0].region] == [0, 0]


def test_a_photo_without_regions_is_found_by_both_objects_of_a_conjunction(gallery: GalleryFile) -> None:
    options = SearchOptions(rerank=False, limit=7)
    found = run_search(gallery, ColourModels(), "a red and a blue", options).results
    assert found[0].path.stem == "no_region_either"
    assert len(found) == 7


def test_a_photo_without_regions_loses_nothing_as_a_whole(gallery: GalleryFile) -> None:
    options = SearchOptions(rerank=False, limit=7)
    held, free = (
        {each.path.stem: each.score for each in run_search(gallery, ColourModels(), "blue", chosen).results}
        for chosen in (options, replace(options, whole=True))
    )
    assert held["no_region"] == pytest.approx(free["no_region"])


def test_a_scene_is_found_although_no_region_shows_it(gallery: GalleryFile) -> None:
    found = run_search(gallery, ColourModels(), "red and green", SearchOptions(rerank=False, limit=7)).results
    assert found[0].path.stem == "scene"
    answer = found[0].objects[0].region
    assert answer is not None
    assert answer.ordinal == 0
