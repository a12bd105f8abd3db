"""Another process writes before any one statement of a command, which must read one state of the file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, product
from pathlib import Path

import apsw
import pytest

from matir_cli.errors import MatirError
from matir_cli.evaluation.datasets.dataset import Dataset, EvalImage
from matir_cli.evaluation.image_index import locate_images
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import open_read_only
from matir_cli.gallery.region_copy import open_region_copy
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.gallery.working_image import load_working_image
from matir_cli.maintenance.compact import compact_gallery
from matir_cli.maintenance.doctor.findings import FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.maintenance.export import ExportOptions, export_coco, export_vectors
from matir_cli.maintenance.info import gallery_info
from matir_cli.maintenance.merge import merge_gallery
from matir_cli.maintenance.merge_source import read_source_photo, source_models, source_photo_ids
from matir_cli.maintenance.show import photo_details
from matir_cli.records import Box, Grounding, Verdict
from matir_cli.search.index import seal_index
from matir_cli.search.rank import rank_photos
from tests.support.crafted_gallery import HEIGHT, WIDTH, craft, place, put, query

JUDGE = "a" * 64

Use = Callable[[Path], object]
"""Opens the gallery at a path and uses it; returns what can be compared."""

Act = Callable[[GalleryFile], object]


@pytest.fixture(scope="module")
def crafted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A gallery of three photos, of which two are in a block, with answers about the second."""
    with craft(tmp_path_factory.mktemp("crafted") / "gallery.db", ["a", "b"]) as gallery:
        seal_index(gallery, 8)
        with gallery.atomic():
            put(gallery, "c")
        cached = VerdictCache(gallery, JUDGE, "a dog")
        cached.remember(2, Verdict(1.0, 2.0))
        cached.remember_grounding(2, Grounding((Box(1, 2, 3, 4),), "there", readable=True))
        return gallery.path.read_bytes()


@contextmanager
def intruder(path: Path, number: int, act: Act) -> Iterator[list[int]]:
    """Let another connection act on `path` before statement `number` of those that are opened meanwhile.

    If the file is locked against it, it does nothing. Yields a list of the number of statements so far.
    """
    seen = [0]

    def trace(_cursor: apsw.Cursor, _statement: str, _bindings: apsw.Bindings | None) -> bool:
        seen[0] += 1
        if seen[0] == number + 1:
            apsw.connection_hooks.remove(watch)
            with GalleryFile.open(path) as other:
                other.connection.set_busy_timeout(0)
                try:
                    with other.atomic():
                        act(other)
                except apsw.BusyError:
                    pass
        return True

    def watch(connection: apsw.Connection) -> None:
        connection.exec_trace = trace

    apsw.connection_hooks.append(watch)
    try:
        yield seen
    finally:
        if watch in apsw.connection_hooks:
            apsw.connection_hooks.remove(watch)


def remove(gallery: GalleryFile) -> None:
    gallery.unlink(place("b"))


def add(gallery: GalleryFile) -> None:
    put(gallery, "d")
    seal_index(gallery, 8)


def forget_answers(gallery: GalleryFile) -> None:
    gallery.connection.execute("delete from questions")


def outcome(use: Use, path: Path) -> object:
    """What `use` returns, or the error that it raises."""
    try:
        return use(path)
    except MatirError as error:
        return type(error), str(error)


def show(path: Path) -> object:
    with GalleryFile.open(path) as gallery:
        return photo_details(gallery, 2)


def info(path: Path) -> object:
    with GalleryFile.open(path) as gallery:
        return gallery_info(gallery)


def image(path: Path) -> object:
    with GalleryFile.open(path) as gallery:
        pixels = load_working_image(gallery, 2)
        return None if pixels is None else pixels.tobytes()


def coco(path: Path) -> object:
    stream = io.StringIO()
    with GalleryFile.open(path) as gallery:
        list(export_coco(gallery, stream, ExportOptions()))
    return json.loads(stream.getvalue())


