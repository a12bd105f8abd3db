"""Images of a data set as photos: copies, orientation, size."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from matir_cli import masks
from matir_cli.errors import AnnotationsInvalid
from matir_cli.evaluation.coverage import annotated_objects, measure_coverage
from matir_cli.evaluation.image_index import locate_images
from matir_cli.evaluation.methods import EvaluationSetup, photo_ids, predict_region_masks
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.photos.decode import decode_photo
from matir_cli.photos.discover import stat_file
from matir_cli.progress import no_progress
from tests.evaluation.scenes import dataset_of, means, measure, method_of
from tests.support.fakes import ColourEncoder, ColourProposer, near
from tests.support.pictures import scene


def test_images_with_equal_bytes_share_a_photo_and_other_photos_are_not_ranked(
    tmp_path: Path, gallery: GalleryFile, paths: list[Path]
) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(paths[1].read_bytes())
    list(add_photos(gallery, [copy], IndexingModels(ColourProposer, ColourEncoder), previews=True))
    dataset = dataset_of([paths[1], paths[4], copy])
    setup = EvaluationSetup(dataset, gallery, locate_images(gallery, dataset))
    assert len(setup.image_index.images) == 2
    ranking = method_of(setup, None).stage_1_ranking(setup.queries[0])
    assert setup.image_index.image_ranking(photo_ids(ranking)) in ([11, 13, 12], [12, 11, 13])
    predicted = predict_region_masks(setup, setup.queries[0], ranking)
    assert predicted[11] == predicted[13]
    assert means(measure(setup, method_of(setup, None)).stage_1) == 1.0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_annotations_of_photos_that_are_not_upright(tmp_path: Path, orientation: int) -> None:
    picture = scene("red", size=(120, 90))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    picture.save(path, exif=exif)
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        list(add_photos(gallery, [path], IndexingModels(ColourProposer, ColourEncoder), previews=True))
        dataset = dataset_of([path])  # Pillow does not turn it by itself
        setup = EvaluationSetup(dataset, gallery, locate_images(gallery, dataset))
        measurements = measure(setup, method_of(setup, None))
        assert means(measurements.best_region) == 1.0
        assert measure_coverage(setup, annotated_objects(dataset), no_progress).covered == (1, 1)
        if orientation >= 5:  # annotations of the upright photo: its size tells
            upright = decode_photo(stat_file(path), b"").image
            image = replace(dataset.images[0], width=90, height=120)
            truth = {1: {11: (masks.encode(near(upright, "red")),)}}
            dataset = replace(dataset, images=(image,), truth=truth)
            setup = EvaluationSetup(dataset, gallery, locate_images(gallery, dataset))
            assert means(measure(setup, method_of(setup, None)).best_region) == 1.0


def test_an_image_whose_size_differs_from_its_annotations_is_named(
    gallery: GalleryFile, paths: list[Path]
) -> None:
    dataset = dataset_of(paths)
    wrong = replace(dataset.images[2], width=121)
    with pytest.raises(AnnotationsInvalid, match="image 13 has 120 x 90 pixels, its annotations 121 x 90"):
        locate_images(gallery, replace(dataset, images=(wrong,)))
