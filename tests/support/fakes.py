"""Fakes of the engines without a model: regions, vectors and verdicts by colour."""

from collections.abc import Sequence

import numpy as np

from matir_cli import masks
from matir_cli.engines.protocols import GroundingQuestion, JudgePhoto, MaskedPhoto, QueryVector
from matir_cli.records import Box, FloatArray, Grounding, ImageArray, MaskArray, Point, Region, Rle, Verdict

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}


def near(image: ImageArray, colour: str) -> MaskArray:
    """(h, w) bool: the pixels close to this colour."""
    distance = np.abs(image.astype(np.int32) - np.array(COLOURS[colour])).max(axis=2)
    return np.asarray(distance < 60)


class ColourProposer:
    """Proposes one region for each colour in the picture; refines a box to itself."""

    prompts_asked = 0

    def __init__(self) -> None:
        self.seen = 0
        """Pictures it has been given."""

    def propose(self, image: ImageArray) -> list[Region]:
        self.seen += 1
        coloured = [near(image, colour) for colour in COLOURS]
        rles = [masks.encode(mask) for mask in coloured if mask.any()]
        return [Region(rle, masks.box(rle), masks.area(rle), 0.9, 0.95) for rle in rles]

    def refine(self, image: ImageArray, boxes: Sequence[Box]) -> list[Region | None]:
        regions: list[Region | None] = []
        for box in boxes:
            mask = np.zeros(image.shape[:2], dtype=np.bool_)
            mask[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
            rle = masks.encode(mask)
            regions.append(Region(rle, masks.box(rle), masks.area(rle), 0.8, 0.9) if mask.any() else None)
        return regions

    def region_at(self, image: ImageArray, point: Point) -> Region | None:
        rles = [region.rle for region in self.propose(image)]
        hit = [rle for rle in rles if masks.decode(rle)[int(point.y), int(point.x)]]
        return Region(hit[0], masks.box(hit[0]), masks.area(hit[0]), 0.8, 0.9) if hit else None


class ColourEncoder:
    """Encodes a region as its share of each colour, and a constant."""

    dimensions = 64

    def encode(self, image: ImageArray, rles: Sequence[Rle]) -> FloatArray:
        vectors = np.zeros((len(rles), self.dimensions), dtype=np.float32)
        for vector, rle in zip(vectors, rles, strict=True):
            inside = masks.decode(rle)
            vector[:3] = [near(image, colour)[inside].mean() for colour in COLOURS]
            vector[3] = 0.1
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    def encode_photos(self, photos: Sequence[MaskedPhoto]) -> list[FloatArray]:
        return [self.encode(photo.image, photo.masks) for photo in photos]


class BrokenEncoder(ColourEncoder):
    """Returns vectors of NaN."""

    def encode(self, image: ImageArray, rles: Sequence[Rle]) -> FloatArray:
        return super().encode(image, rles) * np.float32("nan")


class ColourText:
    """Encodes a query as the colours that it names."""

    def encode(self, query: str) -> QueryVector:
        vector = np.zeros(ColourEncoder.dimensions, dtype=np.float32)
        vector[:3] = [colour in query for colour in COLOURS]
        return QueryVector(vector / max(float(np.linalg.norm(vector)), 1e-9), truncated=False)


class ColourJudge:
    """Judges a photo by its share of the query's colour and boxes that colour; notes its questions."""

    grounds_at_once = 3
    offers = 0

    def __init__(
        self,
        shift: float = 0.0,
        *,
        unjudged: frozenset[int] = frozenset(),
        ungrounded: frozenset[int] = frozenset(),
    ) -> None:
        self.asked: list[int] = []
        """Keys of the photos reranked, one per call."""
        self.grounded: list[int] = []
        """Keys of the photos grounded, one per question."""
        self.shift = shift
        """Error of its boxes, pixels."""
        self.unjudged = unjudged
        """Keys of the photos about which it gives no verdict."""
        self.ungrounded = ungrounded
        """Keys of the photos about which it gives no grounding."""

    def rerank(self, photo: JudgePhoto, queries: Sequence[str]) -> Sequence[Verdict | None]:
        self.asked.append(photo.key)
        if photo.key in self.unjudged:
            return [None] * len(queries)
        return [self.verdict(photo, query) for query in queries]

    def verdict(self, photo: JudgePhoto, query: str) -> Verdict:
        """The verdict by the share of the query's colour."""
        return Verdict(100 * float(near(photo.image, query).mean()), 1.0)

    def ground(self, questions: Sequence[GroundingQuestion]) -> Sequence[Grounding | None]:
        self.grounded += [question.photo.key for question in questions]
        return [
            None if question.photo.key in self.ungrounded else self._grounding(question)
            for question in questions
        ]

    def _grounding(self, question: GroundingQuestion) -> Grounding:
        if question.query not in COLOURS:
            return Grounding((), "I cannot say", readable=False)
        rows, columns = np.nonzero(near(question.photo.image, question.query))
        if not rows.size:
            return Grounding((), "[]", readable=True)
        edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        box = Box(*(float(edge) + self.shift for edge in edges))
        return Grounding((box,), str(box), readable=True)

    def close(self) -> None:
        self.asked.clear()
