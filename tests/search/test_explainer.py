"""Explanations: the contributions add up to the score of stage 1, and each is what brute force says."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matir_cli.engines.protocols import GroundingQuestion, PromptVector, QueryVector
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.records import Box, FloatArray, Grounding
from matir_cli.search.box_matching import PREDICTED_IOU, SIMILARITY, box_iou
from matir_cli.search.encoding import encode_query
from matir_cli.search.events import SearchOutcome
from matir_cli.search.explanation import ExplainedTerm, Explanation
from matir_cli.search.parts import MISPLACED
from matir_cli.search.pipeline import SearchOptions, run_search
from matir_cli.search.query import ExampleRule, Query, ResolvedExample
from matir_cli.search.vectors import region_vector
from tests.search.fake_models import ColourModels
from tests.search.test_parts import LEFT, RIGHT, SIDE, D, put
from tests.search.vector_gallery import open_vectors
from tests.search.vectors import unit
from tests.support.fakes import ColourEncoder, ColourJudge, ColourProposer
from tests.support.pictures import save_scenes

PROMPTS = ("a photo of a {}.", "itap of a {}.", "a {} in a game.")

SUM_ERROR = 3e-5
"""The score is computed with one vector in 16 bits, the contributions with one each, and all are rounded."""


def direction(text: str) -> FloatArray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
    return np.asarray(unit(np.random.default_rng(seed).standard_normal((1, D)))[0])


@dataclass
class PromptedText:
    """Encodes each text as a direction of its own, and its prompts as directions near it."""

    def encode(self, query: str) -> QueryVector:
        near = [direction(query) + 0.3 * direction(prompt + query) for prompt in PROMPTS]
        vectors = unit(np.stack(near))
        texts = [prompt.replace("{}", query) for prompt in PROMPTS]
        mean = unit(vectors.mean(axis=0, keepdims=True))[0]
        return QueryVector(mean, False, tuple(map(PromptVector, texts, vectors)))


def explanation_of(outcome: SearchOutcome, place: int = 0) -> Explanation:
    explanation = outcome.results[place].explanation
    assert explanation is not None
    return explanation


@pytest.fixture
def vectors(tmp_path: Path) -> Iterator[GalleryFile]:
    with open_vectors(tmp_path) as opened:
        yield opened


def fill(gallery: GalleryFile, seed: int, photos: int = 12) -> None:
    """Photos with regions anywhere, one of them the whole photo alone."""
    rng = np.random.default_rng(seed)
    with gallery.atomic():
        for number in range(photos):
            corners = np.sort(rng.integers(0, SIDE + 1, (number % 6, 2, 2)), axis=1)
            boxes = [
                Box(*map(float, (x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))))
                for (x0, y0), (x1, y1) in (np.minimum(corners, SIDE - 1).tolist())
            ]
            boxes = [Box(b.x0, b.y0, min(b.x1, SIDE), min(b.y1, SIDE)) for b in boxes]
            put(gallery, f"photo {number}", boxes, unit(rng.standard_normal((len(boxes) + 1, D))))


def example(path: str = "/cup.jpg", share: float = 0.2) -> ResolvedExample:
    """An example that shows the direction of its path."""
    return ResolvedExample(Path(path), direction(path), LEFT, share, stored=False)


def compared_vectors(term: ExplainedTerm) -> FloatArray:
    """The (k, d) vectors that a term compares regions with."""
    if term.text is not None:
        return PromptedText().encode(term.text).vector[np.newaxis]
    shown = np.stack([direction(str(each.path)) for each in term.examples or ()])
    return np.asarray(unit(shown.mean(axis=0, keepdims=True))) if term.kind == "mean" else shown


QUERIES = (
    Query("dog"),
    Query("dog", without=("cat", "red dog")),
    Query(None, (example(),)),
    Query(None, (example(share=1.0),)),
    Query(None, (example(), example("/mug.jpg"), example("/cup.jpg"))),
    Query(None, (example(share=1.0), example("/mug.jpg", 1.0))),
    Query(None, (example(), example("/mug.jpg")), rule="mean"),
    Query(None, (example(share=1.0), example("/mug.jpg", 1.0)), rule="mean"),
    Query(None, (example(),), unlike=(example("/pot.jpg"), example("/jug.jpg"))),
    Query("dog", (example(share=1.0),), weight=0.3, without=("cat",)),
    Query("dog", (example(), example("/mug.jpg")), weight=0, without=("cat",)),
    Query("dog", (example(), example("/mug.jpg")), unlike=(example("/pot.jpg"),), rule="mean"),
    Query("dog left of a tree", (example(), example("/mug.jpg")), unlike=(example("/pot.jpg"),)),
    Query("house without a door"),
    Query("dog left of a tree"),
    Query("dog without a leash, left of a tree, and a cat", (example(),), weight=0.7, without=("cow",)),
    Query(
        "dog without a leash, left of a tree, and a cat",
        tuple(example(f"/{number}.jpg") for number in range(5)),
        weight=0.7,
        without=("cow",),
        unlike=(example("/pot.jpg"), example("/jug.jpg")),
    ),
    Query("dog near a tree above a house, and a cat inside a box"),
)


@pytest.mark.parametrize("number", range(len(QUERIES)))
@pytest.mark.parametrize("whole", [False, True])
def test_contributions_add_up_to_the_score(vectors: GalleryFile, number: int, whole: bool) -> None:
    fill(vectors, number)
    models = ColourModels(text_encoder=PromptedText())
    options = SearchOptions(limit=12, rerank=False, explain=True, whole=whole)
    found = run_search(vectors, models, QUERIES[number], options)
    assert len(found.results) == 12
    for place, result in enumerate(found.results):
        stage1 = explanation_of(found, place).stage1
        assert stage1.score == round(result.candidate.score, 6)
        added = [each.contribution for each in stage1.terms] + [
            each.contribution for each in stage1.relations
        ]
        total = sum(added) + stage1.whole_photo
        assert total == pytest.approx(result.candidate.score, abs=SUM_ERROR)
        assert (stage1.whole_photo < 0) <= (stage1.region.ordinal == 0)
        region = region_vector(vectors, result.candidate.region_id)
        for term in stage1.terms:
            assert term.cosine == pytest.approx(float((compared_vectors(term) @ region).max()), abs=5e-3)
            if term.weight is None:
                assert (term.kind, term.contribution <= 0) == ("unlike", True)
                continue
            assert term.contribution == pytest.approx(term.weight * term.cosine, abs=1e-5)
            assert (term.weight < 0) == (term.kind in ("not", "denied"))
    unexplained = run_search(
        vectors, models, QUERIES[number], SearchOptions(limit=12, rerank=False, whole=whole)
    )
    assert [each.explanation for each in unexplained.results] == [None] * 12
    assert [each.candidate for each in unexplained.results] == [each.candidate for each in found.results]


def test_the_whole_text_has_the_cosine_of_each_prompt(vectors: GalleryFile) -> None:
    fill(vectors, 1)
    models = ColourModels(text_encoder=PromptedText())
    query = Query("dog left of a tree", without=("cat",))
    found = run_search(vectors, models, query, SearchOptions(rerank=False, explain=True))
    terms = explanation_of(found).stage1.terms
    assert [(term.kind, term.text) for term in terms] == [
        ("text", "dog left of a tree"),
        ("not", "cat"),
        ("object", "dog"),
    ]
    assert [term.prompts for term in terms[1:]] == [None, None]
    region = region_vector(vectors, found.results[0].candidate.region_id)
    encoded = PromptedText().encode("dog left of a tree").prompts
    prompts = terms[0].prompts
    assert prompts is not None
    assert [each.text for each in prompts] == [p.replace("{}", "dog left of a tree") for p in PROMPTS]
    cosines = [float(region @ each.vector) for each in encoded]
    assert [each.cosine for each in prompts] == pytest.approx(cosines, abs=5e-3)


def test_a_relation_names_the_region_that_is_the_other_object(vectors: GalleryFile) -> None:
    rows = unit(np.stack([direction("nothing"), direction("dog"), direction("tree")]))
    with vectors.atomic():
        put(vectors, "as described", [LEFT, RIGHT], rows)
        put(vectors, "turned round", [RIGHT, LEFT], rows)
    fill(vectors, 3)
    models = ColourModels(text_encoder=PromptedText())
    shown = explained(vectors, models, "dog left of a tree", limit=14, rerank=False)
    first, second = (shown[name][1].stage1 for name in ("as described", "turned round"))
    for stage1 in (first, second):
        (relation,) = stage1.relations
        assert (relation.object, relation.kind, relation.other) == ("dog", "left of", "tree")
        assert stage1.region.ordinal == 1
        assert relation.region.ordinal == 2
    assert (first.relations[0].placed, second.relations[0].placed) == (True, False)
    assert first.region.box == (LEFT.x0, LEFT.y0, LEFT.x1, LEFT.y1)
    assert first.relations[0].z_score == pytest.approx(second.relations[0].z_score + MISPLACED, abs=1e-5)
    assert second.relations[0].contribution < first.relations[0].contribution <= 0


@pytest.mark.parametrize("rule", ["max", "mean"])
def test_each_example_is_compared_and_the_nearest_comes_first(
    vectors: GalleryFile, rule: ExampleRule
) -> None:
    fill(vectors, 4)
    models = ColourModels(text_encoder=PromptedText())
    good = (example("/a.jpg"), replace(example("/b.jpg"), box=RIGHT), example("/c.jpg"))
    asked = Query("dog left of a tree", good, unlike=(example("/bad.jpg"), example("/worse.jpg")), rule=rule)
    options = SearchOptions(limit=12, rerank=False, explain=True)
    found = run_search(vectors, models, asked, options)
    nearest = set()
    for place, result in enumerate(found.results):
        region = region_vector(vectors, result.candidate.region_id)
        terms = explanation_of(found, place).stage1.terms
        kinds = ["text", "mean" if rule == "mean" else "example", "object", "unlike", "unlike"]
        assert [term.kind for term in terms] == kinds
        shown, bad = terms[1], terms[3:]
        assert shown.examples is not None
        cosines = {each.path: float(region @ each.vector) for each in good}
        assert {each.path: each.cosine for each in shown.examples} == pytest.approx(cosines, abs=5e-3)
        boxes = {each.path: each.box.rounded(2) for each in good}
        assert {each.path: each.box for each in shown.examples} == boxes
        in_order = [each.cosine for each in shown.examples]
        assert in_order == sorted(in_order, reverse=True)
        if rule == "max":
            assert shown.cosine == in_order[0]
        else:
            mean = np.mean([each.vector for each in good], axis=0)
            assert shown.cosine == pytest.approx(float(region @ mean / np.linalg.norm(mean)), abs=5e-3)
        nearest.add(shown.examples[0].path)
        for term, path in zip(bad, ("/bad.jpg", "/worse.jpg"), strict=True):
            assert term.examples is not None
            assert [each.path for each in term.examples] == [Path(path)]
            assert term.weight is None
        assert sum(term.contribution < 0 for term in bad) <= 1
    assert len(nearest) > 1


# Stage 2


@pytest.fixture
def colours(tmp_path: Path) -> Iterator[GalleryFile]:
    save_scenes(tmp_path / "photos", a_green="green", b_red="red", c_both="red green", d_red_twice="red red")
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as opened:
        models = IndexingModels(ColourProposer, ColourEncoder)
        list(add_photos(opened, [tmp_path / "photos"], models, previews=True))
        yield opened


def explained(
    gallery: GalleryFile, models: ColourModels, query: Query | str, **options: Any
) -> dict[str, tuple[Any, Explanation]]:
    """By the photo's name: the result and its explanation."""
    outcome = run_search(gallery, models, query, SearchOptions(explain=True, certainty=1, **options))
    return {
        result.path.stem: (result, explanation_of(outcome, place))
        for place, result in enumerate(outcome.results)
    }


