"""Results as COCO instances: one JSON file for pycocotools and other COCO tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
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

    @property
    def photo_ids(self) -> set[int]:
        """The photos in it."""
        return {*self._images}

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
        self.add_background(pixels)

    def add_background(self, pixels: ResultPixels) -> None:
        """Add a photo, without annotations."""
        result = pixels.result
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

    def copy_part(self, target: IO[str], photos: set[int]) -> None:
        """Write a file with the annotations so far of some photos to `target`; ids stay as they are."""
        part = CocoFile(target)
        part._start()
        self._stream.seek(0)
        for line in self._stream:
            text = line.strip().rstrip(",")
            if text and (annotation := json.loads(text))["image_id"] in photos:
                part._annotations += 1
                part._write(annotation, first=part._annotations == 1)
        part._images = {number: image for number, image in self._images.items() if number in photos}
        part._queries = self._queries
        part._end()

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


SPLIT_NAMES = {"train": "instances_train.json", "val": "instances_val.json"}
"""Names of the files of a split, by side."""


class SplitCoco(CocoFile):
    """COCO instances whose photos are divided into two files at the end."""

    val: frozenset[int] = frozenset()
    """The photos to validate with."""

    def split(self, val: set[int]) -> None:
        """Keep these photos for validation."""
        self.val = frozenset(val)


@contextmanager
def split_coco_files(folder: Path, *, force: bool) -> Iterator[SplitCoco]:
    """Open the two COCO instances files of a split for writing, and complete them when the block ends.

    They are as `coco_file` writes them; both have all categories.

    Raises:
        OutputExists, OutputError: see `open_text`.
    """
    with ExitStack() as stack:
        files = {
            side: stack.enter_context(open_text(folder / name, force=force))
            for side, name in SPLIT_NAMES.items()
        }
        # Annotations wait on disk until it is known which photos are near-copies of each other.
        file = SplitCoco(stack.enter_context(TemporaryFile("w+", encoding="ascii")))
        yield file
        file.copy_part(files["train"], file.photo_ids - file.val)
        file.copy_part(files["val"], file.photo_ids & file.val)
