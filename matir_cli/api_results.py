"""What the Python API answers with: photos, objects and regions, their masks as arrays.

Boxes are XYXY in photo pixels, masks (height, width) bool at the photo's true size. A mask is
decoded when it is asked for and not kept: a thousand hits take no more memory than their names.
Their `repr` is one line, harmless for a terminal, and asks no disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matir_cli.gallery.rows import StoredPhoto, StoredRegion
from matir_cli.records import Box, MaskArray
from matir_cli.search.results import GroundedObject, SearchResult


@dataclass(frozen=True, slots=True)
class PhotoRegion:
    """A region of a photo: an object, or a part of one, that was found when the photo was added."""

    photo: StoredPhoto
    stored: StoredRegion
    """As the gallery has it: mask and box also in working pixels, area, predicted IoU, stability."""

    @property
    def ordinal(self) -> int:
        """0 is the photo as a whole; the others in the proposer's order."""
        return self.stored.ordinal

    @property
    def box(self) -> Box:
        """Photo pixels."""
        return self.stored.box

    @property
    def mask(self) -> MaskArray:
        """(height, width) bool at the photo's true size; made anew each time, so keep it to use it twice."""
        return self.photo.at_true_size(self.stored.region.rle)

    def __repr__(self) -> str:
        return f"<PhotoRegion {self.ordinal} of {_name(self.photo)}, box {_corners(self.box)}>"


@dataclass(frozen=True, slots=True)
class Instance:
    """One object that answers the query."""

    photo: StoredPhoto
    answer: GroundedObject
    """As the search has it."""

    @property
    def box(self) -> Box:
        """Photo pixels: the judge's where it was asked, else the region's."""
        return self.answer.box

    @property
    def iou(self) -> float | None:
        """Of the judge's box with that of the region whose mask this is, 0..1; None without a judge."""
        return self.answer.iou

    @property
    def mask(self) -> MaskArray | None:
        """(height, width) bool at the photo's true size, made anew each time; None where no region fits."""
        return None if self.answer.mask is None else self.photo.at_true_size(self.answer.mask)

    def __repr__(self) -> str:
        return f"<Instance in {_name(self.photo)}, {_where(self.answer)}>"


@dataclass(frozen=True, slots=True)
class Hit:
    """A photo that answers a query."""

    found: SearchResult
    """The whole of what the search knows of it."""

    @property
    def rank(self) -> int:
        """1 is the best."""
        return self.found.rank

    @property
    def photo(self) -> StoredPhoto:
        """Id, files, and in `record` what is known of it: width, height, taken_at, camera, ..."""
        return self.found.photo

    @property
    def path(self) -> Path:
        """A file that holds the photo, one that is still there if any is."""
        return self.found.path

    @property
    def score(self) -> float:
        """`p_true` of a judged photo, else `stage1_score`."""
        return self.found.score

    @property
    def stage1_score(self) -> float:
        """Cosine of the photo's best region and the query, -1..1 (eq. 1)."""
        return self.found.candidate.score

    @property
    def p_true(self) -> float | None:
        """The judge's probability that the object is there, 0..1 (eq. 2); None where it was not asked."""
        return None if self.found.verdict is None else self.found.verdict.p_true

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Every object that the judge pointed at, *the* object first; without a judge, the best region."""
        return tuple(Instance(self.found.photo, answer) for answer in self.found.objects)

    @property
    def box(self) -> Box | None:
        """Of the first instance, photo pixels; None where the judge pointed at nothing."""
        return self.instances[0].box if self.found.objects else None

    @property
    def mask(self) -> MaskArray | None:
        """Of the first instance: (height, width) bool at the photo's true size, made anew each time.

        None where the judge pointed at nothing, or no stored region fits its box.
        """
        return self.instances[0].mask if self.found.objects else None

    def __repr__(self) -> str:
        where = _where(self.found.objects[0]) if self.found.objects else "no box"
        return f"<Hit {self.rank}: {_name(self.photo)}, score {self.score:.3f}, {where}>"


def _name(photo: StoredPhoto) -> str:
    """Of the photo's first file, in quotes; a photo that was just forgotten has none."""
    return repr(photo.paths[0].name) if photo.paths else f"photo {photo.id}"


def _where(answer: GroundedObject) -> str:
    box = f"box {_corners(answer.box)}"
    return box if answer.mask is not None else f"{box}, no mask"


def _corners(box: Box) -> str:
    return ",".join(str(round(edge)) for edge in (box.x0, box.y0, box.x1, box.y1))
