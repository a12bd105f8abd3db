"""Results as a data set for YOLO segmentation: photos, label files and `data.yaml`.

    DIR/data.yaml             class names, and the path of the list of images
    DIR/train.txt             images of this export, one per line; with a split, those to train with
    DIR/val.txt               with a split, those to validate with
    DIR/images/NAME.jpg       photo at working size, upright: the gallery's preview if there is one
    DIR/labels/NAME.txt       one line per object: class, then x and y of each corner, 0..1; empty for a
                              background image, which shows no class
    DIR/sources.jsonl         path of the file from which each image was made

The format is that of Ultralytics' segmentation data sets, in which an object is one polygon. Parts of an
object are joined by lines that enclose no area, and holes are filled, since the format has neither.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import yaml

from matir_cli import masks
from matir_cli.atomic_write import atomic_write
from matir_cli.output.outlines import merged, outlines
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.records import Rle

CONFIG = "data.yaml"


class YoloFolder:
    """Writes labels and images as they come."""

    def __init__(self, folder: Path, sources: IO[str], *, force: bool) -> None:
        self._folder = folder
        self._images: dict[str, int] = {}  # photo of each
        self._val = set[int]()
        self._sources = sources
        self._force = force
        self._stems: set[str] = set()
        self._seen: set[tuple[int, str]] = set()  # class and photo
        self._class = 0
        self._queries: dict[str, int] = {}  # class of each

    def begin(self, query: str) -> None:
        """Start or continue the class of `query`, for all results added now; classes count from 0."""
        self._class = self._queries.setdefault(query, len(self._queries))

    @property
    def names(self) -> dict[int, str]:
        """The query of each class."""
        return {number: query for query, number in self._queries.items()}

    @property
    def photo_ids(self) -> set[int]:
        """The photos in it."""
        return {*self._images.values()}

    def split(self, val: set[int]) -> None:
        """Keep these photos for validation."""
        self._val = val

    def image_list(self, *, val: bool) -> str:
        """Return the images of a side, one per line."""
        return "".join(f"./{image}\n" for image, photo in self._images.items() if (photo in self._val) == val)

    def add(self, pixels: ResultPixels) -> None:
        """Add a photo and its objects that have a mask; a photo without masks or pixels is left out.

        A photo that its class has already is left out as well: the query was given twice.
        """
        # Named after the photo alone: another export into the same folder may label it differently.
        stem = pixels.file_stem()
        if (self._class, stem) in self._seen:
            return
        outlined = (_outline(rle) for _, rle in pixels.masked_objects)
        lines = [f"{self._class} {outline}\n" for outline in outlined if outline]
        if lines:
            self._seen.add((self._class, stem))
        if lines and stem in self._stems:  # the photo also answers another query of this export
            with (self._folder / f"labels/{stem}.txt").open("a") as labels:
                labels.writelines(lines)
            return
        if lines:
            self._add_image(pixels, lines)

    def add_background(self, pixels: ResultPixels) -> None:
        """Add a photo that shows no class; one without pixels is left out."""
        self._add_image(pixels, [])

    def _add_image(self, pixels: ResultPixels, lines: list[str]) -> None:
        picture = pixels.jpeg()
        if picture is None:
            return
        stem = pixels.file_stem()
        self._stems.add(stem)
        image = f"images/{stem}.jpg"
        with atomic_write(self._folder / image, force=self._force) as temporary:
            temporary.write_bytes(picture)
        with atomic_write(self._folder / f"labels/{stem}.txt", force=self._force) as temporary:
            temporary.write_text("".join(lines))
        self._images[image] = pixels.result.photo.id
        self._sources.write(json.dumps({"image": image, "path": str(pixels.result.path)}) + "\n")


@contextmanager
def yolo_folder(folder: Path, *, force: bool, has_val: bool = False) -> Iterator[YoloFolder]:
    """Open a YOLO segmentation data set for writing, and complete it when the block ends.

    Each query is a class.

    Args:
        has_val: write the images that `YoloFolder.split` chooses to a list of their own.

    Raises:
        OutputExists, OutputError: see `atomic_write`.
    """
    with ExitStack() as stack:
        val_names = ("val.txt",) if has_val else ()
        config, sources, train, *val = (
            stack.enter_context(atomic_write(folder / name, force=force))
            for name in (CONFIG, "sources.jsonl", "train.txt", *val_names)
        )
        source_list = stack.enter_context(sources.open("w", encoding="ascii"))
        data_set = YoloFolder(folder, source_list, force=force)
        yield data_set
        train.write_text(data_set.image_list(val=False), encoding="utf-8")
        for path in val:
            path.write_text(data_set.image_list(val=True), encoding="utf-8")
        side = "val.txt" if has_val else "train.txt"
        config_data = {"train": "train.txt", "val": side, "names": data_set.names}
        config.write_text(yaml.safe_dump(config_data, sort_keys=False), encoding="ascii")


def _outline(rle: Rle) -> str:
    """Return the corners of an object as text; empty for an empty mask."""
    parts = outlines(masks.decode(rle))
    if not parts:
        return ""
    corners = merged(parts) / (rle.width, rle.height)
    return " ".join(f"{value:.6g}" for value in np.clip(corners, 0, 1).ravel())
