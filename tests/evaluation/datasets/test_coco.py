"""COCO's reader: three kinds of masks, and what it refuses."""

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as pycoco
from pycocotools.coco import COCO

from matir_cli import masks
from matir_cli.errors import AnnotationsInvalid
from matir_cli.evaluation.datasets.coco import MAX_BYTES, read_coco
from matir_cli.photos.discover import find_photo_files

TRIANGLE = [[2.0, 2.0, 12.5, 2.0, 2.0, 9.5]]
TWO_BOXES = [[1, 1, 5, 1, 5, 5, 1, 5], [10, 6, 18, 6, 18, 11, 10, 11]]


def rle_of(mask: np.ndarray) -> dict[str, Any]:
    made = pycoco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": made["size"], "counts": made["counts"].decode("ascii")}


def strip(rows: slice) -> np.ndarray:
    mask = np.zeros((12, 20), dtype=np.bool_)
    mask[rows] = True
    return mask


def instances() -> dict[str, Any]:
    """Three images of 20 x 12, one without annotations; polygons, both kinds of RLE, a crowd."""
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 39, "file_name": "a.png", "width": 20, "height": 12, "license": 1},
            {"id": 0, "file_name": "sub/b.png", "width": 20, "height": 12},
            {"id": 7, "file_name": "c.png", "width": 20, "height": 12},
        ],
        "categories": [
            {"id": 1, "name": "person"},
            {"id": 90, "name": "hair drier"},
            {"id": 3, "name": "car"},
        ],
        "annotations": [
            {"id": 1, "image_id": 39, "category_id": 1, "segmentation": TRIANGLE, "iscrowd": 0, "area": 40},
            {"id": 2, "image_id": 39, "category_id": 1, "segmentation": TWO_BOXES, "iscrowd": 0},
            {
                "id": 3,
                "image_id": 0,
                "category_id": 90,
                "segmentation": rle_of(strip(slice(0, 6))),
                "iscrowd": 0,
            },
            {
                "id": 4,
                "image_id": 0,
                "category_id": 1,
                "segmentation": {"size": [12, 20], "counts": [0, 120, 120]},
                "iscrowd": 1,
            },
        ],
    }


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for name in ("a.png", "sub/b.png", "c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 12)).save(folder / name)
    return folder


def written(tmp_path: Path, content: object, name: str = "mine.json") -> Path:
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return path


def test_absolute_names_inside_the_folder_are_accepted(tmp_path: Path, images: Path) -> None:
    content = instances()
    for image in content["images"]:
        image["file_name"] = str(images / image["file_name"])  # as `matir find --coco` writes them
    files = [image.path for image in read_coco(images, written(tmp_path, content)).images]
    assert files == [images / "a.png", images / "sub/b.png", images / "c.png"]


def test_masks_equal_those_of_pycocotools(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, instances())
    dataset = read_coco(images, path)
    reference = COCO(str(path))
    capsys.readouterr()
    assert dataset.name == "mine"
    assert dataset.notes == ()
    assert dataset.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [(query.id, query.text) for query in dataset.queries] == [
        (1, "person"),
        (90, "hair drier"),
        (3, "car"),
    ]
    assert [image.id for image in dataset.images] == [39, 0, 7]
    assert [set(dataset.relevant_images(query)) for query in (1, 90, 3)] == [{39}, {0}, set()]
    person = dataset.instances(1, 39)
    assert [(rle.height, rle.width) for rle in person] == [(12, 20), (12, 20)]
    for rle, annotation in zip(person, reference.loadAnns([1, 2]), strict=True):
        assert masks.decode(rle).any()
        assert np.array_equal(masks.decode(rle), reference.annToMask(annotation))
    assert np.array_equal(masks.decode(dataset.instances(90, 0)[0]), strip(slice(0, 6)))
    assert dataset.instances(1, 0) == dataset.instances(5, 39) == ()


def test_crowds_count_only_on_request(tmp_path: Path, images: Path) -> None:
    dataset = read_coco(images, written(tmp_path, instances()), crowd=True)
    assert dataset.relevant_images(1) == {39, 0}
    crowd = np.ones(240, dtype=np.bool_)
    crowd[120:] = False
    assert np.array_equal(masks.decode(dataset.instances(1, 0)[0]), crowd.reshape(20, 12).T)


def test_paths_equal_those_found_by_indexing(tmp_path: Path, images: Path) -> None:
    dataset = read_coco(images / ".." / "images", written(tmp_path, instances()))
    assert sorted(image.path for image in dataset.images) == sorted(find_photo_files([images]))


def test_val2017_is_recognised_by_name_and_its_size_is_checked(tmp_path: Path, images: Path) -> None:
    dataset = read_coco(images, written(tmp_path, instances(), "instances_val2017.json"))
    assert dataset.name == "coco"
    (note,) = dataset.notes
    assert "5,000 images and 80 categories, this one 3 and 3" in note


Change = Callable[[dict[str, Any]], object]


def change(kind: str, place: int, **fields: object) -> Change:
    return lambda content: content[kind][place].update(fields)


def without(kind: str, place: int, field: str) -> Change:
    return lambda content: content[kind][place].pop(field)


def again(kind: str, place: int) -> Change:
    return lambda content: content[kind].append(copy.deepcopy(content[kind][place]))


def rle(size: list[int], counts: object) -> Change:
    return change("annotations", 2, segmentation={"size": size, "counts": counts})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: content.pop("categories"), "missing required field `categories`"),
        (without("annotations", 1, "segmentation"), "annotation 2: .*segmentation"),
        (without("annotations", 1, "image_id"), "annotation 2: .*image_id"),
        (without("images", 1, "width"), "image 0: .*width"),
        (without("images", 1, "id"), "image number 2: .*id"),
        (without("categories", 0, "name"), "category 1: .*name"),
        (change("annotations", 0, id="first"), "annotation number 1: Expected `int`"),
        (change("annotations", 0, image_id=[1]), "annotation 1: Expected `int`"),
        (change("images", 0, file_name=5), "image 39: Expected `str`"),
        (change("categories", 2, name="  "), "category 3: its name is empty"),
        (change("annotations", 3, image_id=77), "annotation 4: there is no image 77"),
        (change("annotations", 0, category_id=2), "annotation 1: there is no category 2"),
        (again("annotations", 1), "annotation 2 occurs twice"),
        (again("images", 0), "image 39 occurs twice"),
        (again("categories", 2), "category 3 occurs twice"),
        (change("images", 2, file_name="a.png"), "images 39 and 7 have the same file, a.png"),
        (change("images", 2, file_name="./a.png"), "images 39 and 7 have the same file"),
        (change("images", 1, file_name="gone.jpg"), "image 0: .*gone.jpg: no such file"),
        (change("images", 1, file_name="sub"), "image 0: .*sub: is a folder"),
        (change("images", 0, file_name="../a.png"), "image 39: .*leads out of the image folder"),
        (change("images", 0, file_name="sub/../../x.png"), "image 39: .*leads out of the image folder"),
        (change("images", 0, file_name="/etc/passwd"), "image 39: .*leads out of the image folder"),
        (change("images", 0, file_name="sub\\..\\..\\x.png"), "image 39: .*leads out of the image folder"),
        (change("images", 0, file_name="C:x.png"), "image 39: .*leads out of the image folder"),
        (change("images", 0, file_name=""), "image 39: .*leads out of the image folder"),
        (change("images", 0, file_name="a\0.png"), "image 39: .*leads out of the image folder"),
        (change("images", 0, height=0), "image 39: an impossible size of 20 x 0"),
        (change("images", 1, height=24), "annotation 3: a mask of 20 x 12 pixels for an image of 20 x 24"),
        (change("images", 0, width=1 << 40), f"annotation 1: a mask of {1 << 40} x 12"),
        (change("annotations", 0, segmentation=[]), "annotation 1: it has no mask"),
        (change("annotations", 0, segmentation=[[]]), "annotation 1: a polygon of 0 numbers"),
        (change("annotations", 0, segmentation=[[1, 1, 5, 5]]), "annotation 1: a polygon of 4 numbers"),
        (change("annotations", 0, segmentation=[[1, 1, 5, 5, 3, 3, 2]]), "annotation 1: a polygon of 7"),
        (change("annotations", 0, segmentation=[[1, 1, 5, 5, 1e9, 3]]), "annotation 1: a polygon far out"),
        (
            change("annotations", 0, segmentation=[[0, 0, 20, 12] * 200_000]),
            "annotation 1: a polygon with an outline of more than 4,000,000",
        ),
        (rle([12, 20], "0"), "annotation 3: runs do not fill"),
        (rle([12, 20], "\u00e9x\u2028"), "annotation 3: malformed run"),
        (rle([12, 20], [240, 1]), "annotation 3: runs do not fill"),
        (rle([12, 20], [-10, 250]), "annotation 3: runs do not fill"),
        (rle([12, 20], []), "annotation 3: runs do not fill"),
        (rle([12], "x"), "annotation 3: Expected `array` of length 2"),
        (rle([12, 20], 240), "annotation 3: Expected `str \\| array`"),
    ],
)
def test_an_invalid_record_is_named_by_its_id(
    tmp_path: Path, images: Path, spoil: Change, reason: str
) -> None:
    content = instances()
    spoil(content)
    with pytest.raises(AnnotationsInvalid, match=reason) as caught:
        read_coco(images, written(tmp_path, content), crowd=True)
    assert caught.value.path == tmp_path / "mine.json"


