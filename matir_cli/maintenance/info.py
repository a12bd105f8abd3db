"""`matir info`: what a gallery holds, what its size is spent on and what it was made with."""

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
"""Table to what it is for; a table's indexes count with it."""

_COUNTS = {
    "bytes": "select page_size * page_count from pragma_page_size, pragma_page_count",
    "photos": "select count(*) from photos",
    "files": "select count(*) from files",
    "skipped": "select count(*) from skipped",
    "regions": "select count(*) from regions where ordinal > 0",
    "previews": "select count(*) from previews",
}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that the photos were indexed with."""

    role: str
    name: str
    weight_hash: str
    """SHA-256 over the SHA-256 of its files, hex."""
    model_set: str


@dataclass(frozen=True, slots=True)
class JudgeInfo:
    """What is remembered of one judge."""

    judge: str
    """SHA-256 of its weights and settings, hex."""
    queries: int
    verdicts: int
    groundings: int


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """A gallery in numbers."""

    path: Path
    bytes: int
    """Of the file."""
    schema: int
    photos: int
    files: int
    """That hold photos; several may hold the same one."""
    skipped: int
    """Files that could not be indexed."""
    regions: int
    """That proposers found; the whole photos are not counted."""
    previews: int
    models: tuple[ModelInfo, ...]
    judges: tuple[JudgeInfo, ...]
    space: dict[str, int]
    """Bytes by what they are spent on, the most first; together they are the file.

    previews; masks (and boxes); vectors; index (for a quick search); files (their names, and what is
    known of photos); answers (of judges); free (pages to be used again); other.
    """


def gallery_info(gallery: GalleryFile) -> GalleryInfo:
    """Count what is there. Previews, the bulk of a gallery, are not read for it."""
    db = gallery.connection
    with db:  # one state of the file for all that is read
        counts = {name: _integer(db, select) for name, select in _COUNTS.items()}
        models = db.execute("select role, name, weight_hash, model_set from models order by role").fetchall()
        judges, space = _judges(db), _space(db)
    return GalleryInfo(
        **counts,
        path=gallery.path,
        schema=schema.version_of(db),
        models=tuple(ModelInfo(*map(str, row)) for row in models),
        judges=judges,
        space=space,
    )


def _judges(db: apsw.Connection) -> tuple[JudgeInfo, ...]:
    rows = db.execute(
        "select judge, count(*), "
        "sum((select count(*) from verdicts where question_id = questions.id)), "
        "sum((select count(*) from groundings where question_id = questions.id)) "
        "from questions group by judge order by judge"
    )
    return tuple(JudgeInfo(str(row[0]), *(int(count) for count in row[1:])) for row in rows)


def _space(db: apsw.Connection) -> dict[str, int]:
    page_size = _integer(db, "select page_size from pragma_page_size")
    spent = {FREE: page_size * _integer(db, "select freelist_count from pragma_freelist_count")}
    total = page_size * _integer(db, "select page_count from pragma_page_count")
    for name, table in db.execute("select name, tbl_name from sqlite_schema where rootpage > 0").fetchall():
        if table == "previews":
            continue  # measuring them would read every page they have
        size = _integer(db, "select pgsize from dbstat where aggregate = 1 and name = ?", str(name))
        word = _SPENT_ON.get(str(table), OTHER)
        spent[word] = spent.get(word, 0) + size
    spent[OTHER] = spent.get(OTHER, 0) + _integer(
        db, "select pgsize from dbstat where aggregate = 1 and name = 'sqlite_schema'"
    )
    spent[PREVIEWS] = total - sum(spent.values())
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def _integer(db: apsw.Connection, select: str, *bound: str) -> int:
    return int(db.execute(select, bound).get)