def test_verdict_and_fusion_are_what_ranks(colours: GalleryFile) -> None:
    models = ColourModels(fusion=4.0)
    encoded = encode_query(colours, models, Query("red"))
    shown = explained(colours, models, "red")
    order = []
    for result, explanation in shown.values():
        verdict = explanation.verdict
        assert verdict is not None
        assert (verdict.z_true, verdict.z_false) == (round(result.verdict.z_true, 6), 1.0)
        assert verdict.p_true == round(result.verdict.p_true, 6)
        assert verdict.fusion == pytest.approx(4.0 / encoded.deviation, abs=1e-5)
        fused = result.verdict.margin + 4.0 / encoded.deviation * result.candidate.score
        assert verdict.ranked_by == pytest.approx(fused, abs=1e-5)
        order.append(verdict.ranked_by)
    assert order == sorted(order, reverse=True)


def test_boxes_are_compared_with_the_regions(colours: GalleryFile) -> None:
    for match in ("iou", "joint"):
        result, explanation = explained(colours, ColourModels(), "red", match=match)["c_both"]
        (box,) = explanation.boxes
        judged = result.objects[0].box
        assert box.box == judged.rounded(2)
        regions = {region.ordinal: region for region in colours.regions(result.photo.id) if region.ordinal}
        assert len(box.matches) == min(3, len(regions))
        for each in box.matches:
            region = regions[each.region.ordinal]
            assert each.region.box == region.box.rounded(2)
            assert each.iou == round(box_iou(judged, region.box), 4)
            if match == "iou":
                assert each.joint is each.similarity is None
            else:
                assert each.similarity is not None
                total = each.iou + SIMILARITY * each.similarity + PREDICTED_IOU * each.predicted_iou
                assert each.joint == pytest.approx(total, abs=2e-4)
        assert [each.chosen for each in box.matches] == [True] + [False] * (len(box.matches) - 1)
        assert box.matches[0].region.ordinal == result.objects[0].region.ordinal
        assert explanation.min_iou == (0.5 if match == "iou" else 0.0)
        assert explanation.mask == "that of the stored region which fits the judge's box"


