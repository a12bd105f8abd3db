"""The benchmarks on the drawn world, and export of the world as COCO and D3 files.

`write_coco` writes a folder of images, a COCO instances JSON and a queries JSON;
`write_d3` writes the four pickles of d-cube (D3), including its lists of length one.
"""

import json
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from matir_cli import masks
from matir_cli.models.tiny.grammar import GROUPS, Query, fulfils, parse, random_held_out, random_query
from matir_cli.models.tiny.long_descriptions import LongDescription, draw_descriptions
from matir_cli.models.tiny.shapes import KINDS
from matir_cli.models.tiny.world import SPLITS, Picture, picture

MIN_PICTURES = 3
"""A query of `WORLD` is kept if at least this many pictures of its split fulfil it."""

COUNTS = {"plain": 8, "attribute": 20, "relational": 20, "negated": 16}
"""Number of queries of `WORLD` in each group; 64 in all."""

LARGE_MIN_PICTURES = 10
"""The same as `MIN_PICTURES` for `WORLD_LARGE`."""

LARGE_COUNTS = {"plain": 8, "attribute": 64, "relational": 64, "negated": 64}
"""Number of queries of `WORLD_LARGE` in each group; 200 in all."""

LARGE_HELD_OUT = {"plain": 0, "attribute": 20, "relational": 20, "negated": 20}
"""Number of these whose look, relation or combination training never asks about; all kinds were trained."""

LARGE_QUERIES = Path(__file__).parent / "world_large.json"
"""The queries of `WORLD_LARGE` by split, written by `python -m matir_cli.models.tiny.benchmark`: drawing
thousands of pictures to choose them takes a minute."""


AnyQuery: TypeAlias = Query | LongDescription
"""A text that describes objects of the drawn world."""


@dataclass(frozen=True)
class Benchmark:
    """Pictures and queries of the drawn world, fixed for each split."""

    name: str
    pictures: int
    """Number of pictures per split."""
    first: int
    """Number of the first picture within the seeds of its split."""
    queries: Callable[[str], Sequence[AnyQuery]]
    """Returns the queries of a split."""

    def seeds(self, split: str) -> range:
        """Seeds of the pictures in the benchmark of `split`."""
        start = SPLITS[split].start + self.first
        return range(start, start + self.pictures)


def _world_queries(split: str) -> list[Query]:
    """The 64 queries of `split`, drawn from one seed; they include held-out looks and relations."""
    rng = np.random.default_rng((SPLITS[split].start, 4))
    pictures = [picture(seed) for seed in WORLD.seeds(split)]
    kept: dict[str, Query] = {}
    for group in GROUPS:
        target = len(kept) + COUNTS[group]
        while len(kept) < target:
            query = random_query(rng, group)
            if query.text not in kept and _is_shown(query, pictures, MIN_PICTURES):
                kept[query.text] = query
    return list(kept.values())


def _large_queries(split: str) -> list[Query]:
    """The 200 queries of `split`, as stored."""
    return [parse(text) for text in json.loads(LARGE_QUERIES.read_text())[split]]


def _long_descriptions(split: str) -> list[LongDescription]:
    """The long descriptions of `split`."""
    drawn: list[LongDescription] = draw_descriptions(split, [picture(seed) for seed in WORLD.seeds(split)])
    return drawn


WORLD = Benchmark("world", 400, 0, _world_queries)
"""400 pictures and 64 queries: a judge that looks at 100 candidates sees a quarter of the pictures."""

WORLD_LARGE = Benchmark("world-large", 4000, 500_000, _large_queries)
"""4,000 pictures and 200 queries: 100 candidates are 2.5% of the pictures, as on COCO."""


WORLD_LONG = Benchmark("world-long", WORLD.pictures, WORLD.first, _long_descriptions)
"""The pictures of `WORLD` with 300 descriptions of two or three clauses."""


def things(query: AnyQuery, shown: Picture) -> tuple[int, ...]:
    """Ids of the things in the picture that the query describes, in ascending order."""
    found: tuple[int, ...] = (
        query.things(shown) if isinstance(query, LongDescription) else fulfils(query, shown)
    )
    return found


def draw_large_queries(split: str, pictures: Sequence[Picture]) -> list[Query]:
    """Draw queries as `WORLD_LARGE` has them, from one seed per split.

    Args:
        pictures: those that a query must be true of; see `LARGE_MIN_PICTURES`.
    """
    rng = np.random.default_rng((WORLD_LARGE.seeds(split).start, 4))
    kept: dict[str, Query] = {}
    for group in GROUPS:
        for draw, count in (
            (random_query, LARGE_COUNTS[group] - LARGE_HELD_OUT[group]),
            (random_held_out, LARGE_HELD_OUT[group]),
        ):
            target = len(kept) + count
            while len(kept) < target:
                query = draw(rng, group)
                is_wanted = query.held_out == (draw is random_held_out) and query.text not in kept
                if is_wanted and _is_shown(query, pictures, LARGE_MIN_PICTURES):
                    kept[query.text] = query
    return list(kept.values())


def _is_shown(query: Query, pictures: Sequence[Picture], least: int) -> bool:
    """True if at least so many of the pictures fulfil the query."""
    return sum(bool(fulfils(query, each)) for each in pictures) >= least


GROUP_IDS = range(1, 5)
"""Ids of the groups in the D3 files."""


