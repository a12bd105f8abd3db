"""What the pipelines ask of a model. An engine fulfils one of these; nothing inherits from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from matir_cli.records import Box, FloatArray, Grounding, ImageArray, Point, Region, Rle, Verdict


class RegionProposer(Protocol):
    """Finds the regions of a photo that may be objects."""

    def propose(self, image: ImageArray) -> list[Region]:
        """Regions of `image` ((h, w, 3) uint8 RGB), boxes and masks in its own pixels, best first."""
        ...

    def refine(self, image: ImageArray, boxes: Sequence[Box]) -> list[Region | None]:
        """For each box, in pixels of `image`, the region that lies in it; None where there is none."""
        ...

    def at(self, image: ImageArray, point: Point) -> Region | None:
        """The region that `point`, in pixels of `image`, most likely means; None where there is none."""
        ...


class RegionEncoder(Protocol):
    """Gives each region of a photo a vector in the space of the text encoder."""

    @property
    def dimensions(self) -> int:
        """Length d of a vector."""
        ...

    def encode(self, image: ImageArray, masks: Sequence[Rle]) -> FloatArray:
        """(len(masks), d) float32 of unit length, one row a mask; masks in pixels of `image`.

        A mask of all ones means the photo as a whole.
        """
        ...


class DenseEncoder(Protocol):
    """Gives pictures, and places in them, vectors in the space of a text encoder: for CLIP's baselines."""

    def whole(self, images: Sequence[ImageArray]) -> FloatArray:
        """(len(images), d) float32 of unit length, one row a picture ((h, w, 3) uint8 RGB, of any size)."""
        ...

    def dense(self, image: ImageArray) -> FloatArray:
        """(n, d) float32 of unit length, one row a cell of the grid that the encoder lays over `image`."""
        ...


@dataclass(frozen=True, slots=True)
class QueryVector:
    """A query in the space of the region vectors."""

    vector: FloatArray
    """(d,) float32 of unit length."""
    truncated: bool
    """The query was longer than the encoder reads; its end was left out."""


class TextEncoder(Protocol):
    """Gives a query a vector in the space of the region encoder."""

    def encode(self, query: str) -> QueryVector:
        """The vector of `query`, averaged over the model set's prompts."""
        ...


@dataclass(frozen=True, slots=True)
class JudgePhoto:
    """A photo put before a judge."""

    key: int
    """Names the photo, so that a judge may keep what it encoded of it for the next question."""
    image: ImageArray
    """(h, w, 3) uint8 RGB, working pixels."""


@dataclass(frozen=True, slots=True)
class GroundingQuestion:
    """Where is the object that `query` describes in `photo`?"""

    photo: JudgePhoto
    query: str


class Judge(Protocol):
    """Looks at photos and answers questions about described objects."""

    @property
    def grounds_at_once(self) -> int:
        """How many questions `ground` answers in about the time of one."""
        ...

    def rerank(self, photo: JudgePhoto, queries: Sequence[str]) -> list[Verdict]:
        """One verdict a query; several queries about one photo cost little more than one."""
        ...

    def ground(self, questions: Sequence[GroundingQuestion]) -> list[Grounding]:
        """One grounding a question; any number of them, about one photo or several."""
        ...

    def close(self) -> None:
        """Frees the model; nothing can be asked after it."""
        ...
