"""The gallery's tables as numbered migrations, and checks of a file's version.

Migration n is the tuple of statements that brings a file from version n to n + 1; `migrate` runs
the missing ones in the caller's transaction. A released migration never changes, its comments
included, since galleries store and are compared with the whole text. Two comments name
matir_cli/vectors.py: that is search/quantisation.py and search/sign_codes.py now.

Migrations behind the first only add tables and indexes. So a file of an older version that cannot be
written, and hence not migrated, is read as if the tables that it lacks were empty: `add_missing_tables`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import apsw

from matir_cli.errors import GalleryDamaged, GalleryTooNew, NotAGallery

APPLICATION_ID = 0x4D615449
"""`pragma application_id` of a gallery: "MaTI" in ASCII."""

PAGE_SIZE = 8192
"""Bytes. Ten regions with their vectors fill a page; pages of 4096 bytes would stay a fifth empty."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        create table models (
            role text primary key,         -- 'proposer' or 'encoder'
            name text not null,            -- for people
            weight_hash text not null,     -- SHA-256 of the files and of the settings that matter, hex
            model_set text not null        -- the set they came from: a name, or a TOML file's path
        ) without rowid
        """,
        """
        create table photos (
            id integer primary key autoincrement,  -- never used again: a search may still hold it
            sha256 blob not null unique,   -- of the file's bytes
            width integer not null,        -- photo pixels, orientation applied
            height integer not null,
            mask_width integer not null,   -- working pixels: the size of this photo's masks
            mask_height integer not null,
            orientation integer not null,  -- EXIF orientation of the file, 1 to 8
            taken_at text,                 -- ISO 8601, the camera's local time
            camera text,
            latitude real,                 -- degrees, north positive
            longitude real,                -- degrees, east positive
            added_at text not null         -- ISO 8601, UTC
        )
        """,
        """
        create table files (
            path primary key not null,     -- absolute; text, or a blob where the name is not UTF-8
            photo_id integer not null references photos (id) on delete cascade,
            bytes integer not null,
            mtime_ns integer not null
        ) without rowid
        """,
        "create index files_by_photo on files (photo_id)",
        """
        create table previews (
            photo_id integer primary key references photos (id) on delete cascade,
            jpeg blob not null             -- the photo at working size, orientation applied
        )
        """,
        """
        create table regions (
            id integer primary key autoincrement,
            photo_id integer not null references photos (id) on delete cascade,
            ordinal integer not null,      -- 0 is the whole photo, then the proposer's order
            x0 real not null,              -- box, photo pixels, continuous edges
            y0 real not null,
            x1 real not null,
            y1 real not null,
            area integer not null,         -- of the mask, working pixels
            predicted_iou real not null,
            stability real not null,
            rle blob not null,             -- COCO compressed counts, mask_height x mask_width
            unique (photo_id, ordinal)
        )
        """,
        """
        create table skipped (
            path primary key not null,
            reason text not null,
            bytes integer not null,
            mtime_ns integer not null,
            seen_at text not null
        ) without rowid
        """,
        """
        create table questions (           -- what judges were asked, newest last
            id integer primary key,
            judge text not null,           -- SHA-256 of its weights and settings, hex
            query text not null,
            unique (judge, query)
        )
        """,
        """
        create table verdicts (
            question_id integer not null references questions (id) on delete cascade,
            photo_id integer not null references photos (id) on delete cascade,
            z_true real not null,          -- logits at the answer position (eq. 2)
            z_false real not null,
            primary key (question_id, photo_id)
        ) without rowid
        """,
        "create index verdicts_by_photo on verdicts (photo_id)",
        """
        create table groundings (
            question_id integer not null references questions (id) on delete cascade,
            photo_id integer not null references photos (id) on delete cascade,
            boxes text not null,           -- JSON, [[x0, y0, x1, y1], ...], photo pixels
            answer text not null,          -- as the judge gave it
            readable integer not null,     -- 0: the answer had no form that boxes can be read from
            primary key (question_id, photo_id)
        ) without rowid
        """,
        "create index groundings_by_photo on groundings (photo_id)",
        # Vectors and what is derived from them: see matir_cli/search/index.py.
        """
        create table vectors (
            region_id integer primary key references regions (id) on delete cascade,
            photo_id integer not null,     -- as in regions, whose rows a search then need not read
            vector blob not null           -- int8 a dimension, rotated: see matir_cli/vectors.py
        )
        """,
        """
        create table blocks (              -- sign codes of many photos' regions: derived from vectors
            id integer primary key,
            runs blob not null,            -- int64 triples: photo, first region, count
            centre blob not null,          -- float32 a dimension: what the codes are relative to
            codes blob not null            -- see SignCodes in matir_cli/vectors.py
        )
        """,
        """
        create table loose (               -- photos that are in no block yet
            photo_id integer primary key references photos (id) on delete cascade
        )
        """,
    ),
    (
        """
        create table notes (               -- what could not be read of a photo's file
            photo_id integer not null references photos (id) on delete cascade,
            kind text not null,            -- 'picture' or 'metadata': what it is a part of
            note text not null,            -- a phrase for people
            primary key (photo_id, kind, note)
        ) without rowid
        """,
    ),
    (
        """
        create table residuals (           -- what int8 leaves of a photo's vectors; absent for older ones
            photo_id integer primary key references photos (id) on delete cascade,
            residuals blob not null        -- 4 bits a dimension, regions by ordinal: search/quantisation.py
        )
        """,
        """
        create table codes (               -- codes of many photos' regions: derived from vectors
            id integer primary key,
            runs blob not null,            -- int64 triples: photo, first region, count
            centre blob not null,          -- float32 a dimension: what the codes are relative to
            codes blob not null            -- 4 bits a dimension: see search/codes.py
        )
        """,
        # The sign codes in `blocks` were the index of older versions: photos in them are not in `codes` yet.
        "insert or ignore into loose (photo_id) select id from photos",
        "delete from blocks",
    ),
    (
        """
        create table file_metadata (       -- of a file and its sidecars; no row: not read yet
            path primary key not null references files (path) on update cascade on delete cascade,
            rating integer,                -- -1 (rejected) to 5; null: none
            latitude real,                 -- degrees, north positive; null: the sidecar states no position
            longitude real,                -- degrees, east positive
            sidecar_path,                  -- of the sidecar that was read; null: there was none
            sidecar_bytes integer,
            sidecar_mtime_ns integer
        ) without rowid
        """,
        """
        create table file_keywords (       -- as in the file or its sidecar
            path not null references file_metadata (path) on update cascade on delete cascade,
            keyword text not null,
            primary key (path, keyword)
        ) without rowid
        """,
        """
        create table region_origins (      -- of regions that the proposer did not propose
            region_id integer primary key references regions (id) on delete cascade,
            origin text not null,          -- 'human' or 'data set'
            label text                     -- what it shows, in the words of its source
        )
        """,
        """
        create table saved_searches (
            id integer primary key,
            name text not null unique,
            search text not null,          -- JSON: the query and the options, as `matir find` takes them
            saved_at text not null,        -- ISO 8601, UTC
            run_at text                    -- ISO 8601, UTC; null: never run
        )
        """,
        """
        create table saved_results (       -- photos that a saved search has returned already
            search_id integer not null references saved_searches (id) on delete cascade,
            photo_id integer not null references photos (id) on delete cascade,
            primary key (search_id, photo_id)
        ) without rowid
        """,
        "create index saved_results_by_photo on saved_results (photo_id)",
        """
        create table next_models (         -- of the vectors that are being made anew, as in models
            role text primary key,
            name text not null,
            weight_hash text not null,
            model_set text not null
        ) without rowid
        """,
        """
        create table next_vectors (        -- what will take the place of a photo's vectors and residuals
            photo_id integer primary key references photos (id) on delete cascade,
            vectors blob not null,         -- int8 a dimension, regions by ordinal
            residuals blob not null
        )
        """,
    ),
)

VERSION = len(MIGRATIONS)
"""`pragma user_version` of the files that this version writes."""


def version_of(connection: apsw.Connection) -> int:
    """Return the file's schema version; 0 if the file is empty."""
    return int(connection.pragma("user_version"))


