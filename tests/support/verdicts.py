"""Verdicts in a gallery."""

from pathlib import Path

from matir_cli.gallery.database import GalleryFile


def count_verdicts(gallery: Path, query: str) -> int:
    """The number of verdicts on a query."""
    with GalleryFile.open(gallery) as opened:
        select = "select count(*) from verdicts join questions on id = question_id where query = ?"
        return int(opened.connection.execute(select, (query,)).get)
