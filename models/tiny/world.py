"""The drawn world: pictures made from seeds, with complete ground truth.

A background has a gradient, noise and pale clutter. On it stand 1 to 6 objects ("things", as in COCO)
of eight kinds, some tied by a rope, some inside a ring, some partly covered. The same seed gives the
same picture on every machine (up to Pillow's anti-aliasing).

Relations are unambiguous by construction. On either axis, the distance of two centres is never between
`SAME` and `APART` of the picture's side, so that "left of" is always clearly true or clearly false;
nothing covers a house's door or lies in a ring by accident; a rope passes no third object.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from matir_cli.models.tiny import shapes
from matir_cli.records import Box, FloatArray, ImageArray, MaskArray

SPLITS = {
    "train": range(0, 10_000_000),
    "validation": range(10_000_000, 11_000_000),
    "test": range(20_000_000, 21_000_000),
    "demo": range(30_000_000, 31_000_000),
}
"""Seeds of each split; they do not overlap."""

HELD_OUT_LOOKS = frozenset({("purple", "car"), ("yellow", "dog"), ("blue", "tree"), ("white", "house")})
"""(colour, kind) that is never drawn for a training seed."""

SIZES = {"small": 0.22, "medium": 0.31, "large": 0.43}
"""Side of the square with an object's area, as a fraction of the picture's shorter side."""

APART = 0.15
"""If centres are at least this fraction of the side apart, one is left of (above) the other."""
SAME = 0.07
"""If centres are at most this fraction apart, neither is."""

TIED = ("dog", "ball", "car")
ANCHORS = ("person", "tree", "house")

_SIZES_OF_COUNT = {1: (0.2, 0.4, 0.4), 2: (0.25, 0.4, 0.35), 3: (0.35, 0.45, 0.2), 4: (0.5, 0.4, 0.1)}
_TRIES = 60


@dataclass(frozen=True)
class Thing:
    """One object of a picture."""

    id: int
    """Its index in `Picture.things`, which is also the drawing order."""
    kind: str
    colour: str
    texture: str
    size: str
    door: bool
    """True for a house with a door; False for every other kind."""
    box: Box
    """Box in whole pixels, before anything covers the thing."""
    mirrored: bool
    """True if it is flipped left to right."""
    slant: int
    """Direction of the stripes: -1, 0 or 1."""

    @property
    def centre(self) -> tuple[float, float]:
        """Centre (x, y) of the box, pixels."""
        return (self.box.x0 + self.box.x1) / 2, (self.box.y0 + self.box.y1) / 2


@dataclass(frozen=True)
class Rope:
    """A rope between two objects, drawn behind both."""

    tied: int
    """Id of the thing that is tied."""
    anchor: int
    """Id of the thing that holds it."""


@dataclass(frozen=True)
class Picture:
    """A drawn picture and its ground truth."""

    seed: int
    image: ImageArray
    """(h, w, 3) uint8 RGB."""
    things: tuple[Thing, ...]
    ropes: tuple[Rope, ...]
    owner: NDArray[np.int8]
    """(h, w): id of the thing visible at each pixel, -1 for background and rope."""

    def mask(self, thing: int) -> MaskArray:
        """(h, w) bool: the pixels at which the thing is visible."""
        return np.asarray(self.owner == thing)

    @cached_property
    def relations(self) -> dict[str, frozenset[tuple[int, int]]]:
        """The pairs (subject id, object id) between which each relation holds, by its name."""
        return _relations(self.things, self.ropes, self.image.shape[1], self.image.shape[0])


def split(seed: int) -> str:
    """The split that `seed` belongs to.

    Raises:
        ValueError: it is in no split.
    """
    for name, seeds in SPLITS.items():
        if seed in seeds:
            return name
    raise ValueError(f"seed {seed} is in no split")


def picture(seed: int) -> Picture:
    """The picture that `seed` stands for.

    Raises:
        ValueError: the seed is in no split.
    """
    held_out = HELD_OUT_LOOKS if split(seed) == "train" else frozenset()
    rng = np.random.default_rng(seed)
    planner = _Planner(rng, held_out)
    planner.plan()
    things, ropes = tuple(planner.things), tuple(planner.ropes)
    return compose(seed, planner.width, planner.height, things, ropes, rng)


def compose(
    seed: int,
    width: int,
    height: int,
    things: tuple[Thing, ...],
    ropes: tuple[Rope, ...],
    rng: np.random.Generator,
) -> Picture:
    """Paint a picture of `width` x `height` pixels.

    A rope that passes a third object, crosses another rope or is hardly visible is left out.
    """
    canvas = _background(rng, width, height)
    owner = np.full((height, width), -1, dtype=np.int8)
    layers = []
    for thing in things:
        x, y = round(thing.box.x0), round(thing.box.y0)
        w, h = round(thing.box.x1) - x, round(thing.box.y1) - y
        colours, cover = shapes.draw(
            thing.kind,
            thing.colour,
            thing.texture,
            w,
            h,
            door=thing.door,
            mirrored=thing.mirrored,
            slant=thing.slant,
        )
        owner[y : y + h, x : x + w][cover >= 0.5] = thing.id
        layers.append((slice(y, y + h), slice(x, x + w), colours, cover[..., None]))
    drawn_ropes: list[Rope] = []
    covered = np.zeros((height, width), dtype=np.bool_)
    for rope in ropes:
        coverage = _rope_coverage(things[rope.tied], things[rope.anchor], width, height)
        if _is_clear(coverage, owner, rope) and not (covered & (coverage[..., 0] > 0)).any():
            canvas = _paint_rope(canvas, coverage)
            covered |= coverage[..., 0] > 0
            drawn_ropes.append(rope)
    for rows, columns, colours, cover in layers:
        patch = canvas[rows, columns]
        canvas[rows, columns] = patch + cover * (colours - patch)
    canvas += 3 * rng.standard_normal(canvas.shape, dtype=np.float32)
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    return Picture(seed, image, things, tuple(drawn_ropes), owner)


def _relations(
    things: tuple[Thing, ...], ropes: tuple[Rope, ...], width: int, height: int
) -> dict[str, frozenset[tuple[int, int]]]:
    """The pairs of ids between which each relation holds."""
    pairs: dict[str, set[tuple[int, int]]] = {
        name: set() for name in ("left of", "right of", "above", "below", "inside", "tied to")
    }
    for a in things:
        for b in things:
            dx, dy = b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]
            if dx >= APART * width:
                pairs["left of"].add((a.id, b.id))
                pairs["right of"].add((b.id, a.id))
            if dy >= APART * height:
                pairs["above"].add((a.id, b.id))
                pairs["below"].add((b.id, a.id))
            if b.kind == "ring" and a.id != b.id and _fits_hole(a.box, b.box):
                pairs["inside"].add((a.id, b.id))
    pairs["tied to"].update((rope.tied, rope.anchor) for rope in ropes)
    return {name: frozenset(holding) for name, holding in pairs.items()}


def _fits_hole(inner: Box, ring: Box) -> bool:
    """True if every corner of `inner` lies in the ring's hole, give or take a pixel of rounding."""
    cx, cy = (ring.x0 + ring.x1) / 2, (ring.y0 + ring.y1) / 2
    radius = (ring.x1 - ring.x0) * shapes.RING_HOLE / 2 + 1
    return all(np.hypot(x - cx, y - cy) <= radius for x in (inner.x0, inner.x1) for y in (inner.y0, inner.y1))


