"""Results as COCO instances: one JSON file that COCO's tools load, draw and score."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from matir_cli import masks
from matir_cli.output.subject import Subject
from matir_cli.replacing import replacing

CATEGORY = 1
"""The id of the only category: the query."""


class CocoFile:
    """Writes annotations as they come; of the photos it remembers name and size until the end."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._images: list[dict[str, object]] = []
        self._annotations = 0

    def add(self, subject: Subject) -> None:
        """Add a photo and its masked answers; a photo without any mask is left out."""
        found = subject.found
        for _, rle in subject.masked:
            self._annotations += 1
            mask = masks.encode(found.photo.at_true_size(rle))
            box = masks.box(mask)
            self._write(
                {
                    "id": self._annotations,
                    "image_id": found.photo.id,
                    "category_id": CATEGORY,
                    "segmentation": {
                        "size": [mask.height, mask.width],
                        "counts": mask.counts.decode("ascii"),
                    },
                    "bbox": [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0],
                    "area": masks.area(mask),
                    "iscrowd": 0,
                    "score": round(found.score, 6),
                },
                first=self._annotations == 1,
            )
        if subject.masked:
            size = found.photo.record
            self._images.append(
                {
                    "id": found.photo.id,
                    "file_name": str(found.path),
                    "width": size.width,
                    "height": size.height,
                }
            )

    def _write(self, item: dict[str, object], *, first: bool) -> None:
        self._stream.write(f"{'' if first else ','}\n{json.dumps(item)}")

    def _start(self, query: str) -> None:
        about = json.dumps({"description": f"matir find: {query}"})
        categories = json.dumps([{"id": CATEGORY, "name": query, "supercategory": ""}])
        self._stream.write(f'{{"info": {about},\n"licenses": [],\n"categories": {categories},\n')
        self._stream.write('"annotations": [')

    def _end(self) -> None:
        self._stream.write('\n],\n"images": [')
        for number, image in enumerate(self._images):
            self._write(image, first=number == 0)
        self._stream.write("\n]}\n")


@contextmanager
def coco_file(path: Path, query: str, *, force: bool) -> Iterator[CocoFile]:
    """A COCO instances file: masks as compressed RLE at true size, boxes XYWH and tight around them.

    `file_name` is the absolute path, its bytes as `os.fsdecode` has them; the query is the one
    category. All is ASCII. Each annotation has the photo's `score` as well.

    Raises:
        OutputExists, OutputError: see `replacing`.
    """
    with replacing(path, force=force) as temporary, temporary.open("w", encoding="ascii") as stream:
        file = CocoFile(stream)
        file._start(query)
        yield file
        file._end()