def is_empty(connection: apsw.Connection) -> bool:
    """Return True if the file has no content, so that making a gallery of it overwrites nothing."""
    return int(connection.pragma("page_count")) == 0


def check_schema(connection: apsw.Connection, path: Path) -> int:
    """Check that the file is a gallery whose schema is, word by word, that of its version.

    It holds exactly the tables and indexes that this tool made: no view, trigger, virtual table or generated
    column that a stranger planted, and nothing is missing. Every command opens galleries through this check.

    Args:
        path: of the file, for errors.

    Returns:
        The version of the schema; 0 for an empty file.

    Raises:
        NotAGallery: another program made the file.
        GalleryTooNew: a later version of this tool made it.
        GalleryDamaged: its schema is another one.
        apsw.Error: the file cannot be read.
    """
    with connection:  # one transaction: another process may migrate the file meanwhile
        if is_empty(connection):
            return 0
        if int(connection.pragma("application_id")) != APPLICATION_ID:
            raise NotAGallery(path)
        version = version_of(connection)
        if version > VERSION:
            raise GalleryTooNew(path, version, VERSION)
        if version < 0:
            raise GalleryDamaged(path, f"its schema has the version {version}")
        if faults := schema_faults(schema_objects(connection), _expected_objects(version)):
            listed = ", ".join(faults[:_LISTED_FAULTS])
            more = f" and {len(faults) - _LISTED_FAULTS} more" if len(faults) > _LISTED_FAULTS else ""
            reason = f"its schema has missing, changed or foreign parts: {listed}{more}"
            raise GalleryDamaged(path, reason)
    return version


