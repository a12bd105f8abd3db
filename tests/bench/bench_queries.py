"""Queries of several parts on the drawn world, and what filters cost.

    python -m tests.bench.bench_queries

The tiny set indexes 400 pictures of the validation split; a region counts as the thing whose mask it
covers with an IoU above 0.5. Every figure is the mean average precision of photos in stage 1 alone.

- Text and example: the example shows a thing, the text says its colour and kind; photos are right that
  hold another thing of the same colour, kind and texture. "Gap": the texts have a large part in common
  where no region lies, as CLIP's texts have.
- Not: photos are right that hold a thing which the query describes and the not-text does not.

The filters are measured on 200,000 random regions, against the search without any.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli import masks
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import ModelSession
from matir_cli.models.tiny import benchmark, world
from matir_cli.models.tiny.grammar import fulfils, parse
from matir_cli.models.tiny.shapes import COLOURS, KINDS, TEXTURES
from matir_cli.search.filters import Filters
from matir_cli.search.index import region_vector
from matir_cli.search.query import AVERSION
from matir_cli.search.rank import rank_photos
from tests.bench import bench_search
from tests.bench.bench_search import Floats

WEIGHTS = (0.3, 0.5, 0.7)
AVERSIONS = (0.15, 0.25, AVERSION, 0.5, 0.75, 1.0)
EXAMPLES = 300
GAP = 3.0


@dataclass(frozen=True)
class Indexed:
    """The drawn pictures as stage 1 sees them."""

    engines: ModelSession
    pictures: list[world.Picture]
    vectors: Floats
    """(n, d), photo by photo."""
    starts: np.ndarray
    """(photos,) index of each photo's first region."""
    things: np.ndarray
    """(n,) the thing in its picture that each region covers, -1 for none."""
    owners: np.ndarray
    """(n,) which photo each region is of."""

    def text(self, words: str) -> Floats:
        return self.engines.text_encoder.encode(words).vector

    def in_units(self, vector: Floats) -> Floats:
        return vector / (self.vectors @ vector).std()

    def precision(self, vector: Floats, right: np.ndarray, left_out: int | None = None) -> float:
        scores = np.maximum.reduceat(self.vectors @ vector, self.starts)
        order = [photo for photo in np.argsort(-scores, kind="stable") if photo != left_out]
        hits = right[order]
        return float((np.cumsum(hits) / np.arange(1, hits.size + 1))[hits].mean())

    def fulfilling(self, words: str) -> np.ndarray:
        """(n,) bool: the regions of things that the words describe."""
        asked = parse(words)
        ids = [set(fulfils(asked, picture)) for picture in self.pictures]
        return np.array([thing in ids[owner] for thing, owner in zip(self.things, self.owners, strict=True)])


def index(folder: Path) -> Indexed:
    pictures = [world.picture(seed) for seed in benchmark.seeds("validation")]
    for number, picture in enumerate(pictures):
        Image.fromarray(picture.image).save(folder / f"{number:04}.png")
    gallery = GalleryFile.open(folder / "gallery.db", create=True)
    engines = ModelSession(gallery, load_model_set("tiny"), "auto")
    for _ in add_photos(
        gallery,
        [folder],
        IndexingModels(lambda: engines.proposer, lambda: engines.region_encoder),
        previews=False,
    ):
        pass
    vectors, things, owners, starts = [], [], [], []
    for number, picture in enumerate(pictures):
        regions = gallery.regions(number + 1)
        starts.append(len(vectors))
        drawn = [masks.encode(picture.mask(thing.id)) for thing in picture.things]
        for region, ious in zip(regions, masks.iou([r.region.rle for r in regions], drawn), strict=True):
            vectors.append(region_vector(gallery, region.id))
            things.append(int(ious.argmax()) if region.ordinal and ious.max() > 0.5 else -1)
            owners.append(number)
    return Indexed(engines, pictures, *map(np.array, (vectors, starts, things, owners)))


