"""Results as JSON."""

import json
import os
from pathlib import Path

import pytest

from matir_cli.output.json_encoding import to_json
from matir_cli.output.json_records import WrittenFiles, result_record
from matir_cli.records import Verdict
from tests.output.odd_names import NAMES, make_result


@pytest.mark.parametrize("name", NAMES)
def test_json_survives_any_name(name: bytes) -> None:
    item = make_result(name)
    line = to_json(result_record(item, WrittenFiles(), with_rle=True, all_instances=False))
    assert line.isascii()
    assert "\n" not in line
    assert os.fsencode(json.loads(line)["path"]) == b"/photos/" + name


def test_the_record_of_a_judged_photo() -> None:
    files = WrittenFiles((Path("m.png"), None), (Path("c.png"), None), Path("o.jpg"))
    record = result_record(make_result(verdict=Verdict(3.0, 1.0)), files, with_rle=False, all_instances=True)
    read = json.loads(to_json(record))
    assert read["judged"] is True
    assert read["logit_margin"] == 2.0
    assert read["p_true"] == read["score"] == pytest.approx(0.880797)
    assert read["stage1_score"] == 0.25
    assert read["box"] == [200, 100, 600, 300]
    assert read["region"] == 3
    assert [instance["box"] for instance in read["instances"]] == [[200, 100, 600, 300], [0, 0, 5, 5]]
    assert read["instances"][1]["iou"] == 0.25
    assert "mask" not in read
    assert "origin" not in read
    assert (read["mask_file"], read["cutout_file"], read["overlay_file"]) == ("m.png", "c.png", "o.jpg")
    assert [i.get("mask_file") for i in read["instances"]] == ["m.png", None]
