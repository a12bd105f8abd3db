"""Ranking by parts: hand-made scores, brute force over all regions, and the right mask in a gallery."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from matir_cli import masks
from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.records import Box, Candidate, FileRecord, FloatArray, PhotoRecord, Region
from matir_cli.search.filters import Filters
from matir_cli.search.geometry import relation_holds
from matir_cli.search.index import rebuild_index, store_vectors
from matir_cli.search.parts import MISPLACED, PartQuery, Role, rank_by_parts
from matir_cli.search.phrases.description import RelationKind
from matir_cli.search.quantisation import cosines, refine
from tests.search.vector_gallery import open_vectors
from tests.search.vectors import unit

SIDE = 100

D = 64

CAT, DOG, GREEN = range(3)
"""Dimensions that stand for something in the hand-made photos."""


def put(gallery: GalleryFile, name: str, boxes: Sequence[Box], rows: FloatArray) -> int:
    """A photo of 100 x 100 pixels; its first region is the whole photo."""
    regions = []
    for box in (Box(0, 0, SIDE, SIDE), *boxes):
        mask = np.zeros((SIDE, SIDE), np.bool_)
        mask[round(box.y0) : round(box.y1), round(box.x0) : round(box.x1)] = True
        rle = masks.encode(mask)
        regions.append(Region(rle, masks.box(rle), masks.area(rle), 0.9, 0.95))
    record = PhotoRecord(name.encode().ljust(32), SIDE, SIDE, SIDE, SIDE, 1)
    photo_id, ids = gallery.add_photo(FileRecord(Path(f"/{name}"), 1, 1), record, regions, None)
    store_vectors(gallery, photo_id, ids, rows)
    return photo_id


def looks(*dimensions: int) -> FloatArray:
    """Vectors of regions that show one thing each; -1 shows nothing that has a name."""
    rows = np.full((len(dimensions), D), 0.01, np.float32)
    rows[np.arange(len(dimensions)), [d if d >= 0 else D - 1 for d in dimensions]] = 1
    return unit(rows)


def word(dimension: int) -> FloatArray:
    return np.asarray(np.eye(D, dtype=np.float32)[dimension])


LEFT, RIGHT, TOP = Box(5, 40, 25, 60), Box(70, 40, 90, 60), Box(40, 0, 60, 15)


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    with open_vectors(tmp_path) as opened:
        yield opened


def question(kind: RelationKind | None, *, handicap: float = 0.0) -> PartQuery:
    """A cat in a relation to a dog."""
    dog = Role(10 * word(DOG), 1.0)
    return PartQuery(word(CAT)[np.newaxis], Role(10 * word(CAT), 1.0, ((kind, dog),)), 0.05, handicap)


def test_the_pair_that_stands_so_ranks_first_and_its_first_region_answers(gallery: GalleryFile) -> None:
    with gallery.atomic():
        right = put(gallery, "cat right of dog", [LEFT, RIGHT], looks(-1, DOG, CAT))
        alone = put(gallery, "cat", [LEFT], looks(-1, CAT))
        left = put(gallery, "cat left of dog", [LEFT, RIGHT], looks(-1, CAT, DOG))
    ranked = rank_by_parts(gallery, question(RelationKind.LEFT_OF), 3)
    assert ranked[0].photo_id == left
    assert {each.photo_id for each in ranked} == {left, right, alone}
    assert gallery.region(ranked[0].region_id).box == LEFT
    assert ranked[0].score == pytest.approx(float(looks(CAT)[0, CAT]), abs=0.01)  # nothing is missing
    turned = rank_by_parts(gallery, question(RelationKind.RIGHT_OF), 3)
    assert turned[0].photo_id == right
    assert gallery.region(turned[0].region_id).box == RIGHT


def test_both_objects_may_be_anywhere_in_the_photo(gallery: GalleryFile) -> None:
    with gallery.atomic():
        put(gallery, "cat", [LEFT, RIGHT], looks(-1, CAT, CAT))
        both = put(gallery, "both", [LEFT, TOP], looks(-1, DOG, CAT))
        put(gallery, "dog", [LEFT], looks(-1, DOG))
    ranked = rank_by_parts(gallery, question(None), 3)
    assert ranked[0].photo_id == both
    assert gallery.region(ranked[0].region_id).box == TOP


def test_the_whole_photo_is_no_other_object(gallery: GalleryFile) -> None:
    with gallery.atomic():
        put(gallery, "cat in a dog's portrait", [LEFT], looks(DOG, CAT))
    for kind in (RelationKind.INSIDE, RelationKind.NEAR, RelationKind.LEFT_OF):
        asked = question(kind)
        (found,) = rank_by_parts(gallery, asked, 3)
        assert found.score == pytest.approx(looks(CAT)[0, CAT] - asked.weight * MISPLACED, abs=0.01)


def test_the_whole_photo_loses_as_an_answer_only_where_there_are_regions(gallery: GalleryFile) -> None:
    with gallery.atomic():
        pair = put(gallery, "pair", [LEFT, RIGHT], looks(-1, CAT, DOG))
        scene = put(gallery, "scene", [LEFT], looks(CAT, -1))
        bare = put(gallery, "no regions", [], looks(CAT))
    free, held = (
        {
            each.photo_id: each
            for each in rank_by_parts(gallery, question(RelationKind.LEFT_OF, handicap=handicap), 3)
        }
        for handicap in (0.0, 0.1)
    )
    for photo_id in (scene, bare):
        assert gallery.region(held[photo_id].region_id).ordinal == 0
    assert free[scene].score - held[scene].score == pytest.approx(0.1, abs=1e-6)
    assert free[bare] == held[bare]
    assert free[pair] == held[pair]


def test_a_size_filter_is_about_the_answer_alone(gallery: GalleryFile) -> None:
    large = Box(40, 10, 100, 100)
    with gallery.atomic():
        put(gallery, "pair", [LEFT, large], looks(-1, CAT, DOG))
    small = Filters(max_size=0.1)
    (found,) = rank_by_parts(gallery, question(RelationKind.LEFT_OF), 5, small)
    assert gallery.region(found.region_id).box == LEFT
    assert found == rank_by_parts(gallery, question(RelationKind.LEFT_OF), 5)[0]
    assert rank_by_parts(gallery, question(RelationKind.LEFT_OF), 5, Filters(min_size=0.9)) == []
    assert rank_by_parts(gallery, question(RelationKind.LEFT_OF), 5, Filters((Path("/nowhere"),))) == []


def test_an_empty_gallery_has_no_answer(gallery: GalleryFile) -> None:
    assert rank_by_parts(gallery, question(RelationKind.NEAR), 5) == []


@pytest.mark.parametrize("value", ["'left'", "9e999", "x'00'"])
def test_an_impossible_box_is_damage(gallery: GalleryFile, value: str) -> None:
    with gallery.atomic():
        put(gallery, "pair", [LEFT, RIGHT], looks(-1, CAT, DOG))
    gallery.connection.execute(f"update regions set x0 = {value} where ordinal = 1")
    with pytest.raises(GalleryDamaged):
        rank_by_parts(gallery, question(RelationKind.NEAR), 5)


def test_a_vector_of_zeros_is_damage(gallery: GalleryFile) -> None:
    with gallery.atomic():
        put(gallery, "pair", [LEFT, RIGHT], looks(-1, CAT, DOG))
        for region in range(2, 90):
            put(gallery, f"photo {region}", [], looks(CAT))
    rebuild_index(gallery, block_regions=8)
    gallery.connection.execute(f"update vectors set vector = zeroblob({D}) where region_id = 1")
    with pytest.raises(GalleryDamaged):
        rank_by_parts(gallery, question(RelationKind.LEFT_OF), 5)


# Brute force


def random_gallery(gallery: GalleryFile, photos: int, rng: np.random.Generator) -> None:
    with gallery.atomic():
        for number in range(photos):
            corners = rng.integers(0, 60, (int(rng.integers(0, 8)), 2))
            sizes = rng.integers(5, 40, corners.shape)
            boxes = [Box(*map(float, (*a, *(a + b)))) for a, b in zip(corners, sizes, strict=True)]
            put(gallery, str(number), boxes, unit(rng.standard_normal((len(boxes) + 1, D))))


def brute_force(gallery: GalleryFile, query: PartQuery) -> list[Candidate]:
    """All photos, by the formula of the module, region by region and pair by pair."""

    def inner(regions: NDArray[np.int16], vector: FloatArray) -> NDArray[np.float64]:
        return np.asarray(cosines(regions, vector) * np.linalg.norm(vector))

    def reached(role: Role, i: int) -> float:
        own = float(inner(stored, role.vector)[i]) - role.offset
        for kind, other in role.relations:
            best = -np.inf
            for j in range(len(rows)):
                holds = i != j if kind is None else bool(relation_holds(kind, boxes)[i, j]) and j > 0
                partner = reached(other, j) - (0 if holds else MISPLACED)
                if kind is None and j == 0 and len(rows) > 1:
                    partner -= MISPLACED
                best = max(best, partner)
            own = min(own, best)
        return own

    found = []
    for photo_id in range(1, gallery.count_photos() + 1):
        rows = gallery.regions(photo_id)
        vectors = gallery.connection.execute(
            "select vector from vectors join regions on id = region_id where regions.photo_id = ? "
            "order by ordinal",
            (photo_id,),
        )
        levels = np.stack([np.frombuffer(bytes(row[0]), np.int8) for row in vectors])
        residuals = gallery.connection.execute(
            "select residuals from residuals where photo_id = ?", (photo_id,)
        ).get
        stored = refine(levels, np.frombuffer(bytes(residuals), np.uint8).reshape(len(levels), -1))
        boxes = np.array([(r.box.x0, r.box.y0, r.box.x1, r.box.y1) for r in rows]) / SIDE
        scores = []
        for i in range(len(rows)):
            own = float(inner(stored, query.target.vector)[i]) - query.target.offset
            lost = own - reached(query.target, i)
            whole = query.handicap * (rows[i].ordinal == 0 and len(rows) > 1)
            flat = max(float(inner(stored, vector)[i]) for vector in query.vectors)
            scores.append(flat - query.weight * lost - whole)
        best = int(np.argmax(scores))
        found.append(Candidate(photo_id, rows[best].id, scores[best]))
    return sorted(found, key=lambda c: (-c.score, c.photo_id))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_indexed", [False, True])
def test_ranking_is_that_of_brute_force(gallery: GalleryFile, seed: int, is_indexed: bool) -> None:
    rng = np.random.default_rng(seed)
    random_gallery(gallery, 30, rng)
    if is_indexed:
        rebuild_index(gallery, block_regions=8)
    whole, head, first, second, third = (unit(rng.standard_normal((1, D)))[0] for _ in range(5))
    kinds = [kind for kind in RelationKind if kind is not RelationKind.ATTRIBUTE]
    nested = Role(6 * second, 0.2, ((kinds[seed + 1], Role(4 * third, 0.1)),))
    target = Role(5 * head, 0.3, ((kinds[seed], Role(5 * first, 0.1)), (None, nested)))
    query = PartQuery(unit((whole + head)[np.newaxis]), target, 0.07, 0.02)
    expected = brute_force(gallery, query)
    ranked = rank_by_parts(gallery, query, 30)
    assert [(c.photo_id, c.region_id) for c in ranked] == [(c.photo_id, c.region_id) for c in expected]
    assert [c.score for c in ranked] == pytest.approx([c.score for c in expected], abs=1e-6)
    assert rank_by_parts(gallery, query, 5) == ranked[:5]
