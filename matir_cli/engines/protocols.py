"""Interfaces between the pipelines and the models.

An engine fulfils one of these protocols by having its members; nothing inherits from them. Images are
(h, w, 3) uint8 RGB; boxes and points are XYXY and XY in pixels of the image they come with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from matir_cli.records import Box, FloatArray, Grounding, ImageArray, Point, Region, Rle, Verdict


class RegionProposer(Protocol):
    """Finds the regions of a photo that may be objects.

    Several threads may call one proposer at a time if `registry.proposals_at_once` says so.
    """

    @property
    def prompts_asked(self) -> int:
        """Number of points and boxes that the calling thread has asked the model about so far."""
        ...

    def propose(self, image: ImageArray) -> list[Region]:
        """Return the regions of `image`, best first, with boxes and masks in pixels of `image`."""
        ...

    def refine(self, image: ImageArray, boxes: Sequence[Box]) -> list[Region | None]:
        """Return the region inside each box, in pixels of `image`; None where there is none."""
        ...

    def region_at(self, image: ImageArray, point: Point) -> Region | None:
        """Return the most likely region under `point`, in pixels of `image`; None if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class MaskedPhoto:
    """A photo and those of its regions that are to be encoded."""

    image: ImageArray
    """(h, w, 3) uint8 RGB, of any size."""
    masks: Sequence[Rle]
    """Masks in pixels of `image`; one of all ones stands for the whole photo."""


class RegionEncoder(Protocol):
    """Encodes regions of a photo as vectors in the space of the text encoder."""

    @property
    def dimensions(self) -> int:
        """Length d of a vector."""
        ...

    def encode(self, image: ImageArray, masks: Sequence[Rle]) -> FloatArray:
        """Return (len(masks), d) float32 of unit length, one row per mask; masks in pixels of `image`.

        A mask of all ones stands for the whole photo.
        """
        ...

    def encode_photos(self, photos: Sequence[MaskedPhoto]) -> list[FloatArray]:
        """Return what `encode` returns for each photo; batches may hold the regions of several photos."""
        ...


class DenseEncoder(Protocol):
    """Encodes images and the cells of a grid over them, for the CLIP baselines of the evaluation."""

    def encode_whole(self, images: Sequence[ImageArray]) -> FloatArray:
        """Return (len(images), d) float32 of unit length, one row per image; images of any size."""
        ...

    def encode_dense(self, image: ImageArray) -> FloatArray:
        """Return (n, d) float32 of unit length, one row per cell of the encoder's grid over `image`."""
        ...


@dataclass(frozen=True, slots=True)
class PromptVector:
    """One of the sentences that a query is put into, encoded."""

    text: str
    """The sentence."""
    vector: FloatArray
    """(d,) float32 of unit length."""


@dataclass(frozen=True, slots=True)
class QueryVector:
    """A query encoded in the space of the region vectors."""

    vector: FloatArray
    """(d,) float32 of unit length."""
    truncated: bool
    """True if the query was longer than the encoder's context and its end was left out."""
    prompts: tuple[PromptVector, ...] = ()
    """The sentences whose mean `vector` is; empty if the encoder uses none."""


class TextEncoder(Protocol):
    """Encodes queries as vectors in the space of the region encoder."""

    def encode(self, query: str) -> QueryVector:
        """Return the vector of `query`, averaged over the model set's prompts."""
        ...


@dataclass(frozen=True, slots=True)
class JudgePhoto:
    """A photo to be judged."""

    key: int
    """Identifies the photo, so that a judge can reuse its encoding for the next question."""
    image: ImageArray
    """(h, w, 3) uint8 RGB, working pixels."""


@dataclass(frozen=True, slots=True)
class GroundingQuestion:
    """A request for the boxes of the object described by `query` in `photo`."""

    photo: JudgePhoto
    """The photo to search."""
    query: str
    """Description of the object."""
    offered: tuple[Box, ...] = ()
    """Boxes of regions that may be the object, best first, pixels of the photo's image. A judge that chooses
    answers with one of them."""


class Judge(Protocol):
    """Answers questions about described objects in photos."""

    @property
    def grounds_at_once(self) -> int:
        """Number of questions that `ground` answers in about the time of one."""
        ...

    @property
    def offers(self) -> int:
        """Number of regions that a question for boxes may offer to choose among; 0: it writes boxes."""
        ...

    def rerank(self, photo: JudgePhoto, queries: Sequence[str]) -> Sequence[Verdict | None]:
        """Return one verdict per query; several queries about one photo cost little more than one.

        None where the model computes no numbers for this photo.
        """
        ...

    def ground(self, questions: Sequence[GroundingQuestion]) -> Sequence[Grounding | None]:
        """Return one grounding per question, for any number of questions about one or more photos.

        None where the model computes no numbers for the photo.
        """
        ...

    def close(self) -> None:
        """Free the model; the judge cannot be used afterwards."""
        ...
