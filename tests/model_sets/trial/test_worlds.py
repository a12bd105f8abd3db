"""The trial's two worlds, and the trial of the world of shapes with engines that read colour and outline."""

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from matir_cli import masks
from matir_cli.engines.protocols import GroundingQuestion, JudgePhoto, MaskedPhoto, QueryVector
from matir_cli.model_sets.catalogue import load_model_set, model_set_names
from matir_cli.model_sets.trial.encoder import try_encoder
from matir_cli.model_sets.trial.findings import TrialState
from matir_cli.model_sets.trial.judge import try_judge
from matir_cli.model_sets.trial.pictures import TrialPicture, TrialWorld
from matir_cli.model_sets.trial.proposer import try_proposer
from matir_cli.model_sets.trial.shapes import COLOURS, KINDS, RING_COLOUR, SHAPES
from matir_cli.model_sets.trial.worlds import WORLDS
from matir_cli.progress import no_progress
from matir_cli.records import Box, FloatArray, Grounding, ImageArray, MaskArray, Point, Region, Rle, Verdict
from matir_cli.search.box_matching import box_iou

PALETTE = {**COLOURS, RING_COLOUR[0]: RING_COLOUR[1]}

FILL = {"circle": 0.785, "square": 1.0, "triangle": 0.5, "star": 0.36, "heart": 0.62}
"""Share of its box that each shape fills."""


def parts_of(image: ImageArray, *, bgr: bool = False) -> dict[str, Rle]:
    """The pixels of each colour, by its name; with `bgr`, of an engine that takes red for blue."""
    return _parts_of(np.ascontiguousarray(image[..., ::-1] if bgr else image).tobytes(), *image.shape[:2])


@cache
def _parts_of(pixels: bytes, height: int, width: int) -> dict[str, Rle]:
    """As `parts_of`; the engines are asked about the same pictures again and again."""
    image = np.frombuffer(pixels, dtype=np.uint8).reshape(height, width, 3).astype(np.int16)
    found: dict[str, Rle] = {}
    for colour, rgb in PALETTE.items():
        mask: MaskArray = np.abs(image - np.array(rgb, dtype=np.int16)).max(axis=2) < 60
        if mask.sum() > 200:
            found[colour] = masks.encode(mask)
    return found


def kind_of(rle: Rle) -> str:
    """The shape whose share of its box is nearest."""
    share = masks.area(rle) / masks.box(rle).area
    return min(FILL, key=lambda kind: abs(FILL[kind] - share))


class PaletteProposer:
    """Finds the regions of one colour each; `by_points` False finds them in boxes alone."""

    prompts_asked = 0

    def __init__(self, *, by_points: bool = True, bgr: bool = False) -> None:
        self.by_points, self.bgr = by_points, bgr

    def propose(self, image: ImageArray) -> list[Region]:
        return self._regions(image) if self.by_points else []

    def refine(self, image: ImageArray, boxes: Sequence[Box]) -> list[Region | None]:
        found = self._regions(image)
        return [max(found, key=lambda region: box_iou(region.box, box), default=None) for box in boxes]

    def region_at(self, image: ImageArray, point: Point) -> Region | None:
        return None

    def _regions(self, image: ImageArray) -> list[Region]:
        parts = parts_of(image, bgr=self.bgr).values()
        return [Region(rle, masks.box(rle), masks.area(rle), 0.9, 0.95) for rle in parts]


class PaletteEncoder:
    """Encodes a region as its colour and its shape; blind to masks or with channels exchanged if asked to."""

    dimensions = len(PALETTE) + len(KINDS) + 1

    def __init__(self, *, sees_masks: bool = True, bgr: bool = False) -> None:
        self.sees_masks, self.bgr = sees_masks, bgr

    def encode(self, image: ImageArray, rles: Sequence[Rle]) -> FloatArray:
        seen = image[..., ::-1] if self.bgr else image
        rows = []
        for rle in rles if self.sees_masks else [masks.whole(*image.shape[:2])] * len(rles):
            mean = seen[masks.decode(rle)].mean(axis=0)
            colour = min(PALETTE, key=lambda name: float(np.abs(mean - np.array(PALETTE[name])).sum()))
            rows.append(vector_of(colour, kind_of(rle)))
        return np.stack(rows)

    def encode_photos(self, photos: Sequence[MaskedPhoto]) -> list[FloatArray]:
        return [self.encode(photo.image, photo.masks) for photo in photos]


