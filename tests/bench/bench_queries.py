"""Bench of combined queries on the drawn world, and of search filters.

    python -m tests.bench.bench_queries [--quick] [--pictures 400] [--examples 300] [--photos 4000]

The tiny set indexes pictures of the validation split; a region counts as the object whose mask it
covers with an IoU above 0.5. Figures are the mean average precision of photos in stage 1 alone.

- Text and example: the example shows an object, the text names its colour and kind; relevant are
  photos with another object of the same colour, kind and texture. "Gap": the texts share a large
  component in a direction without regions, as CLIP's texts do.
- Several examples: three or five of the same colour, kind and texture, each in a photo of its own, against
  the mean of what one of them finds alone; no photo with an example is ranked.
- Bad examples: the best regions of the first photos that are not relevant, which are not ranked either. The
  query is one or three such examples, a text, or a text with an example.
- Not: relevant are photos with an object that the query describes and the not-text does not.

The filters are measured on random regions, 50 per photo, beside the search without any filter.
"""

import statistics
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from matir_cli import masks
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import ModelSession
from matir_cli.models.tiny import benchmark, world
from matir_cli.models.tiny.grammar import fulfils, parse
from matir_cli.models.tiny.shapes import COLOURS, KINDS, TEXTURES
from matir_cli.search.encoding import (
    AVERSION,
    DISLIKE,
    DISLIKE_OF_TEXTS,
    MARGIN,
    MARGIN_OF_TEXTS,
)
from matir_cli.search.filters import Filters
from matir_cli.search.rank import rank_photos
from matir_cli.search.vectors import region_vector
from tests.bench import bench_search
from tests.bench.bench_search import Floats
from tests.bench.measuring import (
    BenchParser,
    Timings,
    format_seconds,
    in_new_process,
    print_columns,
    print_heading,
    print_row,
    time_once,
)

WEIGHTS = (0.3, 0.5, 0.7)
AVERSIONS = (0.15, 0.25, AVERSION, 0.5, 0.75, 1.0)
RESULTS = 10
"""Photos that are searched for, the default of `matir find`."""

GAP = 3.0
"""Length of the component that gapped texts share, in lengths of a text vector."""

SUBTRACTED = (0.15, 0.25, 0.35)
"""Factors with which bad examples are subtracted from the query, the plain way."""

DISLIKES = (
    (0.25, 0.0),
    (DISLIKE, MARGIN),
    (1.0, 0.0),
    (DISLIKE_OF_TEXTS, MARGIN_OF_TEXTS),
    (0.5, MARGIN_OF_TEXTS),
)
"""Weights and margins, in standard deviations, with which `search/dislike.py` applies them."""

FEW_RELEVANT = 4
"""Photos that a text describes, at least."""

MOST_SHOWN = 5
"""Examples at most, each in another photo."""

Relevance = NDArray[np.bool_]
"""(photos,) True for the photos that are relevant to a query."""

Look = tuple[str, str, str]
"""Kind, colour and texture of a drawn object."""


@dataclass(frozen=True)
class IndexedPictures:
    """The drawn pictures as stage 1 sees them."""

    models: ModelSession
    pictures: list[world.Picture]
    vectors: Floats
    """(n, d), photo by photo."""
    starts: NDArray[np.int64]
    """(photos,) index of each photo's first region."""
    objects: NDArray[np.int64]
    """(n,) id of the object in its picture that each region covers, -1 for none."""
    photos: NDArray[np.int64]
    """(n,) the photo that each region belongs to."""

    def encode(self, text: str) -> Floats:
        """(d,) vector of a text."""
        return self.models.text_encoder.encode(text).vector

    def by_spread(self, vector: Floats) -> Floats:
        """`vector` in units of the standard deviation of its scores over all regions."""
        scaled: Floats = vector / self.scores(vector).std()
        return scaled

    def average_precision(self, vector: Floats, relevant: Relevance, left_out: Sequence[int] = ()) -> float:
        """Average precision of the photos ranked by their best region; those `left_out` are not ranked.

        Args:
            vector: (d,), or (k, d) of which the best one counts.
        """
        return self.precision_of_scores(self.scores(vector), relevant, left_out)

    def precision_of_scores(self, scores: Floats, relevant: Relevance, left_out: Sequence[int] = ()) -> float:
        """Average precision of the photos ranked by the best of (n,) scores of regions."""
        order = np.argsort(-np.maximum.reduceat(scores, self.starts), kind="stable")
        hits = relevant[order[~np.isin(order, left_out)]]
        return float((np.cumsum(hits) / np.arange(1, hits.size + 1))[hits].mean())

    def scores(self, vector: Floats) -> Floats:
        """(n,) the best score of each region with (d,) or (k, d) vectors."""
        best: Floats = (self.vectors @ np.atleast_2d(vector).T).max(axis=1)
        return best

    def showing(self, look: Look) -> Relevance:
        """(photos,) the photos with an object of this look."""
        return np.array([any(_look(each) == look for each in p.things) for p in self.pictures])

    def fulfilling(self, text: str) -> Relevance:
        """(n,) bool: the regions of objects that the text describes."""
        query = parse(text)
        ids = [set(fulfils(query, picture)) for picture in self.pictures]
        return np.array(
            [number in ids[photo] for number, photo in zip(self.objects, self.photos, strict=True)]
        )


