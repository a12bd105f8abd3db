"""The split of a data set into train and val, and its background photos."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from matir_cli.gallery.database import GalleryFile
from matir_cli.output.data_split import BackgroundPhotos, val_photos
from matir_cli.records import Candidate, Verdict
from matir_cli.search.events import SearchOutcome
from matir_cli.search.rerank import JudgedCandidate
from tests.search.vector_gallery import open_vectors
from tests.support.process import Indexed, matir
from tests.support.similar_photos import Shot, put_shots


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    with open_vectors(tmp_path) as opened:
        yield opened


def names(gallery: GalleryFile, ids: set[int]) -> set[str]:
    return {gallery.paths(photo_id)[0].name for photo_id in ids}


def test_near_copies_are_on_one_side_and_the_share_is_about_right(gallery: GalleryFile) -> None:
    shots = [Shot(f"{n}", picture=n // 2, direction=n // 2) for n in range(160)]
    ids = put_shots(gallery, shots)
    val = names(gallery, val_photos(gallery, ids, 0.25))
    assert 20 <= len(val) <= 60
    assert all((str(n) in val) == (str(n + 1) in val) for n in range(0, 160, 2))
    assert val_photos(gallery, ids, 0.0) == set()
    assert val_photos(gallery, ids, 1.0) == {*ids}


def test_photos_that_are_added_move_no_other_photo(gallery: GalleryFile, tmp_path: Path) -> None:
    shots = [Shot(f"{n}", picture=n, direction=n) for n in range(40)]
    before = names(gallery, val_photos(gallery, put_shots(gallery, shots), 0.4))
    (tmp_path / "more").mkdir()
    with open_vectors(tmp_path / "more") as other:
        more = [Shot(f"more {n}", picture=100 + n, direction=100 + n) for n in range(30)]
        ids = put_shots(other, [*more, *reversed(shots)])
        after = names(other, val_photos(other, ids, 0.4))
    assert {name for name in after if not name.startswith("more")} == before
    assert len(after) > len(before)


def outcome(**margins: float) -> SearchOutcome:
    """An outcome in which the judge has denied photos, by id, with these margins."""
    denied = tuple(
        JudgedCandidate(Candidate(int(name[1:]), 1, 0.1), Verdict(0.0, -margin))
        for name, margin in margins.items()
    )
    return replace(SearchOutcome([], False, 0, 0, True), denied=denied)


def test_backgrounds_are_what_every_query_denies_the_surest_first(gallery: GalleryFile) -> None:
    put_shots(gallery, [Shot(f"{n}", picture=n, direction=n) for n in range(6)])
    backgrounds = BackgroundPhotos(0.5)
    backgrounds.note("a dog", outcome(p1=-1.0, p2=-5.0, p3=-3.0, p4=-9.0))
    backgrounds.note("a cat", outcome(p1=-9.0, p2=-2.0, p3=-3.0))
    backgrounds.note("a cat", outcome(p6=-3.0))
    chosen = backgrounds.choose(gallery, {5, 7, 8})
    assert [item.candidate.photo_id for item in chosen] == [3, 2, 1]
    assert [item.candidate.photo_id for item in backgrounds.choose(gallery, {3, 4})] == [2, 1]
    assert len(backgrounds.choose(gallery, {5})) == 1
    assert BackgroundPhotos(0.5).choose(gallery, {5}) == []


@pytest.mark.parametrize(
    ("labelled", "share", "wanted"), [(90, 0.1, 10), (9, 0.1, 1), (8, 0.1, 0), (5, 0.0, 0)]
)
def test_the_share_is_that_of_the_whole_data_set(labelled: int, share: float, wanted: int) -> None:
    assert BackgroundPhotos(share).wanted(labelled) == wanted


def check_yolo(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Check a data set by the published rules of the format; return the label lines by side and image."""
    config = yaml.safe_load((folder / "data.yaml").read_text())
    assert {*config} == {"train", "val", "names"}
    assert [*config["names"]] == [*range(len(config["names"]))]
    sides: dict[str, dict[str, list[str]]] = {}
    for side in ("train", "val"):
        sides[side] = {}
        for image in (folder / config[side]).read_text().splitlines():
            assert (folder / image).is_file()
            label = (folder / image.replace("/images/", "/labels/")).with_suffix(".txt")
            lines = label.read_text().splitlines() if label.exists() else []
            for line in lines:
                number, *corners = line.split()
                assert int(number) in config["names"]
                assert len(corners) % 2 == 0
                assert len(corners) >= 6
                assert all(0 <= float(corner) <= 1 for corner in corners)
            sides[side][image] = lines
    return sides


def coco_images(path: Path) -> tuple[set[str], set[str], dict[str, Any]]:
    """The files of images with and without annotations, and the whole content."""
    content = json.loads(path.read_text())
    annotated = {each["image_id"] for each in content["annotations"]}
    files = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
    assert annotated <= files.keys()
    return {files[key] for key in annotated}, {files[key] for key in files.keys() - annotated}, content


def test_find_writes_the_same_split_to_yolo_and_coco(indexed: Indexed, tmp_path: Path) -> None:
    words = ("--min-p", "0.5", "--certainty", "1", "--val", "0.4", "--background-photos", "0.4")
    folder, coco = tmp_path / "yolo", tmp_path / "coco"
    given = b"a red house\na tree\n"
    on = ("--db", indexed.gallery, "--models", "tiny", "-n", 4)
    done = matir("find", "-", *words, *on, "--yolo", folder, "--coco", coco, given=given)
    assert done.returncode == 0, done.stderr
    sides = check_yolo(folder)
    assert sides["train"]
    assert not sides["train"].keys() & sides["val"].keys()
    found = {side: coco_images(coco / f"instances_{side}.json") for side in ("train", "val")}
    for side, images in sides.items():
        labelled, background, content = found[side]
        names_by_lines = [
            {Path(image).stem.rpartition("-")[0] for image, lines in images.items() if bool(lines) is filled}
            for filled in (True, False)
        ]
        assert names_by_lines == [labelled, background]
        assert [each["name"] for each in content["categories"]] == ["a red house", "a tree"]
    backgrounds = [image for images in sides.values() for image, lines in images.items() if not lines]
    labelled_count = sum(len(images) for images in sides.values()) - len(backgrounds)
    assert len(backgrounds) <= labelled_count * 2 / 3 + 1e-9
    said = done.stderr.decode()
    assert f"{len(backgrounds)} background photos" in said
    assert f"{len(sides['train'])} photos to train with, {len(sides['val'])} to validate with" in said
    few = matir(
        "find", "a red house", *on[:4], "-n", 1, "--background-photos", "0.1", "--yolo", tmp_path / "few"
    )
    assert b"0 background photos: 0.1 of so few photos is less than one" in few.stderr
    again = tmp_path / "again"
    matir("find", "-", *words, *on, "--yolo", again, given=b"a tree\na red house\n")
    assert {side: {*images} for side, images in check_yolo(again).items()} == {
        side: {*images} for side, images in sides.items()
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--val", "0.2"), "go with --yolo or --coco"),
        (("--val", "0.2", "--coco", "-"), "give --coco a folder"),
        (("--background-photos", "0.2", "--yolo", "y", "--no-rerank"), "needs the judge"),
        (("--background-photos", "0.2", "--yolo", "y", "--not", "a dog"), "needs the judge"),
        (("--coco", "."), "with --val it is a folder"),
        (("--val", "2", "--yolo", "y"), "--val"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    indexed: Indexed, words: tuple[str, ...], said: str
) -> None:
    done = matir("find", "a tree", *words, "--db", indexed.gallery)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.decode().split())
