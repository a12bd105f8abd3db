"""A judge's verdicts and groundings, cached in the gallery per judge and query.

The cache is bounded: beyond `MAX_VERDICTS` verdicts, the oldest questions are forgotten.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.rows import check_id, check_number, check_text, read_boxes
from matir_cli.records import Grounding, Verdict

MAX_VERDICTS = 1_000_000
"""Number of verdicts in a gallery, some 40 MB: ten thousand queries of a hundred candidates each."""


HUMAN_JUDGE = sha256(b"a person's answer").hexdigest()
"""Identity under which people's answers are stored: they go before those of any judge, and are kept."""

HUMAN_TRUE, HUMAN_FALSE = Verdict(100.0, 0.0), Verdict(0.0, 100.0)
"""People's answers as verdicts; no judge's margin comes near."""


class VerdictCache:
    """The cached verdicts and groundings of one judge for one query, by photo.

    Where a person has answered the question, that is the answer.
    """

    def __init__(
        self, gallery: GalleryFile, judge: str, query: str, *, fresh: bool = False, limit: int = MAX_VERDICTS
    ) -> None:
        """Open the cache of `query`; a gallery that cannot be written is only read.

        Args:
            judge: identity of the judge, `ModelSession.judge_key`.
            fresh: start anew and forget what is cached for this query.
            limit: number of verdicts in the gallery from which a new question replaces the oldest ones.
        """
        self._gallery = gallery
        self._key = (judge, query)
        self._limit = limit
        self._writable = not gallery.connection.readonly("main")
        if fresh and self._writable:
            with gallery.atomic():
                gallery.connection.execute("delete from questions where judge = ? and query = ?", self._key)
        self._ignores_cached = fresh and not self._writable

    def verdict(self, photo_id: int) -> Verdict | None:
        """Return the cached verdict on the photo, None if there is none.

        Raises:
            GalleryDamaged: its logits are not finite numbers.
        """
        row = self._row(_SELECT_VERDICT, photo_id)
        if row is None:
            return None
        try:
            return Verdict(check_number(row[0], "a verdict"), check_number(row[1], "a verdict"))
        except ValueError as error:
            raise GalleryDamaged(self._gallery.path, f"photo {photo_id}: {error}") from error

    def remember(self, photo_id: int, verdict: Verdict) -> None:
        """Store a verdict, unless the gallery is read-only or no longer holds the photo."""
        if not self._writable:
            return
        with self._gallery.atomic():
            self._gallery.connection.execute(
                f"insert or replace into verdicts select ?1, ?2, ?3, ?4 {_PHOTO_EXISTS}",
                (self._question(), photo_id, verdict.z_true, verdict.z_false),
            )

    def grounding(self, photo_id: int) -> Grounding | None:
        """Return the cached grounding in the photo, None if there is none.

        Its boxes are in photo pixels, clipped to the photo.

        Raises:
            GalleryDamaged: it is not one that `remember_grounding` stored.
        """
        row = self._row(_SELECT_GROUNDING, photo_id)
        if row is None:
            return None
        boxes, answer, readable, width, height = row
        try:
            checked = read_boxes(boxes, check_id(width, "a size"), check_id(height, "a size"))
            return Grounding(
                checked, check_text(answer, "a judge's answer"), bool(check_id(readable, "a flag"))
            )
        except ValueError as error:
            raise GalleryDamaged(self._gallery.path, f"photo {photo_id}: {error}") from error

    def remember_grounding(self, photo_id: int, grounding: Grounding) -> None:
        """Store a grounding (boxes in photo pixels), under the same conditions as `remember`."""
        if not self._writable:
            return
        boxes = msgspec.json.encode([(b.x0, b.y0, b.x1, b.y1) for b in grounding.boxes]).decode()
        with self._gallery.atomic():
            self._gallery.connection.execute(
                f"insert or replace into groundings select ?1, ?2, ?3, ?4, ?5 {_PHOTO_EXISTS}",
                (self._question(), photo_id, boxes, grounding.answer, grounding.readable),
            )

    def _row(self, select: str, photo_id: int) -> Any:
        judge, query = self._key
        if self._ignores_cached:
            judge = HUMAN_JUDGE
        return self._gallery.connection.execute(select, (photo_id, judge, query, HUMAN_JUDGE)).fetchone()

    def _question(self) -> int:
        """Return the question's id; a new question is inserted, replacing the oldest ones if need be."""
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
        """Delete the oldest questions until fewer than `limit` verdicts remain."""
        db = self._gallery.connection
        rows = db.execute(
            "select question_id, count(*) from verdicts where typeof(question_id) = 'integer' "
            "and question_id not in (select id from questions where judge = ?) "
            "group by question_id order by question_id",
            (HUMAN_JUDGE,),
        )
        sizes = [(int(question_id), int(count)) for question_id, count in rows]
        excess = sum(count for _, count in sizes) - self._limit
        for question_id, count in sizes:
            if excess < 0:
                return
            db.execute("delete from questions where id = ?", (question_id,))
            excess -= count


_PHOTO_EXISTS = "where exists (select 1 from photos where id = ?2)"
"""SQL condition: judging takes minutes, in which another process may have deleted the photo."""

_SELECT_VERDICT = (
    "select z_true, z_false from questions cross join verdicts on question_id = questions.id "
    "where photo_id = ?1 and query = ?3 and judge in (?2, ?4) order by judge = ?4 desc limit 1"
)

_SELECT_GROUNDING = (
    "select boxes, answer, readable, width, height from questions "
    "cross join groundings on question_id = questions.id join photos on photos.id = photo_id "
    "where photo_id = ?1 and query = ?3 and judge in (?2, ?4) order by judge = ?4 desc limit 1"
)


def count_verdicts(gallery: GalleryFile) -> int:
    """Return the number of stored verdicts, of all judges and queries."""
    return int(gallery.connection.execute("select count(*) from verdicts where true").get)


def count_groundings(gallery: GalleryFile) -> int:
    """Return the number of stored groundings, of all judges and queries."""
    return int(gallery.connection.execute("select count(*) from groundings where true").get)
