"""Labels, boxes and paths for XMP."""

import os
from pathlib import Path

import pytest

from matir_cli import masks
from matir_cli.gallery.rows import StoredPhoto, StoredRegion
from matir_cli.output.xmp import (
    APPEND,
    REPLACE,
    is_label,
    region_boxes,
    sidecar_path,
)
from matir_cli.records import Box, Candidate, Region
from matir_cli.search.results import MATCHED, NO_BOX, GroundedObject, SearchResult
from tests.output.sidecar_files import (
    PHOTO,
)


def test_an_object_has_a_place_and_a_scene_has_none() -> None:
    def answer(ordinal: int, box: Box) -> GroundedObject:
        region = Region(masks.whole(4, 4), box, 16, 1.0, 1.0)
        return GroundedObject(box, StoredRegion(1, 1, ordinal, box, region), None, None)

    photo, candidate = StoredPhoto(1, (Path("/a.jpg"),), PHOTO), Candidate(1, 1, 0.5)
    dog, other, all_of_it = Box(1, 2, 3, 4), Box(5, 6, 7, 8), Box(0, 0, 400, 300)
    for answers, grounding, every, expected in (
        ((answer(3, dog),), None, False, (dog,)),
        ((answer(0, all_of_it),), None, False, ()),
        ((answer(0, all_of_it),), MATCHED, False, (all_of_it,)),  # the judge says so
        ((answer(3, dog), answer(4, other)), MATCHED, False, (dog,)),
        ((answer(3, dog), answer(4, other)), MATCHED, True, (dog, other)),
        ((), NO_BOX, True, ()),
    ):
        assert region_boxes(SearchResult(1, photo, candidate, answers, None, grounding), every) == expected


def test_names_of_sidecars() -> None:
    assert sidecar_path(Path("/a/b.jpg"), APPEND) == Path("/a/b.jpg.xmp")
    assert sidecar_path(Path("/a/b.jpg"), REPLACE) == Path("/a/b.xmp")
    raw = os.fsdecode(b'/a/\xff\n".JPG')
    assert os.fsencode(sidecar_path(Path(raw), APPEND)) == b'/a/\xff\n".JPG.xmp'


@pytest.mark.parametrize("label", ["", " a", "a\nb", "a\x00", "\x1b[31m", "\ud800", "\ufffe", "\x85"])
def test_labels_that_xml_cannot_hold_are_refused(label: str) -> None:
    assert not is_label(label)
