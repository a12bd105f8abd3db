"""All file outputs together, as `matir find` writes them."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO

from matir_cli import masks
from matir_cli.cli.options.output import ANSWER, OutputOptions, PrintedForm
from matir_cli.cli.results import open_output
from matir_cli.errors import OutputExists
from matir_cli.gallery.database import GalleryFile
from matir_cli.records import Box
from matir_cli.search.events import SearchOutcome
from matir_cli.search.results import GroundedObject, SearchResult
from tests.output.blocks import make_result, picture, put

NOTHING = OutputOptions(
    *(None, False, False, False, False, None, None, 0, "transparent", None, None, None),
    *(0.0, 0.0, None, False),
)


def all_forms(out: Path, printed: PrintedForm, *, all_instances: bool) -> OutputOptions:
    """Every file output, in the folder `out`."""
    return replace(
        NOTHING,
        printed=printed,
        all_instances=all_instances,
        masks=out / "m",
        cutouts=out / "c",
        overlays=out / "o",
        coco=out / "coco.json",
        yolo=out / "y",
        html=out / "p.html",
    )


def outcome(results: list[SearchResult]) -> SearchOutcome:
    """The outcome of a search that was not judged."""
    return SearchOutcome(results, truncated=False, candidates=0, judged=0, complete=True)


def write(gallery: GalleryFile, query: str, results: list[SearchResult], options: OutputOptions) -> None:
    with open_output(gallery, options) as output:
        output(query, outcome(results))


def test_what_has_no_mask_is_left_out(
    gallery: GalleryFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = []
    for number, masked in enumerate([True, False, True], start=1):
        path = tmp_path / f"{number}.png"
        picture(400 + number, 300).save(path)
        items.append(make_result(gallery, put(gallery, path), rank=number, others=1, masked=masked))
    out = tmp_path / "out"
    write(gallery, "a block", items, all_forms(out, "jsonl", all_instances=True))
    printed = capsys.readouterr()
    assert "2 masks written" in printed.err
    records = [json.loads(line) for line in printed.out.splitlines()]
    assert ["mask_file" in record for record in records] == [True, False, True]
    assert ["cutout_file" in record for record in records] == [True, False, True]
    assert all("overlay_file" in record for record in records)  # boxes are there
    assert [len(record["instances"]) for record in records] == [2, 2, 2]
    assert len([*(out / "m").iterdir()]) == len([*(out / "c").iterdir()]) == 2
    coco = json.loads((out / "coco.json").read_text())
    assert [item["image_id"] for item in coco["annotations"]] == [i.photo.id for i in (items[0], items[2])]
    assert len((out / "y/train.txt").read_text().splitlines()) == 2
    html = (out / "p.html").read_text()
    assert html.count("<figure") == 3
    assert html.count('class="mask"') == 2
    assert html.count("· no mask") == 1


def test_each_query_is_a_class_of_its_own(gallery: GalleryFile, tmp_path: Path) -> None:
    items = []
    for number in (1, 2):
        path = tmp_path / f"{number}.png"
        picture(400 + number, 300).save(path)
        items.append(make_result(gallery, put(gallery, path), rank=number))
    out = tmp_path / "out"
    options = replace(NOTHING, printed=ANSWER, all_instances=True, coco=out / "coco.json", yolo=out / "y")
    with open_output(gallery, options) as both:
        both("a block", outcome(items))
        both("a cloud", outcome([]))
        both("a brick: red", outcome(items[1:]))
    coco = COCO(str(out / "coco.json"))
    assert [(c["id"], c["name"]) for c in coco.loadCats([1, 2, 3])] == [
        (1, "a block"),
        (2, "a cloud"),
        (3, "a brick: red"),
    ]
    assert len(coco.imgs) == 2
    assert [len(coco.getImgIds(catIds=[number])) for number in (1, 2, 3)] == [2, 0, 1]
    config = yaml.safe_load((out / "y/data.yaml").read_text())
    assert config["names"] == {0: "a block", 1: "a cloud", 2: "a brick: red"}
    assert len((out / "y/train.txt").read_text().splitlines()) == 2
    classes = [
        [line.split()[0] for line in path.read_text().splitlines()] for path in (out / "y/labels").iterdir()
    ]
    assert sorted(classes) == [["0"], ["0", "2"]]


def test_every_instance_is_in_every_output(gallery: GalleryFile, tmp_path: Path) -> None:
    picture(400, 300).save(tmp_path / "photo.png")
    one = make_result(gallery, put(gallery, tmp_path / "photo.png"))
    corner = np.zeros((300, 400), dtype=np.bool_)
    corner[200:250, 300:390] = True
    second = GroundedObject(Box(300, 200, 390, 250), None, None, masks.encode(corner))
    both = SearchResult(1, one.photo, one.candidate, (*one.objects, second))
    out = tmp_path / "out"
    write(gallery, "a block", [both], all_forms(out, "json", all_instances=True))
    assert len([*(out / "m").iterdir()]) == len([*(out / "c").iterdir()]) == 2
    coco = json.loads((out / "coco.json").read_text())
    assert [item["bbox"] for item in coco["annotations"]] == [[100, 75, 100, 75], [300, 200, 90, 50]]
    (label,) = (out / "y/labels").iterdir()
    assert len(label.read_text().splitlines()) == 2
    assert (out / "p.html").read_text().count('class="mask"') == 2
    # And the first alone, unless asked for.
    first_alone = all_forms(out, "json", all_instances=False)
    write(gallery, "a block", [both], replace(first_alone, coco=None, yolo=None, html=None, force=True))
    assert len([*(out / "o").iterdir()]) == 2  # another picture, another name


@pytest.mark.parametrize("option", ["coco", "html", "yolo"])
def test_a_file_in_the_way_is_told_before_the_search(tmp_path: Path, option: str) -> None:
    path = tmp_path / "data.yaml"
    path.write_bytes(b"mine")
    values = {name: getattr(NOTHING, name) for name in OutputOptions.__dataclass_fields__}
    values[option] = tmp_path if option == "yolo" else path
    with pytest.raises(OutputExists):
        OutputOptions(**values).check()
    OutputOptions(**{**values, "force": True}).check()
    assert path.read_bytes() == b"mine"


def test_photos_are_let_go_one_by_one(gallery: GalleryFile, tmp_path: Path) -> None:
    count = 6
    for number in range(count):
        path = tmp_path / f"{number}.jpg"
        picture(3000, 2000 + number).save(path)
        put(gallery, path)
    script = f"""
import resource, sys
from pathlib import Path
from matir_cli.gallery.database import GalleryFile
from tests.output.test_files import all_forms, make_result, write
out = Path({os.fspath(tmp_path / "out")!r})
with GalleryFile.open(Path({os.fspath(gallery.path)!r})) as gallery:
    def peak(ids, name):
        items = [make_result(gallery, photo_id) for photo_id in ids]
        write(gallery, "block", items, all_forms(out / name, "paths", all_instances=False))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak([1, 2], "few"), peak(range(1, {count + 1}), "many"), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    few, many = map(int, done.stderr.decode().splitlines()[-1].split())
    unit = 1024 if sys.platform == "linux" else 1
    one_photo = 3000 * 2000 * 3
    assert (many - few) * unit < one_photo  # all of them held would be four times that
