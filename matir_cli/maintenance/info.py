"""`matir info`: a gallery's counts, disk usage, models and judges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import apsw

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery import schema
from matir_cli.gallery.bound_models import next_encoder
from matir_cli.gallery.database import GalleryFile

PREVIEWS = "previews"

FREE = "free"

OTHER = "other"

_SPENT_ON = {
    "regions": "masks",
    "vectors": "vectors",
    "residuals": "vectors",
    "blocks": "index",
    "codes": "index",
    "loose": "index",
    "photos": "files",
    "files": "files",
    "skipped": "files",
    "notes": "files",
    "questions": "answers",
    "verdicts": "answers",
    "groundings": "answers",
    "file_metadata": "files",
    "file_keywords": "files",
    "region_origins": "masks",
    "saved_searches": "saved searches",
    "saved_results": "saved searches",
    "next_models": "vectors",
    "next_vectors": "vectors",
}
"""Table to the use that its space is counted for; a table's indexes count with it."""

# "where true": a count of all rows is one step, which neither Ctrl-C nor the step limit can end.
_COUNTS = {
    "photos": "select count(*) from photos where true",
    "files": "select count(*) from files where true",
    "skipped": "select count(*) from skipped where true",
    "regions": "select count(*) from regions where ordinal > 0",
    "previews": "select count(*) from previews where true",
    "incomplete": "select count(distinct photo_id) from notes where true",
}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that the gallery is bound to."""

    role: str
    name: str
    weight_hash: str
    """SHA-256 over the SHA-256 of its files, hex."""
    model_set: str
    """The set that it comes from; "full:fast" is one with a preset."""


@dataclass(frozen=True, slots=True)
class JudgeInfo:
    """Number of cached answers of one judge."""

    judge: str
    """Identity of the judge: SHA-256 of its weights and settings, hex; or `verdict_cache.HUMAN_JUDGE`."""
    queries: int
    verdicts: int
    groundings: int


@dataclass(frozen=True, slots=True)
class ReencodingInfo:
    """New vectors that are half made beside those in use."""

    name: str
    """Name of the encoder."""
    weight_hash: str
    """SHA-256 over the SHA-256 of its files, hex."""
    model_set: str
    photos: int
    """Number of photos that have them."""


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
    incomplete: int
    """Number of photos of whose file a part could not be read."""
    models: tuple[ModelInfo, ...]
    judges: tuple[JudgeInfo, ...]
    reencoding: ReencodingInfo | None
    """New vectors that are half made, by `matir reencode`; left out if there are none."""
    space: dict[str, int]
    """Bytes by use, in descending order; their sum is the size of the file.

    Uses: previews; masks (and boxes); vectors; index (of the search); files (names, and records of
    photos); answers (of judges); free (unused pages); other.
    """


def gallery_info(gallery: GalleryFile) -> GalleryInfo:
    """Collect the numbers of a gallery; previews, most of its size, are not read."""
    db = gallery.connection
    with gallery.snapshot():  # so that the numbers agree
        size = gallery.file_bytes
        counts = {name: _integer(db, select) for name, select in _COUNTS.items()}
        models = db.execute("select role, name, weight_hash, model_set from models order by role").fetchall()
        judges, space = _judges(gallery), _space(gallery)
        version = schema.version_of(db)
        begun = next_encoder(gallery)
    return GalleryInfo(
        **counts,
        path=gallery.path,
        bytes=size,
        schema=version,
        models=tuple(ModelInfo(*(gallery.checked_text(text, "a model") for text in row)) for row in models),
        judges=judges,
        reencoding=None
        if begun is None
        else ReencodingInfo(begun.identity.name, begun.identity.weight_hash, begun.model_set, begun.photos),
        space=space,
    )


def _judges(gallery: GalleryFile) -> tuple[JudgeInfo, ...]:
    """Count the cached answers by judge."""
    rows = gallery.connection.execute(
        "select judge, count(*), "
        "sum((select count(*) from verdicts where question_id = questions.id)), "
        "sum((select count(*) from groundings where question_id = questions.id)) "
        "from questions group by judge order by judge"
    )
    return tuple(
        JudgeInfo(gallery.checked_text(judge, "a judge"), *(int(count) for count in counts))
        for judge, *counts in rows
    )


def _space(gallery: GalleryFile) -> dict[str, int]:
    """Add up the space of tables and indexes by use; previews take what remains of the file."""
    db = gallery.connection
    spent = {FREE: gallery.free_bytes}
    for name, table in db.execute("select name, tbl_name from sqlite_schema where rootpage > 0").fetchall():
        if table == "previews":
            continue  # measuring this table would read all of its pages
        use = _SPENT_ON.get(str(table), OTHER)
        spent[use] = spent.get(use, 0) + _bytes_of(gallery, str(name))
    spent[OTHER] = spent.get(OTHER, 0) + _bytes_of(gallery, "sqlite_schema")
    spent[PREVIEWS] = gallery.file_bytes - sum(spent.values())
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def _bytes_of(gallery: GalleryFile, name: str) -> int:
    """Return the bytes of a table's or index's pages; GalleryDamaged if it has more than the file."""
    size = _integer(gallery.connection, _PAGES, name, gallery.file_bytes // 512 + 1)
    if size > gallery.file_bytes:
        raise GalleryDamaged(gallery.path, f"pages of {name} are used twice")
    return size


_PAGES = "select coalesce(sum(pgsize), 0) from (select pgsize from dbstat where name = ? limit ?)"
"""Page by page: in a crafted file, pages refer to each other, and their sum at once might never end."""


def _integer(db: apsw.Connection, select: str, *bindings: str | int) -> int:
    """Run a query that gives one integer."""
    return int(db.execute(select, bindings).get)
