"""Results of the Python API: photos, objects and regions, with masks as arrays.

Boxes are XYXY in photo pixels, masks (height, width) bool at the photo's true size. A mask is decoded
each time it is read and not kept, so a thousand hits take little memory. Each `repr` is one line, safe
for a terminal, and does not access the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matir_cli.gallery.rows import StoredPhoto, StoredRegion
from matir_cli.records import Box, MaskArray
from matir_cli.search.explanation import Explanation
from matir_cli.search.results import GroundedObject, SearchResult


@dataclass(frozen=True, slots=True)
class PhotoRegion:
    """A region of a photo: an object, or a part of one, that was segmented when the photo was added."""

    photo: StoredPhoto
    stored: StoredRegion
    """The region as the gallery stores it: mask and box in working pixels, area, predicted IoU, stability."""

    @property
    def ordinal(self) -> int:
        """0 is the whole photo; then the proposer's order, then regions that were given."""
        return self.stored.ordinal

    @property
    def origin(self) -> str | None:
        """Where the region comes from, "human" or "data set"; None: the proposer."""
        origin = self.stored.region.origin
        return None if origin is None else origin.kind.value

    @property
    def label(self) -> str | None:
        """What the region shows, in the words of its origin; None if that is not known."""
        origin = self.stored.region.origin
        return None if origin is None else origin.label

    @property
    def box(self) -> Box:
        """Box around the region, XYXY in photo pixels."""
        return self.stored.box

    @property
    def mask(self) -> MaskArray:
        """Mask, (height, width) bool at the photo's true size; decoded on each access."""
        return self.photo.at_true_size(self.stored.region.rle)

    def __repr__(self) -> str:
        return f"<PhotoRegion {self.ordinal} of {_name(self.photo)}, box {_corners(self.box)}>"


@dataclass(frozen=True, slots=True)
class Instance:
    """One object that matches the query."""

    photo: StoredPhoto
    answer: GroundedObject
    """The object as the search returned it."""

    @property
    def box(self) -> Box:
        """Box, XYXY in photo pixels: the judge's if it was asked, else the region's."""
        return self.answer.box

    @property
    def iou(self) -> float | None:
        """IoU of the judge's box with that of the region that gave the mask, 0..1; None without a judge."""
        return self.answer.iou

    @property
    def mask(self) -> MaskArray | None:
        """Mask, (height, width) bool at the photo's true size, decoded on each access.

        None if no stored region fits the judge's box.
        """
        return None if self.answer.mask is None else self.photo.at_true_size(self.answer.mask)

    def __repr__(self) -> str:
        return f"<Instance in {_name(self.photo)}, {_place(self.answer)}>"


@dataclass(frozen=True, slots=True)
class Hit:
    """A photo that matches a query."""

    found: SearchResult
    """Everything that the search knows about the photo."""

    @property
    def rank(self) -> int:
        """Position among the hits; 1 is the best."""
        return self.found.rank

    @property
    def photo(self) -> StoredPhoto:
        """The photo: its id, its files, and in `record` its width, height, taken_at, camera and more."""
        return self.found.photo

    @property
    def path(self) -> Path:
        """A file that holds the photo; one that exists, if any does."""
        return self.found.path

    @property
    def score(self) -> float:
        """`p_true` of a judged photo, else `stage1_score`."""
        return self.found.score

    @property
    def stage1_score(self) -> float:
        """Cosine of the query and the photo's best region, -1..1 (eq. 1 of the paper)."""
        return self.found.candidate.score

    @property
    def near_copies(self) -> int | None:
        """Number of photos left out as near-copies of this one; None unless found with `unique`."""
        return self.found.candidate.near_copies

    @property
    def p_true(self) -> float | None:
        """Probability, by the judge, that the photo shows the object, 0..1 (eq. 2); None if not judged."""
        return None if self.found.verdict is None else self.found.verdict.p_true

    @property
    def explanation(self) -> Explanation | None:
        """Where the score and the mask come from; None unless found with `explain`."""
        return self.found.explanation

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Every object that the judge pointed at, the best first; without a judge, the best region."""
        return tuple(Instance(self.found.photo, answer) for answer in self.found.objects)

    @property
    def box(self) -> Box | None:
        """Box of the first instance, XYXY in photo pixels; None if the judge pointed at nothing."""
        return self.instances[0].box if self.found.objects else None

    @property
    def mask(self) -> MaskArray | None:
        """Mask of the first instance, (height, width) bool at the photo's true size, decoded on each access.

        None if the judge pointed at nothing, or if no stored region fits its box.
        """
        return self.instances[0].mask if self.found.objects else None

    def __repr__(self) -> str:
        place = _place(self.found.objects[0]) if self.found.objects else "no box"
        return f"<Hit {self.rank}: {_name(self.photo)}, score {self.score:.3f}, {place}>"


def _name(photo: StoredPhoto) -> str:
    """Return the name of the photo's first file in quotes; a photo that was just forgotten has no file."""
    return repr(photo.paths[0].name) if photo.paths else f"photo {photo.id}"


def _place(answer: GroundedObject) -> str:
    box = f"box {_corners(answer.box)}"
    return box if answer.mask is not None else f"{box}, no mask"


def _corners(box: Box) -> str:
    return ",".join(str(round(edge)) for edge in (box.x0, box.y0, box.x1, box.y1))
