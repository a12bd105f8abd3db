"""The fixed queries of each split, and export of the world as COCO and D3 files.

`write_coco` writes a folder of images, a COCO instances JSON and a queries JSON;
`write_d3` writes the four pickles of d-cube (D3), including its lists of length one.
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
"""Number of pictures in a split's benchmark: its first seeds."""

COUNTS = {"plain": 8, "attribute": 20, "relational": 20, "negated": 16}
"""Number of queries in each group; 64 in all."""

MIN_PICTURES = 3
"""A query is kept if at least this many pictures of its split fulfil it."""


GROUP_IDS = range(1, 5)
"""Ids of the groups in the D3 files."""


def seeds(split: str) -> range:
    """Seeds of the pictures in the benchmark of `split`."""
    start = SPLITS[split].start
    return range(start, start + PICTURES)


def queries(split: str) -> list[Query]:
    """The 64 queries of `split`, drawn from one seed; they include held-out looks and relations."""
    rng = np.random.default_rng((SPLITS[split].start, 4))
    pictures = [picture(seed) for seed in seeds(split)]
    kept: dict[str, Query] = {}
    for group in GROUPS:
        target = len(kept) + COUNTS[group]
        while len(kept) < target:
            query = random_query(rng, group)
            if query.text not in kept and sum(bool(fulfils(query, p)) for p in pictures) >= MIN_PICTURES:
                kept[query.text] = query
    return list(kept.values())


def write_coco(folder: Path, pictures: Iterable[Picture], queries: Sequence[Query]) -> None:
    """Write `images/*.png`, `instances.json` and `queries.json` into `folder`.

    Each query in the queries JSON has an id, its text, its group, a flag that says whether it is held
    out of training, and the ids of the annotations that fulfil it, by image id.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    answers: list[dict[str, list[int]]] = [{} for _ in queries]
    for each in pictures:
        name = f"{each.seed}.png"
        Image.fromarray(each.image).save(folder / "images" / name)
        height, width = each.owner.shape
        images.append({"id": each.seed, "file_name": name, "height": height, "width": width})
        first = len(annotations) + 1
        annotations.extend(_annotation(each, thing, first + thing) for thing in range(len(each.things)))
        for query, answer in zip(queries, answers, strict=True):
            if things := fulfils(query, each):
                answer[str(each.seed)] = [first + thing for thing in things]
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
