import json
import os
import shutil
import subprocess
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from matir_cli import errors, masks
from matir_cli.gallery.database import GalleryFile
from matir_cli.maintenance.export import VECTORS_AT_ONCE, ExportOptions, export_coco, export_vectors
from matir_cli.records import FileRecord
from tests.support.crafted_gallery import (
    DIMENSIONS,
    HEIGHT,
    REGIONS,
    WIDTH,
    craft,
    objects,
    place,
    put,
    vectors,
)
from tests.support.process import MATIR, Indexed, matir

NAMES = [f"{number}.jpg" for number in range(12)]
ODD = [b"new\nline", b"\xff\xfe.jpg", "עברית.jpg".encode(), b"'quo\"te", b"\x1b[31m", b"x" * 255]


@pytest.fixture
def gallery(tmp_path: Path):  # type: ignore[no-untyped-def]
    with craft(tmp_path / "gallery.db", NAMES) as made:
        yield made


def written(gallery: GalleryFile, path: Path, shape: ExportOptions) -> COCO:
    with path.open("w", encoding="ascii") as stream:
        list(export_coco(gallery, stream, shape))
    return COCO(path)


@pytest.mark.parametrize("working", [False, True])
def test_pycocotools_reads_every_region(gallery: GalleryFile, tmp_path: Path, working: bool) -> None:
    scale = 1 if working else 2
    loaded = written(gallery, tmp_path / "coco.json", ExportOptions(working_size=working))
    assert len(loaded.imgs) == len(NAMES)
    assert len(loaded.anns) == len(NAMES) * (REGIONS - 1)
    for number, name in enumerate(NAMES, 1):
        image = loaded.imgs[number]
        assert (image["file_name"], image["date_captured"]) == (str(place(name)), "2024-05-06T07:08:09")
        assert (image["width"], image["height"]) == (scale * WIDTH, scale * HEIGHT)
        found = loaded.loadAnns(loaded.getAnnIds(imgIds=number))
        for annotation, mask in zip(found, objects(name), strict=True):
            expected = masks.resize(mask, scale * HEIGHT, scale * WIDTH)
            assert (loaded.annToMask(annotation) == expected).all()
            x, y, width, height = annotation["bbox"]
            assert expected[int(y) : int(y + height), int(x) : int(x + width)].sum() == expected.sum()
            assert annotation["area"] == expected.sum() > 0
            assert (annotation["score"], annotation["iscrowd"]) == (0.75, 0)
            assert gallery.region(annotation["id"]).photo_id == number


