"""Tests of the drawn world: pictures, relations, grammar, questions and exports."""

import json
import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from matir_cli.models.tiny import benchmark, grammar, shapes, world
from matir_cli.models.tiny.grammar import Phrase, Query, fulfils, parse
from matir_cli.models.tiny.questions import FORMS, ask
from matir_cli.models.tiny.world import Rope, Thing
from matir_cli.records import Box

PINNED = (
    (171, 225, 3),
    [
        ("star", "red", "striped", "medium"),
        ("dog", "white", "plain", "small"),
        ("car", "blue", "striped", "medium"),
        ("person", "red", "plain", "medium"),
        ("star", "blue", "striped", "large"),
        ("ball", "yellow", "plain", "small"),
    ],
)
"""Shape and things of the first test picture."""

TRAIN = 100
"""First training seed that is tested; any would do."""


@pytest.fixture(scope="module")
def pictures() -> list[world.Picture]:
    return [world.picture(seed) for seed in range(TRAIN, TRAIN + 150)]


def thing(number: int, kind: str, x: float, y: float, side: float = 30, **looks: Any) -> Thing:
    """A plain red medium thing with its centre at (x, y), changed by `looks`."""
    plain = Thing(
        number,
        kind,
        "red",
        "plain",
        "medium",
        False,
        Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2),
        False,
        0,
    )
    return replace(plain, **looks)


def scene(*things: Thing, ropes: tuple[Rope, ...] = ()) -> world.Picture:
    """A picture of 200 x 200 with these things."""
    return world.compose(0, 200, 200, things, ropes, np.random.default_rng(0))


def test_the_same_seed_gives_the_same_picture() -> None:
    once, again = world.picture(11), world.picture(11)
    assert once.things == again.things
    assert once.ropes == again.ropes
    assert np.array_equal(once.image, again.image)
    assert np.array_equal(once.owner, again.owner)


def test_a_seed_s_content_is_pinned() -> None:
    shown = world.picture(world.SPLITS["test"].start)
    assert (shown.image.shape, [(t.kind, t.colour, t.texture, t.size) for t in shown.things]) == PINNED


def test_splits_share_no_seed_and_a_seed_outside_is_refused() -> None:
    spans = sorted((seeds.start, seeds.stop) for seeds in world.SPLITS.values())
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    with pytest.raises(ValueError, match="no split"):
        world.picture(-1)


def test_pictures_keep_to_the_world_s_bounds(pictures: list[world.Picture]) -> None:
    shapes_seen = {shown.image.shape[:2] for shown in pictures}
    assert all(112 <= side <= 320 for shape in shapes_seen for side in shape)
    assert any(height != width for height, width in shapes_seen)
    counts = {len(shown.things) for shown in pictures}
    assert counts == {1, 2, 3, 4, 5, 6}
    assert {t.kind for shown in pictures for t in shown.things} == set(shapes.KINDS)
    assert any(shown.ropes for shown in pictures)
    assert any(shown.relations["inside"] for shown in pictures)


def test_training_never_shows_a_held_out_look(pictures: list[world.Picture]) -> None:
    assert not {(t.colour, t.kind) for shown in pictures for t in shown.things} & world.HELD_OUT_LOOKS
    start = world.SPLITS["test"].start
    test = {(t.colour, t.kind) for seed in range(start, start + 150) for t in world.picture(seed).things}
    assert test & world.HELD_OUT_LOOKS


def test_every_thing_is_seen_within_its_box_and_mostly_whole(pictures: list[world.Picture]) -> None:
    for shown in pictures:
        for each in shown.things:
            rows, columns = np.nonzero(shown.mask(each.id))
            assert each.box.x0 <= columns.min() <= columns.max() < each.box.x1
            assert each.box.y0 <= rows.min() <= rows.max() < each.box.y1
            alone = world.compose(
                0,
                shown.image.shape[1],
                shown.image.shape[0],
                (replace(each, id=0),),
                (),
                np.random.default_rng(0),
            )
            assert len(rows) >= 0.6 * alone.mask(0).sum()


def test_a_mask_lies_on_the_pixels_of_its_colour() -> None:
    shown = scene(thing(0, "ball", 60, 60), thing(1, "star", 140, 140, colour="blue"))
    for each in shown.things:
        mean = shown.image[shown.mask(each.id)].astype(float).mean(axis=0)
        assert np.abs(mean - shapes.COLOURS[each.colour]).max() < 12
        around = shown.image[~shown.mask(each.id)].astype(float)
        assert not (np.abs(around - shapes.COLOURS[each.colour]).max(axis=1) < 12).any()


