"""What a query is: the region that an example means, and the one vector of all its parts."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from matir_cli.engines.protocols import QueryVector, TextEncoder
from matir_cli.errors import (
    ExampleBlank,
    ExampleOutside,
    GalleryDamaged,
    OutOfRange,
    PhotoUnreadable,
    QueryContradicts,
    QueryEmpty,
    QueryNotText,
)
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.records import Box, FloatArray, ImageArray, Point, Region
from matir_cli.search.box_matching import box_iou
from matir_cli.search.encoding import encode_query
from matir_cli.search.query import (
    POOR_IOU,
    REUSED_IOU,
    Example,
    Query,
    ResolvedExample,
    normal_text,
    resolve_example,
)
from matir_cli.search.rank import rank_photos
from matir_cli.search.vectors import region_vector
from tests.search.fake_models import ColourModels, UnusedModels
from tests.support.fakes import BrokenEncoder, ColourEncoder, ColourProposer, ColourText
from tests.support.pictures import save_scenes, scene

RED = Box(10, 20, 35, 45)
"""The first square of a scene."""


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GalleryFile]:
    folder = tmp_path_factory.mktemp("query")
    save_scenes(
        folder / "photos",
        a_both="red green",
        red="red",
        green="green",
        blue="blue",
        violet="red blue",
        all="red green blue",
    )
    with GalleryFile.open(folder / "gallery.db", create=True) as opened:
        list(
            add_photos(
                opened, [folder / "photos"], IndexingModels(ColourProposer, ColourEncoder), previews=False
            )
        )
        yield opened


def known(gallery: GalleryFile) -> Path:
    return gallery.path.parent / "photos" / "a_both.png"


def names(gallery: GalleryFile, vector: FloatArray) -> list[str]:
    return [gallery.photo(found.photo_id).paths[0].stem for found in rank_photos(gallery, vector, 10)]


@pytest.mark.parametrize(
    ("box", "point", "ordinal"),
    [
        (None, None, 0),
        (RED, None, 1),
        (Box(9, 19, 36, 46), None, 1),  # near enough
        (Box(45, 20, 70, 45), None, 2),
        (None, Point(12.5, 22), 1),
        (None, Point(50, 44.9), 2),
    ],
)
def test_a_photo_in_the_gallery_has_its_regions_already(
    gallery: GalleryFile, box: Box | None, point: Point | None, ordinal: int
) -> None:
    shown = resolve_example(gallery, UnusedModels(), Example(known(gallery), box, point))
    region = gallery.regions(1)[ordinal]
    assert shown.stored
    assert shown.box == region.box
    assert shown.share == pytest.approx(region.region.area / (120 * 90))
    assert shown.vector == pytest.approx(region_vector(gallery, region.id), abs=1e-6)
    assert np.linalg.norm(shown.vector) == pytest.approx(1, abs=1e-5)


def test_a_copy_is_known_by_its_bytes_and_a_changed_photo_is_not(
    gallery: GalleryFile, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere.png"
    copy.write_bytes(known(gallery).read_bytes())
    assert resolve_example(gallery, UnusedModels(), Example(copy, RED)).stored
    scene("blue", seed=50).save(copy)
    shown = resolve_example(gallery, ColourModels(), Example(copy, RED))
    assert not shown.stored
    assert set(names(gallery, shown.vector)[:3]) == {"blue", "violet", "all"}


def test_where_no_stored_region_is_meant_the_proposer_is_asked(gallery: GalleryFile) -> None:
    shown = resolve_example(gallery, ColourModels(), Example(known(gallery), Box(10, 20, 70, 45)))
    assert not shown.stored
    assert shown.box == Box(10, 20, 70, 45)
    assert shown.share == pytest.approx(60 * 25 / (120 * 90))
    assert shown.vector[0] == pytest.approx(shown.vector[1])  # as much red as green
    with pytest.raises(ExampleBlank):
        resolve_example(gallery, ColourModels(), Example(known(gallery), point=Point(100, 80)))


# What is found is held against what was asked for


class CornerProposer(ColourProposer):
    """Finds a small region in the corner, whatever box or point it is asked about."""

    def refine(self, image: ImageArray, boxes: Sequence[Box]) -> list[Region | None]:
        return super().refine(image, [Box(0, 0, 18, 12)] * len(boxes))

    def region_at(self, image: ImageArray, point: Point) -> Region | None:
        return self.refine(image, [Box(0, 0, 0, 0)])[0]


@pytest.mark.parametrize("is_known", [True, False])
def test_a_box_around_the_whole_photo_is_the_whole_photo(
    gallery: GalleryFile, tmp_path: Path, is_known: bool
) -> None:
    path = known(gallery)
    if not is_known:
        path = tmp_path / "new.png"
        scene("red", seed=9).save(path)
    for box in (Box(0, 0, 120, 90), Box(-3, -3, 125, 95), Box(2, 1, 119, 90), Box(10, 5, 110, 85)):
        shown = resolve_example(gallery, ColourModels(proposer=CornerProposer()), Example(path, box))
        assert shown.box == Box(0, 0, 120, 90)
        assert shown.share == 1
        assert not shown.fits_poorly


@given(st.tuples(*[st.integers(0, 120)] * 2), st.tuples(*[st.integers(0, 90)] * 2), st.booleans())
@settings(derandomize=True, deadline=None, max_examples=60)
def test_nothing_that_competes_fits_better(
    gallery: GalleryFile, across: tuple[int, int], down: tuple[int, int], is_known: bool
) -> None:
    (x0, x1), (y0, y1) = sorted(across), sorted(down)
    assume(x1 - x0 > 5 and y1 - y0 > 5)
    box, path = Box(x0, y0, x1, y1), known(gallery)
    if not is_known:
        path = gallery.path.parent / "unknown.png"
        scene("red", "green", seed=99).save(path)
    models = ColourModels(proposer=CornerProposer())
    others = [region.box for region in gallery.regions(1)[1:]] if is_known else []
    if not any(box_iou(box, rival) for rival in (*others, Box(0, 0, 18, 12))) and box.area < 0.5 * 120 * 90:
        with pytest.raises(ExampleBlank):
            resolve_example(gallery, models, Example(path, box))
        return
    shown = resolve_example(gallery, models, Example(path, box))
    assert shown.iou == pytest.approx(box_iou(box, shown.box))
    whole = box_iou(box, Box(0, 0, 120, 90))
    rivals = [box_iou(box, rival) for rival in others]
    assert shown.iou is not None
    assert shown.iou >= max([*rivals, whole if whole >= POOR_IOU else 0, 0])
    if shown.iou < REUSED_IOU:  # no stored region was good enough, so the proposer was asked
        assert shown.iou >= box_iou(box, Box(0, 0, 18, 12))
    assert shown.fits_poorly == (shown.iou < POOR_IOU)


def test_a_region_beside_the_point_is_no_answer(gallery: GalleryFile, tmp_path: Path) -> None:
    scene("red", seed=9).save(tmp_path / "new.png")
    models = ColourModels(proposer=CornerProposer())
    inside = resolve_example(gallery, models, Example(tmp_path / "new.png", point=Point(17, 11)))
    assert inside.box == Box(0, 0, 18, 12)
    assert inside.iou is None
    with pytest.raises(ExampleBlank):
        resolve_example(gallery, models, Example(tmp_path / "new.png", point=Point(60, 60)))


class BlindProposer(ColourProposer):
    """Finds nothing."""

    def refine(self, image: ImageArray, boxes: Sequence[Box]) -> list[Region | None]:
        return [None] * len(boxes)


def test_where_the_proposer_finds_nothing_what_nearly_fits_is_taken(gallery: GalleryFile) -> None:
    models = ColourModels(proposer=BlindProposer())
    near = resolve_example(gallery, models, Example(known(gallery), Box(10, 20, 35, 55)))
    assert near.box == RED
    assert near.stored
    assert not near.fits_poorly
    whole = resolve_example(gallery, models, Example(known(gallery), Box(10, 10, 115, 80)))
    assert whole.share == 1


@pytest.mark.parametrize(
    ("box", "point"), [(Box(100, 200, 350, 450), None), (None, Point(320, 425)), (None, Point(105, 205))]
)
def test_boxes_and_points_are_in_pixels_of_the_photo_as_it_is_shown(
    gallery: GalleryFile, tmp_path: Path, box: Box | None, point: Point | None
) -> None:
    upright = scene("red", "blue").resize((1200, 900), Image.Resampling.NEAREST)
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter, clockwise, before it is shown
    path = tmp_path / "turned.png"
    lying.save(path, exif=exif)
    shown = resolve_example(gallery, ColourModels(), Example(path, box, point))
    assert not shown.stored
    corners = (shown.box.x0, shown.box.y0, shown.box.x1, shown.box.y1)
    assert corners == pytest.approx((100, 200, 350, 450), abs=3)
    assert shown.share == pytest.approx(250 * 250 / (1200 * 900), rel=0.02)
    assert set(names(gallery, shown.vector)[:4]) == {"a_both", "red", "violet", "all"}


@pytest.mark.parametrize(
    ("box", "point"),
    [
        (Box(120, 0, 130, 10), None),
        (Box(-20, -20, 0, 10), None),
        (None, Point(120, 10)),
        (None, Point(3, -0.5)),
    ],
)
@pytest.mark.parametrize("is_known", [True, False])
def test_outside_the_photo_there_is_nothing(
    gallery: GalleryFile, tmp_path: Path, box: Box | None, point: Point | None, is_known: bool
) -> None:
    path = known(gallery)
    if not is_known:
        path = tmp_path / "new.png"
        scene("red", seed=9).save(path)
    with pytest.raises(ExampleOutside) as caught:
        resolve_example(gallery, ColourModels(), Example(path, box, point))
    assert (caught.value.width, caught.value.height) == (120, 90)


def test_a_box_that_reaches_over_the_edge_is_cut(gallery: GalleryFile, tmp_path: Path) -> None:
    scene("red", seed=9).save(tmp_path / "new.png")
    shown = resolve_example(gallery, ColourModels(), Example(tmp_path / "new.png", Box(-50, -50, 30, 30)))
    assert shown.box == Box(0, 0, 30, 30)


def test_what_is_no_photo_is_no_example(gallery: GalleryFile, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("red")
    for name in ("notes.txt", "nowhere.png"):
        with pytest.raises(PhotoUnreadable):
            resolve_example(gallery, ColourModels(), Example(tmp_path / name))


def test_a_vector_that_is_no_number_is_not_searched_with(gallery: GalleryFile, tmp_path: Path) -> None:
    scene("red", seed=9).save(tmp_path / "new.png")
    with pytest.raises(Exception, match="not a number"):
        resolve_example(gallery, ColourModels(region_encoder=BrokenEncoder()), Example(tmp_path / "new.png"))


# Texts


@given(
    st.text(max_size=12),
    st.sampled_from(["", "\ufeff", " \ufeff", "\t\u3000"]),
    st.sampled_from(["NFC", "NFD"]),
)
@settings(derandomize=True, deadline=None)
def test_a_text_has_one_form(text: str, around: str, form: Literal["NFC", "NFD"]) -> None:
    written = around + unicodedata.normalize(form, text) + around
    query = Query(written, without=(written, text))
    assert query.text == normal_text(text) == normal_text(normal_text(text))
    assert query.without == (normal_text(text),)
    assert normal_text(text) == normal_text(text).strip()


# The vector


def encode(gallery: GalleryFile, asked: Query, text_encoder: TextEncoder | None = None) -> FloatArray:
    found = encode_query(gallery, ColourModels(text_encoder=text_encoder or ColourText()), asked)
    assert np.linalg.norm(found.vectors) == pytest.approx(1, abs=1e-5)
    (vector,) = found.vectors
    return np.asarray(vector)


def shown(gallery: GalleryFile, ordinal: int = 2) -> ResolvedExample:
    region = gallery.regions(1)[ordinal]
    return ResolvedExample(known(gallery), region_vector(gallery, region.id), region.box, 0.1, stored=True)


def test_a_part_by_itself_is_the_vector(gallery: GalleryFile) -> None:
    assert np.array_equal(encode(gallery, Query("red")), ColourText().encode("red").vector)
    example = shown(gallery)
    assert encode(gallery, Query(examples=(example,))) == pytest.approx(example.vector)


def test_a_stored_vector_of_another_length_than_the_encoders_is_damage(gallery: GalleryFile) -> None:
    example = replace(shown(gallery), vector=np.ones(1, np.float32))
    for asked in (Query("red", (example,)), Query(None, (example,), without=("red",))):
        with pytest.raises(GalleryDamaged, match="as long as"):
            encode(gallery, asked)


def test_weights_go_from_the_text_to_the_example(gallery: GalleryFile) -> None:
    green = shown(gallery)
    red, both, only_green = (encode(gallery, Query("red", (green,), weight)) for weight in (0, 0.5, 1))
    assert red == pytest.approx(ColourText().encode("red").vector, abs=1e-5)
    assert only_green == pytest.approx(green.vector, abs=1e-5)
    share = [float(vector[1] / vector[0]) for vector in (red, both)]
    assert share[0] < 0.01 < 0.3 < share[1] < 3


@dataclass
class Gapped:
    """Texts that all point to where no region lies, as CLIP's do: what tells them apart is a small part."""

    gap: float = 5.0

    def encode(self, text: str) -> QueryVector:
        vector = ColourText().encode(text).vector.copy()
        vector[7] = self.gap
        return QueryVector(vector / np.linalg.norm(vector), truncated=False)


