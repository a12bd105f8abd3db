"""Tasks for Label Studio."""

import io
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from lxml import etree

from matir_cli.gallery.brush_rle import decode_brush
from matir_cli.gallery.label_studio import Prediction, TaskFile, configuration_path
from matir_cli.records import Box
from tests.support.brush import label_studio_brush
from tests.support.crafted_gallery import craft


def test_a_task_has_masks_and_boxes_in_percent(tmp_path: Path) -> None:
    label = 'a "dog" & <cat>\x00'
    with craft(tmp_path / "gallery.db", ["ü 1.jpg"]) as gallery:
        photo, region = gallery.photo(1), gallery.regions(1)[1]
    tasks, configuration = io.StringIO(), io.StringIO()
    file = TaskFile(tasks, configuration, Path("/photos"))
    file.start()
    predictions = [
        Prediction("region-2", label, region.box, region.region.rle, 0.75),
        Prediction("object-1", label, Box(8, 6, 40, 36), None, 0.5),
    ]
    file.add(photo, photo.paths[0], label, predictions)
    file.add(photo, Path("/elsewhere/1.jpg"), label, predictions)
    file.add(photo, photo.paths[0], "other", [])
    file.end()
    assert file.outside == 1
    first, second = json.loads(tasks.getvalue())
    assert parse_qs(urlsplit(first["data"]["image"]).query) == {"d": ["ü 1.jpg"]}
    known = {"sha256": photo.record.sha256.hex(), "query": label, "predicted": ["region-2", "object-1"]}
    assert first["data"]["matir"] == known
    (prediction,) = first["predictions"]
    assert prediction["score"] == 0.75
    brush, box = prediction["result"]
    assert (brush["original_width"], brush["original_height"], brush["image_rotation"]) == (80, 60, 0)
    decoded = decode_brush(bytes(brush["value"]["rle"]), 80, 60)
    assert (decoded == photo.at_true_size(region.region.rle)).all()
    assert brush["value"]["brushlabels"] == box["value"]["rectanglelabels"] == [label]
    place = {key: box["value"][key] for key in ("x", "y", "width", "height")}
    assert place == pytest.approx({"x": 10, "y": 10, "width": 40, "height": 50})
    assert second["predictions"][0] == {"model_version": "MaTIR", "score": 0.0, "result": []}
    tree = etree.fromstring(configuration.getvalue())
    for kind in ("BrushLabels", "RectangleLabels"):
        assert tree.xpath(f"//{kind}/Label/@value") == ['a "dog" & <cat>', "other"]
    names = {each.get("name"): each.tag for each in tree if each.get("name")}
    assert names == {"image": "Image", "mask": "BrushLabels", "box": "RectangleLabels"}
    for each in prediction["result"]:
        assert names[each["from_name"]].lower() == each["type"]
    assert configuration_path(Path("/a/tasks.json")) == Path("/a/tasks.labels.xml")


def test_label_studio_decodes_the_masks_of_a_task(tmp_path: Path) -> None:
    brush = label_studio_brush()
    with craft(tmp_path / "gallery.db", ["1.jpg"]) as gallery:
        photo, regions = gallery.photo(1), gallery.regions(1)[1:]
    tasks = io.StringIO()
    file = TaskFile(tasks, io.StringIO(), Path("/"))
    file.start()
    predictions = [Prediction(f"region-{each.id}", "dog", each.box, each.region.rle, 0.5) for each in regions]
    file.add(photo, photo.paths[0], "dog", predictions)
    file.end()
    (task,) = json.loads(tasks.getvalue())
    # The form in which the SDK's converter hands results to its brush module.
    results = [{**each["value"], **each, "type": "BrushLabels"} for each in task["predictions"][0]["result"]]
    layers = [*brush.decode_from_annotation("mask", results).values()]
    assert len(layers) == len(regions)
    for layer, region in zip(layers, regions, strict=True):
        assert ((layer > 0) == photo.at_true_size(region.region.rle)).all()