def examples(indexed: Indexed) -> Iterator[tuple[str, float]]:
    """Name of a way to combine, and an average precision."""
    rng = np.random.default_rng(1)
    gap = np.linalg.eigh(np.cov(indexed.vectors.T))[1][:, 0]  # the direction in which regions differ least
    chosen = rng.permutation(np.flatnonzero(indexed.things >= 0))
    done = 0
    for at in chosen:
        photo = int(indexed.owners[at])
        thing = indexed.pictures[photo].things[indexed.things[at]]
        look = (thing.kind, thing.colour, thing.texture)
        right = np.array(
            [
                any((t.kind, t.colour, t.texture) == look for t in picture.things)
                for picture in indexed.pictures
            ]
        )
        right[photo] = False
        if right.sum() < 2 or done == EXAMPLES:
            continue
        done += 1
        text, example = indexed.text(f"{thing.colour} {thing.kind}"), indexed.vectors[at]
        gapped = (text + GAP * gap) / np.linalg.norm(text + GAP * gap)
        yield "text alone", indexed.precision(text, right, photo)
        yield "example alone", indexed.precision(example, right, photo)
        for weight in WEIGHTS:
            for name, words in (("", text), (", gap", gapped)):
                plain = (1 - weight) * words + weight * example
                units = (1 - weight) * indexed.in_units(words) + weight * indexed.in_units(example)
                yield f"sum, example {weight}{name}", indexed.precision(plain, right, photo)
                yield f"in units of spread, example {weight}{name}", indexed.precision(units, right, photo)


def negations(indexed: Indexed) -> Iterator[tuple[str, float]]:
    pairs = [(kind, f"{look} {kind}") for kind in KINDS for look in (*COLOURS, *TEXTURES)]
    pairs += [(f"{c} {kind}", f"{t} {kind}") for kind in KINDS for c in COLOURS for t in TEXTURES]
    pairs += [("house", "house with a door"), ("dog", "dog led by rope"), ("car", "car on a rope")]
    for wanted, unwanted in pairs:
        good = indexed.fulfilling(wanted) & ~indexed.fulfilling(unwanted)
        right = np.maximum.reduceat(good, indexed.starts)
        if right.sum() < 2:
            continue
        yes, no = (indexed.in_units(indexed.text(words)) for words in (wanted, unwanted))
        yield "without --not", indexed.precision(yes, right)
        # The part of the query's score that has nothing to do with the not-text's (Widdows, 2003).
        shared = np.corrcoef(indexed.vectors @ yes, indexed.vectors @ no)[0, 1]
        yield "orthogonal to it", indexed.precision(yes - max(shared, 0) * no, right)
        for aversion in AVERSIONS:
            yield f"minus {aversion}", indexed.precision(yes - aversion * no, right)


def filters(folder: Path) -> Iterator[tuple[str, float]]:
    """Name of a filter, and milliseconds of a query."""
    bench_search.build(folder, 4000)
    questions = np.load(folder / "queries.npy")
    areas = np.clip(64 * np.exp(np.random.default_rng(0).normal(-4, 1.3, 200_000)), 1, 64).astype(int)
    with GalleryFile.open(folder / "gallery.db") as gallery:
        db = gallery.connection
        with gallery.atomic():
            rows = [(area, number) for number, area in enumerate(areas.tolist(), start=1)]
            db.executemany("update regions set area = ? where id = ? and ordinal > 0", rows)
            db.execute("update photos set camera = iif(id % 2, 'one', 'other')")
            db.execute("update photos set taken_at = printf('%d-05-17', 2000 + id / 200)")
        cases = {
            "none": None,
            "a camera: half of the photos": Filters(camera="one"),
            "a year: 5% of the photos": Filters(since="2010", until="2010"),
            "three files": Filters((Path("/7"), Path("/8"), Path("/9"))),
            "without whole photos": Filters(whole=False),
            "size: 13% of the regions": Filters(min_size=0.07),
            "size: 0.1% of the regions": Filters(min_size=0.99),
        }
        for name, within in cases.items():
            rank_photos(gallery, questions[0], 10, within)
            for question in questions:
                started = time.perf_counter()
                rank_photos(gallery, question, 10, within)
                yield name, 1e3 * (time.perf_counter() - started)


def show(title: str, rows: Iterator[tuple[str, float]], unit: str = "") -> None:
    table: dict[str, list[float]] = {}
    for name, value in rows:
        table.setdefault(name, []).append(value)
    print(f"\n| {title} |\n|---|---|", flush=True)
    for name, values in table.items():
        value = f"{statistics.median(values):.1f}{unit}" if unit else f"{statistics.mean(values):.3f}"
        print(f"| {name} | {value} |", flush=True)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        indexed = index(Path(name))
        show("text and example | mean AP", examples(indexed))
        show("not | mean AP", negations(indexed))
    with tempfile.TemporaryDirectory() as name:
        show("filter, 200,000 regions, top 10 | median", filters(Path(name)), " ms")


if __name__ == "__main__":
    main()