class Mumbling(ColourJudge):
    """Gives boxes in no form that can be read."""

    def ground(self, questions: Sequence[GroundingQuestion]) -> Sequence[Grounding | None]:
        return [Grounding((), "somewhere", readable=False) for _ in questions]


BEST = "that of stage 1's best region: "


@pytest.mark.parametrize(
    ("judge", "query", "options", "photo", "mask"),
    [
        (ColourJudge, "red", {}, "a_green", "none: the judge pointed at nothing"),
        (Mumbling, "red", {}, "b_red", "none: the judge's answer cannot be read"),
        (
            lambda: ColourJudge(shift=60),
            "red",
            {"min_iou": 0.75},
            "b_red",
            "none: no region's box reaches the IoU 0.75 with the judge's box (--min-iou)",
        ),
        (
            lambda: ColourJudge(shift=20),
            "red",
            {"min_iou": 1.0, "refine": True},
            "b_red",
            "found by the proposer in the judge's box, which no stored region fits",
        ),
        (ColourJudge, "red", {"rerank": False}, "b_red", f"{BEST}the judge was not asked in this search"),
        (ColourJudge, "red", {"budget": 0}, "b_red", f"{BEST}the photo was not judged"),
        (
            ColourJudge,
            "red",
            {"ground": False},
            "b_red",
            f"{BEST}the judge was not asked for boxes (--no-ground)",
        ),
        (
            lambda: ColourJudge(unjudged=frozenset({2})),
            "red",
            {},
            "b_red",
            f"{BEST}the judge could not answer",
        ),
        (
            lambda: ColourJudge(ungrounded=frozenset({2})),
            "red",
            {},
            "b_red",
            f"{BEST}the judge could not be asked for a box",
        ),
    ],
)
def test_the_mask_has_a_reason(
    colours: GalleryFile,
    judge: Callable[[], ColourJudge],
    query: str,
    options: dict[str, Any],
    photo: str,
    mask: str,
) -> None:
    result, explanation = explained(colours, ColourModels(judge()), query, **options)[photo]
    assert explanation.mask == mask
    assert (not result.objects or result.objects[0].mask is None) == mask.startswith("none")
    assert (explanation.verdict is None) == (result.verdict is None)
    assert (explanation.min_iou is None) == (result.grounding is None)


def test_a_photo_without_regions_has_none_that_fits(colours: GalleryFile) -> None:
    colours.connection.execute("delete from regions where ordinal > 0 and photo_id = 2")
    _, explanation = explained(colours, ColourModels(), "red")["b_red"]
    assert explanation.mask == "none: the photo has no region besides the whole photo"
    assert explanation.boxes[0].matches == ()
    assert explanation.stage1.region.ordinal == 0
    assert explanation.stage1.whole_photo == 0
