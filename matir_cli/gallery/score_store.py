"""Scores that took hours, kept in a file of their own: a stopped run goes on at the photo it was at.

One row a photo and run: float32, one score a query. Nothing else grows with the photos.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import apsw
import msgspec
import numpy as np

from matir_cli.errors import OutputError
from matir_cli.records import FloatArray

APPLICATION_ID = 0x4D615363
"""Marks the file as ours: "MaSc"."""

_BUSY_TIMEOUT_MS = 60_000

_STORED = np.dtype("<f4")


def run_key(method: str, weight_hash: str, settings: str, queries: Sequence[str]) -> str:
    """Names a run by all that its scores depend on. SHA-256, hex.

    Args:
        method: a baseline's name.
        weight_hash: of the model that computes, `ModelIdentity.weight_hash`.
        settings: whatever else matters: the method's settings and the model's options; for a
            method that looks at regions, what made them.
        queries: their texts, in the order of the scores.
    """
    parts = msgspec.json.encode([method, weight_hash, settings, list(queries)])
    return hashlib.sha256(parts).hexdigest()


class ScoreStore:
    """An open file of scores. Use as a context manager: leaving it closes the file."""

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: Path) -> ScoreStore:
        """Open the file at `path`, making it and its folder if need be.

        Raises:
            OutputError: it cannot be written, or is another kind of file; that one is left as it is.
        """
        with _translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = apsw.Connection(str(path))
        store = cls(path, connection)
        try:
            with _translated(path):
                store._prepare()
        except BaseException:
            connection.close()
            raise
        return store

    def _prepare(self) -> None:
        db = self._connection
        db.set_busy_timeout(_BUSY_TIMEOUT_MS)
        with db:
            tables = db.execute("select count(*) from sqlite_schema").get
            if tables and db.pragma("application_id") != APPLICATION_ID:
                raise OutputError(self.path, "it is another file, not one of scores")
            if tables:
                return
            db.pragma("application_id", APPLICATION_ID)
            db.execute("create table runs (id integer primary key, key text not null unique)")
            db.execute(
                "create table scores (run_id integer not null references runs, photo blob not null, "
                "scores blob not null, primary key (run_id, photo)) without rowid"
            )

    def __enter__(self) -> ScoreStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def missing(self, run: str, photos: Sequence[bytes], queries: int) -> int:
        """How many of `photos` `scores_of` would have to compute."""
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
        """(len(photos), queries) float32: what is stored of the run `run` (a `run_key`), the rest computed.

        Args:
            photos: what names each photo for ever, such as the SHA-256 of its file.
            queries: how many scores a photo has.
            compute: from the index of a photo to its (queries,) scores; stored before the next is asked.
            done: called after each photo that was computed.

        Raises:
            OutputError: the file cannot be read or written.
            ValueError: `compute` gave another number of scores.
        """
        found = np.empty((len(photos), queries), np.float32)
        with _translated(self.path):
            run_id = self._run(run)
        for index, photo in enumerate(photos):
            with _translated(self.path):
                stored = self._stored(run_id, photo, queries)
            if stored is not None:
                found[index] = stored
                continue
            row = compute(index)
            if row.shape != (queries,):
                raise ValueError(f"{row.shape} scores for {queries} queries")
            found[index] = row
            with _translated(self.path):
                self._connection.execute(
                    "insert or replace into scores values (?, ?, ?)",
                    (run_id, photo, found[index].astype(_STORED).tobytes()),
                )
            done()
        return found

    def _run(self, key: str) -> int:
        self._connection.execute("insert or ignore into runs (key) values (?)", (key,))
        return int(self._connection.execute("select id from runs where key = ?", (key,)).get)

    def _stored(self, run_id: int, photo: bytes, queries: int) -> FloatArray | None:
        """(queries,) float32; None if it is not there, or not whole."""
        row = self._connection.execute(
            "select scores from scores where run_id = ? and photo = ?", (run_id, photo)
        ).get
        if not isinstance(row, bytes) or len(row) != queries * _STORED.itemsize:
            return None
        return np.frombuffer(row, _STORED)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn what SQLite or the system says of the file at `path` into an `OutputError`."""
    try:
        yield
    except (apsw.Error, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(path, reason or "cannot be opened") from error
