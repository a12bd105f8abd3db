"""Makes the explanations of results, once they are ranked: for the photos returned alone.

Stage 1 is explained by the terms of the encoded query: its vector is their weighted sum, so a region's cosine
with it is the sum of theirs. With several examples there is such a vector for each; they differ in the
example alone, so the best of them has the example that is nearest. What relations take away is in `parts`,
and what bad examples take is in `dislike`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import PhotoUnknown
from matir_cli.gallery.rows import StoredPhoto, StoredRegion
from matir_cli.gallery.union import GalleryReader
from matir_cli.records import Box
from matir_cli.search.box_matching import HUMAN_IOU, BoxMatch, joint_score, rank_matches
from matir_cli.search.encoding import EncodedQuery, QueryTerm
from matir_cli.search.explanation import (
    ExampleCosine,
    ExplainedBox,
    ExplainedMatch,
    ExplainedRegion,
    ExplainedRelation,
    ExplainedScore,
    ExplainedTerm,
    ExplainedVerdict,
    Explanation,
    PromptCosine,
)
from matir_cli.search.grounding import MatchOptions
from matir_cli.search.parts import PartQuery, RelationReach, reach_relations
from matir_cli.search.results import MATCHED, NO_BOX, REFINED, UNREADABLE, GroundedObject, SearchResult
from matir_cli.search.vectors import score_regions

MATCHES = 3
"""Stored regions that are shown for each of the judge's boxes."""


