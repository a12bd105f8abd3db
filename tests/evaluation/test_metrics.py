"""Average precision by hand and by a second implementation, mask hits, intervals."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as pycoco

from matir_cli import masks
from matir_cli.evaluation.datasets.dataset import Dataset, EvalImage, EvalQuery
from matir_cli.evaluation.metrics import (
    BOOTSTRAP_SAMPLES,
    AveragePrecision,
    average_precision,
    image_hits,
    is_mask_hit,
    object_hits,
    paired_difference,
    rank_images,
    summarise,
)
from matir_cli.records import Rle


def square(x: int, y: int, side: int, width: int = 60, height: int = 40) -> Rle:
    """A mask with one square in it."""
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[y : y + side, x : x + side] = True
    return masks.encode(mask)


@pytest.mark.parametrize(
    ("hits", "relevant", "by_relevant", "by_hits"),
    [
        ("1", 1, 1, 1),
        ("01", 1, 1 / 2, 1 / 2),
        ("101", 2, (1 + 2 / 3) / 2, (1 + 2 / 3) / 2),
        ("101", 4, (1 + 2 / 3) / 4, (1 + 2 / 3) / 2),
        ("000", 3, 0, 0),
        ("", 3, 0, 0),
        # Of 60 relevant images only 50 can be among the first 50.
        ("1" * 60, 60, 1, 1),
        ("1" * 25 + "0" * 25, 2000, 25 / 50, 1),
        # The 51st rank does not count, neither as a hit nor for the precision.
        ("0" * 50 + "1", 1, 0, 0),
        ("0" * 49 + "11", 2, 1 / 50 / 2, 1 / 50),
    ],
)
def test_average_precision_by_hand(hits: str, relevant: int, by_relevant: float, by_hits: float) -> None:
    found = average_precision(np.array([hit == "1" for hit in hits], dtype=np.bool_), relevant)
    assert found.by_relevant == pytest.approx(by_relevant)
    assert found.by_hits == pytest.approx(by_hits)


def test_another_depth() -> None:
    found = average_precision(np.array([False, True, True]), 3, depth=2)
    assert found == AveragePrecision(1 / 4, 1 / 2)


@pytest.mark.parametrize(("hits", "relevant"), [([False], 0), ([True, True], 1)])
def test_a_query_without_relevant_images_has_no_average_precision(hits: list[bool], relevant: int) -> None:
    with pytest.raises(ValueError, match="hits of"):
        average_precision(np.array(hits), relevant)


def by_definition(ranking: list[int], relevant: set[int], depth: int) -> tuple[float, float]:
    """Average precision written as the sum that the definition is, counting anew at every rank."""
    total = 0.0
    for rank in range(1, depth + 1):
        if rank <= len(ranking) and ranking[rank - 1] in relevant:
            total += sum(1 for image in ranking[:rank] if image in relevant) / rank
    hits = len([image for image in ranking[:depth] if image in relevant])
    return total / min(depth, len(relevant)), (total / hits if hits else 0.0)


@given(st.integers(1, 120), st.data())
def test_average_precision_against_a_second_implementation(images: int, data: st.DataObject) -> None:
    ranking = data.draw(st.permutations(range(images)))
    relevant = data.draw(st.sets(st.integers(0, images - 1), min_size=1))
    depth = data.draw(st.sampled_from([1, 5, 50]))
    dataset = of_images(images, {7: dict.fromkeys(relevant, ())})
    found = average_precision(image_hits(dataset, 7, ranking), len(dataset.relevant_images(7)), depth)
    assert (found.by_relevant, found.by_hits) == pytest.approx(by_definition(ranking, relevant, depth))


def of_images(count: int, truth: dict[int, dict[int, tuple[Rle, ...]]]) -> Dataset:
    """A data set of `count` images of 60 x 40 without files."""
    images = tuple(EvalImage(n, f"{n}.png", Path(f"/{n}.png"), 60, 40) for n in range(count))
    return Dataset("made", images, tuple(EvalQuery(n, "thing") for n in truth), truth, "00")


def test_a_mask_hits_any_instance_from_half_on() -> None:
    left, right = square(0, 0, 12), square(30, 10, 12)
    assert is_mask_hit(left, [right, left])
    assert not is_mask_hit(left, [right])
    assert not is_mask_hit(None, [right])
    assert not is_mask_hit(left, [])
    half = np.zeros((40, 60), dtype=np.bool_)
    half[10:16, 30:42] = True  # 72 of the 144 pixels: exactly one half
    assert is_mask_hit(masks.encode(half), [right])
    half[10, 30] = False
    assert not is_mask_hit(masks.encode(half), [right])
    assert is_mask_hit(masks.encode(half), [right], threshold=0.49)


def test_a_mask_of_working_size_is_compared_at_the_size_of_the_truth() -> None:
    truth = square(120, 60, 48, width=240, height=160)
    assert is_mask_hit(square(30, 15, 12), [truth])
    assert not is_mask_hit(square(38, 15, 12), [truth])  # 32 of 96 columns: one third


@given(st.integers(0, 2**32 - 1))
def test_mask_hits_against_pycocotools(seed: int) -> None:
    generator = random.Random(seed)  # noqa: S311

    def some() -> Rle:
        return square(generator.randrange(30), generator.randrange(20), generator.randrange(4, 20))

    predicted, truth = some(), [some() for _ in range(generator.randrange(1, 4))]
    as_dicts = [{"size": [40, 60], "counts": rle.counts} for rle in truth]
    best = pycoco.iou([{"size": [40, 60], "counts": predicted.counts}], as_dicts, [0] * len(truth)).max()
    pixels = [(masks.decode(predicted), masks.decode(each)) for each in truth]
    assert best == pytest.approx(max((a & b).sum() / (a | b).sum() for a, b in pixels))
    assert is_mask_hit(predicted, truth) == (best >= 0.5)
    assert is_mask_hit(predicted, truth, threshold=0.2) == (best >= 0.2)


def test_object_hits_require_a_relevant_image_and_a_matching_mask() -> None:
    left, right = square(0, 0, 10), square(30, 20, 10)
    dataset = of_images(4, {1: {0: (left,), 1: (left, right), 2: (right,)}, 2: {3: (left,)}})
    ranking = [3, 1, 0, 2]
    assert image_hits(dataset, 1, ranking).tolist() == [False, True, True, True]
    hits = object_hits(dataset, 1, ranking, [left, right, None, left])
    assert hits.tolist() == [False, True, False, False]
    # Same normaliser as at image level: three images are relevant.
    assert average_precision(hits, len(dataset.relevant_images(1))).by_relevant == pytest.approx(1 / 2 / 3)


def test_both_means_of_random_rankings_against_a_second_implementation() -> None:
    generator = random.Random(5)  # noqa: S311
    pool = [square(x, y, side) for x in (0, 4, 20) for y in (0, 5, 18) for side in (6, 9, 20)]
    truth = {
        query: {
            image: tuple(generator.sample(pool, generator.randrange(1, 4)))
            for image in generator.sample(range(70), generator.choice([1, 8, 60]))
        }
        for query in range(12)
    }
    dataset = of_images(70, truth)
    at_image, at_object, expected = [], [], []
    for query, relevant in truth.items():
        ranking = generator.sample(range(70), 60)
        predicted = [generator.choice([*pool, None]) for _ in ranking]
        at_image.append(average_precision(image_hits(dataset, query, ranking), len(relevant)))
        hits = object_hits(dataset, query, ranking, predicted)
        at_object.append(average_precision(hits, len(relevant)))
        images = by_definition(ranking, set(relevant), 50)
        right = {
            image
            for image, mask in zip(ranking, predicted, strict=True)
            if mask is not None and any(overlap(mask, each) >= 0.5 for each in relevant.get(image, ()))
        }
        # The relevant images that are no hit still count in min(50, R).
        total, by_hits = by_definition(ranking, right, 50) if right else (0.0, 0.0)
        total *= min(50, len(right)) / min(50, len(relevant))
        expected.append((*images, total, by_hits))
    found = [summarise(at_image), summarise(at_object)]
    means = [mean for each in found for mean in (each.mean_by_relevant, each.mean_by_hits)]
    assert means == pytest.approx(np.mean(expected, axis=0).tolist())
    assert 0 < found[1].mean_by_relevant < found[0].mean_by_relevant < 1


def overlap(left: Rle, right: Rle) -> float:
    """IoU counted pixel by pixel."""
    pairs = list(zip(masks.decode(left).flat, masks.decode(right).flat, strict=True))
    return sum(a and b for a, b in pairs) / sum(a or b for a, b in pairs)


def test_ties_go_to_the_second_score_and_then_to_the_smaller_id() -> None:
    ids, margin, score = [9, 4, 7, 1, 3], [1.0, 1.0, 2.0, 1.0, 0.5], [0.3, 0.3, 0.1, 0.4, 0.9]
    assert rank_images(ids, margin, score).tolist() == [7, 1, 4, 9, 3]
    assert rank_images(ids, margin, score, depth=2).tolist() == [7, 1]
    # Scores that are one in float32 are still two in float64.
    assert rank_images([1, 2], [30.0, 30.0 + 1e-12]).tolist() == [2, 1]


def test_a_summary_has_the_means_and_an_interval_around_them() -> None:
    values = [AveragePrecision(n / 100, min(1.0, n / 80)) for n in range(101)]
    summary = summarise(values)
    assert summary.queries == 101
    assert summary.mean_by_relevant == pytest.approx(0.5)
    assert summary.mean_by_hits == pytest.approx(np.mean([value.by_hits for value in values]))
    # The normal approximation of a mean of 101: 1.96 standard errors to either side.
    error = 1.96 * np.std([value.by_relevant for value in values]) / np.sqrt(101)
    assert summary.interval.low == pytest.approx(0.5 - error, abs=0.006)
    assert summary.interval.high == pytest.approx(0.5 + error, abs=0.006)
    assert summary.interval_by_hits.low < summary.mean_by_hits < summary.interval_by_hits.high
    assert summarise(values) == summary
    assert summarise(values, seed=1).interval != summary.interval


def test_a_summary_of_one_query_and_of_none() -> None:
    alone = summarise([AveragePrecision(0.25, 0.5)])
    assert (alone.interval.low, alone.interval.high, alone.mean_by_hits) == (0.25, 0.25, 0.5)
    with pytest.raises(ValueError, match="no query"):
        summarise([])


def precisions(values: Sequence[float]) -> list[AveragePrecision]:
    return [AveragePrecision(value, 0.0) for value in values]


def test_a_paired_difference_by_brute_force() -> None:
    rng = np.random.default_rng(3)
    values, others = rng.random((2, 12)).tolist()
    found = paired_difference(precisions(values), precisions(others), seed=5)
    drawn = np.random.default_rng(5).integers(0, 12, (BOOTSTRAP_SAMPLES, 12))
    means = sorted(float(np.mean([values[i] - others[i] for i in sample])) for sample in drawn)
    assert found.mean == pytest.approx(float(np.mean(values) - np.mean(others)))
    assert found.interval.low == pytest.approx(float(np.percentile(means, 2.5)))
    assert found.interval.high == pytest.approx(float(np.percentile(means, 97.5)))


def test_what_both_methods_find_hard_does_not_widen_a_paired_difference() -> None:
    hard = np.linspace(0, 0.9, 40).tolist()
    easier = [value + 0.05 for value in hard]
    found = paired_difference(precisions(easier), precisions(hard))
    assert found.mean == pytest.approx(0.05)
    assert found.interval.low == pytest.approx(0.05)
    assert found.interval.high == pytest.approx(0.05)
    turned = paired_difference(precisions(hard), precisions(easier))
    assert turned.mean == pytest.approx(-0.05)


def test_only_equal_queries_are_paired() -> None:
    with pytest.raises(ValueError, match="no query"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="shorter"):
        paired_difference(precisions([1.0, 0.5]), precisions([1.0]))