def index(folder: Path, count: int) -> IndexedPictures:
    """Index the first `count` pictures of the validation split with the tiny set, in `folder`."""
    pictures = [world.picture(seed) for seed in benchmark.WORLD.seeds("validation")[:count]]
    for number, picture in enumerate(pictures):
        Image.fromarray(picture.image).save(folder / f"{number:04}.png")
    gallery = GalleryFile.open(folder / "gallery.db", create=True)
    models = ModelSession(gallery, load_model_set("tiny"), "auto")
    for _ in add_photos(gallery, [folder], IndexingModels.of(models), previews=False):
        pass
    vectors: list[Floats] = []
    objects: list[int] = []
    photos: list[int] = []
    starts: list[int] = []
    for number, picture in enumerate(pictures):
        regions = gallery.regions(number + 1)
        starts.append(len(vectors))
        drawn = [masks.encode(picture.mask(each.id)) for each in picture.things]
        for region, ious in zip(regions, masks.iou([r.region.rle for r in regions], drawn), strict=True):
            vectors.append(region_vector(gallery, region.id))
            objects.append(int(ious.argmax()) if region.ordinal and ious.max() > 0.5 else -1)
            photos.append(number)
    return IndexedPictures(
        models, pictures, np.array(vectors), np.array(starts), np.array(objects), np.array(photos)
    )


def combine_text_and_example(indexed: IndexedPictures, count: int) -> Iterator[tuple[str, float]]:
    """Pairs of a way to combine text and example, and an average precision, for `count` examples."""
    rng = np.random.default_rng(1)
    gap = np.linalg.eigh(np.cov(indexed.vectors.T))[1][:, 0]  # the direction in which regions differ least
    done = 0
    for region in rng.permutation(np.flatnonzero(indexed.objects >= 0)):
        photo = int(indexed.photos[region])
        shown = indexed.pictures[photo].things[indexed.objects[region]]
        relevant = indexed.showing(_look(shown))
        relevant[photo] = False
        if relevant.sum() < 2 or done == count:
            continue
        done += 1
        text, example = indexed.encode(f"{shown.colour} {shown.kind}"), indexed.vectors[region]
        gapped = (text + GAP * gap) / np.linalg.norm(text + GAP * gap)
        precision = partial(indexed.average_precision, relevant=relevant, left_out=[photo])
        yield "text alone", precision(text)
        yield "example alone", precision(example)
        for weight in WEIGHTS:
            for suffix, words in (("", text), (", gap", gapped)):
                plain = (1 - weight) * words + weight * example
                scaled = (1 - weight) * indexed.by_spread(words) + weight * indexed.by_spread(example)
                yield f"sum, example {weight}{suffix}", precision(plain)
                yield f"in units of spread, example {weight}{suffix}", precision(scaled)