def test_an_rle_of_absurd_size_is_refused_before_anything_decodes_it(tmp_path: Path, images: Path) -> None:
    content = instances()
    size = 1 << 20
    content["images"][1].update(width=size, height=size)
    content["annotations"][2]["segmentation"] = {"size": [size, size], "counts": [size * size]}
    with pytest.raises(AnnotationsInvalid, match=f"annotation 3: a mask of {size} x {size} pixels, more"):
        read_coco(images, written(tmp_path, content))


def test_missing_images_are_counted(tmp_path: Path, images: Path) -> None:
    (images / "sub/b.png").unlink()
    (images / "c.png").unlink()
    with pytest.raises(AnnotationsInvalid, match=r"image 0: .*b\.png: no such file.*; 1 more like it"):
        read_coco(images, written(tmp_path, instances()))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 200_000, b'{"images": 1}', b"\x89PNG"]
)
def test_other_files_are_refused(tmp_path: Path, images: Path, content: bytes) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(AnnotationsInvalid, match=r"zero bytes|not COCO's instances JSON"):
        read_coco(images, path)


def test_a_missing_or_too_large_file_is_refused(tmp_path: Path, images: Path) -> None:
    with pytest.raises(AnnotationsInvalid, match="no such file"):
        read_coco(images, tmp_path / "none.json")
    large = tmp_path / "large.json"
    with large.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)  # a hole, no bytes on the disk
    with pytest.raises(AnnotationsInvalid, match="more than"):
        read_coco(images, large)
    with pytest.raises(AnnotationsInvalid, match=r"is a folder"):
        read_coco(images, images)