def vectors(path: Path) -> object:
    array, ids = io.BytesIO(), io.StringIO()
    with GalleryFile.open(path) as gallery:
        list(export_vectors(gallery, array, ids, ExportOptions()))
    return array.getvalue(), ids.getvalue()


def source(path: Path) -> object:
    with (
        open_read_only(path) as opened,
        GalleryFile.open(path.with_name("target.db"), create=True) as gallery,
    ):
        photos = [read_source_photo(gallery, opened, number) for number in source_photo_ids(opened)]
        return source_models(opened), repr([photo for photo in photos if photo is not None])


def answers(path: Path) -> object:
    with GalleryFile.open(path) as gallery:
        cached = VerdictCache(gallery, JUDGE, "a dog")
        return cached.grounding(2)


def images(path: Path) -> object:
    listed = [
        EvalImage(number, name, place(name), 2 * WIDTH, 2 * HEIGHT)
        for number, name in enumerate("abcd", start=1)
    ]
    with GalleryFile.open(path) as gallery:
        return locate_images(gallery, Dataset("drawn", tuple(listed), (), {}, ""))


def find(path: Path) -> object:
    with GalleryFile.open(path) as gallery:
        return rank_photos(gallery, query(0), 15)


@pytest.mark.parametrize(
    ("use", "act"),
    [
        *product([show, info, image, coco, vectors, source, answers, images, find], [remove, add]),
        *product([info, source, answers], [forget_answers]),
    ],
)
def test_what_is_read_is_of_one_state(tmp_path: Path, crafted: bytes, use: Use, act: Act) -> None:
    path = tmp_path / "gallery.db"
    path.write_bytes(crafted)
    before = outcome(use, path)
    with GalleryFile.open(path) as gallery, gallery.atomic():
        act(gallery)
    after = outcome(use, path)
    for number in count():
        path.write_bytes(crafted)
        with intruder(path, number, act) as seen:
            assert outcome(use, path) in (before, after), f"before statement {number}"
        if seen[0] <= number:
            assert number > 1
            return


def doctor(path: Path) -> None:
    found = examine_gallery(path, deep=True)
    assert [item for item in found if item.state is FindingState.PROBLEM] == []


def compact(path: Path) -> None:
    with GalleryFile.open(path) as gallery:
        compact_gallery(gallery, drop_previews=False, forget_verdicts=False)


def merge(path: Path) -> None:
    with open_read_only(path.with_name("more.db")) as opened, GalleryFile.open(path) as gallery:
        list(merge_gallery(gallery, opened, dry_run=False))


def remember(path: Path) -> None:
    with GalleryFile.open(path) as gallery:
        cached = VerdictCache(gallery, JUDGE, "a cat", limit=1)
        for photo_id in (1, 2):
            cached.remember(photo_id, Verdict(1.0, 0.0))
            cached.remember_grounding(photo_id, Grounding((), "[]", readable=True))


def copy_regions(path: Path) -> None:
    with GalleryFile.open(path) as gallery, open_region_copy(gallery, path.with_name("copy.db")) as copy:
        assert copy.count_photos() in (2, 3, 4)


@pytest.mark.parametrize(
    ("use", "act"),
    [
        *product([doctor, compact, merge, copy_regions], [remove, add]),
        *product([remember], [remove, forget_answers]),
    ],
)
def test_what_is_written_leaves_a_sound_gallery(
    tmp_path: Path, crafted: bytes, use: Callable[[Path], None], act: Act
) -> None:
    path = tmp_path / "gallery.db"
    craft(tmp_path / "more.db", ["b", "e"]).connection.close()
    for number in count():
        path.write_bytes(crafted)
        (tmp_path / "copy.db").unlink(missing_ok=True)
        with intruder(path, number, act) as seen:
            use(path)
        doctor(path)
        if seen[0] <= number:
            assert number > 1
            return