def test_centres_are_clearly_apart_or_clearly_not(pictures: list[world.Picture]) -> None:
    for shown in pictures:
        inside = {pair for a, b in shown.relations["inside"] for pair in ((a, b), (b, a))}
        for a in shown.things:
            for b in shown.things:
                if a.id == b.id or (a.id, b.id) in inside:
                    continue
                for axis in (0, 1):
                    gap = abs(a.centre[axis] - b.centre[axis]) / shown.image.shape[1 - axis]
                    assert gap <= world.SAME or gap >= world.APART


def test_relations_of_a_hand_made_scene() -> None:
    things = (
        thing(0, "dog", 40, 100),
        thing(1, "person", 150, 100),
        thing(2, "ring", 100, 40, side=60),
        thing(3, "star", 100, 40, side=18),
    )
    relations = scene(*things, ropes=(Rope(0, 1),)).relations
    assert {(0, 1), (0, 2), (2, 1)} <= relations["left of"]
    assert (1, 0) in relations["right of"]
    assert (2, 0) in relations["above"]
    assert (0, 2) in relations["below"]
    assert (0, 1) not in relations["above"] | relations["below"]
    assert relations["inside"] == {(3, 2)}
    assert relations["tied to"] == {(0, 1)}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dog", (0, 1)),
        ("dog led by rope", (0,)),
        ("dog without a rope", (1,)),
        ("dog tied to a house", (0,)),
        ("dog tied to a person", ()),
        ("house with a door", (2,)),
        ("house without a door", (3,)),
        ("house without a door, below a house with a door", (3,)),
        ("blue dog", (1,)),
        ("dog that is not blue", (0,)),
        ("striped house", ()),
        ("plain house", (2, 3)),
        ("small dog", (1,)),
        ("dog left of a blue dog", (0,)),
        ("dog left of a red dog", ()),
    ],
)
def test_queries_of_a_hand_made_scene(text: str, found: tuple[int, ...]) -> None:
    shown = scene(
        thing(0, "dog", 30, 40),
        thing(1, "dog", 110, 160, colour="blue", size="small"),
        thing(2, "house", 120, 40, door=True),
        thing(3, "house", 40, 160),
        ropes=(Rope(0, 2),),
    )
    assert fulfils(parse(text), shown) == found


def test_an_empty_ring_holds_nothing() -> None:
    ring, star = thing(0, "ring", 100, 100, side=80), thing(1, "star", 100, 100, side=24)
    assert fulfils(parse("empty ring"), scene(ring)) == (0,)
    assert fulfils(parse("empty ring"), scene(ring, star)) == ()
    assert fulfils(parse("star inside a red ring"), scene(ring, star)) == (1,)


def test_a_rope_that_passes_a_third_thing_is_not_drawn() -> None:
    dog, person, between = thing(0, "dog", 30, 100), thing(1, "person", 170, 100), thing(2, "ball", 100, 105)
    assert scene(dog, person, ropes=(Rope(0, 1),)).ropes == (Rope(0, 1),)
    assert scene(dog, person, between, ropes=(Rope(0, 1),)).ropes == ()


