"""Annotations of a data set as regions of photos."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as pycoco

from matir_cli import masks
from matir_cli.errors import RegionFileInvalid
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.rows import StoredRegion
from matir_cli.indexing import annotations as reasons
from matir_cli.indexing.annotations import AnnotationFile
from matir_cli.indexing.outcomes import Added, Linked, Outcome, Skipped, Unchanged
from matir_cli.indexing.own_regions import OwnRegions, Updated
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.maintenance.doctor.findings import FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.records import Box, ImageArray, MaskArray, OriginKind, PhotoRecord, Region, RegionOrigin
from matir_cli.search.index import seal_index
from matir_cli.search.quantisation import quantise_finely
from matir_cli.search.rank import rank_photos
from matir_cli.search.vectors import stored_vectors
from tests.support.fakes import ColourEncoder, ColourProposer, ColourText
from tests.support.pictures import save_scenes, scene

WIDTH, HEIGHT = 120, 90

Annotations = list[dict[str, Any]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    save_scenes(tmp_path / "photos", a="green red", b="blue", c="red")
    return tmp_path / "photos"


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as opened:
        yield opened


class Models:
    """Fake engines that count what they are asked."""

    def __init__(self) -> None:
        self.proposer = ColourProposer()

    def models(self) -> IndexingModels:
        return IndexingModels(lambda: self.proposer, ColourEncoder)


def instances(annotations: Annotations, **names: str) -> dict[str, Any]:
    """A COCO file of the scenes a, b, c (images 1, 2, 3), or of images with other names."""
    files = {"a": "a.png", "b": "b.png", "c": "c.png"} | names
    images = [
        {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for number, name in enumerate(files.values(), start=1)
    ]
    categories = [{"id": 7, "name": "square"}, {"id": 8, "name": "corner"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def rectangle(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> MaskArray:
    mask = np.zeros(size[::-1], np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def compressed(mask: MaskArray) -> dict[str, Any]:
    encoded = pycoco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def uncompressed(mask: MaskArray) -> dict[str, Any]:
    flat = mask.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat, prepend=0))
    counts = np.diff(edges, prepend=0, append=flat.size)
    return {"size": list(mask.shape), "counts": counts.tolist()}


def add(
    gallery: GalleryFile,
    folder: Path,
    content: object,
    *,
    only: bool = False,
    models: Models | None = None,
    paths: list[Path] | None = None,
) -> tuple[list[Outcome | Updated], AnnotationFile]:
    """Add a folder with the annotations, as `matir add --regions` does."""
    file = folder.parent / "instances.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    own = OwnRegions(AnnotationFile.read(file), only)
    used = (models or Models()).models()
    outcomes: list[Outcome | Updated] = list(
        add_photos(gallery, own.noting_folders(paths or [folder]), used, previews=True, propose=own.propose)
    )
    known = [each.path for each in outcomes if isinstance(each, Unchanged | Linked)]
    return [*outcomes, *own.update_known(gallery, known, used)], own.annotations


def given_to(gallery: GalleryFile, name: str) -> list[StoredRegion]:
    """The regions of a scene that its proposer did not find."""
    return [each for each in regions_of(gallery, name) if each.region.origin is not None]


def regions_of(gallery: GalleryFile, name: str) -> list[StoredRegion]:
    select = "select photo_id from files where path like ?"
    return gallery.regions(int(gallery.connection.execute(select, (f"%/{name}.png",)).get))


def check_vectors(gallery: GalleryFile) -> None:
    """Assert that every region has the vector and residual of its own mask, and can be found."""
    photos = [row[0] for row in gallery.connection.execute("select id from photos")]
    for photo in photos:
        stored = gallery.regions(photo)
        assert [each.ordinal for each in stored] == list(range(len(stored)))
        image = np.asarray(Image.open(gallery.paths(photo)[0]).convert("RGB"))
        expected, residuals = quantise_finely(
            ColourEncoder().encode(image, [each.region.rle for each in stored])
        )
        ids = np.array([each.id for each in stored])
        assert (np.abs(stored_vectors(gallery, ids, 64).astype(int) - expected) <= 3).all()  # a JPEG preview
        kept = gallery.connection.execute("select residuals from residuals where photo_id = ?", (photo,)).get
        assert len(kept) == residuals.size
    findings = list(examine_gallery(gallery.path, deep=True))
    assert [each for each in findings if each.state is not FindingState.OK] == []


SQUARE = RegionOrigin(OriginKind.DATA_SET, "square")


def test_every_form_of_a_mask_becomes_a_region_bit_for_bit(gallery: GalleryFile, photos: Path) -> None:
    first, second, third = rectangle(10, 20, 35, 45), rectangle(45, 20, 70, 45), rectangle(0, 0, 9, 9)
    polygon = [[10.0, 20.0, 35.0, 20.0, 35.0, 45.0, 10.0, 45.0], [60, 60, 70, 60, 70, 70]]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 7, "segmentation": polygon},
        {"id": 2, "image_id": 1, "category_id": 7, "segmentation": uncompressed(second), "iscrowd": 1},
        {"id": 3, "image_id": 1, "category_id": 8, "segmentation": compressed(third)},
        {"id": 4, "image_id": 2, "category_id": 99, "segmentation": compressed(first)},
        {"id": 5, "image_id": 2, "category_id": 7, "segmentation": [], "bbox": [10, 20, 25, 25]},
    ]
    outcomes, file = add(gallery, photos, instances(annotations))
    assert Counter(map(type, outcomes)) == {Added: 3}
    assert file.left_out == {}
    assert file.count_unused() == 0
    drawn = pycoco.merge(pycoco.frPyObjects(polygon, HEIGHT, WIDTH))
    stored = given_to(gallery, "a")
    assert [each.region.rle.counts for each in stored] == [
        drawn["counts"],
        compressed(second)["counts"].encode(),
        compressed(third)["counts"].encode(),
    ]
    corner = RegionOrigin(OriginKind.DATA_SET, "corner")
    assert [each.region.origin for each in stored] == [SQUARE, SQUARE, corner]
    assert stored[2].box == Box(0, 0, 9, 9)
    assert (stored[2].region.predicted_iou, stored[2].region.stability) == (1.0, 1.0)
    assert [each.ordinal for each in stored] == [3, 4, 5]  # behind the whole photo and the two proposed
    unnamed, boxed = given_to(gallery, "b")
    assert unnamed.region.origin == RegionOrigin(OriginKind.DATA_SET, None)
    assert (boxed.region.rle, boxed.region.predicted_iou) == (masks.encode(first), 0.8)  # the fake's mask
    assert given_to(gallery, "c") == []
    check_vectors(gallery)


def test_only_the_own_regions_and_the_whole_photo(gallery: GalleryFile, photos: Path) -> None:
    annotations = [
        {"image_id": 1, "category_id": 7, "segmentation": compressed(rectangle(10, 20, 35, 45))},
    ]
    content = instances(annotations, c="elsewhere.png")
    models = Models()
    _, file = add(gallery, photos, content, only=True, models=models)
    assert models.proposer.seen == 1  # c, which the file does not list
    assert [each.region.origin for each in regions_of(gallery, "a")] == [None, SQUARE]
    assert len(regions_of(gallery, "b")) == 1  # listed without an annotation
    assert len(regions_of(gallery, "c")) == 2
    assert file.count_unused() == 1
    check_vectors(gallery)


@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize("sealed", [False, True])
def test_photos_indexed_before_get_the_regions_and_a_second_run_changes_nothing(
    gallery: GalleryFile, photos: Path, *, only: bool, sealed: bool
) -> None:
    annotations = [
        {"image_id": 1, "category_id": 7, "segmentation": compressed(rectangle(10, 20, 35, 45))},
        {"image_id": 1, "category_id": 7, "segmentation": compressed(rectangle(10, 20, 35, 45))},
        {"image_id": 3, "category_id": 8, "bbox": [10, 20, 25, 25]},
    ]
    list(add_photos(gallery, [photos], Models().models(), previews=True))
    if sealed:
        seal_index(gallery, 4)
    outcomes, _ = add(gallery, photos, instances(annotations), only=only)
    changed = [each.path.stem for each in outcomes if isinstance(each, Updated)]
    assert changed == (["a", "b", "c"] if only else ["a", "c"])
    state = gallery.connection.execute("select * from regions order by id").fetchall()
    check_vectors(gallery)
    again, _ = add(gallery, photos, instances(annotations), only=only)
    assert Counter(map(type, again)) == {Unchanged: 3}
    assert gallery.connection.execute("select * from regions order by id").fetchall() == state
    # A new photo with the same file has the same regions as one that got them later.
    with GalleryFile.open(photos.parent / "fresh.db", create=True) as fresh:
        add(fresh, photos, instances(annotations), only=only)
        for name in "abc":
            assert [each.region for each in regions_of(fresh, name)] == [
                each.region for each in regions_of(gallery, name)
            ]
    best = rank_photos(gallery, ColourText().encode("green").vector, 1)[0]
    assert gallery.paths(best.photo_id)[0].stem == "a"


def test_another_file_takes_the_place_of_the_first_and_a_persons_regions_stay(
    gallery: GalleryFile, photos: Path
) -> None:
    old, new = rectangle(10, 20, 35, 45), rectangle(50, 50, 80, 80)
    add(gallery, photos, instances([{"image_id": 1, "category_id": 7, "segmentation": compressed(old)}]))
    drawn = given_to(gallery, "a")[0]
    gallery.connection.execute("update region_origins set origin = 'human' where region_id = ?", (drawn.id,))
    content = instances([{"image_id": 1, "category_id": 8, "segmentation": compressed(new)}])
    add(gallery, photos, content, only=True)
    human, given_now = given_to(gallery, "a")
    assert (human.id, human.region.is_human) == (drawn.id, True)
    assert given_now.region.rle == masks.encode(new)
    assert len(regions_of(gallery, "a")) == 3  # the proposer's are gone
    add(gallery, photos, instances([]))  # the proposer's come back, but for the one that the person has
    origins = [each.region.origin for each in regions_of(gallery, "a")]
    assert origins == [None, human.region.origin, None]
    check_vectors(gallery)


class DriftingProposer(ColourProposer):
    """Makes a slightly larger mask of a box each time."""

    def refine(self, image: ImageArray, boxes: Sequence[Box]) -> list[Region | None]:
        self.seen += 1
        return super().refine(image, [Box(b.x0, b.y0, b.x1 + self.seen, b.y1) for b in boxes])


def test_a_box_has_the_same_region_although_pixels_differ(gallery: GalleryFile, photos: Path) -> None:
    models = Models()
    models.proposer = DriftingProposer()
    boxes = [[10, 20, 25, 25], [60, 20, 25, 25]]
    content = instances([{"image_id": 3, "category_id": 7, "bbox": box} for box in boxes])
    add(gallery, photos, content, only=True, models=models)
    first = given_to(gallery, "c")
    again, _ = add(gallery, photos, content, only=True, models=models)
    assert Counter(map(type, again)) == {Unchanged: 3}
    assert given_to(gallery, "c") == first
    assert len(first) == 2


def test_what_a_person_has_confirmed_is_not_added_again(gallery: GalleryFile, photos: Path) -> None:
    square = compressed(rectangle(50, 50, 80, 80))
    content = instances([{"image_id": 1, "category_id": 7, "segmentation": square}])
    add(gallery, photos, content)
    gallery.connection.execute(
        "insert or replace into region_origins select id, 'human', 'x' from regions where ordinal > 0"
    )
    before = regions_of(gallery, "a")
    again, _ = add(gallery, photos, content)
    assert Counter(map(type, again)) == {Unchanged: 3}
    assert regions_of(gallery, "a") == before


def test_names_are_relative_to_the_folder_or_absolute_and_lead_nowhere_else(
    gallery: GalleryFile, tmp_path: Path
) -> None:
    save_scenes(tmp_path / "set" / "val", x="red")
    save_scenes(tmp_path / "elsewhere", y="blue")
    mask = compressed(rectangle(10, 20, 35, 45))
    names = {
        "a": "val\\x.png",
        "b": "../elsewhere/y.png",
        "c": str(tmp_path / "elsewhere/y.png"),
        "d": "./val/x.png",
        "e": str(tmp_path / "set/val/x.png"),
        "f": "x.png",
        "g": "val/../val/x.png",
        "h": "\0",
    }
    annotations = [{"image_id": number, "category_id": 7, "segmentation": mask} for number in range(1, 9)]
    outcomes, file = add(gallery, tmp_path / "set", instances(annotations, **names))
    assert len(outcomes) == 1
    assert len(given_to(gallery, "x")) == 1  # the same mask and label, three times
    assert file.count_unused() == 5
    list(add_photos(gallery, [tmp_path / "elsewhere"], Models().models(), previews=True))
    add(gallery, tmp_path / "set", instances(annotations, **names))
    assert given_to(gallery, "y") == []  # it was not among the paths
    add(gallery, tmp_path / "set", instances(annotations, **names), paths=[tmp_path / "elsewhere" / "y.png"])
    assert len(given_to(gallery, "y")) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_annotations_of_the_stored_pixels_are_turned_with_the_photo(
    gallery: GalleryFile, tmp_path: Path, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "photos").mkdir()
    scene("red").save(tmp_path / "photos" / "t.png", exif=exif)
    square = rectangle(10, 20, 35, 45)
    annotations = [
        {"image_id": 1, "category_id": 7, "segmentation": compressed(square)},
        {"image_id": 1, "category_id": 8, "bbox": [10, 20, 25, 25]},
    ]
    add(gallery, tmp_path / "photos", instances(annotations, a="t.png"))
    proposed, given_mask, boxed = regions_of(gallery, "t")[1:]
    assert masks.iou([given_mask.region.rle], [proposed.region.rle]).item() > 0.99
    assert boxed.box == proposed.box
    assert given_mask.box == proposed.box


@pytest.mark.parametrize("size", [(240, 180), (60, 45), (121, 91)])
def test_annotations_of_a_scaled_picture_are_scaled(
    gallery: GalleryFile, photos: Path, size: tuple[int, int]
) -> None:
    factor = size[0] / WIDTH
    x0, y0, x1, y1 = (round(edge * factor) for edge in (10, 20, 35, 45))
    segmentation = compressed(rectangle(x0, y0, x1, y1, size))
    content = instances([{"image_id": 3, "category_id": 7, "segmentation": segmentation}])
    content["images"][2] |= {"width": size[0], "height": size[1]}
    _, file = add(gallery, photos, content)
    assert file.left_out == {}
    (region,) = given_to(gallery, "c")
    assert masks.iou([region.region.rle], [masks.encode(rectangle(10, 20, 35, 45))]).item() > 0.9


def test_what_is_wrong_is_counted_by_kind(gallery: GalleryFile, photos: Path) -> None:
    square = compressed(rectangle(10, 20, 35, 45))
    bad: Annotations = [
        {"category_id": 7},
        {"image_id": [1]},
        {"image_id": 55, "segmentation": square},
        {"image_id": 1, "segmentation": square},
        {"image_id": 3, "segmentation": {"size": [HEIGHT, WIDTH], "counts": "~~~~"}},
        {"image_id": 3, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 2**40]}},
        {"image_id": 3, "segmentation": {"size": [WIDTH, HEIGHT], "counts": square["counts"]}},
        {"image_id": 3, "segmentation": [[1, 2, 3, 4, 5]]},
        {"image_id": 3, "segmentation": [[1, 2, 1e300, 4, 5, 6]]},
        {"image_id": 3, "bbox": [1, 2, 3]},
        {"image_id": 3},
        {"image_id": 3, "bbox": [500, 500, 20, 20]},
        {"image_id": 3, "bbox": [5, 5, 0, 20]},
        {"image_id": 3, "segmentation": [[-50, -50, -20, -50, -20, -20]]},
        {"image_id": 3, "segmentation": compressed(rectangle(0, 0, 0, 0))},
        {"image_id": 3, "bbox": [5, 5, 0.1, 0.1]},
    ]
    content = instances(bad)
    content["images"][0]["width"] = 333
    content["images"].append({"id": 9})
    _, file = add(gallery, photos, content)
    assert file.left_out == {
        reasons.NOT_A_RECORD: 2,
        reasons.NO_IMAGE: 1,
        reasons.WRONG_SIZE: 1,
        reasons.MALFORMED: 7,
        reasons.OUTSIDE: 4,
        reasons.NO_OBJECT: 1,
    }
    assert given_to(gallery, "c") == []


def test_a_photo_gets_a_bounded_number_of_regions(gallery: GalleryFile, photos: Path) -> None:
    annotations = [
        {"image_id": 2, "category_id": 7, "segmentation": compressed(rectangle(x, y, x + 3, y + 3))}
        for x in range(0, 117, 3)
        for y in range(0, 87, 3)
    ]
    many = [{"image_id": 9, "category_id": 7, "bbox": [1, 2, 3, 4]}] * 200_000
    _, file = add(gallery, photos, instances([*annotations, *many]))
    assert len(given_to(gallery, "b")) == reasons.MOST_REGIONS
    assert file.left_out == {reasons.TOO_MANY: len(annotations) - 1000, reasons.NO_IMAGE: 200_000}


def test_a_photo_without_pixels_is_skipped(gallery: GalleryFile, photos: Path) -> None:
    list(add_photos(gallery, [photos], Models().models(), previews=True))
    gallery.connection.execute("delete from previews")
    content = instances([{"image_id": 1, "category_id": 7, "bbox": [10, 20, 25, 25]}])
    file = photos.parent / "i.json"
    file.write_text(json.dumps(content))
    own = OwnRegions(AnnotationFile.read(file), only=False)
    list(own.noting_folders([photos]))
    (photos / "a.png").unlink()
    (skipped,) = own.update_known(gallery, [photos / "a.png"], Models().models())
    assert isinstance(skipped, Skipped)
    assert "no preview" in skipped.reason
    assert given_to(gallery, "a") == []


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True)
    | st.text(max_size=8)
    | st.sampled_from(["images", "annotations", [HEIGHT, WIDTH], {"size": [HEIGHT, WIDTH], "counts": "0"}]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(content=st.data())
def test_any_json_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: st.DataObject
) -> None:
    draw = content.draw
    file: Any = draw(st.sampled_from(["whole", "list", "mutated"]))
    if file == "whole":
        value: Any = draw(JSON)
    elif file == "list":
        value = {key: draw(JSON) for key in ("images", "annotations", "categories")}
    else:
        annotation = {"image_id": 1, "category_id": 7, "segmentation": [], "bbox": [1, 2, 3, 4]}
        annotation[draw(st.sampled_from(sorted(annotation)))] = draw(JSON)
        value = instances([annotation])
        value["images"][0][draw(st.sampled_from(["id", "file_name", "width", "height"]))] = draw(JSON)
    path = tmp_path_factory.mktemp("json") / "i.json"
    path.write_text(json.dumps(value))  # NaN and Infinity as Python writes them
    record = PhotoRecord(bytes(32), WIDTH, HEIGHT, WIDTH, HEIGHT, 1)
    try:
        read = AnnotationFile.read(path)
    except RegionFileInvalid as error:
        if len(str(error).splitlines()) != 1:
            raise
        return
    found = read.convert(read.images_named(["a.png", "b.png"]), record)
    for region in found.regions:
        masks.check(region.rle)
        assert (region.rle.width, region.rle.height) == (record.mask_width, record.mask_height)
        assert region.area > 0
    for prompt in found.boxes:
        assert 0 <= prompt.box.x0 < prompt.box.x1 <= record.mask_width + 1e-6


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"images": [], "annotations": {}}', b"null", b"1e999"],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "i.json"
    path.write_bytes(content)
    with pytest.raises(RegionFileInvalid) as caught:
        AnnotationFile.read(path)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(RegionFileInvalid, match="no such file"):
        AnnotationFile.read(tmp_path / "none.json")