@pytest.mark.parametrize("without", [(), ("blue",)])
def test_the_gap_between_texts_and_pictures_shifts_no_weight(
    gallery: GalleryFile, without: tuple[str, ...]
) -> None:
    asked = Query("red", (shown(gallery),), without=without)
    plain, gapped = encode(gallery, asked), encode(gallery, asked, Gapped())
    seen = [vector[:4] / np.linalg.norm(vector[:4]) for vector in (plain, gapped)]
    assert seen[0] @ seen[1] > 0.999
    assert names(gallery, plain) == names(gallery, gapped)


def test_what_is_not_wanted_is_ranked_down(gallery: GalleryFile) -> None:
    assert "violet" in names(gallery, encode(gallery, Query("red")))[:4]
    only = encode(gallery, Query("red", without=("blue", "green")))
    assert only[0] > 0 > only[2]
    assert only[1] < 0
    example = encode(gallery, Query(examples=(shown(gallery, 0),), without=("green",)))
    assert names(gallery, example).index("green") > names(gallery, example).index("red")


def test_not_what_is_asked_for_is_a_contradiction(gallery: GalleryFile) -> None:
    with pytest.raises(QueryContradicts) as caught:
        encode(gallery, Query("red", without=("blue", "a red one")))
    assert caught.value.text == "a red one"
    example = replace(shown(gallery), vector=ColourText().encode("green").vector)
    with pytest.raises(QueryContradicts):
        encode(gallery, Query(examples=(example,), without=("green",)))


