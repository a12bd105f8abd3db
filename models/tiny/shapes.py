"""Shapes of the drawn world's eight kinds of object, drawn with Pillow.

A shape is a *body* in the object's colour, plain or striped, and *details* in neutral tones (windows,
wheels, legs). Coordinates are fractions of the object's box, with the origin at its top left corner.
Everything is drawn at twice its size and reduced.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from matir_cli.records import FloatArray, ImageArray

KINDS = ("house", "tree", "car", "person", "dog", "ball", "star", "ring")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "yellow": (240, 206, 40),
    "green": (44, 160, 60),
    "blue": (44, 90, 214),
    "purple": (150, 60, 190),
    "white": (244, 244, 244),
}
TEXTURES = ("plain", "striped")

ASPECTS = {
    "house": 1.0,
    "tree": 0.8,
    "car": 1.5,
    "person": 0.55,
    "dog": 1.35,
    "ball": 1.0,
    "star": 1.0,
    "ring": 1.0,
}
"""Width of each kind's box divided by its height."""

RING_HOLE = 0.64
"""Diameter of a ring's hole as a fraction of the ring's."""

DARK, GREY, BROWN, SKIN, GLASS = (38, 38, 42), (96, 92, 96), (112, 72, 40), (232, 190, 156), (188, 222, 236)

Polygon: TypeAlias = list[tuple[float, float]]


class Pen:
    """Draws in fractions of a canvas, either the body's coverage or a detail in its colour."""

    def __init__(self, width: int, height: int) -> None:
        """Start with an empty canvas of `width` x `height` pixels."""
        self.width, self.height = width, height
        self.body = Image.new("L", (width, height), 0)
        self.details = Image.new("RGBA", (width, height), (0, 0, 0, 0))

    def polygon(self, points: Polygon, colour: tuple[int, int, int] | None = None) -> None:
        """Draw a filled polygon: part of the body without a `colour`, a detail with one."""
        draw, fill = self._on(colour)
        draw.polygon([(x * self.width, y * self.height) for x, y in points], fill=fill)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, colour: tuple[int, int, int] | None = None
    ) -> None:
        """Draw a filled rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def oval(
        self, x0: float, y0: float, x1: float, y1: float, colour: tuple[int, int, int] | None = None
    ) -> None:
        """Draw a filled ellipse that fits the rectangle."""
        draw, fill = self._on(colour)
        w, h = self.width - 1, self.height - 1
        draw.ellipse((x0 * w, y0 * h, x1 * w, y1 * h), fill=fill)

    def hole(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Remove an ellipse from the body."""
        w, h = self.width - 1, self.height - 1
        ImageDraw.Draw(self.body).ellipse((x0 * w, y0 * h, x1 * w, y1 * h), fill=0)

    def _on(self, colour: tuple[int, int, int] | None) -> tuple[ImageDraw.ImageDraw, int | tuple[int, ...]]:
        """The layer to draw on, and the fill."""
        if colour is None:
            return ImageDraw.Draw(self.body), 255
        return ImageDraw.Draw(self.details), (*colour, 255)


def _house(pen: Pen, door: bool) -> None:
    pen.polygon([(0.0, 0.42), (0.5, 0.0), (1.0, 0.42)], GREY)
    pen.box(0.08, 0.42, 0.92, 1.0)
    for x in (0.16, 0.66):
        pen.box(x, 0.5, x + 0.18, 0.68, GLASS)
    if door:
        pen.box(0.37, 0.56, 0.63, 1.0, DARK)


def _tree(pen: Pen, _: bool) -> None:
    pen.box(0.4, 0.6, 0.6, 1.0, BROWN)
    pen.polygon([(0.0, 0.74), (0.5, 0.16), (1.0, 0.74)])
    pen.polygon([(0.12, 0.42), (0.5, 0.0), (0.88, 0.42)])


def _car(pen: Pen, _: bool) -> None:
    pen.polygon([(0.18, 0.42), (0.3, 0.05), (0.68, 0.05), (0.84, 0.42)])
    pen.box(0.0, 0.4, 1.0, 0.8)
    pen.polygon([(0.3, 0.38), (0.37, 0.14), (0.62, 0.14), (0.71, 0.38)], GLASS)
    for x in (0.1, 0.66):
        pen.oval(x, 0.62, x + 0.25, 1.0, DARK)