def show_several(indexed: IndexedPictures, count: int) -> Iterator[tuple[str, float]]:
    """Pairs of examples and how they are combined, and an average precision, for `count` first examples."""
    rng = np.random.default_rng(2)
    looks = {
        region: _look(indexed.pictures[indexed.photos[region]].things[indexed.objects[region]])
        for region in np.flatnonzero(indexed.objects >= 0).tolist()
    }
    done = 0
    for first in rng.permutation([*looks]).tolist():
        relevant = indexed.showing(looks[first])
        if relevant.sum() < MOST_SHOWN + 2 or done == count:
            continue
        alike = rng.permutation([each for each in looks if looks[each] == looks[first]]).tolist()
        by_photo = {int(indexed.photos[region]): region for region in [*alike, first]}
        chosen = [first, *(region for region in by_photo.values() if region != first)][:MOST_SHOWN]
        if len(chosen) < MOST_SHOWN:
            continue
        done += 1
        left_out = indexed.photos[chosen].tolist()
        relevant[left_out] = False
        good = indexed.vectors[chosen]
        precision = partial(indexed.average_precision, relevant=relevant, left_out=left_out)
        yield "one", statistics.mean(precision(each) for each in good)
        for shown in (3, MOST_SHOWN):
            yield f"{shown}, best of them", precision(good[:shown])
            yield f"{shown}, mean of them", precision(good[:shown].mean(axis=0))
        for shown in (1, 3):
            scores = indexed.scores(good[:shown])
            yield from _show_bad(indexed, f"{shown} shown", scores, relevant, left_out)


def exclude_shown(indexed: IndexedPictures) -> Iterator[tuple[str, float]]:
    """Pairs of a query by a text, and how bad examples are applied, and an average precision."""
    rng = np.random.default_rng(3)
    for text in [f"{look} {kind}" for look in (*COLOURS, *TEXTURES) for kind in KINDS]:
        matching = indexed.fulfilling(text)
        relevant: Relevance = np.maximum.reduceat(matching, indexed.starts)
        if relevant.sum() < FEW_RELEVANT:
            continue
        words = indexed.scores(indexed.encode(text))
        yield from _show_bad(indexed, "text", words, relevant, [])
        region = int(rng.choice(np.flatnonzero(matching)))
        example = indexed.scores(indexed.vectors[region])
        relevant = relevant.copy()
        relevant[indexed.photos[region]] = False
        both = words / words.std() + example / example.std()
        yield from _show_bad(indexed, "text and example", both, relevant, [int(indexed.photos[region])])


def _show_bad(
    indexed: IndexedPictures, name: str, scores: Floats, relevant: Relevance, left_out: Sequence[int]
) -> Iterator[tuple[str, float]]:
    """Pairs of how one or three bad examples are applied to (n,) scores of a query, and a precision."""
    best = np.maximum.reduceat(scores, indexed.starts)
    order = np.argsort(-best, kind="stable")
    order = order[~np.isin(order, left_out)]
    wrong = order[~relevant[order]][:3]
    bad = [int(np.where(indexed.photos == photo, scores, -np.inf).argmax()) for photo in wrong]
    left_out = [*left_out, *wrong.tolist()]
    precision = partial(indexed.precision_of_scores, relevant=relevant, left_out=left_out)
    yield f"{name}, the wrong ones known", precision(scores)
    for few in (1, 3):
        near = np.stack([indexed.scores(indexed.vectors[each]) for each in bad[:few]])
        subtracted = (near / near.std(axis=1, keepdims=True)).mean(axis=0)
        for aversion in SUBTRACTED:
            figure = precision(scores / scores.std() - aversion * subtracted)
            yield f"{name}, less {aversion} of {few} bad", figure
        excess = (_z_scores(near) - _z_scores(scores)).max(axis=0)
        for weight, margin in DISLIKES:
            figure = precision(_z_scores(scores) - weight * np.maximum(excess - margin, 0))
            yield f"{name}, {few} bad, weight {weight}, margin {margin}", figure


def _z_scores(scores: Floats) -> Floats:
    """(..., n) in standard deviations from their mean."""
    z: Floats = (scores - scores.mean(axis=-1, keepdims=True)) / scores.std(axis=-1, keepdims=True)
    return z


def _look(thing: world.Thing) -> Look:
    return thing.kind, thing.colour, thing.texture


