"""Corrections from Label Studio: its JSON export becomes regions and answers of a person.

The tasks are those that `label_studio.TaskFile` has written, with the annotations that people made of their
predictions. The file may be a stranger's: tasks are taken one by one, and what is wrong with one is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import msgspec

from matir_cli import masks
from matir_cli.errors import PhotoUnknown, PhotoUnreadable, RegionFileInvalid
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.label_studio import DATA_KEY, REGION_ID, TaskData
from matir_cli.gallery.rows import LONGEST_TEXT, StoredRegion
from matir_cli.gallery.verdict_cache import HUMAN_FALSE, HUMAN_JUDGE, HUMAN_TRUE, VerdictCache
from matir_cli.indexing.annotations import given_region, read_limited
from matir_cli.indexing.drawn_results import DECODING_ERRORS, EMPTY, DrawnResult, LeftOut, decode_result
from matir_cli.indexing.own_regions import RegionPlan, working_image, write_plan
from matir_cli.indexing.pipeline import ATTEMPTS, IndexingModels
from matir_cli.records import (
    Box,
    Grounding,
    ImageArray,
    MaskArray,
    OriginKind,
    Region,
    RegionOrigin,
    Rle,
    Verdict,
)
from matir_cli.search.index import seal_index
from matir_cli.search.query import normal_text

MAX_BYTES = 2 << 30
"""Size limit of an export."""

MOST_RESULTS = 1000
"""Masks and boxes of a task at most."""

NOT_A_TASK = "no task of Label Studio's JSON export"
FOREIGN = "not written by `matir find` or `matir export`"
NO_PHOTO = "of a photo that the gallery does not hold"
NOT_ANNOTATED = "not annotated yet, or skipped"
TOO_MANY = f"with more than {MOST_RESULTS:,} masks and boxes"
NO_PIXELS = "of a photo whose pixels are not available"
CHANGING = "of a photo whose regions other commands keep changing"
"""Reasons why tasks are left out."""

NO_OBJECT = "with a box in which the proposer finds no object"
"""Reasons why masks and boxes of a task are left out."""


class _Annotation(msgspec.Struct):
    result: list[msgspec.Raw] = []
    was_cancelled: bool | None = False
    ground_truth: bool | None = False
    updated_at: str | None = None


class _Task(msgspec.Struct):
    data: dict[str, msgspec.Raw]
    annotations: list[_Annotation] = []


@dataclass(slots=True)
class CorrectionCounts:
    """What has become of the tasks and of their masks and boxes so far."""

    accepted: int = 0
    """Predictions that were left as they are."""
    changed: int = 0
    """Predictions that were changed."""
    new: int = 0
    rejected: int = 0
    """Predictions that were deleted."""
    answers: int = 0
    """Answers to the question whether a photo shows what was searched for."""
    known: int = 0
    """Tasks that changed nothing: the gallery has their corrections already. They are counted above, too."""
    tasks: Counter[str] = field(default_factory=Counter)
    """Reason to the number of tasks left out for it."""
    results: Counter[str] = field(default_factory=Counter)
    """Reason to the number of masks and boxes left out for it."""


def read_tasks(path: Path) -> list[msgspec.Raw]:
    """Read an export; its tasks are decoded later.

    Raises:
        RegionFileInvalid: the file cannot be read, or is no JSON export.
    """
    try:
        return msgspec.json.decode(read_limited(path, MAX_BYTES), type=list[msgspec.Raw])
    except DECODING_ERRORS as error:
        raise RegionFileInvalid(path, f"it is not Label Studio's JSON export: {error}") from error


def import_tasks(
    gallery: GalleryFile, tasks: Sequence[msgspec.Raw], models: IndexingModels, counts: CorrectionCounts
) -> Generator[None, None, None]:
    """Bring the corrections of tasks into the gallery; yields after each task.

    Each task is one transaction. A mask that was accepted, changed or drawn becomes a region of origin
    "human"; the proposer makes masks of boxes. If the task is about a query, the person's answer to it is
    stored, with the places of the masks that carry its label: false if there is none. The same tasks again
    change nothing.

    Args:
        counts: extended here.

    Raises:
        MatirError: an error that ends the run; tasks before it stay imported.
    """
    loaded = IndexingModels(cache(models.proposer), cache(models.encoder), models.side_by_side)
    try:
        for task in tasks:
            _import_task(gallery, task, loaded, counts)
            yield
    finally:
        seal_index(gallery)


def _import_task(
    gallery: GalleryFile, raw: msgspec.Raw, models: IndexingModels, counts: CorrectionCounts
) -> None:
    try:
        data, results = _read_task(raw)
        for _ in range(ATTEMPTS):
            correction = _Correction(gallery, data, results, models)
            if correction.write():
                correction.count(counts)
                return
        raise LeftOut(CHANGING)
    except LeftOut as error:
        counts.tasks[error.reason] += 1
    except PhotoUnknown:
        counts.tasks[NO_PHOTO] += 1
    except PhotoUnreadable:
        counts.tasks[NO_PIXELS] += 1


def _read_task(raw: msgspec.Raw) -> tuple[TaskData, list[msgspec.Raw]]:
    """Return what a task says about itself, and its results in the annotation that counts.

    That is one marked as ground truth, otherwise the one updated last.
    """
    try:
        task = msgspec.json.decode(raw, type=_Task)
    except DECODING_ERRORS as error:
        raise LeftOut(NOT_A_TASK) from error
    try:
        data = msgspec.json.decode(task.data.get(DATA_KEY, msgspec.Raw(b"null")), type=TaskData)
    except DECODING_ERRORS as error:
        raise LeftOut(FOREIGN) from error
    if data.query is not None:
        data = replace(data, query=normal_text(data.query))
        if not data.query or len(data.query) > LONGEST_TEXT:
            raise LeftOut(FOREIGN)
    made = [each for each in task.annotations if not each.was_cancelled]
    if not made:
        raise LeftOut(NOT_ANNOTATED)
    chosen = max(enumerate(made), key=lambda m: (bool(m[1].ground_truth), m[1].updated_at or "", m[0]))[1]
    if len(chosen.result) > MOST_RESULTS:
        raise LeftOut(TOO_MANY)
    return data, chosen.result


class _Correction:
    """One task: what it changes in the gallery, as it is now."""

    def __init__(
        self, gallery: GalleryFile, data: TaskData, results: Sequence[msgspec.Raw], models: IndexingModels
    ) -> None:
        """Compare a task with the gallery; nothing is written yet.

        Raises:
            LeftOut, PhotoUnknown, PhotoUnreadable: it cannot be imported.
        """
        self._gallery, self._models, self._data = gallery, models, data
        self._counts = CorrectionCounts()
        with gallery.snapshot():
            photo_id = gallery.photo_with(_digest(data.sha256))
            if photo_id is None:
                raise LeftOut(NO_PHOTO)
            self._photo = gallery.photo(photo_id)
            self._stored = gallery.regions(photo_id)
        self._by_id = {f"{REGION_ID}{each.id}": each for each in self._stored if each.ordinal > 0}
        self._is_known = False  # it has been written, and nothing has changed
        self._is_unsure = False  # something of it cannot be read: what is missing was not rejected
        self._dropped: set[int] = set()  # ids of regions
        self._origins: dict[int, RegionOrigin] = {}
        self._added: dict[Rle, Region] = {}
        self._boxes: list[Box] = []  # of the query's objects, photo pixels
        self._image: Callable[[], ImageArray] = cache(lambda: working_image(gallery, self._photo))
        left = self._compare(list(self._drawn(results)))
        if not self._is_unsure:
            self._reject([name for name in dict.fromkeys(data.predicted) if name not in left])

    def count(self, counts: CorrectionCounts) -> None:
        """Add what this task has changed to `counts`."""
        own = self._counts
        counts.accepted += own.accepted
        counts.changed += own.changed
        counts.new += own.new
        counts.rejected += own.rejected
        counts.answers += self._has_answer
        counts.known += self._is_known
        counts.results.update(own.results)

    def write(self) -> bool:
        """Write everything in one transaction; False if another process has changed the regions since."""
        kept = [each for each in self._stored if each.id not in self._dropped]
        plan = RegionPlan(kept, [*self._added.values()], self._image, [*self._origins.items()])
        changes = bool(self._dropped or self._origins or self._added)
        before = self._stored_answer()
        written = write_plan(
            self._gallery, self._photo.id, self._stored, plan, self._models.encoder, self._answer
        )
        self._is_known = written and not changes and before == self._stored_answer()
        return written

    def _stored_answer(self) -> tuple[Verdict | None, Grounding | None]:
        """Return the answer to the task's question that the gallery has."""
        if self._data.query is None:
            return None, None
        answers = VerdictCache(self._gallery, HUMAN_JUDGE, self._data.query)
        return answers.verdict(self._photo.id), answers.grounding(self._photo.id)

    @property
    def _has_answer(self) -> bool:
        """True if the task says whether the photo shows what was searched for."""
        return self._data.query is not None and (bool(self._boxes) or not self._is_unsure)

    def _answer(self) -> None:
        """Store the person's answer to the task's question, if there is one."""
        if self._data.query is None or not self._has_answer:
            return
        answer = VerdictCache(self._gallery, HUMAN_JUDGE, self._data.query)
        answer.remember(self._photo.id, HUMAN_TRUE if self._boxes else HUMAN_FALSE)
        answer.remember_grounding(self._photo.id, Grounding(tuple(self._boxes), "a person's", readable=True))

    def _drawn(self, results: Sequence[msgspec.Raw]) -> Iterator[DrawnResult]:
        """Decode the results that can be used, and count the others."""
        for raw in results:
            try:
                yield decode_result(raw, self._photo)
            except LeftOut as error:
                self._counts.results[error.reason] += 1
                self._is_unsure |= error.reason != EMPTY

    def _compare(self, drawn: Sequence[DrawnResult]) -> set[str]:
        """Decide what becomes of each mask and box; return the ids of the predictions that were left."""
        predicted = set(self._data.predicted)
        prompts = [each.box for each in drawn if each.box is not None]
        refined = iter(self._models.proposer().refine(self._image(), prompts) if prompts else ())
        left: set[str] = set()
        for each in drawn:
            region = next(refined) if each.mask is None else self._region(each.mask)
            label = each.label if each.label is not None else self._data.query
            is_wanted = self._data.query is not None and label == self._data.query
            name = each.id if each.id in predicted else None
            if region is None:
                self._counts.results[NO_OBJECT if each.box is not None else EMPTY] += 1
                if each.box is not None:
                    left |= {name} if name is not None else set()
                    self._boxes += [self._photo.record.to_photo(each.box)] if is_wanted else []
                continue
            old = None if name is None else self._by_id.get(name)
            if name is not None:
                left.add(name)
            if old is not None and _is_same(old, each.mask, region):
                self._counts.accepted += 1
                self._confirm(old, label)
                box = old.box
            else:
                accepted = name is not None and old is None and each.is_untouched
                self._counts.accepted += accepted
                self._counts.changed += name is not None and not accepted
                self._counts.new += name is None
                if old is not None and old.region.is_human:
                    self._dropped.add(old.id)
                self._add(region, label)
                box = self._photo.record.to_photo(region.box)
            if is_wanted:
                self._boxes.append(box)
        return left

    def _reject(self, names: Sequence[str]) -> None:
        """Take back a person's regions that were deleted; the proposer's stay for other questions."""
        self._counts.rejected += len(names)
        for name in names:
            old = self._by_id.get(name)
            if old is not None and old.region.is_human:
                self._dropped.add(old.id)

    def _region(self, mask: MaskArray) -> Region | None:
        """Return the region of a mask that was drawn; None if nothing is left of it at working size."""
        record = self._photo.record
        resized = masks.resize(mask, record.mask_height, record.mask_width)
        return given_region(masks.encode(resized), RegionOrigin(OriginKind.HUMAN, None))

    def _add(self, region: Region, label: str | None) -> None:
        """Add a region; if one of the same mask is there, it becomes a person's."""
        for each in self._stored:
            if each.ordinal > 0 and each.region.rle == region.rle and each.id not in self._dropped:
                self._confirm(each, label)
                return
        self._added[region.rle] = replace(region, origin=RegionOrigin(OriginKind.HUMAN, label))

    def _confirm(self, old: StoredRegion, label: str | None) -> None:
        """Let a stored region be a person's. It keeps its label, unless the person gave it another one."""
        before = old.region.origin
        if before is not None and before.label is not None and label in (None, self._data.query):
            label = before.label
        origin = RegionOrigin(OriginKind.HUMAN, label)
        if origin != before:
            self._origins[old.id] = origin


def _is_same(old: StoredRegion, mask: MaskArray | None, region: Region) -> bool:
    """Return True if a mask, at working size `region`, is that of the stored region as it was written."""
    if region.rle == old.region.rle:
        return True
    if mask is None:
        return False
    return bool((masks.resize(masks.decode(old.region.rle), *mask.shape) == mask).all())


def _digest(text: str) -> bytes:
    """Return a SHA-256 that is given as hex."""
    try:
        digest = bytes.fromhex(text)
    except ValueError as error:
        raise LeftOut(FOREIGN) from error
    if len(digest) != 32:
        raise LeftOut(FOREIGN)
    return digest