def _person(pen: Pen, _: bool) -> None:
    pen.oval(0.27, 0.0, 0.73, 0.25, SKIN)
    pen.box(0.24, 0.25, 0.76, 0.66)
    for x in (0.0, 0.78):
        pen.box(x, 0.27, x + 0.22, 0.58)
    for x in (0.26, 0.54):
        pen.box(x, 0.66, x + 0.2, 1.0, DARK)


def _dog(pen: Pen, _: bool) -> None:
    pen.oval(0.12, 0.34, 0.8, 0.74)
    pen.oval(0.62, 0.1, 1.0, 0.48)
    pen.polygon([(0.66, 0.2), (0.7, 0.0), (0.82, 0.16)])
    pen.polygon([(0.16, 0.5), (0.0, 0.12), (0.1, 0.1), (0.28, 0.42)])
    for x in (0.2, 0.34, 0.58, 0.7):
        pen.box(x, 0.6, x + 0.1, 1.0)
    pen.oval(0.8, 0.2, 0.87, 0.29, DARK)
    pen.oval(0.93, 0.27, 1.0, 0.36, DARK)


def _ball(pen: Pen, _: bool) -> None:
    pen.oval(0.0, 0.0, 1.0, 1.0)


def _star(pen: Pen, _: bool) -> None:
    angles = np.pi * (np.arange(10) / 5 - 0.5)
    radii = np.where(np.arange(10) % 2 == 0, 0.55, 0.25)
    pen.polygon([(0.5 + r * np.cos(a), 0.53 + r * np.sin(a)) for a, r in zip(angles, radii, strict=True)])


def _ring(pen: Pen, _: bool) -> None:
    pen.oval(0.0, 0.0, 1.0, 1.0)
    rim = (1 - RING_HOLE) / 2
    pen.hole(rim, rim, 1 - rim, 1 - rim)


_DRAW: dict[str, Callable[[Pen, bool], None]] = {
    "house": _house,
    "tree": _tree,
    "car": _car,
    "person": _person,
    "dog": _dog,
    "ball": _ball,
    "star": _star,
    "ring": _ring,
}


def _skin(colour: str, texture: str, width: int, height: int, slant: int) -> ImageArray:
    """(height, width, 3) uint8 RGB of the body's colour, or of stripes of it and of a dark shade of it."""
    base = np.asarray(COLOURS[colour], dtype=np.float32)
    skin = np.broadcast_to(base, (height, width, 3)).copy()
    if texture == "striped":
        rows, columns = np.mgrid[:height, :width]
        period = 2 * max(4.0, 0.11 * max(width, height))
        dark = ((rows + slant * columns) % period) < period / 2
        skin[dark] = 0.38 * base
    return skin.astype(np.uint8)


def draw(
    kind: str, colour: str, texture: str, width: int, height: int, *, door: bool, mirrored: bool, slant: int
) -> tuple[FloatArray, FloatArray]:
    """Draw one object on a canvas of `width` x `height` pixels.

    Args:
        door: draw a house with a door; the other kinds ignore it.
        slant: direction of the stripes: -1, 0 or 1.

    Returns:
        (height, width, 3) float32 RGB 0..255, and (height, width) float32 coverage 0..1.
    """
    pen = Pen(2 * width, 2 * height)
    _DRAW[kind](pen, door)
    canvas = Image.fromarray(_skin(colour, texture, pen.width, pen.height, slant))
    details = pen.details.getchannel("A")
    canvas.paste(pen.details.convert("RGB"), mask=details)
    cover = Image.fromarray(np.maximum(np.asarray(pen.body), np.asarray(details)))
    if mirrored:
        canvas, cover = (side.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for side in (canvas, cover))
    return (
        np.asarray(canvas.reduce(2), dtype=np.float32),
        np.asarray(np.asarray(cover.reduce(2)) / 255, dtype=np.float32),
    )