SchemaObject: TypeAlias = tuple[str, str, str, str | None]
"""A row of `sqlite_schema`: name, type, table, and SQL, which automatic indexes do not have."""

_LISTED_FAULTS = 5

_STATISTICS: frozenset[SchemaObject] = frozenset(
    (name, "table", name, f"CREATE TABLE {name}({columns})")
    for name, columns in (("sqlite_stat1", "tbl,idx,stat"), ("sqlite_stat4", "tbl,idx,neq,nlt,ndlt,sample"))
)
"""SQLite's own tables, left by an `analyze` with another program."""


def schema_objects(connection: apsw.Connection) -> list[SchemaObject]:
    """Return all tables, indexes, views and triggers of a file, without statistics of `analyze`."""
    rows = connection.execute("select name, type, tbl_name, sql from sqlite_schema")
    return [row for row in rows if row not in _STATISTICS]


def schema_faults(actual: Sequence[SchemaObject], expected: Sequence[SchemaObject]) -> list[str]:
    """Return the names of the objects that are missing, added or changed in `actual`, sorted."""
    found, wanted = Counter(actual), Counter(expected)
    return sorted({str(name) for name, *_ in (found - wanted) + (wanted - found)})


@cache
def _expected_objects(version: int) -> list[SchemaObject]:
    """Return the schema of a gallery of this version, as SQLite writes it."""
    with _fresh(version) as fresh:
        return schema_objects(fresh)


@contextmanager
def _fresh(version: int) -> Iterator[apsw.Connection]:
    """Open an empty gallery of this version, in memory."""
    connection = apsw.Connection(":memory:")
    try:
        for statement in chain.from_iterable(MIGRATIONS[:version]):
            connection.execute(statement)
        yield connection
    finally:
        connection.close()


def migrate(connection: apsw.Connection) -> None:
    """Migrate the file to `VERSION`; the caller holds a write transaction and has checked the schema."""
    for statement in chain.from_iterable(MIGRATIONS[version_of(connection) :]):
        connection.execute(statement)
    connection.pragma("application_id", APPLICATION_ID)
    connection.pragma("user_version", VERSION)


def add_missing_tables(connection: apsw.Connection, version: int) -> None:
    """Let the tables that a file of this version lacks read as empty ones; the file is not changed.

    They are temporary tables of the connection, so that every query works as it does on a file of `VERSION`.
    If another process migrates the file meanwhile, they hide its tables until it is opened again.
    """
    for name, columns in _missing_tables(version):
        connection.execute(f"create temp table {name} ({columns})")


@cache
def _missing_tables(version: int) -> list[tuple[str, str]]:
    """Return name and columns of the tables that this version lacks."""
    present = {name for name, *_ in _expected_objects(version)}
    with _fresh(VERSION) as fresh:
        return [
            (str(name), str(columns))
            for name, columns in fresh.execute(
                "select t.name, (select group_concat(c.name, ', ') from pragma_table_info(t.name) as c) "
                "from sqlite_schema as t where t.type = 'table'"
            )
            if name not in present and not str(name).startswith("sqlite_")
        ]