class _Planner:
    """Places things by rejection sampling: a box that breaks a rule is drawn again."""

    def __init__(self, rng: np.random.Generator, held_out: frozenset[tuple[str, str]]) -> None:
        """Draw the picture's size and its number of things; `held_out` looks are avoided."""
        self.rng, self.held_out = rng, held_out
        self.width, self.height = _frame(rng)
        self.short = min(self.width, self.height)
        self.things: list[Thing] = []
        self.ropes: list[Rope] = []
        self.count = int(rng.choice(6, p=(0.1, 0.2, 0.24, 0.2, 0.14, 0.12))) + 1

    def plan(self) -> None:
        """Place groups first, since they need more room, then single things."""
        if self.count >= 2 and self.rng.random() < 0.25:
            self._ring_with_occupant()
        while self.count - len(self.things) >= 2 and len(self.ropes) < 2 and self.rng.random() < 0.45:
            if not self._tied_pair():
                break
        tries = 0
        while len(self.things) < self.count and tries < _TRIES:
            tries += self._place(self._kind()) is None

    def _kind(self) -> str:
        """A random kind."""
        return str(self.rng.choice(shapes.KINDS))

    def _size(self, kind: str) -> str:
        """A random size; the more things, the smaller."""
        names = tuple(SIZES)
        size = names[int(self.rng.choice(3, p=_SIZES_OF_COUNT[min(self.count, 4)]))]
        return "medium" if kind == "ring" and size == "small" else size

    def _ring_with_occupant(self) -> None:
        """Place a large ring, and a small thing in its hole."""
        ring = self._place("ring", "large")
        if ring is not None:
            kind = str(self.rng.choice([k for k in shapes.KINDS if k != "ring"]))
            self._place(kind, "small", ring=ring)

    def _tied_pair(self) -> bool:
        """Place a thing and its anchor with a rope; return whether both found a place."""
        tied = self._place(str(self.rng.choice(TIED)))
        if tied is None:
            return False
        anchor = self._place(str(self.rng.choice(ANCHORS)), near=tied)
        if anchor is not None:
            self.ropes.append(Rope(tied.id, anchor.id))
        return anchor is not None

    def _place(
        self, kind: str, size: str | None = None, *, ring: Thing | None = None, near: Thing | None = None
    ) -> Thing | None:
        """Add a thing at a place that satisfies the rules; None if no such place was found.

        Args:
            ring: place it in this ring's hole.
            near: place it at a rope's length from this thing.
        """
        size = size or self._size(kind)
        colours = [c for c in shapes.COLOURS if (c, kind) not in self.held_out]
        colour = str(self.rng.choice(colours))
        side = SIZES[size] * self.short * self.rng.uniform(0.96, 1.04)
        w, h = side * shapes.ASPECTS[kind] ** 0.5, side / shapes.ASPECTS[kind] ** 0.5
        if ring is not None:
            shrink = min(1.0, 0.98 * shapes.RING_HOLE * (ring.box.x1 - ring.box.x0) / np.hypot(w, h))
            w, h = w * shrink, h * shrink
        if w > self.width - 4 or h > self.height - 4:
            return None
        for _ in range(_TRIES):
            box = self._draw_box(round(w), round(h), ring)
            if self._allowed(box, kind, ring, near):
                break
        else:
            return None
        thing = Thing(
            id=len(self.things),
            kind=kind,
            colour=colour,
            texture=str(self.rng.choice(shapes.TEXTURES, p=(0.6, 0.4))),
            size=size,
            door=bool(kind == "house" and self.rng.random() < 0.5),
            box=box,
            mirrored=bool(self.rng.random() < 0.5),
            slant=int(self.rng.integers(-1, 2)),
        )
        self.things.append(thing)
        return thing

    def _draw_box(self, w: int, h: int, ring: Thing | None) -> Box:
        """A random box of `w` x `h` pixels, or the one in the middle of `ring`."""
        if ring is not None:
            x, y = round(ring.centre[0] - w / 2), round(ring.centre[1] - h / 2)
        else:
            x = int(self.rng.integers(2, self.width - w - 1))
            y = int(self.rng.integers(2, self.height - h - 1))
        return Box(float(x), float(y), float(x + w), float(y + h))

    def _allowed(self, box: Box, kind: str, ring: Thing | None, near: Thing | None) -> bool:
        """True if a thing of `kind` may stand in `box`."""
        for other in self.things:
            if other is ring:
                continue
            dx = abs(box.x0 + box.x1 - other.box.x0 - other.box.x1) / 2 / self.width
            dy = abs(box.y0 + box.y1 - other.box.y0 - other.box.y1) / 2 / self.height
            if SAME < dx < APART or SAME < dy < APART:
                return False
            shared = _overlap(box, other.box)
            if shared > 0 and (kind == "ring" or other.kind in ("ring", "house")):
                return False
            if shared > 0.2 * min(box.area, other.box.area):
                return False
        if near is None:
            return True
        gap = np.hypot(
            max(0.0, near.box.x0 - box.x1, box.x0 - near.box.x1),
            max(0.0, near.box.y0 - box.y1, box.y0 - near.box.y1),
        )
        return bool(0.12 * self.short <= gap <= 0.5 * self.short)