def test_a_query_without_anything_to_find_is_empty(gallery: GalleryFile) -> None:
    for asked in (Query(), Query(" "), Query("red", without=("",)), Query(without=("red",))):
        with pytest.raises(QueryEmpty):
            asked.check()
        with pytest.raises(QueryEmpty):
            encode(gallery, asked)


def test_one_photo_alone_gives_no_unit_but_an_answer(tmp_path: Path) -> None:
    (path,) = save_scenes(tmp_path / "photos", a="")
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        list(add_photos(gallery, [path], IndexingModels(ColourProposer, ColourEncoder), previews=False))
        vector = encode(gallery, Query("red", (Example(path),)))
    assert np.isfinite(vector).all()


def test_an_example_that_was_not_looked_at_is_looked_at(gallery: GalleryFile) -> None:
    asked = Query(examples=(Example(known(gallery), point=Point(50, 30)),))
    assert encode(gallery, asked) == pytest.approx(shown(gallery).vector, abs=1e-5)


@pytest.mark.parametrize("query", [Query("a d\udcffg"), Query("a dog", without=("\ud83d",))])
def test_half_a_character_is_no_text(query: Query) -> None:
    with pytest.raises(QueryNotText):
        query.check()


def test_a_weight_is_a_number_from_0_to_1() -> None:
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(OutOfRange):
            Query("a dog", weight=weight)
