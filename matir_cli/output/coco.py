"""Results as COCO instances: one JSON file for pycocotools and other COCO tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from matir_cli.atomic_write import open_text
from matir_cli.gallery.coco_annotation import coco_annotation
from matir_cli.output.result_pixels import ResultPixels


class CocoFile:
    """Writes annotations as they come; only the photos' names and sizes are held until the end."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._images: dict[int, dict[str, object]] = {}
        self._queries: dict[str, int] = {}  # category of each
        self._category = 0
        self._seen: set[tuple[int, int]] = set()  # category and photo
        self._annotations = 0

    def begin(self, query: str) -> None:
        """Start or continue the category of `query`, for all results added now; ids count from 1."""
        self._category = self._queries.setdefault(query, len(self._queries) + 1)

    def add(self, pixels: ResultPixels) -> None:
        """Add a photo and its objects that have a mask; a photo without any mask is left out.

        A photo that its category has already is left out as well: the query was given twice.
        """
        result = pixels.result
        if not pixels.masked_objects or (self._category, result.photo.id) in self._seen:
            return
        self._seen.add((self._category, result.photo.id))
        for _, rle in pixels.masked_objects:
            self._annotations += 1
            annotation = coco_annotation(
                result.photo, rle, annotation_id=self._annotations, category_id=self._category
            )
            self._write(annotation | {"score": round(result.score, 6)}, first=self._annotations == 1)
        size = result.photo.record
        self._images[result.photo.id] = {
            "id": result.photo.id,
            "file_name": str(result.path),
            "width": size.width,
            "height": size.height,
        }

    def _write(self, item: dict[str, object], *, first: bool) -> None:
        self._stream.write(f"{'' if first else ','}\n{json.dumps(item)}")

    def _start(self) -> None:
        about = json.dumps({"description": "matir find"})
        self._stream.write(f'{{"info": {about},\n"licenses": [],\n"annotations": [')

    def _end(self) -> None:
        self._stream.write('\n],\n"images": [')
        for number, image in enumerate(self._images.values()):
            self._write(image, first=number == 0)
        categories = [
            {"id": number, "name": query, "supercategory": ""} for query, number in self._queries.items()
        ]
        self._stream.write(f'\n],\n"categories": {json.dumps(categories)}}}\n')


@contextmanager
def coco_file(path: Path, *, force: bool) -> Iterator[CocoFile]:
    """Open a COCO instances file for writing, and complete it when the block ends.

    Masks are compressed RLE at the photo's true size; boxes are XYWH in photo pixels, tight around the
    masks. `file_name` is the absolute path as `os.fsdecode` returns it. Each query is a category. Each
    annotation also has the photo's `score`. The file is ASCII.

    Raises:
        OutputExists, OutputError: see `open_text`.
    """
    with open_text(path, force=force) as stream:
        file = CocoFile(stream)
        file._start()
        yield file
        file._end()