def write_coco(
    folder: Path, pictures: Iterable[Picture], queries: Sequence[AnyQuery], image_folder: Path | None = None
) -> None:
    """Write `images/*.png`, `instances.json` and `queries.json` into `folder`.

    Each query in the queries JSON has an id, its text, its group, a flag that says whether it is held
    out of training, and the ids of the annotations that fulfil it, by image id.

    Args:
        image_folder: another folder for the pictures; those that it holds already are kept unchanged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image_folder = image_folder or folder / "images"
    image_folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    answers: list[dict[str, list[int]]] = [{} for _ in queries]
    for each in pictures:
        name = f"{each.seed}.png"
        _save_picture(each, image_folder / name)
        height, width = each.owner.shape
        images.append({"id": each.seed, "file_name": name, "height": height, "width": width})
        first = len(annotations) + 1
        annotations.extend(_annotation(each, thing, first + thing) for thing in range(len(each.things)))
        for query, answer in zip(queries, answers, strict=True):
            if described := things(query, each):
                answer[str(each.seed)] = [first + thing for thing in described]
    categories = [{"id": number, "name": kind} for number, kind in enumerate(KINDS, start=1)]
    instances = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(instances))
    listed = [
        {
            "id": number,
            "text": query.text,
            "group": query.group,
            "held_out": query.held_out,
            "annotations": answer,
        }
        for number, (query, answer) in enumerate(zip(queries, answers, strict=True), start=1)
    ]
    (folder / "queries.json").write_text(json.dumps({"queries": listed}))


def _save_picture(source: Picture, path: Path) -> None:
    """Write a picture as PNG, unless the file exists; an interrupted write leaves no file of that name."""
    if not path.exists():
        partial = path.with_suffix(".part")
        Image.fromarray(source.image).save(partial, format="png")
        partial.replace(path)


def _annotation(source: Picture, thing: int, number: int) -> dict[str, Any]:
    """The COCO annotation with id `number` of one thing; its box is XYWH."""
    rle = masks.encode(source.mask(thing))
    box = masks.box(rle)
    return {
        "id": number,
        "image_id": source.seed,
        "category_id": KINDS.index(source.things[thing].kind) + 1,
        "segmentation": {"size": [rle.height, rle.width], "counts": rle.counts.decode("ascii")},
        "area": masks.area(rle),
        "bbox": [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0],
        "iscrowd": 0,
    }


def write_d3(folder: Path, pictures: Sequence[Picture], queries: Sequence[Query]) -> None:
    """Write `d3_images/GROUP/SEED.png` and `d3_pkl/{sentences,annotations,images,groups}.pkl`.

    As in d-cube, ids start at 1; an annotation is one object with all sentences that are true of it,
    and its segmentation, area, bbox and iscrowd are lists of length one; `is_negative` marks queries
    about absences; file names contain a slash. Pictures and sentences are distributed over four
    groups; as in the original set, pictures of other groups may fulfil a sentence.
    """
    sentence_ids: dict[int, list[int]] = {group: [] for group in GROUP_IDS}
    image_ids: dict[int, list[int]] = {group: [] for group in GROUP_IDS}
    sentences: dict[int, dict[str, Any]] = {}
    for number, query in enumerate(queries, start=1):
        group = _group_of(number)
        sentences[number] = {
            "id": number,
            "anno_id": [],
            "group_id": [group],
            "is_negative": query.group == "negated",
            "raw_sent": query.text,
            "raw_sent_zh": "",
        }
        sentence_ids[group].append(number)
    images: dict[int, dict[str, Any]] = {}
    annotations: dict[int, dict[str, Any]] = {}
    for number, each in enumerate(pictures, start=1):
        group = _group_of(number)
        name = f"group_{group}/{each.seed}.png"
        path = folder / "d3_images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(each.image).save(path)
        height, width = each.owner.shape
        new = _d3_annotations(each, number, group, queries, len(annotations))
        annotations.update(new)
        for annotation in new.values():
            for sentence in annotation["sent_id"]:
                sentences[sentence]["anno_id"].append(annotation["id"])
        images[number] = {
            "id": number,
            "file_name": name,
            "height": height,
            "width": width,
            "anno_id": list(new),
            "group_id": group,
        }
        image_ids[group].append(number)
    groups = {
        group: {
            "id": group,
            "pos_sent_id": sentence_ids[group],
            "inner_img_id": image_ids[group],
            "outer_img_id": [],
        }
        for group in GROUP_IDS
    }
    (folder / "d3_pkl").mkdir(parents=True, exist_ok=True)
    tables = {"sentences": sentences, "annotations": annotations, "images": images, "groups": groups}
    for name, table in tables.items():
        (folder / "d3_pkl" / f"{name}.pkl").write_bytes(pickle.dumps(table))


def _group_of(number: int) -> int:
    """The D3 group that the picture or sentence with id `number` belongs to."""
    return (number - 1) % len(GROUP_IDS) + 1


def _d3_annotations(
    source: Picture, image: int, group: int, queries: Sequence[Query], before: int
) -> dict[int, dict[str, Any]]:
    """Annotations of the things that fulfil a sentence, by id; ids start at `before` + 1."""
    sentences: dict[int, list[int]] = {}
    for sentence, query in enumerate(queries, start=1):
        for thing in fulfils(query, source):
            sentences.setdefault(thing, []).append(sentence)
    annotations: dict[int, dict[str, Any]] = {}
    for number, (thing, sentence_ids) in enumerate(sorted(sentences.items()), start=before + 1):
        rle = coco.encode(np.asfortranarray(source.mask(thing), dtype=np.uint8))
        annotations[number] = {
            "id": number,
            "sent_id": sentence_ids,
            "segmentation": [rle],
            "area": [coco.area(rle)],
            "bbox": [coco.toBbox(rle)],
            "iscrowd": [0],
            "image_id": image,
            "group_id": group,
        }
    return annotations


if __name__ == "__main__":
    chosen = {
        split: [each.text for each in draw_large_queries(split, [*map(picture, WORLD_LARGE.seeds(split))])]
        for split in ("validation", "test")
    }
    LARGE_QUERIES.write_text(json.dumps(chosen, indent=1) + "\n")
