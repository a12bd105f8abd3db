"""Own regions and corrections, with the real process."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as pycoco

from matir_cli.gallery.brush_rle import encode_brush
from matir_cli.models.tiny import world
from matir_cli.records import MaskArray
from tests.support.process import Indexed, matir, records

PICTURES = 6


def draw_world(folder: Path) -> dict[str, Any]:
    """Draw pictures into `folder`; return the true masks of their things as a COCO file."""
    folder.mkdir()
    kinds = sorted({thing.kind for seed in _seeds() for thing in world.picture(seed).things})
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, seed in enumerate(_seeds(), start=1):
        picture = world.picture(seed)
        height, width = picture.image.shape[:2]
        Image.fromarray(picture.image).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        for thing in picture.things:
            encoded = pycoco.encode(np.asfortranarray(picture.mask(thing.id), np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": kinds.index(thing.kind) + 1,
                    "segmentation": {"size": [height, width], "counts": encoded["counts"].decode()},
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": kind} for number, kind in enumerate(kinds, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _seeds() -> list[int]:
    return [world.SPLITS["demo"][number] for number in range(PICTURES)]


def shown(photo: Path, gallery: Path) -> list[dict[str, Any]]:
    """The regions of a photo, as `matir show` prints them."""
    done = matir("show", photo, "--json", "--db", gallery)
    regions: list[dict[str, Any]] = json.loads(done.stdout)["regions"]
    return regions


def test_a_labelled_data_set_is_searched_by_its_own_objects(tmp_path: Path) -> None:
    photos, gallery, file = tmp_path / "photos", tmp_path / "gallery.db", tmp_path / "instances.json"
    content = draw_world(photos)
    content["annotations"] += [{"image_id": 77}, {"image_id": 1, "bbox": [9000, 9000, 5, 5]}, {}]
    content["images"].append({"id": 78, "file_name": "../elsewhere.png", "width": 5, "height": 5})
    file.write_text(json.dumps(content))
    words = ("add", photos, "--regions", file, "--only-regions", "--db", gallery, "--models", "tiny")
    added = matir(*words)
    assert added.returncode == 3
    lines = added.stderr.decode().splitlines()
    assert "matir: 1 annotation left out: of an image that the file does not list" in lines
    assert "matir: 1 annotation left out: empty, or outside of the picture" in lines
    assert "matir: 1 annotation left out: not an annotation in COCO's form" in lines
    assert "matir: 1 image of the annotations not among the photos here" in lines
    assert lines[-1] == "matir: 6 added, 0 recognised, 0 unchanged, 0 skipped"
    for number in range(1, PICTURES + 1):
        regions = shown(photos / f"{number}.png", gallery)[1:]
        labels = [
            content["categories"][each["category_id"] - 1]["name"]
            for each in content["annotations"][:-3]
            if each["image_id"] == number
        ]
        assert [(each["origin"], each["label"]) for each in regions] == [
            ("data set", name) for name in labels
        ]
    found = records(matir("find", "house", "--no-rerank", "--jsonl", "--rle", "--db", gallery))
    assert found[0]["origin"] == "data set"
    truth = {json.dumps(each["segmentation"]) for each in content["annotations"][:-3]}
    assert json.dumps(found[0]["mask"]) in truth
    again = matir(*words)
    assert again.stderr.decode().splitlines()[-1] == "matir: 0 added, 0 recognised, 6 unchanged, 0 skipped"
    beside = matir("add", photos, "--regions", file, "--db", gallery)
    assert beside.stderr.decode().splitlines()[-1].endswith("6 given other regions")
    assert {each.get("origin") for each in shown(photos / "1.png", gallery)} == {None, "data set"}
    exported = json.loads(matir("export", "--coco", "-", "--db", gallery).stdout)
    own = [each for each in exported["annotations"] if each.get("origin") == "data set"]
    assert {json.dumps(each["segmentation"]) for each in own} == truth


def test_boxes_become_masks_once(tmp_path: Path) -> None:
    photos, gallery, file = tmp_path / "photos", tmp_path / "gallery.db", tmp_path / "instances.json"
    content = draw_world(photos)
    for each in content["annotations"]:
        each["bbox"] = pycoco.toBbox(each.pop("segmentation")).tolist()
    file.write_text(json.dumps(content))
    words = ("add", photos, "--regions", file, "--only-regions", "--db", gallery, "--models", "tiny")
    added = matir(*words)
    found = re.search(r"(\d+) annotations? left out: with a box in which", added.stderr.decode())
    left_out = 0 if found is None else int(found.group(1))
    assert added.returncode == (3 if left_out else 0)
    before = [shown(photos / f"{number}.png", gallery) for number in range(1, PICTURES + 1)]
    assert sum(len(regions) - 1 for regions in before) == len(content["annotations"]) - left_out
    assert left_out < len(content["annotations"]) / 2
    again = matir(*words)
    assert again.stderr.decode().splitlines()[-1] == "matir: 0 added, 0 recognised, 6 unchanged, 0 skipped"
    assert [shown(photos / f"{number}.png", gallery) for number in range(1, PICTURES + 1)] == before


def corrected(tasks: list[dict[str, Any]], mask: MaskArray) -> list[dict[str, Any]]:
    """What Label Studio exports: the first task has a mask of its own instead, the others lost theirs."""
    for number, task in enumerate(tasks):
        result = task["predictions"][0]["result"][:1] if number == 0 else []
        for each in result:
            each["value"]["rle"] = encode_brush(mask)
        task |= {"id": number + 1, "annotations": [{"id": number + 9, "result": result}]}
    return tasks


def test_corrections_come_back_and_win(tmp_path: Path) -> None:
    photos, gallery, tasks = tmp_path / "photos", tmp_path / "gallery.db", tmp_path / "tasks.json"
    instances = tmp_path / "instances.json"
    content = draw_world(photos)
    instances.write_text(json.dumps(content))
    db = ("--db", gallery)
    added = matir("add", photos, "--regions", instances, "--only-regions", "--models", "tiny", *db)
    assert added.returncode == 0
    find = ("find", "house", "-n", "3", "--jsonl", "--rle", *db)
    before = records(matir(*find, "--labelstudio", tasks, "--document-root", tmp_path))
    assert len(before) == 3
    written = json.loads(tasks.read_text())
    assert [each["data"]["image"] for each in written] == [
        f"/data/local-files/?d=photos/{Path(each['path']).name}" for each in before
    ]
    assert (tmp_path / "tasks.labels.xml").exists()
    size = before[0]["mask"]["size"]
    mask = np.zeros(size, np.bool_)
    mask[size[0] // 2 :, : size[1] // 3] = True
    export = tmp_path / "export.json"
    export.write_text(json.dumps([*corrected(written, mask), {"data": {}}]))
    done = matir("import-corrections", export, *db)
    assert done.returncode == 3
    assert done.stderr.decode().splitlines()[-2:] == [
        "matir: 1 task left out: not written by `matir find` or `matir export`",
        "matir: 0 accepted, 1 changed, 0 new, 2 rejected, 3 answers",
    ]
    again = matir("import-corrections", export, *db)
    assert again.stderr.decode().splitlines()[-1] == (
        "matir: 0 accepted, 1 changed, 0 new, 2 rejected, 3 answers; nothing new in 3 tasks"
    )
    after = records(matir(*find, "--min-p", "0.5", "--fresh"))
    assert after[0]["path"] == before[0]["path"]
    assert (after[0]["origin"], after[0]["p_true"], after[0]["iou"]) == ("human", 1.0, 1.0)
    encoded = pycoco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    assert after[0]["mask"]["counts"] == encoded
    assert {each["path"] for each in after}.isdisjoint(each["path"] for each in before[1:])
    own = [each for each in shown(Path(before[0]["path"]), gallery) if each.get("origin") == "human"]
    assert [each["label"] for each in own] == ["house"]
    copied = tmp_path / "copy.db"
    assert matir("merge", gallery, "--db", copied).returncode == 0
    assert records(matir("find", "house", "-n", "1", "--jsonl", "--rle", "--db", copied)) == after[:1]
    everything = tmp_path / "all.json"
    assert matir("export", "--labelstudio", everything, *db).returncode == 0
    labels = {
        result["value"]["brushlabels"][0]
        for task in json.loads(everything.read_text())
        for result in task["predictions"][0]["result"]
    }
    assert labels == {"house"} | {each["name"] for each in content["categories"]}


def test_masks_in_other_forms(indexed: Indexed, tmp_path: Path) -> None:
    for form, suffix, background in (("darktable", ".pfm", "white"), ("npz", ".npz", "blur")):
        folder = tmp_path / form
        words = ("find", "house", "--no-rerank", "-n", "2", "--masks", folder, "--mask-form", form, "--jsonl")
        cutouts = ("--cutouts", tmp_path / background, "--feather", 4, "--background", background)
        found = records(matir(*words, *cutouts, "--db", indexed.gallery))
        for each in found:
            with Image.open(each["cutout_file"]) as cutout:
                assert cutout.mode == "RGB"
        assert {str(path) for path in folder.iterdir()} == {each["mask_file"] for each in found}
        assert {path.suffix for path in folder.iterdir()} == {suffix}
    refused = matir("find", "house", "--mask-form", "npz", "--db", indexed.gallery)
    assert (refused.returncode, b"goes with --masks" in refused.stderr) == (2, True)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"images": [], "annotations": 5}', '{"images": NaN}'])
def test_a_file_of_another_kind_is_refused_before_anything_is_made(tmp_path: Path, content: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "i.json").write_text(content)
    gallery = tmp_path / "gallery.db"
    words = (
        "add",
        tmp_path / "photos",
        "--regions",
        tmp_path / "i.json",
        "--db",
        gallery,
        "--models",
        "tiny",
    )
    refused = matir(*words)
    assert refused.returncode == 2
    (line,) = refused.stderr.decode().splitlines()
    assert "cannot be used" in line
    assert "matir help regions" in line
    assert not gallery.exists()


def test_only_regions_needs_regions(tmp_path: Path) -> None:
    refused = matir("add", tmp_path, "--only-regions", "--db", tmp_path / "gallery.db")
    assert refused.returncode == 2
    assert b"--only-regions goes with --regions FILE" in refused.stderr
