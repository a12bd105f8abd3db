"""`matir info`: a gallery's counts, disk usage, models and judges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import apsw

from matir_cli.gallery import schema
from matir_cli.gallery.database import GalleryFile

PREVIEWS = "previews"

FREE = "free"

OTHER = "other"

_SPENT_ON = {
    "regions": "masks",
    "vectors": "vectors",
    "blocks": "index",
    "loose": "index",
    "photos": "files",
    "files": "files",
    "skipped": "files",
    "questions": "answers",
    "verdicts": "answers",
    "groundings": "answers",
}
"""Table to the use that its space is counted for; a table's indexes count with it."""

_COUNTS = {
    "photos": "select count(*) from photos",
    "files": "select count(*) from files",
    "skipped": "select count(*) from skipped",
    "regions": "select count(*) from regions where ordinal > 0",
    "previews": "select count(*) from previews",
}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that the gallery is bound to."""

    role: str
    name: str
    weight_hash: str
    """SHA-256 over the SHA-256 of its files, hex."""
    model_set: str


@dataclass(frozen=True, slots=True)
class JudgeInfo:
    """Number of cached answers of one judge."""

    judge: str
    """Identity of the judge: SHA-256 of its weights and settings, hex."""
    queries: int
    verdicts: int
    groundings: int


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """Counts, disk usage, models and judges of a gallery."""

    path: Path
    bytes: int
    """Size of the file."""
    schema: int
    """Version of the schema."""
    photos: int
    files: int
    """Number of files that hold photos; several may hold the same one."""
    skipped: int
    """Number of files that could not be indexed."""
    regions: int
    """Number of proposed regions; whole photos are not counted."""
    previews: int
    models: tuple[ModelInfo, ...]
    judges: tuple[JudgeInfo, ...]
    space: dict[str, int]
    """Bytes by use, in descending order; their sum is the size of the file.

    Uses: previews; masks (and boxes); vectors; index (of the search); files (names, and records of
    photos); answers (of judges); free (unused pages); other.
    """


def gallery_info(gallery: GalleryFile) -> GalleryInfo:
    """Collect the numbers of a gallery; previews, most of its size, are not read."""
    db = gallery.connection
    with db:  # one transaction, so that the numbers agree
        size = gallery.file_bytes
        counts = {name: _integer(db, select) for name, select in _COUNTS.items()}
        models = db.execute("select role, name, weight_hash, model_set from models order by role").fetchall()
        judges, space = _judges(db), _space(gallery)
    return GalleryInfo(
        **counts,
        path=gallery.path,
        bytes=size,
        schema=schema.version_of(db),
        models=tuple(ModelInfo(*map(str, row)) for row in models),
        judges=judges,
        space=space,
    )


def _judges(db: apsw.Connection) -> tuple[JudgeInfo, ...]:
    """Count the cached answers by judge."""
    rows = db.execute(
        "select judge, count(*), "
        "sum((select count(*) from verdicts where question_id = questions.id)), "
        "sum((select count(*) from groundings where question_id = questions.id)) "
        "from questions group by judge order by judge"
    )
    return tuple(JudgeInfo(str(row[0]), *(int(count) for count in row[1:])) for row in rows)


def _space(gallery: GalleryFile) -> dict[str, int]:
    """Add up the space of tables and indexes by use; previews take what remains of the file."""
    db = gallery.connection
    spent = {FREE: gallery.free_bytes}
    for name, table in db.execute("select name, tbl_name from sqlite_schema where rootpage > 0").fetchall():
        if table == "previews":
            continue  # measuring this table would read all of its pages
        size = _integer(db, "select pgsize from dbstat where aggregate = 1 and name = ?", str(name))
        use = _SPENT_ON.get(str(table), OTHER)
        spent[use] = spent.get(use, 0) + size
    spent[OTHER] = spent.get(OTHER, 0) + _integer(
        db, "select pgsize from dbstat where aggregate = 1 and name = 'sqlite_schema'"
    )
    spent[PREVIEWS] = gallery.file_bytes - sum(spent.values())
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def _integer(db: apsw.Connection, select: str, *bindings: str) -> int:
    """Run a query that gives one integer."""
    return int(db.execute(select, bindings).get)
