"""D3's reader on pickles of the published structure, invalid ones and hostile ones."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pycocotools import mask as pycoco

from matir_cli import masks
from matir_cli.errors import AnnotationsInvalid
from matir_cli.evaluation.datasets.d3 import MAX_BYTES, Subset, read_d3
from matir_cli.models.tiny import benchmark, world
from matir_cli.models.tiny.grammar import fulfils, parse

QUERIES = ("ball", "dog", "house without a door", "red ball")


@pytest.fixture(scope="module")
def drawn() -> list[world.Picture]:
    return [world.picture(seed) for seed in range(12)]


@pytest.fixture
def d3_folder(tmp_path: Path, drawn: list[world.Picture]) -> Path:
    benchmark.write_d3(tmp_path, drawn, [parse(text) for text in QUERIES])
    return tmp_path


def tables_of(folder: Path) -> dict[str, Any]:
    names = ("sentences", "annotations", "images")
    return {
        name: pickle.loads((folder / "d3_pkl" / f"{name}.pkl").read_bytes())  # noqa: S301 - written here
        for name in names
    }


def put(folder: Path, name: str, table: object, protocol: int = pickle.DEFAULT_PROTOCOL) -> None:
    (folder / "d3_pkl" / f"{name}.pkl").write_bytes(pickle.dumps(table, protocol))


def test_d3_is_read_across_groups(d3_folder: Path, drawn: list[world.Picture]) -> None:
    dataset = read_d3(d3_folder / "d3_images", d3_folder / "d3_pkl")
    assert dataset.name == "d3"
    assert [query.id for query in dataset.queries] == [1, 2, 3, 4]
    assert [query.groups for query in dataset.queries] == [("pres",), ("pres",), ("abs",), ("pres",)]
    assert [image.name for image in dataset.images[:2]] == ["group_1/0.png", "group_2/1.png"]
    assert all(image.path.is_file() for image in dataset.images)
    for query in dataset.queries:
        expected = {
            number: [picture.mask(thing) for thing in fulfils(parse(query.text), picture)]
            for number, picture in enumerate(drawn, start=1)
            if fulfils(parse(query.text), picture)
        }
        assert dataset.relevant_images(query.id) == set(expected)
        for image, shown in expected.items():
            found = [masks.decode(each) for each in dataset.instances(query.id, image)]
            assert len(found) == len(shown)
            assert all(any(np.array_equal(a, b) for b in found) for a in shown)
    groups = {image.id: image.name.split("/")[0] for image in dataset.images}
    assert any(groups[image] != "group_1" for image in dataset.relevant_images(1))  # sentence 1 is of group 1


def test_a_red_ball_and_a_ball_are_one_mask(d3_folder: Path) -> None:
    dataset = read_d3(d3_folder / "d3_images", d3_folder)
    shared = [image for image in dataset.relevant_images(4) if dataset.relevant_images(1)]
    assert shared
    for image in shared:
        assert any(a is b for a in dataset.instances(4, image) for b in dataset.instances(1, image))


def test_subsets_and_the_published_counts(d3_folder: Path) -> None:
    images, pairs = d3_folder / "d3_images", "24,282 annotation-description pairs"
    texts = {
        name: [query.text for query in read_d3(images, d3_folder, subset=name).queries]
        for name in get_args(Subset)
    }
    assert texts == {
        "full": list(QUERIES),
        "pres": ["ball", "dog", "red ball"],
        "abs": ["house without a door"],
    }
    dataset = read_d3(images, d3_folder)
    table = tables_of(d3_folder)["sentences"]
    count = sum(len(sentence["anno_id"]) for sentence in table.values())
    assert any(note == f"the published D3 has {pairs}, these files {count:,}" for note in dataset.notes)
    assert len(dataset.notes) == 3
    assert read_d3(images, d3_folder, subset="pres").digest == dataset.digest


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_every_protocol_with_numpy_arrays_and_scalars(d3_folder: Path, protocol: int) -> None:
    images = d3_folder / "d3_images"
    before = read_d3(images, d3_folder)
    tables = tables_of(d3_folder)
    for annotation in tables["annotations"].values():
        annotation["image_id"] = np.int64(annotation["image_id"])
        annotation["bbox"] = [np.array([1.0, 2.0, 3.0, 4.0])]
        annotation["area"] = [np.array([7], dtype=np.uint32)]
    for sentence in tables["sentences"].values():
        sentence["is_negative"] = np.bool_(sentence["is_negative"])
    for name, table in tables.items():
        put(d3_folder, name, table, protocol)
    after = read_d3(images, d3_folder)
    assert (after.queries, after.truth) == (before.queries, before.truth)


def test_counts_may_be_text_and_objects_may_have_parts(d3_folder: Path) -> None:
    images, tables = d3_folder / "d3_images", tables_of(d3_folder)
    annotation = next(iter(tables["annotations"].values()))
    whole = pycoco.decode(annotation["segmentation"][0])
    parts = [whole.copy(), whole.copy()]
    middle = whole.any(axis=1).nonzero()[0].mean().astype(int)
    parts[0][:middle] = 0
    parts[1][middle:] = 0
    made = [pycoco.encode(np.asfortranarray(part)) for part in parts]
    annotation["segmentation"] = [each | {"counts": each["counts"].decode("ascii")} for each in made]
    put(d3_folder, "annotations", tables["annotations"])
    query = annotation["sent_id"][0]
    found = read_d3(images, d3_folder).instances(query, annotation["image_id"])
    assert any(np.array_equal(masks.decode(each), whole) for each in found)


D3Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("spoil", "file", "reason"),
    [
        (lambda t: t["images"][1].pop("width"), "images", "image 1: .*width"),
        (lambda t: t["images"][1].update(id=9), "images", "image 1: its id is 9"),
        (lambda t: t["images"][1].update(file_name="../x.png"), "images", "image 1: .*leads out"),
        (lambda t: t["images"][1].update(file_name="group_1/x.png"), "images", "image 1: .*x.png: no such"),
        (
            lambda t: t["images"][1].update(file_name="group_2/1.png"),
            "images",
            "images 1 and 2 have the same file",
        ),
        (lambda t: t["images"][3].update(width="wide"), "images", "image 3: Expected `int`"),
        (
            lambda t: t["annotations"][1].update(image_id=99),
            "annotations",
            "annotation 1: there is no image 99",
        ),
        (
            lambda t: t["annotations"][1].update(segmentation=[]),
            "annotations",
            "annotation 1: it has no mask",
        ),
        (
            lambda t: t["annotations"][1]["segmentation"][0].update(size=[3, 4]),
            "annotations",
            "annotation 1: a mask of 4 x 3",
        ),
        (
            lambda t: t["annotations"][1]["segmentation"][0].update(counts=b"\xff0"),
            "annotations",
            "annotation 1: malformed run",
        ),
        (
            lambda t: t["annotations"][1]["segmentation"][0].update(counts=[1, 2]),
            "annotations",
            "annotation 1: counts of type list",
        ),
        (
            lambda t: t["sentences"][2]["anno_id"].append(10**6),
            "sentences",
            "sentence 2: .*annotation 1000000",
        ),
        (lambda t: t["sentences"][2].update(raw_sent=" "), "sentences", "sentence 2: its text is empty"),
        (lambda t: t["sentences"].update({2: None}), "sentences", "sentence 2: Expected"),
        (lambda t: t.update(sentences=["ball"]), "sentences", "not a dictionary of records by id"),
    ],
)
def test_an_invalid_record_is_named_by_its_id(
    d3_folder: Path, spoil: D3Change, file: str, reason: str
) -> None:
    tables = tables_of(d3_folder)
    spoil(tables)
    put(d3_folder, file, tables[file])
    with pytest.raises(AnnotationsInvalid, match=reason) as caught:
        read_d3(d3_folder / "d3_images", d3_folder)
    assert caught.value.path == d3_folder / "d3_pkl" / f"{file}.pkl"


class Touch:
    """An object whose pickle calls `Path.touch`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_runs_code_is_refused(d3_folder: Path, tmp_path: Path) -> None:
    tables = tables_of(d3_folder)
    tables["sentences"][1]["raw_sent"] = Touch(tmp_path / "ran")
    put(d3_folder, "sentences", tables["sentences"])
    with pytest.raises(AnnotationsInvalid, match=r"sentences\.pkl .*it refers to \S+, which could run code"):
        read_d3(d3_folder / "d3_images", d3_folder)
    assert not (tmp_path / "ran").exists()
    assert tables_of(d3_folder)["sentences"]  # the plain unpickler is the one that runs it
    assert (tmp_path / "ran").exists()


def test_files_are_bounded_and_must_exist(d3_folder: Path) -> None:
    with (d3_folder / "d3_pkl" / "annotations.pkl").open("ab") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(AnnotationsInvalid, match="more than"):
        read_d3(d3_folder / "d3_images", d3_folder)
    with pytest.raises(AnnotationsInvalid, match=r"images\.pkl .*: no such file"):
        read_d3(d3_folder, d3_folder / "d3_images")
