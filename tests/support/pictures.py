"""Pictures made for tests."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tests.support.fakes import COLOURS


def scene(*colours: str, size: tuple[int, int] = (120, 90), seed: int = 0) -> Image.Image:
    """Grey noise with one square per colour, side by side from the left; it differs for every seed."""
    noise = np.random.default_rng(seed).integers(100, 140, (size[1], size[0], 1), dtype=np.uint8)
    picture = Image.fromarray(np.repeat(noise, 3, axis=2))
    draw = ImageDraw.Draw(picture)
    for place, colour in enumerate(colours):
        left = 10 + place * 35
        draw.rectangle((left, 20, left + 24, 44), fill=COLOURS[colour])
    return picture


def save_scenes(folder: Path, **scenes: str) -> list[Path]:
    """Write one PNG per keyword, which gives its name and its colours, separated by spaces."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed, (name, colours) in enumerate(scenes.items()):
        path = folder / f"{name}.png"
        scene(*colours.split(), seed=seed).save(path)
        paths.append(path)
    return paths
