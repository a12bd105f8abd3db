"""Exports of selected results: masks or cut-outs as ZIP, COCO, paths."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from matir_cli.errors import OutputError
from matir_cli.gallery.database import GalleryFile
from matir_cli.output.coco import coco_file
from matir_cli.output.cutouts import Cutouts
from matir_cli.output.mask_files import write_masks
from matir_cli.output.picture_folder import PictureFolder
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.search.results import SearchResult
from matir_cli.server.searches import MOST_RESULTS

LARGEST_EXPORT = 2 << 30
"""Bytes of an export's files at most."""

MEDIA_TYPES = {
    "masks": "application/zip",
    "cutouts": "application/zip",
    "coco": "application/json",
    "paths": "text/plain",
}
"""Form of an export to the media type of its file."""

FILE_NAMES = {"masks": "masks.zip", "cutouts": "cutouts.zip", "coco": "coco.json", "paths": "paths.txt"}
"""Form of an export to the name of its file."""


class ExportBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to export."""

    search: str
    """Id of a search."""
    form: Literal["masks", "cutouts", "coco", "paths"]
    further: Annotated[list[str], Meta(max_length=8)] = []
    """Ids of searches that found those of `photos` that it has not found."""
    photos: Annotated[list[int], Meta(max_length=MOST_RESULTS)] | None = None
    """Ids of the photos to export; None: the final results of the search."""


def selected(results: Iterable[SearchResult], photos: Iterable[int]) -> list[SearchResult]:
    """Return the first result of each selected photo, in the order of the results."""
    left = set(photos)
    found = []
    for result in results:
        if result.photo.id in left:
            left.remove(result.photo.id)
            found.append(result)
    return found


def write_export(
    gallery: GalleryFile, form: str, name: str, results: Sequence[SearchResult], folder: Path
) -> Path:
    """Write an export into `folder`, which is empty; return its file.

    Args:
        form: a key of `MEDIA_TYPES`.
        name: name of the COCO category.

    Raises:
        OutputError: it cannot be written, or would be larger than `LARGEST_EXPORT`.
    """
    target = folder / FILE_NAMES[form]
    if form == "paths":
        target.write_bytes(b"".join(os.fsencode(result.path) + b"\n" for result in results))
    elif form == "coco":
        with coco_file(target, force=False) as coco:
            coco.begin(name)
            for result in results:
                coco.add(ResultPixels(gallery, result, all_instances=False))
    else:
        _write_pictures(gallery, form, results, folder, target)
    return target


def picture_files(
    gallery: GalleryFile, form: str, results: Iterable[SearchResult], folder: Path
) -> Iterator[tuple[SearchResult, Path | None]]:
    """Write masks or cut-outs one at a time into `folder`; each is deleted when the next is asked for.

    Args:
        form: "masks" or "cutouts".

    Yields:
        Each result with its file; None if it has no mask, or no pixels.

    Raises:
        OutputError: a file cannot be written, or all together would be larger than `LARGEST_EXPORT`.
    """
    pictures = PictureFolder(folder, force=True)
    cutouts = Cutouts(pictures)
    written = 0
    for result in results:
        pixels = ResultPixels(gallery, result, all_instances=False)
        files = write_masks(pictures, pixels) if form == "masks" else cutouts.write(pixels)
        file = files[0] if files else None
        if file is None:
            yield result, None
            continue
        written += file.stat().st_size
        if written > LARGEST_EXPORT:
            raise OutputError(Path(file.name), "all together are too large; select fewer photos")
        yield result, file
        file.unlink()


def _write_pictures(
    gallery: GalleryFile, form: str, results: Sequence[SearchResult], folder: Path, target: Path
) -> None:
    """Write masks or cut-outs into a ZIP file; PNG files do not get smaller in it."""
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as archive:
        for _, file in picture_files(gallery, form, results, folder / "pictures"):
            if file is not None:
                archive.write(file, file.name)