@pytest.mark.parametrize("group", grammar.GROUPS)
def test_every_query_reads_back(group: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        query = grammar.random_query(rng, group)
        assert parse(query.text) == query
        assert query.group == group


def test_what_is_not_in_the_grammar_is_refused() -> None:
    with pytest.raises(ValueError, match="not in the grammar"):
        parse("a cat on a mat")


def test_a_query_knows_whether_training_showed_it() -> None:
    assert Query(Phrase("car", "purple")).held_out
    assert Query(Phrase("star"), "left of", Phrase("tree")).held_out
    assert not Query(Phrase("tree"), "left of", Phrase("star")).held_out


def test_questions_are_balanced_and_never_held_out(pictures: list[world.Picture]) -> None:
    asked = [q for about in ask(pictures, 12, dict.fromkeys(FORMS, 1.0), seed=0) for q in about]
    for form in FORMS:
        answers = [bool(question.things) for question in asked if question.form == form]
        assert len(answers) >= 20
        assert sum(answers) * 2 == len(answers)
    parts = [(q.query.subject.part, bool(q.things)) for q in asked if q.form == "part"]
    assert {parts.count((part, True)) == parts.count((part, False)) for part, _ in parts} == {True}
    assert not any(question.query.held_out for question in asked)


def test_the_benchmark_has_enough_of_everything() -> None:
    asked = benchmark.WORLD.queries("validation")
    assert len(asked) == len({query.text for query in asked}) >= 60
    assert {group: sum(q.group == group for q in asked) for group in grammar.GROUPS} == benchmark.COUNTS
    assert sum(query.held_out for query in asked) >= 3
    assert len(benchmark.WORLD.seeds("test")) >= 400


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_large_benchmark_has_seeds_and_queries_of_its_own(split: str) -> None:
    asked = benchmark.WORLD_LARGE.queries(split)
    assert len({query.text for query in asked}) == 200
    counts = {group: sum(query.group == group for query in asked) for group in grammar.GROUPS}
    assert counts == benchmark.LARGE_COUNTS
    for group, count in benchmark.LARGE_HELD_OUT.items():
        assert sum(query.held_out for query in asked if query.group == group) == count
    seeds = benchmark.WORLD_LARGE.seeds(split)
    assert len(seeds) == 4000
    assert {world.split(seed) for seed in (seeds[0], seeds[-1])} == {split}
    assert not set(seeds) & set(benchmark.WORLD.seeds(split))


@pytest.mark.parametrize("group", ["attribute", "relational", "negated"])
def test_held_out_queries_are_of_the_grammar_and_never_trained(group: str) -> None:
    rng = np.random.default_rng(1)
    drawn = [grammar.random_held_out(rng, group) for _ in range(40)]
    assert all(query.held_out and query.group == group and parse(query.text) == query for query in drawn)
    assert len({query.text for query in drawn}) > 10


def test_queries_of_the_large_benchmark_are_true_of_enough_pictures(
    pictures: list[world.Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        benchmark, "LARGE_COUNTS", {"plain": 3, "attribute": 5, "relational": 5, "negated": 5}
    )
    monkeypatch.setattr(
        benchmark, "LARGE_HELD_OUT", {"plain": 0, "attribute": 0, "relational": 2, "negated": 2}
    )
    monkeypatch.setattr(benchmark, "LARGE_MIN_PICTURES", 2)
    drawn = benchmark.draw_large_queries("validation", pictures)
    assert drawn == benchmark.draw_large_queries("validation", pictures)
    assert [query.group for query in drawn].count("negated") == 5
    assert sum(query.held_out for query in drawn) == 4
    for query in drawn:
        assert sum(bool(fulfils(query, picture)) for picture in pictures) >= 2


def test_coco_files_load_with_pycocotools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = [world.picture(seed) for seed in range(5)]
    asked = [parse("dog"), parse("house without a door")]
    benchmark.write_coco(tmp_path, shown, asked)
    loaded = COCO(str(tmp_path / "instances.json"))
    capsys.readouterr()
    assert sorted(loaded.getImgIds()) == [0, 1, 2, 3, 4]
    for picture in shown:
        assert (tmp_path / "images" / f"{picture.seed}.png").exists()
        annotations = loaded.loadAnns(loaded.getAnnIds(imgIds=[picture.seed]))
        assert len(annotations) == len(picture.things)
        for each, annotation in zip(picture.things, annotations, strict=True):
            assert np.array_equal(loaded.annToMask(annotation), picture.mask(each.id))
            assert loaded.cats[annotation["category_id"]]["name"] == each.kind
    queries = json.loads((tmp_path / "queries.json").read_text())["queries"]
    dogs = {str(p.seed): len(fulfils(asked[0], p)) for p in shown if fulfils(asked[0], p)}
    assert {image: len(found) for image, found in queries[0]["annotations"].items()} == dogs
    assert [query["text"] for query in queries] == ["dog", "house without a door"]


def test_d3_pickles_have_the_true_structure(tmp_path: Path) -> None:
    shown = [world.picture(seed) for seed in range(8)]
    asked = [parse("ball"), parse("dog"), parse("house without a door")]
    benchmark.write_d3(tmp_path, shown, asked)
    tables = {
        name: pickle.loads((tmp_path / "d3_pkl" / f"{name}.pkl").read_bytes())  # noqa: S301 - written just now
        for name in ("sentences", "annotations", "images", "groups")
    }
    assert list(tables["sentences"]) == [1, 2, 3]
    assert [s["is_negative"] for s in tables["sentences"].values()] == [False, False, True]
    assert all("/" in image["file_name"] for image in tables["images"].values())
    assert tables["annotations"]
    for number, annotation in tables["annotations"].items():
        assert all(len(annotation[key]) == 1 for key in ("segmentation", "area", "bbox", "iscrowd"))
        assert isinstance(annotation["segmentation"][0]["counts"], bytes)
        picture = shown[annotation["image_id"] - 1]
        mask = coco_mask.decode(annotation["segmentation"][0])
        true = {asked[s - 1] for s in annotation["sent_id"]}
        assert any(np.array_equal(mask, picture.mask(i)) for q in true for i in fulfils(q, picture))
        assert all(number in tables["sentences"][s]["anno_id"] for s in annotation["sent_id"])
        assert number in tables["images"][annotation["image_id"]]["anno_id"]
    across = [
        annotation
        for annotation in tables["annotations"].values()
        for sentence in annotation["sent_id"]
        if tables["sentences"][sentence]["group_id"] != [annotation["group_id"]]
    ]
    assert across
