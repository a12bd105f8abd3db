"""Evaluation scores that took hours, kept in an SQLite file of their own.

A stopped run continues at the photo it had reached. The file holds one row per photo and run: one
float32 score per query. Nothing else grows with the number of photos.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType

import apsw
import msgspec
import numpy as np

from matir_cli.errors import OutputError
from matir_cli.gallery.connection import open_defensively
from matir_cli.gallery.schema import schema_objects
from matir_cli.records import FloatArray

APPLICATION_ID = 0x4D615363
"""`pragma application_id` of a file of scores: "MaSc" in ASCII."""

_STORED = np.dtype("<f4")


def run_key(method: str, weight_hash: str, settings: str, queries: Sequence[str]) -> str:
    """Return the key of a run: a SHA-256 (hex) of all that its scores depend on.

    Args:
        method: name of the baseline.
        weight_hash: `ModelIdentity.weight_hash` of the model that computes the scores.
        settings: everything else that matters: the method's settings and the model's options, and
            for a method that works on regions, what made them.
        queries: texts of the queries, in the order of the scores.
    """
    parts = msgspec.json.encode([method, weight_hash, settings, list(queries)])
    return hashlib.sha256(parts).hexdigest()


class ScoreStore:
    """An open file of scores; a context manager that closes the file on leaving."""

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: Path) -> ScoreStore:
        """Open the file at `path`; the file and its folder are created if they do not exist.

        Raises:
            OutputError: the file cannot be written, or is of another kind and is left unchanged.
        """
        with _translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = open_defensively(str(path))
        store = cls(path, connection)
        try:
            with _translated(path):
                store._prepare()
        except BaseException:
            connection.close()
            raise
        return store

    def _prepare(self) -> None:
        """Create the tables in a new file; compare those of an existing one with them, word by word."""
        db = self._connection
        if not schema_objects(db):
            db.execute("begin immediate")
            if not schema_objects(db):  # no other process was faster
                _create_tables(db)
            db.execute("commit")
        with closing(apsw.Connection(":memory:")) as fresh, db:
            _create_tables(fresh)
            is_marked = db.pragma("application_id") == APPLICATION_ID
            if not is_marked or schema_objects(db) != schema_objects(fresh):
                raise OutputError(self.path, "it is not a file of scores")

    def __enter__(self) -> ScoreStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def missing(self, run: str, photos: Sequence[bytes], queries: int) -> int:
        """Return the number of `photos` for which `scores_of` would have to compute the scores."""
        with _translated(self.path):
            run_id = self._run(run)
            return sum(self._stored(run_id, photo, queries) is None for photo in photos)

    def scores_of(
        self,
        run: str,
        photos: Sequence[bytes],
        queries: int,
        compute: Callable[[int], FloatArray],
        done: Callable[[], object] = lambda: None,
    ) -> FloatArray:
        """Return the scores of a run, (len(photos), queries) float32: stored ones, the rest computed.

        Args:
            run: key of the run, see `run_key`.
            photos: permanent identity of each photo, such as the SHA-256 of its file.
            queries: number of scores per photo.
            compute: maps the index of a photo to its (queries,) scores; each result is stored before
                the next call.
            done: called after each photo that was computed.

        Raises:
            OutputError: the file cannot be read or written.
            ValueError: `compute` returned a wrong number of scores.
        """
        scores = np.empty((len(photos), queries), np.float32)
        with _translated(self.path):
            run_id = self._run(run)
        for index, photo in enumerate(photos):
            with _translated(self.path):
                stored = self._stored(run_id, photo, queries)
            if stored is not None:
                scores[index] = stored
                continue
            row = compute(index)
            if row.shape != (queries,):
                raise ValueError(f"{row.shape} scores for {queries} queries")
            scores[index] = row
            with _translated(self.path):
                self._connection.execute(
                    "insert or replace into scores values (?, ?, ?)",
                    (run_id, photo, scores[index].astype(_STORED).tobytes()),
                )
            done()
        return scores

    def _run(self, key: str) -> int:
        """Return the id of the run, inserting it if it is new."""
        self._connection.execute("insert or ignore into runs (key) values (?)", (key,))
        return int(self._connection.execute("select id from runs where key = ?", (key,)).get)

    def _stored(self, run_id: int, photo: bytes, queries: int) -> FloatArray | None:
        """Return a photo's stored scores, (queries,) float32; None if they are missing or incomplete."""
        row = self._connection.execute(
            "select scores from scores where run_id = ? and photo = ?", (run_id, photo)
        ).get
        if not isinstance(row, bytes) or len(row) != queries * _STORED.itemsize:
            return None
        return np.frombuffer(row, _STORED)


def _create_tables(db: apsw.Connection) -> None:
    db.pragma("application_id", APPLICATION_ID)
    db.execute("create table runs (id integer primary key, key text not null unique)")
    db.execute(
        "create table scores (run_id integer not null references runs, photo blob not null, "
        "scores blob not null, primary key (run_id, photo)) without rowid"
    )


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn errors of SQLite or the system about the file at `path` into an `OutputError`."""
    try:
        yield
    except (apsw.Error, OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(path, reason or "it cannot be opened") from error
