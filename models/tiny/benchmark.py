"""The fixed questions of validation and test, and the world written out in the forms that evaluation reads.

`write_coco` makes a folder of images, COCO instances JSON and a queries JSON;
`write_d3` the four pickles of d-cube (D3), its lists of length one included.
"""

import json
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from matir_cli import masks
from matir_cli.models.tiny.grammar import GROUPS, Query, fulfils, random_query
from matir_cli.models.tiny.shapes import KINDS
from matir_cli.models.tiny.world import SPLITS, Picture, picture

PICTURES = 400
"""Pictures of the benchmark of a split: its first seeds."""

COUNTS = {"plain": 8, "attribute": 20, "relational": 20, "negated": 16}
"""Queries of each group: 64."""

LEAST = 3
"""A query is kept if at least so many pictures of its split fulfil it."""


def seeds(split: str) -> range:
    """Seeds of the benchmark's pictures."""
    start = SPLITS[split].start
    return range(start, start + PICTURES)


def queries(split: str) -> list[Query]:
    """The split's 64 queries, held-out looks and relations among them; drawn from one seed."""
    rng = np.random.default_rng((SPLITS[split].start, 4))
    shown = [picture(seed) for seed in seeds(split)]
    kept: dict[str, Query] = {}
    for group in GROUPS:
        wanted = len(kept) + COUNTS[group]
        while len(kept) < wanted:
            query = random_query(rng, group)
            if query.text not in kept and sum(bool(fulfils(query, p)) for p in shown) >= LEAST:
                kept[query.text] = query
    return list(kept.values())


def write_coco(folder: Path, pictures: Iterable[Picture], asked: Sequence[Query]) -> None:
    """Writes `images/*.png`, `instances.json` and `queries.json` into `folder`.

    A query of the queries JSON has an id, its text, group, whether it is held out of training,
    and the ids of the annotations that fulfil it, by image id.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    answers: list[dict[str, list[int]]] = [{} for _ in asked]
    for shown in pictures:
        name = f"{shown.seed}.png"
        Image.fromarray(shown.image).save(folder / "images" / name)
        height, width = shown.owner.shape
        images.append({"id": shown.seed, "file_name": name, "height": height, "width": width})
        first = len(annotations) + 1
        annotations.extend(_annotation(shown, thing, first + thing) for thing in range(len(shown.things)))
        for query, answer in zip(asked, answers, strict=True):
            if things := fulfils(query, shown):
                answer[str(shown.seed)] = [first + thing for thing in things]
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
        for number, (query, answer) in enumerate(zip(asked, answers, strict=True), start=1)
    ]
    (folder / "queries.json").write_text(json.dumps({"queries": listed}))


def _annotation(shown: Picture, thing: int, number: int) -> dict[str, Any]:
    rle = masks.encode(shown.mask(thing))
    box = masks.box(rle)
    return {
        "id": number,
        "image_id": shown.seed,
        "category_id": KINDS.index(shown.things[thing].kind) + 1,
        "segmentation": {"size": [rle.height, rle.width], "counts": rle.counts.decode("ascii")},
        "area": masks.area(rle),
        "bbox": [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0],
        "iscrowd": 0,
    }


def write_d3(folder: Path, pictures: Sequence[Picture], asked: Sequence[Query]) -> None:
    """Writes `d3_images/GROUP/SEED.png` and `d3_pkl/{sentences,annotations,images,groups}.pkl`.

    As in d-cube: ids from 1, an annotation is one object with all sentences true of it, its
    segmentation, area, bbox and iscrowd in lists of length one, `is_negative` for absences, and
    file names with a slash. Pictures and sentences are dealt out over four groups; as in the
    true set, a sentence may be fulfilled by pictures of other groups.
    """
    groups = {n: {"id": n, "pos_sent_id": [], "inner_img_id": [], "outer_img_id": []} for n in range(1, 5)}
    sentences: dict[int, dict[str, Any]] = {}
    for number, query in enumerate(asked, start=1):
        group = (number - 1) % 4 + 1
        sentences[number] = {
            "id": number,
            "anno_id": [],
            "group_id": [group],
            "is_negative": query.group == "negated",
            "raw_sent": query.text,
            "raw_sent_zh": "",
        }
        groups[group]["pos_sent_id"].append(number)  # type: ignore[attr-defined]
    images: dict[int, dict[str, Any]] = {}
    annotations: dict[int, dict[str, Any]] = {}
    for number, shown in enumerate(pictures, start=1):
        group = (number - 1) % 4 + 1
        name = f"group_{group}/{shown.seed}.png"
        path = folder / "d3_images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shown.image).save(path)
        height, width = shown.owner.shape
        made = _d3_annotations(shown, number, group, asked, len(annotations))
        annotations.update(made)
        for annotation in made.values():
            for sentence in annotation["sent_id"]:
                sentences[sentence]["anno_id"].append(annotation["id"])
        images[number] = {
            "id": number,
            "file_name": name,
            "height": height,
            "width": width,
            "anno_id": list(made),
            "group_id": group,
        }
        groups[group]["inner_img_id"].append(number)  # type: ignore[attr-defined]
    (folder / "d3_pkl").mkdir(parents=True, exist_ok=True)
    tables = {"sentences": sentences, "annotations": annotations, "images": images, "groups": groups}
    for name, table in tables.items():
        (folder / "d3_pkl" / f"{name}.pkl").write_bytes(pickle.dumps(table))


def _d3_annotations(
    shown: Picture, image: int, group: int, asked: Sequence[Query], before: int
) -> dict[int, dict[str, Any]]:
    """The objects of a picture that fulfil a sentence, numbered from `before` + 1."""
    true: dict[int, list[int]] = {}
    for sentence, query in enumerate(asked, start=1):
        for thing in fulfils(query, shown):
            true.setdefault(thing, []).append(sentence)
    made: dict[int, dict[str, Any]] = {}
    for number, (thing, sentence_ids) in enumerate(sorted(true.items()), start=before + 1):
        rle = coco.encode(np.asfortranarray(shown.mask(thing), dtype=np.uint8))
        made[number] = {
            "id": number,
            "sent_id": sentence_ids,
            "segmentation": [rle],
            "area": [coco.area(rle)],
            "bbox": [coco.toBbox(rle)],
            "iscrowd": [0],
            "image_id": image,
            "group_id": group,
        }
    return made
