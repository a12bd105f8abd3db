"""Results as COCO instances: one JSON file that COCO's tools load, draw and score."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from matir_cli.atomic_write import atomic_write
from matir_cli.gallery.coco_annotation import coco_annotation
from matir_cli.output.result_pixels import ResultPixels


class CocoFile:
    """Writes annotations as they come; of the photos it remembers name and size until the end."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._images: dict[int, dict[str, object]] = {}
        self._queries: list[str] = []
        self._annotations = 0

    def begin(self, query: str) -> None:
        """What is added from now on answers `query`: the next category, whose id counts from 1."""
        self._queries.append(query)

    def add(self, subject: ResultPixels) -> None:
        """Add a photo and its masked answers; a photo without any mask is left out."""
        found = subject.found
        for _, rle in subject.masked:
            self._annotations += 1
            annotation = coco_annotation(
                found.photo, rle, annotation_id=self._annotations, category_id=len(self._queries)
            )
            self._write(annotation | {"score": round(found.score, 6)}, first=self._annotations == 1)
        if subject.masked:
            size = found.photo.record
            self._images[found.photo.id] = {
                "id": found.photo.id,
                "file_name": str(found.path),
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
            {"id": number, "name": query, "supercategory": ""}
            for number, query in enumerate(self._queries, start=1)
        ]
        self._stream.write(f'\n],\n"categories": {json.dumps(categories)}}}\n')


@contextmanager
def coco_file(path: Path, *, force: bool) -> Iterator[CocoFile]:
    """A COCO instances file: masks as compressed RLE at true size, boxes XYWH and tight around them.

    `file_name` is the absolute path, its bytes as `os.fsdecode` has them; each query is a
    category. All is ASCII. Each annotation has the photo's `score` as well.

    Raises:
        OutputExists, OutputError: see `replacing`.
    """
    with atomic_write(path, force=force) as temporary, temporary.open("w", encoding="ascii") as stream:
        file = CocoFile(stream)
        file._start()
        yield file
        file._end()
