"""Pictures of a trial: objects with known masks and descriptions, and what a working set makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from matir_cli import masks
from matir_cli.records import Box, ImageArray, Rle


@dataclass(frozen=True, slots=True)
class TrialObject:
    """An object in a trial picture."""

    colour: str
    kind: str
    rle: Rle
    """Mask of its visible pixels, in pixels of the picture."""
    inside_ring: bool
    """True if it lies in the hole of a ring."""

    @property
    def text(self) -> str:
        """Description of the object, such as "red circle"."""
        return f"{self.colour} {self.kind}"

    @property
    def box(self) -> Box:
        """Box tight around the mask, pixels of the picture."""
        return masks.box(self.rle)


@dataclass(frozen=True, slots=True)
class TrialPicture:
    """A picture whose objects are known."""

    image: ImageArray
    """(h, w, 3) uint8 RGB."""
    objects: tuple[TrialObject, ...]

    def exchange_channels(self) -> TrialPicture:
        """Return the picture with red and blue exchanged, and the descriptions as they were."""
        return replace(self, image=np.ascontiguousarray(self.image[..., ::-1]))


@dataclass(frozen=True, slots=True)
class Expectations:
    """The least that working models give; each world says where its numbers come from."""

    covered: float
    """Mean IoU of an object and the best region found by the grid of points."""
    boxed: float
    """Mean IoU of an object and the region found in its box."""
    colours: float
    """Share of descriptions that beat one with a wrong colour alone (encoder and judge)."""
    kinds: float
    """Share of descriptions that beat one with a wrong kind alone (encoder and judge)."""
    regions: float
    """Share of pairs of objects in a picture whose vectors lie nearer to their own texts than exchanged."""
    answers: float
    """Mean share of right answers to true and to false descriptions; 0.5 for a constant answer."""
    relations: float
    """Share of comparisons of "... inside a ring" that are won by the object that is."""
    grounded: float
    """Mean IoU of an object's box and the judge's."""


@dataclass(frozen=True, slots=True)
class TrialWorld:
    """Pictures that the models of a set know, and the words for their objects."""

    colours: tuple[str, ...]
    kinds: tuple[str, ...]
    """Kinds that are told apart from each other; pictures may also show rings."""
    draw: Callable[[int], TrialPicture]
    """Draws the picture with this number, 0 and up."""
    least: Expectations
    grid_pictures: int
    """Pictures in which regions are searched for with the grid of points, the slowest check on a CPU."""
    encoder_pictures: int
    """Pictures whose objects are encoded."""
    judge_pictures: int
    """Pictures that the judge is asked about."""

    def pictures(self, count: int) -> list[TrialPicture]:
        """Return the first `count` pictures."""
        return [self.draw(number) for number in range(count)]

    def named_objects(self, picture: TrialPicture) -> list[TrialObject]:
        """Return the objects of a kind that is told apart from the others."""
        return [shown for shown in picture.objects if shown.kind in self.kinds]

    def other_colours(self, shown: TrialObject) -> Iterator[str]:
        """Yield descriptions that are wrong in the colour alone."""
        return (f"{colour} {shown.kind}" for colour in self.colours if colour != shown.colour)

    def other_kinds(self, shown: TrialObject) -> Iterator[str]:
        """Yield descriptions that are wrong in the kind alone."""
        return (f"{shown.colour} {kind}" for kind in self.kinds if kind != shown.kind)
