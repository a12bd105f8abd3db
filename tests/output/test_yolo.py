"""YOLO data sets: label files, images and their sources."""

import json
from pathlib import Path

import yaml
from PIL import Image

from matir_cli.gallery.database import GalleryFile
from matir_cli.output.yolo import CONFIG, yolo_folder
from tests.output.blocks import make_pixels, picture


def test_an_object_is_a_polygon_in_fractions_of_the_photo(gallery: GalleryFile, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    picture().save(path)
    with yolo_folder(tmp_path / "set", force=False) as folder:
        folder.begin("a block")
        folder.add(make_pixels(gallery, path))
    config = yaml.safe_load((tmp_path / "set" / CONFIG).read_text())
    assert config == {"train": "train.txt", "val": "train.txt", "names": {0: "a block"}}
    (image,) = (tmp_path / "set/train.txt").read_text().splitlines()
    with Image.open(tmp_path / "set" / image) as photo:
        assert photo.size == (1024, 768)
    (source,) = (tmp_path / "set/sources.jsonl").read_text().splitlines()
    assert json.loads(source) == {"image": image.removeprefix("./"), "path": str(path)}
    (label,) = (tmp_path / "set/labels").iterdir()
    assert label.stem == Path(image).stem
    number, *numbers = label.read_text().split()
    assert number == "0"
    x, y = [float(each) for each in numbers[::2]], [float(each) for each in numbers[1::2]]
    assert (min(x), max(x), min(y), max(y)) == (0.25, 0.5, 0.25, 0.5)