def subtract_unwanted(indexed: IndexedPictures) -> Iterator[tuple[str, float]]:
    """Pairs of a way to treat the not-text, and an average precision."""
    pairs = [(kind, f"{look} {kind}") for kind in KINDS for look in (*COLOURS, *TEXTURES)]
    pairs += [(f"{c} {kind}", f"{t} {kind}") for kind in KINDS for c in COLOURS for t in TEXTURES]
    pairs += [("house", "house with a door"), ("dog", "dog led by rope"), ("car", "car on a rope")]
    for wanted, unwanted in pairs:
        matching = indexed.fulfilling(wanted) & ~indexed.fulfilling(unwanted)
        relevant = np.maximum.reduceat(matching, indexed.starts)
        if relevant.sum() < 2:
            continue
        yes, no = (indexed.by_spread(indexed.encode(text)) for text in (wanted, unwanted))
        yield "without --not", indexed.average_precision(yes, relevant)
        # The part of the query's score that is uncorrelated with the not-text's (Widdows, 2003).
        shared = np.corrcoef(indexed.vectors @ yes, indexed.vectors @ no)[0, 1]
        yield "orthogonal to it", indexed.average_precision(yes - max(shared, 0) * no, relevant)
        for aversion in AVERSIONS:
            yield f"minus {aversion}", indexed.average_precision(yes - aversion * no, relevant)


def time_filters(folder: Path, photos: int) -> dict[str, Timings]:
    """Timings of queries by the filter in use, in a gallery of `photos` photos."""
    bench_search.build(folder, photos)
    queries = np.load(folder / "queries.npy")
    regions = photos * bench_search.REGIONS
    areas = np.clip(64 * np.exp(np.random.default_rng(0).normal(-4, 1.3, regions)), 1, 64).astype(int)
    timings = {}
    with GalleryFile.open(folder / "gallery.db") as gallery:
        db = gallery.connection
        with gallery.atomic():
            rows = [(area, number) for number, area in enumerate(areas.tolist(), start=1)]
            db.executemany("update regions set area = ? where id = ? and ordinal > 0", rows)
            db.execute("update photos set camera = iif(id % 2, 'one', 'other')")
            db.execute("update photos set taken_at = printf('%d-05-17', 2000 + id * 20 / ?)", (photos,))
        cases = {
            "none": None,
            "a camera: half of the photos": Filters(camera="one"),
            "a year: 5% of the photos": Filters(since="2010", until="2010"),
            "three files": Filters((Path("/7"), Path("/8"), Path("/9"))),
            "without whole photos": Filters(whole=False),
            "size: 13% of the regions": Filters(min_size=0.07),
            "size: 0.1% of the regions": Filters(min_size=0.99),
        }
        for name, filters in cases.items():
            rank_photos(gallery, queries[0], RESULTS, filters)
            seconds = [time_once(partial(rank_photos, gallery, q, RESULTS, filters))[0] for q in queries]
            timings[name] = Timings(tuple(seconds))
    return timings


def print_means(title: str, figures: Iterable[tuple[str, float]]) -> None:
    """Print a table of the mean of each name's figures."""
    by_name: dict[str, list[float]] = {}
    for name, figure in figures:
        by_name.setdefault(name, []).append(figure)
    print()
    print_columns(title, "mean AP")
    for name, values in by_name.items():
        print_row(name, f"{statistics.mean(values):.3f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = BenchParser(__doc__, arguments)
    parser.add_size("--pictures", benchmark.WORLD.pictures, 16, "pictures of the drawn world")
    parser.add_size("--examples", 300, 2, "objects taken as examples")
    parser.add_size("--photos", 4000, 40, "photos for the filters")
    options = parser.options()
    regions = options.photos * bench_search.REGIONS
    print_heading(
        f"{options.pictures} pictures of the drawn world, indexed by the tiny set; for the filters, "
        f"{regions:,} random regions as bench_search draws them",
        "No: pictures are drawn and the models tiny. The figures rank the ways to combine queries; they do "
        "not predict the precision on photographs.",
    )
    with tempfile.TemporaryDirectory() as name:
        indexed = index(Path(name), options.pictures)
        print_means("text and example", combine_text_and_example(indexed, options.examples))
        print_means("several examples", show_several(indexed, options.examples))
        print_means("texts and bad examples", exclude_shown(indexed))
        print_means("not", subtract_unwanted(indexed))
    with tempfile.TemporaryDirectory() as name:
        print()
        print_columns(f"filter, {regions:,} regions, top {RESULTS}", "median", "p95")
        for filtered, timings in in_new_process(time_filters, Path(name), options.photos).items():
            print_row(filtered, format_seconds(timings.median), format_seconds(timings.p95))


if __name__ == "__main__":
    main()
