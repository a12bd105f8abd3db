"""Results as a data set for YOLO segmentation: a label file a photo, the photos, and `data.yaml`.

    DIR/data.yaml             the class names, and where the list of images lies
    DIR/train.txt             the images of this export, one a line
    DIR/images/NAME.jpg       the photo at working size, upright, as the gallery has it
    DIR/labels/NAME.txt       a line an object: class, then x and y of each corner, 0..1
    DIR/sources.jsonl         which file each image was made from

The format is that of Ultralytics' segmentation data sets: an object is one polygon. Parts of an
object are joined by lines that enclose nothing, and holes are filled: the format cannot say them.
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

    def __init__(self, folder: Path, images: IO[str], sources: IO[str], *, force: bool) -> None:
        self._folder = folder
        self._images = images
        self._sources = sources
        self._force = force
        self._stems: set[str] = set()
        self.queries: list[str] = []

    def begin(self, query: str) -> None:
        """What is added from now on answers `query`: the next class, which count from 0."""
        self.queries.append(query)

    def add(self, subject: ResultPixels) -> None:
        """Add a photo and its masked answers; one without any mask, or without pixels, is left out."""
        number = len(self.queries) - 1
        lines = [f"{number} {outline}\n" for _, rle in subject.masked if (outline := _outline(rle))]
        # Named by the photo alone: another export into the same folder may label it otherwise.
        stem = subject.file_stem()
        if lines and stem in self._stems:  # it answers another query of this export, too
            with (self._folder / f"labels/{stem}.txt").open("a") as labels:
                labels.writelines(lines)
            return
        picture = subject.jpeg() if lines else None
        if picture is None:
            return
        self._stems.add(stem)
        image = f"images/{stem}.jpg"
        with atomic_write(self._folder / image, force=self._force) as temporary:
            temporary.write_bytes(picture)
        with atomic_write(self._folder / f"labels/{stem}.txt", force=self._force) as temporary:
            temporary.write_text("".join(lines))
        self._images.write(f"./{image}\n")
        self._sources.write(json.dumps({"image": image, "path": str(subject.found.path)}) + "\n")


@contextmanager
def yolo_folder(folder: Path, *, force: bool) -> Iterator[YoloFolder]:
    """A YOLO segmentation data set; each query is a class.

    Raises:
        OutputExists, OutputError: see `replacing`.
    """
    with ExitStack() as stack:
        config, images, sources = (
            stack.enter_context(atomic_write(folder / name, force=force))
            for name in (CONFIG, "train.txt", "sources.jsonl")
        )
        listed = stack.enter_context(images.open("w", encoding="utf-8"))
        told = stack.enter_context(sources.open("w", encoding="ascii"))
        data_set = YoloFolder(folder, listed, told, force=force)
        yield data_set
        about = {"train": "train.txt", "val": "train.txt", "names": dict(enumerate(data_set.queries))}
        config.write_text(yaml.safe_dump(about, sort_keys=False), encoding="ascii")


def _outline(rle: Rle) -> str:
    """The corners of an object; empty for an empty mask."""
    parts = outlines(masks.decode(rle))
    if not parts:
        return ""
    corners = merged(parts) / (rle.width, rle.height)
    return " ".join(f"{value:.6g}" for value in np.clip(corners, 0, 1).ravel())