class PaletteText:
    """Encodes a description; with `shuffled`, the words mean something else."""

    def __init__(self, *, shuffled: bool = False) -> None:
        self.shuffled = shuffled

    def encode(self, query: str) -> QueryVector:
        colour, kind = query.split()
        if self.shuffled:
            names = list(COLOURS)
            colour, kind = names[names.index(colour) - 1], KINDS[KINDS.index(kind) - 2]
        return QueryVector(vector_of(colour, kind), truncated=False)


def vector_of(colour: str, kind: str) -> FloatArray:
    vector = np.zeros(PaletteEncoder.dimensions, dtype=np.float32)
    vector[[list(PALETTE).index(colour), len(PALETTE) + KINDS.index(kind)]] = 1
    vector[-1] = 0.5
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


class PaletteJudge:
    """Answers from colours and outlines; blind, or with boxes on a grid of 0 to 1000, if asked to."""

    grounds_at_once = 4
    offers = 0

    def __init__(self, *, blind: bool = False, grid: bool = False, bgr: bool = False) -> None:
        self.blind, self.grid, self.bgr = blind, grid, bgr

    def rerank(self, photo: JudgePhoto, queries: Sequence[str]) -> list[Verdict]:
        return [Verdict(self._logit(photo.image, query), 0.0) for query in queries]

    def _logit(self, image: ImageArray, query: str) -> float:
        if self.blind:
            return -2.0
        match = re.fullmatch(r"(\w+) (\w+)( inside a ring)?", query)
        assert match is not None
        parts = parts_of(image, bgr=self.bgr)
        rle = parts.get(match[1])
        if rle is None or kind_of(rle) != match[2]:
            return -5.0
        ring = parts.get("black")
        inside = ring is not None and box_iou(masks.box(rle), masks.box(ring)) > 0.1
        return 5.0 if inside or not match[3] else -5.0

    def ground(self, questions: Sequence[GroundingQuestion]) -> list[Grounding]:
        return [self._grounding(question) for question in questions]

    def _grounding(self, question: GroundingQuestion) -> Grounding:
        rle = parts_of(question.photo.image, bgr=self.bgr).get(question.query.split()[0])
        if rle is None:
            return Grounding((), "[]", readable=True)
        box = masks.box(rle)
        if self.grid:
            box = box.scaled(1000 / rle.width, 1000 / rle.height)
        numbers = ", ".join(f"{edge:.0f}" for edge in box.rounded(0))
        return Grounding((box,), f'[{{"bbox_2d": [{numbers}]}}]', readable=True)

    def close(self) -> None:
        """Nothing to free."""


def reasons(findings: Sequence[object]) -> set[str]:
    return {str(getattr(finding, "reason", "")) for finding in findings if getattr(finding, "failed", False)}


