"""Subsets of a data set."""

from pathlib import Path

from matir_cli.evaluation.datasets.subset import limit_dataset
from tests.evaluation.scenes import dataset_of


def test_a_subset_has_a_note(paths: list[Path]) -> None:
    dataset = dataset_of(paths)
    assert limit_dataset(dataset, None, 4) is dataset
    part = limit_dataset(dataset, 2, 2)
    assert [image.id for image in part.images] == [11, 12]
    assert [query.text for query in part.queries] == ["red", "blue"]  # spread, not the first two
    assert part.relevant_images(1) == {12}
    assert part.notes == ("a part of the data set: 2 of 6 images, 2 of 4 queries",)
