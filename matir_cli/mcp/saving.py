"""Masks and cut-outs for a client, written into the folder that was named at the start."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from matir_cli.gallery.database import GalleryFile
from matir_cli.mcp.folder import WriteFolder
from matir_cli.mcp.records import SavedFile, SavedObjects, path_text
from matir_cli.search.results import SearchResult
from matir_cli.server.exports import picture_files


def save_objects(
    gallery: GalleryFile,
    folder: WriteFolder,
    form: str,
    results: Sequence[SearchResult],
    check: Callable[[], object],
) -> SavedObjects:
    """Write the masks or cut-outs of results into a new folder in `folder`.

    They are made elsewhere and copied: what makes them follows links.

    Args:
        form: "masks" or "cutouts".
        check: called before each photo; may raise to end the writing.

    Raises:
        OutputError: a file cannot be written; those before it are kept.
    """
    files, without = [], []
    with tempfile.TemporaryDirectory(prefix="matir-") as place, folder.batch(form) as batch:
        for result, file in picture_files(gallery, form, results, Path(place)):
            check()
            if file is None:
                without.append(result.photo.id)
            else:
                batch.take(file)
                files.append(SavedFile(file.name, result.rank, result.photo.id))
    return SavedObjects(path_text(batch.path), files, without)