class TestPictures:
    @pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
    def test_objects_are_in_the_picture_and_apart(self, world: TrialWorld) -> None:
        for picture in world.pictures(8):
            assert len(world.named_objects(picture)) >= 2
            for shown in picture.objects:
                assert (shown.rle.height, shown.rle.width) == picture.image.shape[:2]
                assert masks.area(shown.rle) >= 500
            overlap = masks.iou(
                [each.rle for each in picture.objects], [each.rle for each in picture.objects]
            )
            np.testing.assert_array_equal(overlap > 0, np.eye(len(picture.objects), dtype=bool))
            texts = [shown.text for shown in picture.objects]
            assert len({*texts}) == len(texts)

    @pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
    def test_every_colour_and_kind_is_shown_and_some_objects_are_in_rings(self, world: TrialWorld) -> None:
        shown = [each for picture in world.pictures(world.encoder_pictures) for each in picture.objects]
        assert {each.colour for each in shown} >= {*world.colours}
        assert {each.kind for each in shown} >= {*world.kinds}
        judged = [picture.objects for picture in world.pictures(world.judge_pictures)]
        assert sum(any(each.inside_ring for each in objects) for objects in judged) >= 1

    def test_the_same_picture_every_time(self) -> None:
        np.testing.assert_array_equal(SHAPES.draw(3).image, SHAPES.draw(3).image)
        assert SHAPES.draw(3).objects == SHAPES.draw(3).objects

    def test_masks_are_those_of_the_shapes(self) -> None:
        for picture in SHAPES.pictures(5):
            found = parts_of(picture.image)
            for shown in picture.objects:
                assert masks.iou([found[shown.colour]], [shown.rle])[0, 0] > 0.95, shown.text
                assert shown.kind in ("ring", kind_of(shown.rle))

    def test_exchanged_channels(self) -> None:
        picture = SHAPES.draw(0)
        exchanged: TrialPicture = picture.exchange_channels()
        np.testing.assert_array_equal(exchanged.image[..., 2], picture.image[..., 0])
        assert exchanged.objects == picture.objects


def test_every_set_names_a_world_and_models_of_photographs_get_shapes() -> None:
    worlds = {name: load_model_set(name).trial for name in model_set_names()}
    assert worlds.pop("tiny") == "drawn_world"
    assert set(worlds.values()) == {"shapes"}


class TestShapes:
    def test_proposer(self) -> None:
        findings = try_proposer(SHAPES, PaletteProposer(), (), no_progress)
        assert [each.state for each in findings] == [TrialState.OK, TrialState.OK, TrialState.UNKNOWN]
        assert findings[0].figures[0] > 0.95

    def test_proposer_that_keeps_nothing_by_points(self) -> None:
        findings = try_proposer(SHAPES, PaletteProposer(by_points=False), (), no_progress)
        assert [each.failed for each in findings] == [True, False, False]
        assert "predicted_iou_threshold or stability_threshold is too high" in findings[0].reason

    def test_encoder(self) -> None:
        findings = try_encoder(SHAPES, PaletteEncoder(), PaletteText(), (), no_progress)
        assert [each.state for each in findings] == [TrialState.OK] * 3 + [TrialState.UNKNOWN]
        figures = findings[3].figures
        again = try_encoder(SHAPES, PaletteEncoder(), PaletteText(), figures, no_progress)
        assert again[3].state is TrialState.OK

    @pytest.mark.parametrize(
        ("encoder", "text", "reason"),
        [
            (PaletteEncoder(bgr=True), PaletteText(), "the visual tower expects the colour channels"),
            (PaletteEncoder(sees_masks=False), PaletteText(), "masks have no effect"),
            (PaletteEncoder(), PaletteText(shuffled=True), "one of: the vocabulary is not that"),
        ],
        ids=["bgr", "mask", "vocabulary"],
    )
    def test_broken_encoder(self, encoder: PaletteEncoder, text: PaletteText, reason: str) -> None:
        found = reasons(try_encoder(SHAPES, encoder, text, (), no_progress))
        assert len(found) == 1
        assert found.pop().startswith(reason)

    def test_judge(self) -> None:
        findings = try_judge(SHAPES, PaletteJudge(), (), no_progress)
        assert [each.state for each in findings] == [TrialState.OK] * 5 + [TrialState.UNKNOWN], findings

    @pytest.mark.parametrize(
        ("judge", "reason"),
        [
            (PaletteJudge(blind=True), "one of: the projector is of another model"),
            (PaletteJudge(grid=True), "boxes are on a grid of 0 to 1000"),
            (PaletteJudge(bgr=True), "the projector expects the colour channels in the other order"),
        ],
        ids=["blind", "grid", "bgr"],
    )
    def test_broken_judge(self, judge: PaletteJudge, reason: str) -> None:
        found = reasons(try_judge(SHAPES, judge, (), no_progress))
        assert len(found) == 1
        assert found.pop().startswith(reason)
