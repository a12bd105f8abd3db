"""Explanations: the contributions add up to the score of stage 1, and each is what brute force says."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
from matir_cli.search.explainer import Explainer
from matir_cli.search.explanation import Explanation
from matir_cli.search.index import region_vector
from matir_cli.search.parts import MISPLACED
from matir_cli.search.pipeline import SearchOptions, run_search
from matir_cli.search.query import Query, ResolvedExample
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
    return ResolvedExample(Path(path), direction(path), LEFT, share, stored=False)


QUERIES = (
    Query("dog"),
    Query("dog", without=("cat", "red dog")),
    Query(None, example()),
    Query("dog", example(share=1.0), weight=0.3, without=("cat",)),
    Query("house without a door"),
    Query("dog left of a tree"),
    Query("dog without a leash, left of a tree, and a cat", example(), weight=0.7, without=("cow",)),
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
            text = direction("/cup.jpg") if term.text is None else PromptedText().encode(term.text).vector
            assert term.cosine == pytest.approx(float(region @ text), abs=5e-3)
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


def test_of_several_examples_the_nearest_is_named(vectors: GalleryFile) -> None:
    fill(vectors, 4)
    encoded = encode_query(vectors, ColourModels(), Query(None, example()))
    (result,) = run_search(
        vectors, ColourModels(), Query(None, example()), SearchOptions(limit=1, rerank=False)
    ).results
    (term,) = encoded.terms
    best = region_vector(vectors, result.candidate.region_id)
    several = type(term)(
        "example", 1.0, np.stack([-best, best, term.vectors[0]]), paths=(Path("/a"), Path("/b"), Path("/c"))
    )
    query = type(encoded)(encoded.vector, False, encoded.deviation, terms=(several,))
    explained = Explainer(vectors, query, judged=False, matching=None, fusion=0.0).explain(result)
    assert explained.explanation is not None
    (named,) = explained.explanation.stage1.terms
    assert named.path == Path("/b")
    assert named.cosine == pytest.approx(1, abs=5e-3)


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