def _frame(rng: np.random.Generator) -> tuple[int, int]:
    """Random width and height, 112 to 320 pixels each; a quarter of the pictures are square."""
    long = int(rng.integers(140, 321))
    if rng.random() < 0.25:
        return long, long
    short = int(rng.integers(max(112, round(0.68 * long)), long + 1))
    return (long, short) if rng.random() < 0.6 else (short, long)


def _overlap(a: Box, b: Box) -> float:
    """Area that two boxes share, pixels."""
    return max(0.0, min(a.x1, b.x1) - max(a.x0, b.x0)) * max(0.0, min(a.y1, b.y1) - max(a.y0, b.y0))


def _background(rng: np.random.Generator, width: int, height: int) -> FloatArray:
    """(height, width, 3) float32: a muted gradient, pale blurred clutter and coarse noise."""
    # All of it is blurred, so half the resolution is enough.
    w, h = width // 2, height // 2
    near, far = (rng.uniform(112, 176) + rng.uniform(-16, 16, 3) for _ in range(2))
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * np.linspace(0, 1, w) + np.sin(angle) * np.linspace(0, 1, h)[:, None]
    slope = (slope - slope.min()) / np.ptp(slope)
    clutter = Image.fromarray((near + slope[..., None] * (far - near)).astype(np.uint8))
    draw = ImageDraw.Draw(clutter)
    for _ in range(int(rng.integers(0, 9))):
        x, y = rng.uniform(0, w), rng.uniform(0, h)
        rx, ry = rng.uniform(0.04, 0.2, 2) * min(w, h)
        tone = tuple(int(v) for v in rng.uniform(100, 188) + rng.uniform(-12, 12, 3))
        draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=tone)
    clutter = clutter.filter(ImageFilter.GaussianBlur(0.02 * min(w, h)))
    clutter = clutter.resize((width, height), Image.Resampling.BILINEAR)
    coarse = Image.fromarray(5 * rng.standard_normal((height // 8 + 1, width // 8 + 1), dtype=np.float32))
    noise = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))
    return np.asarray(np.asarray(clutter) + noise[..., None], dtype=np.float32)


def _rope_coverage(tied: Thing, anchor: Thing, width: int, height: int) -> FloatArray:
    """(height, width, 2) float32 0..1: coverage of the rope's dark edge and of its bright core."""
    (ax, ay), (bx, by) = tied.centre, anchor.centre
    t = np.linspace(0, 1, 24)
    sag = 0.06 * np.hypot(bx - ax, by - ay)
    line = [(2 * (ax + (bx - ax) * u), 2 * (ay + (by - ay) * u + 4 * sag * u * (1 - u))) for u in t]
    thick = max(4, round(0.032 * min(width, height)))
    coverage = []
    for extra in (4, 0):
        layer = Image.new("L", (2 * width, 2 * height), 0)
        ImageDraw.Draw(layer).line(line, fill=255, width=thick + extra, joint="curve")
        coverage.append(np.asarray(layer.reduce(2), dtype=np.float32) / 255)
    return np.stack(coverage, axis=-1)


def _is_clear(coverage: FloatArray, owner: NDArray[np.int8], rope: Rope) -> bool:
    """True if only its two things hide the rope and enough of it is visible."""
    under = owner[coverage[..., 1] >= 0.5]
    third = (under != -1) & (under != rope.tied) & (under != rope.anchor)
    return not third.any() and int((under == -1).sum()) >= 0.0015 * min(owner.shape) ** 2


def _paint_rope(canvas: FloatArray, coverage: FloatArray) -> FloatArray:
    """The canvas with a rope of that `coverage` on it."""
    edge, core = coverage[..., :1], coverage[..., 1:]
    canvas = canvas + edge * (np.float32(40) - canvas)
    return np.asarray(
        canvas + core * (np.asarray((250, 226, 170), dtype=np.float32) - canvas), dtype=np.float32
    )