def test_pycocotools_scores_it(gallery: GalleryFile, tmp_path: Path) -> None:
    loaded = written(gallery, tmp_path / "coco.json", ExportOptions())
    results = json.loads((tmp_path / "coco.json").read_text())["annotations"]
    evaluation = COCOeval(loaded, loaded.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_any_file_name_survives(gallery: GalleryFile, tmp_path: Path) -> None:
    with gallery.atomic():
        for name in ODD:
            path = Path(os.fsdecode(b"/photos/" + name))
            put(gallery, os.fsdecode(name), file=FileRecord(path, 1, 1))
    loaded = written(gallery, tmp_path / "coco.json", ExportOptions(relative_to=Path("/photos/below")))
    names = [os.fsencode(image["file_name"]) for image in loaded.imgs.values()]
    assert names[len(NAMES) :] == [b"../" + name for name in ODD]
    ids = StringIO()
    list(export_vectors(gallery, BytesIO(), ids, ExportOptions()))
    paths = {os.fsencode(json.loads(line)["path"]) for line in ids.getvalue().splitlines()}
    assert {b"/photos/" + name for name in ODD} < paths


def test_vectors_are_those_of_the_encoder(gallery: GalleryFile, tmp_path: Path) -> None:
    names = [f"more {number}" for number in range(VECTORS_AT_ONCE // REGIONS)]  # so that there are two parts
    with gallery.atomic():
        for name in names:
            put(gallery, name, previews=False)
        gallery.unlink(place(NAMES[3]))
    with (tmp_path / "v.npy").open("wb") as array, (tmp_path / "ids").open("w") as ids:
        parts = list(export_vectors(gallery, array, ids, ExportOptions()))
    rows = np.load(tmp_path / "v.npy")
    lines = [json.loads(line) for line in (tmp_path / "ids").read_text().splitlines()]
    assert len(parts) == 2
    assert (rows.shape, rows.dtype, sum(parts)) == ((len(lines), DIMENSIONS), np.float32, len(lines))
    assert len(lines) == (len(NAMES) - 1 + len(names)) * REGIONS
    expected = np.stack([vectors(Path(line["path"]).name)[line["ordinal"]] for line in lines])
    assert np.einsum("nd,nd->n", rows, expected).min() > 0.9995
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-5
    assert [gallery.region(line["region"]).photo_id for line in lines[:40]] == [
        line["photo"] for line in lines[:40]
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "update regions set rle = x'ff' where id = 6",
        "update regions set predicted_iou = 9e999 where id = 6",
        "update photos set width = 100000, height = 100000 where id = 2",
        "update photos set height = 'tall' where id = 2",
        "update vectors set vector = x'01' where region_id = 6",
        "update vectors set vector = 'text' where region_id = 1",
        "update vectors set vector = zeroblob(64) where region_id = 6",
    ],
)
def test_a_damaged_gallery_is_an_error(gallery: GalleryFile, statement: str) -> None:
    gallery.connection.execute(statement)
    with pytest.raises(errors.GalleryDamaged):
        list(export_coco(gallery, StringIO(), ExportOptions()))
        list(export_vectors(gallery, BytesIO(), StringIO(), ExportOptions()))


def test_an_empty_gallery_has_nothing_to_export(tmp_path: Path) -> None:
    with GalleryFile.open(tmp_path / "empty.db", create=True) as gallery:
        with pytest.raises(errors.GalleryEmpty):
            list(export_coco(gallery, StringIO(), ExportOptions()))
        with pytest.raises(errors.GalleryEmpty):
            list(export_vectors(gallery, BytesIO(), StringIO(), ExportOptions()))


def test_the_command_writes_whole_files_and_keeps_those_that_exist(indexed: Indexed, tmp_path: Path) -> None:
    coco, array = tmp_path / "out" / "coco.json", tmp_path / "out" / "v.npy"
    command = ("export", "--db", indexed.gallery, "--coco", coco, "--vectors", array)
    done = matir(*command, "--relative-to", indexed.photos)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, {path.name for path in coco.parent.iterdir()}) == (
        b"",
        {"coco.json", "v.npy", "v.ids.jsonl"},
    )
    ids = array.with_name("v.ids.jsonl")
    assert done.stderr.decode() == f"matir: {coco} written\nmatir: {array} and {ids} written\n"
    loaded = COCO(coco)
    assert sorted(image["file_name"] for image in loaded.imgs.values())[0] == "0000.png"
    assert np.load(array).shape[0] == len(loaded.anns) + len(loaded.imgs)
    again = matir(*command)
    assert again.returncode == 2
    assert f"{coco} already exists; it was kept".encode() in again.stderr
    assert b"--force" in again.stderr
    assert matir(*command, "--force").returncode == 0
    twice = matir("export", "--db", indexed.gallery, "--vectors", array, "--coco", ids, "--force")
    assert twice.returncode == 2
    assert b"would be written twice" in twice.stderr
    through = matir("export", "--db", indexed.gallery, "--coco", "-", "--working-size")
    assert len(json.loads(through.stdout)["annotations"]) == len(loaded.anns)
    assert through.stderr == b""


def test_a_failed_export_leaves_no_file_and_a_reader_that_leaves_is_no_error(
    indexed: Indexed, tmp_path: Path
) -> None:
    path = Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))
    with GalleryFile.open(path) as gallery:
        gallery.connection.execute("update regions set rle = x'ff' where photo_id = 12")
    done = matir("export", "--db", path, "--coco", tmp_path / "coco.json")
    assert done.returncode == 2
    assert b"is damaged" in done.stderr
    assert [*tmp_path.iterdir()] == [path]
    words = [*MATIR, "export", "--db", indexed.gallery, "--coco", "-"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert matir("export", "--db", indexed.gallery).returncode == 2