_MASKS = {
    MATCHED: "that of the stored region which fits the judge's box",
    REFINED: "found by the proposer in the judge's box, which no stored region fits",
    NO_BOX: "none: the judge pointed at nothing",
    UNREADABLE: "none: the judge's answer cannot be read",
}


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains the results of one search."""

    gallery: GalleryReader
    query: EncodedQuery
    judged: bool
    """True if the judge was asked in this search."""
    matching: MatchOptions | None
    """How its boxes were matched; None: it was not asked for any."""
    fusion: float
    """Weight of the score of stage 1 beside the verdict."""

    def explain(self, result: SearchResult) -> SearchResult:
        """Return the result with its explanation; without, if the gallery no longer holds the photo.

        Raises:
            GalleryDamaged: a stored value is impossible.
        """
        with suppress(PhotoUnknown), self.gallery.snapshot():
            regions = {region.id: region for region in self.gallery.regions(result.photo.id)}
            best = regions.get(result.candidate.region_id)
            if best is not None:
                return replace(result, explanation=self._explanation(result, best, regions))
        return result

    def _explanation(
        self, result: SearchResult, best: StoredRegion, regions: Mapping[int, StoredRegion]
    ) -> Explanation:
        matching = None if result.grounding is None else self.matching
        boxes = () if matching is None else self._boxes(result, regions, matching)
        return Explanation(
            self._score(result, best, regions),
            self._verdict(result),
            boxes,
            None if matching is None else matching.min_iou,
            self._mask(result, has_regions=any(each.ordinal > 0 for each in regions.values())),
        )

    # Stage 1

    def _score(
        self, result: SearchResult, best: StoredRegion, regions: Mapping[int, StoredRegion]
    ) -> ExplainedScore:
        handicapped = best.ordinal == 0 and len(regions) > 1
        relations: tuple[ExplainedRelation, ...] = ()
        if self.query.parts is not None:
            relations = self._relations(self.query.parts, result.photo, best, regions)
        return ExplainedScore(
            _round(result.candidate.score),
            explained_region(result.photo, best),
            (*(self._term(term, best) for term in self.query.terms), *self._bad_examples(best)),
            relations,
            _round(-self.query.handicap) if handicapped else 0.0,
        )

    def _term(self, term: QueryTerm, region: StoredRegion) -> ExplainedTerm:
        cosine = float(self._compare(region, term.vectors).max())
        prompts = None
        if term.kind == "text" and term.prompts:
            each = self._compare(region, np.stack([prompt.vector for prompt in term.prompts]))
            prompts = tuple(
                PromptCosine(prompt.text, _round(value))
                for prompt, value in zip(term.prompts, each.tolist(), strict=True)
            )
        return ExplainedTerm(
            term.kind,
            term.text,
            self._examples(term, region) if term.examples else None,
            _round(cosine),
            _round(term.weight),
            _round(term.weight * cosine),
            prompts,
        )

    def _bad_examples(self, region: StoredRegion) -> Iterator[ExplainedTerm]:
        """Yield what each bad example takes from the score of a region."""
        unlike = self.query.unlike
        if unlike is None:
            return
        score = self._compare(region, self.query.vectors).max(keepdims=True)
        losses = unlike.losses(self.gallery, np.array([region.id], np.int64), score)[:, 0]
        for number, example in enumerate(self.query.bad):
            cosine = float(self._compare(region, example.vector[np.newaxis])[0])
            shown = ExampleCosine(example.path, _corners(example.box), _round(cosine))
            counts = losses[number] > 0 and number == int(losses.argmax())
            taken = _round(-losses[number]) if counts else 0.0
            yield ExplainedTerm("unlike", None, (shown,), _round(cosine), None, taken, None)

    def _examples(self, term: QueryTerm, region: StoredRegion) -> tuple[ExampleCosine, ...]:
        """Compare each example of a term with a region; the nearest comes first."""
        cosines = self._compare(region, np.stack([example.vector for example in term.examples]))
        ranked = sorted(zip(term.examples, cosines.tolist(), strict=True), key=lambda each: -each[1])
        return tuple(
            ExampleCosine(example.path, _corners(example.box), _round(cosine)) for example, cosine in ranked
        )

    def _compare(self, region: StoredRegion, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return (k,) the inner products of a region's unit vector with (k, d) vectors."""
        return np.asarray(score_regions(self.gallery, np.array([region.id], np.int64), vectors)[:, 0])

    def _relations(
        self,
        parts: PartQuery,
        photo: StoredPhoto,
        best: StoredRegion,
        regions: Mapping[int, StoredRegion],
    ) -> tuple[ExplainedRelation, ...]:
        def explained(reach: RelationReach) -> ExplainedRelation:
            return ExplainedRelation(
                reach.role.text,
                "and" if reach.kind is None else reach.kind.value,
                reach.other.text,
                explained_region(photo, regions[reach.region_id]),
                reach.is_placed,
                _round(reach.z_score),
                _round(-reach.lost),
            )

        return tuple(map(explained, reach_relations(self.gallery, parts, photo.id, best.id)))

    # Stage 2

    def _verdict(self, result: SearchResult) -> ExplainedVerdict | None:
        verdict = result.verdict
        if verdict is None:
            return None
        return ExplainedVerdict(
            _round(verdict.z_true),
            _round(verdict.z_false),
            _round(verdict.p_true),
            _round(self.fusion),
            _round(verdict.margin + self.fusion * result.candidate.score),
        )

    def _boxes(
        self, result: SearchResult, regions: Mapping[int, StoredRegion], matching: MatchOptions
    ) -> tuple[ExplainedBox, ...]:
        similarities = None
        if matching.directions is not None:
            ids = np.array([*regions], np.int64)
            scores = score_regions(self.gallery, ids, matching.directions).max(axis=0)
            similarities = dict(zip(regions, scores.tolist(), strict=True))
        human_iou = max(HUMAN_IOU, matching.min_iou)
        boxes = []
        for each in result.objects:
            ranked = rank_matches(each.box, [*regions.values()], similarities, human_iou)
            shown = [m for at, m in enumerate(ranked) if at < MATCHES or _is_chosen(each, m, matching)]
            matches = [_explained_match(result.photo, each, m, similarities, matching) for m in shown]
            boxes.append(ExplainedBox(_corners(each.box), tuple(matches)))
        return tuple(boxes)

    def _mask(self, result: SearchResult, *, has_regions: bool) -> str:
        """Say how the mask was found, or why there is none."""
        if result.grounding is None:
            return f"that of stage 1's best region: {self._why_not_grounded(result)}"
        if result.grounding in _MASKS:
            return _MASKS[result.grounding]
        if not has_regions:
            return "none: the photo has no region besides the whole photo"
        least = 0.0 if self.matching is None else self.matching.min_iou
        return f"none: no region's box reaches the IoU {least:g} with the judge's box (--min-iou)"

    def _why_not_grounded(self, result: SearchResult) -> str:
        if not self.judged:
            return "the judge was not asked in this search"
        if result.judge_failed:
            return "the judge could not answer"
        if self.matching is None:
            return "the judge was not asked for boxes (--no-ground)"
        if result.verdict is None:
            return "the photo was not judged"
        return "the judge could not be asked for a box"


def explained_region(photo: StoredPhoto, region: StoredRegion) -> ExplainedRegion:
    """Describe a region of a photo."""
    origin = region.region.origin
    return ExplainedRegion(
        region.ordinal,
        _corners(region.box),
        round(photo.record.share(region.region.area), 4),
        None if origin is None else origin.kind.value,
        None if origin is None else origin.label,
    )


def _explained_match(
    photo: StoredPhoto,
    grounded: GroundedObject,
    match: BoxMatch,
    similarities: Mapping[int, float] | None,
    matching: MatchOptions,
) -> ExplainedMatch:
    return ExplainedMatch(
        explained_region(photo, match.region),
        round(match.iou, 4),
        round(match.region.region.predicted_iou, 4),
        None if similarities is None else _round(similarities[match.region.id]),
        None if similarities is None else _round(joint_score(match, similarities)),
        _is_chosen(grounded, match, matching),
    )


def _is_chosen(grounded: GroundedObject, match: BoxMatch, matching: MatchOptions) -> bool:
    if grounded.region is None or grounded.iou is None:
        return False
    return match.region.id == grounded.region.id and grounded.iou >= matching.min_iou


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.rounded(2)


def _round(value: float) -> float:
    return round(float(value), 6)
