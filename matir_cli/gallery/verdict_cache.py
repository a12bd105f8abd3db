"""What a judge said is remembered in the gallery, so that no question is asked twice.

The memory is bounded: beyond `MAX_VERDICTS` the questions asked longest ago are forgotten.
"""

from __future__ import annotations

from typing import Any

import msgspec

from matir_cli.gallery.database import GalleryFile
from matir_cli.records import Box, Grounding, Verdict

MAX_VERDICTS = 1_000_000
"""Some 40 MB: ten thousand queries of a hundred candidates."""


class VerdictCache:
    """What one judge said about one query, photo by photo."""

    def __init__(
        self, gallery: GalleryFile, judge: str, query: str, *, fresh: bool = False, limit: int = MAX_VERDICTS
    ) -> None:
        """Open the memory of `query` as asked of the judge so named (`loading.Engines.judge_key`).

        Args:
            fresh: begin anew, forgetting what is remembered of this query.
            limit: verdicts in the gallery beyond which a new question makes room for itself.
        """
        self._gallery = gallery
        self._key = (judge, query)
        self._limit = limit
        self._writable = not gallery.connection.readonly("main")
        if fresh and self._writable:
            with gallery.atomic():
                gallery.connection.execute("delete from questions where judge = ? and query = ?", self._key)
        self._forgetful = fresh and not self._writable

    def verdict(self, photo_id: int) -> Verdict | None:
        """What was said of the photo, None if it was not asked about."""
        row = self._row(_SELECT_VERDICT, photo_id)
        return None if row is None else Verdict(float(row[0]), float(row[1]))

    def remember(self, photo_id: int, verdict: Verdict) -> None:
        """Store a verdict; a gallery that cannot be written is left as it is."""
        if not self._writable:
            return
        with self._gallery.atomic():
            self._gallery.connection.execute(
                f"insert or replace into verdicts select ?1, ?2, ?3, ?4 {_STILL_HERE}",
                (self._question(), photo_id, verdict.z_true, verdict.z_false),
            )

    def grounding(self, photo_id: int) -> Grounding | None:
        """Where the judge saw the object (photo pixels), None if it was not asked."""
        row = self._row(_SELECT_GROUNDING, photo_id)
        if row is None:
            return None
        boxes = msgspec.json.decode(str(row[0]), type=list[tuple[float, float, float, float]])
        return Grounding(tuple(Box(*box) for box in boxes), str(row[1]), bool(row[2]))

    def remember_grounding(self, photo_id: int, grounding: Grounding) -> None:
        """Store a grounding, boxes in photo pixels."""
        if not self._writable:
            return
        boxes = msgspec.json.encode([(b.x0, b.y0, b.x1, b.y1) for b in grounding.boxes]).decode()
        with self._gallery.atomic():
            self._gallery.connection.execute(
                f"insert or replace into groundings select ?1, ?2, ?3, ?4, ?5 {_STILL_HERE}",
                (self._question(), photo_id, boxes, grounding.answer, grounding.readable),
            )

    def _row(self, select: str, photo_id: int) -> Any:
        if self._forgetful:
            return None
        return self._gallery.connection.execute(select, (photo_id, *self._key)).fetchone()

    def _question(self) -> int:
        """The question's id; a new question makes room for itself."""
        db = self._gallery.connection
        row = db.execute("select id from questions where judge = ? and query = ?", self._key).fetchone()
        if row is None:
            self._make_room()
            row = db.execute(
                "insert into questions (judge, query) values (?, ?) returning id", self._key
            ).fetchone()
        assert row is not None
        return int(row[0])

    def _make_room(self) -> None:
        db = self._gallery.connection
        rows = db.execute(
            "select question_id, count(*) from verdicts group by question_id order by question_id"
        )
        sizes = [(int(question_id), int(count)) for question_id, count in rows]
        spare = sum(count for _, count in sizes) - self._limit
        for question_id, count in sizes:
            if spare < 0:
                return
            db.execute("delete from questions where id = ?", (question_id,))
            spare -= count


_STILL_HERE = "where exists (select 1 from photos where id = ?2)"
"""Judging takes minutes, in which another process may forget the photo."""

_SELECT_VERDICT = (
    "select z_true, z_false from verdicts where photo_id = ? and question_id = "
    "(select id from questions where judge = ? and query = ?)"
)

_SELECT_GROUNDING = (
    "select boxes, answer, readable from groundings where photo_id = ? and question_id = "
    "(select id from questions where judge = ? and query = ?)"
)


def count_verdicts(gallery: GalleryFile) -> int:
    """Return the number of stored verdicts, of all judges and queries."""
    return int(gallery.connection.execute("select count(*) from verdicts").get)


def count_groundings(gallery: GalleryFile) -> int:
    """Return the number of stored groundings, of all judges and queries."""
    return int(gallery.connection.execute("select count(*) from groundings").get)
