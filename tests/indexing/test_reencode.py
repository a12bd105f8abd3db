"""New vectors for stored regions: made beside the old ones, exchanged at once."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Sequence
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matir_cli import masks
from matir_cli.engines.protocols import MaskedPhoto
from matir_cli.errors import GalleryChanged, GalleryEmpty, ReencodingBegun
from matir_cli.gallery.bound_models import NextEncoder, next_encoder, same_models
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.working_image import load_working_image
from matir_cli.indexing import reencode
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.indexing.reencode import (
    Exchanged,
    NotReencoded,
    Reencoded,
    begin_reencoding,
    count_pending,
    reencode_photos,
    space_needed,
)
from matir_cli.maintenance.compact import compact_gallery
from matir_cli.maintenance.doctor.findings import FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.maintenance.info import gallery_info
from matir_cli.records import FloatArray, ImageArray, ModelIdentity, Rle
from matir_cli.search.index import store_vectors
from matir_cli.search.quantisation import restore
from matir_cli.search.rank import rank_photos
from tests.support.fakes import BrokenEncoder, ColourEncoder, ColourProposer
from tests.support.pictures import save_scenes

OLD, NEW, OTHER = (
    ModelIdentity(name, digit * 64) for name, digit in (("old", "2"), ("new", "3"), ("x", "4"))
)

PHOTOS = 20


def draw(folder: Path, number_of: int) -> None:
    """Write pictures of one to three coloured squares each."""
    colours = ("red", "green blue", "blue", "green red blue", "green")
    save_scenes(folder, **{f"{number:02}": colours[number % len(colours)] for number in range(number_of)})


class GreyEncoder:
    """Encodes a region as its brightness and size, in more dimensions than `ColourEncoder`."""

    dimensions = 96

    def __init__(self) -> None:
        self.seen = 0

    def encode(self, image: ImageArray, rles: Sequence[Rle]) -> FloatArray:
        self.seen += 1
        vectors = np.full((len(rles), self.dimensions), 0.01, dtype=np.float32)
        for vector, rle in zip(vectors, rles, strict=True):
            vector[:3] = image[masks.decode(rle)].mean(axis=0) / 255
            vector[3] = masks.area(rle) / image[:, :, 0].size
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    def encode_photos(self, photos: Sequence[MaskedPhoto]) -> list[FloatArray]:
        return [self.encode(photo.image, photo.masks) for photo in photos]


def index(path: Path, photos: Path, encoder: type, identity: ModelIdentity, *, previews: bool = True) -> None:
    """Add all photos of a folder with an encoder."""
    with GalleryFile.open(path, create=True) as gallery:
        gallery.bind_model("proposer", ModelIdentity("p", "1" * 64), "set")
        gallery.bind_model("encoder", identity, "set")
        list(add_photos(gallery, [photos], IndexingModels(ColourProposer, encoder), previews=previews))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reencode")
    draw(folder / "photos", PHOTOS)
    index(folder / "gallery.db", folder / "photos", ColourEncoder, OLD)
    index(folder / "fresh.db", folder / "photos", GreyEncoder, NEW)
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    """A copy of the template, without its pictures, which are found where they were."""
    for name in ("gallery.db", "fresh.db"):
        shutil.copy(template / name, tmp_path / name)
    return tmp_path


Stored = list[tuple[bytes, int, bytes, bytes]]


def stored(gallery: GalleryFile) -> Stored:
    """SHA-256 of the photo, ordinal, vector and residuals of each region."""
    rows = gallery.connection.execute(
        "select sha256, ordinal, vector, residuals from photos join regions on regions.photo_id = photos.id "
        "join vectors on region_id = regions.id join residuals on residuals.photo_id = photos.id "
        "order by 1, 2"
    )
    return [(bytes(sha), int(ordinal), bytes(vector), bytes(more)) for sha, ordinal, vector, more in rows]


def unit_rows(rows: Stored) -> FloatArray:
    """(n, d) float32 vectors of unit length."""
    return restore(np.array([np.frombuffer(row[2], np.int8) for row in rows]))


def begin(gallery: GalleryFile, identity: ModelIdentity = NEW, *, restart: bool = False) -> NextEncoder:
    begun = begin_reencoding(gallery, identity, f"set of {identity.name}", restart=restart)
    assert begun is not None
    return begun


def state(path: Path) -> FindingState:
    """The worst finding of doctor about the gallery, except for space."""
    found = {each.state for each in examine_gallery(path, deep=True) if each.name != "gallery space"}
    worst = (FindingState.PROBLEM, FindingState.WARNING, FindingState.OK)
    return next(each for each in worst if each in found)


def test_the_result_is_that_of_a_fresh_index(place: Path) -> None:
    """From unchanged files to the bit; previews are JPEG, so that colours differ a little."""
    with GalleryFile.open(place / "fresh.db") as gallery:
        fresh = stored(gallery)
    for from_files, together in product((True, False), repeat=2):
        shutil.copy(place / "gallery.db", place / "again.db")
        with GalleryFile.open(place / "again.db") as gallery:
            before = gallery.connection.execute("select id, rle from regions").fetchall()
            run = reencode_photos(
                gallery, GreyEncoder(), begin(gallery), from_files=from_files, together=together
            )
            outcomes = list(run)
            assert [type(each) for each in outcomes] == [Reencoded] * PHOTOS + [Exchanged]
            after = stored(gallery)
            if from_files:
                assert after == fresh
            else:
                assert [row[:2] for row in after] == [row[:2] for row in fresh]
                assert (unit_rows(after) * unit_rows(fresh)).sum(axis=1).min() > 0.998
            assert gallery.model("encoder") == NEW
            assert gallery.model_set() == "set of new"
            assert next_encoder(gallery) is None
            assert gallery.connection.execute("select id, rle from regions").fetchall() == before
            query = np.ones(96, np.float32)
            found = [item.photo_id for item in rank_photos(gallery, query, 5)]
            compact_gallery(gallery, drop_previews=False, forget_verdicts=False)
            assert [item.photo_id for item in rank_photos(gallery, query, 5)] == found
        assert state(place / "again.db") is FindingState.OK


def test_searches_use_the_old_vectors_until_the_last_is_there(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reencode, "PHOTOS_AT_ONCE", 3)
    query = np.eye(1, 64, dtype=np.float32)[0]
    with GalleryFile.open(place / "gallery.db") as gallery, GalleryFile.open(place / "gallery.db") as other:
        old, found = stored(other), rank_photos(other, query, 7)
        outcomes = reencode_photos(gallery, GreyEncoder(), begin(gallery))
        for outcome in outcomes:
            if isinstance(outcome, Exchanged):
                break
            assert stored(other) == old
            assert rank_photos(other, query, 7) == found
            report = gallery_info(other).reencoding
            assert report is not None
            assert (report.name, report.model_set, report.weight_hash) == ("new", "set of new", "3" * 64)
            assert report.photos % 3 == 0 or report.photos == PHOTOS
        assert gallery_info(other).reencoding is None
        assert len(stored(other)) == len(old)
        assert state(place / "gallery.db") is FindingState.OK


def test_a_run_that_ended_goes_on_and_covers_new_photos(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reencode, "PHOTOS_AT_ONCE", 2)
    draw(tmp_path / "more", PHOTOS + 3)
    with GalleryFile.open(place / "gallery.db") as gallery:
        outcomes = reencode_photos(gallery, GreyEncoder(), begin(gallery))
        for _ in range(5):
            next(outcomes)
        outcomes.close()
        done = PHOTOS - count_pending(gallery)
        assert 4 <= done <= 6
    assert state(place / "gallery.db") is FindingState.WARNING
    index(place / "gallery.db", tmp_path / "more", ColourEncoder, OLD)
    encoder = GreyEncoder()
    with GalleryFile.open(place / "gallery.db") as gallery:
        begun = begin(gallery)
        assert begun.photos == done
        photos = gallery.count_photos()
        assert photos > PHOTOS
        rest = list(reencode_photos(gallery, encoder, begun))
        assert rest[-1] == Exchanged(photos, 0)
        assert encoder.seen == photos - done
        assert {len(row[2]) for row in stored(gallery)} == {96}
    assert state(place / "gallery.db") is FindingState.OK


@pytest.mark.parametrize("together", [False, True])
def test_photos_without_a_picture_are_named_and_nothing_is_exchanged(
    place: Path, template: Path, tmp_path: Path, together: bool
) -> None:
    shutil.copytree(template / "photos", tmp_path / "photos")
    index(place / "own.db", tmp_path / "photos", ColourEncoder, OLD, previews=False)
    names = sorted((tmp_path / "photos").iterdir())
    changed = names[2].read_bytes()
    names[1].rename(tmp_path / "away.png")
    names[2].write_bytes(changed + b"more")
    with GalleryFile.open(place / "own.db") as gallery:
        old, photos = stored(gallery), gallery.count_photos()
        outcomes = list(reencode_photos(gallery, GreyEncoder(), begin(gallery), together=together))
        lost = [each for each in outcomes if isinstance(each, NotReencoded)]
        assert {each.path for each in lost} == {names[1], names[2]}
        assert all("no preview" in each.reason for each in lost)
        assert not any(isinstance(each, Exchanged) for each in outcomes)
        assert (stored(gallery), gallery.model("encoder")) == (old, OLD)
        # One is back: only it is encoded, and the other one still holds the exchange up.
        (tmp_path / "away.png").rename(names[1])
        again = list(reencode_photos(gallery, GreyEncoder(), begin(gallery), together=together))
        assert [type(each) for each in again] == [NotReencoded, Reencoded]
        last = list(reencode_photos(gallery, GreyEncoder(), begin(gallery), drop_missing=True))
        assert last[-1] == Exchanged(photos - 1, 1)
        assert gallery.count_photos() == photos - 1
        assert gallery.model("encoder") == NEW
    assert state(place / "own.db") is not FindingState.PROBLEM


def test_photos_that_are_ready_are_encoded_together(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several = threading.Event()
    loaded: list[int] = []
    groups: list[int] = []

    def load(*given: Any, **options: Any) -> ImageArray | None:
        loaded.append(1)
        if len(loaded) == 4:
            several.set()
        return load_working_image(*given, **options)

    class Waiting(GreyEncoder):
        def encode_photos(self, photos: Sequence[MaskedPhoto]) -> list[FloatArray]:
            assert several.wait(20)
            groups.append(len(photos))
            return super().encode_photos(photos)

    monkeypatch.setattr(reencode, "load_working_image", load)
    with GalleryFile.open(place / "gallery.db") as gallery:
        outcomes = list(reencode_photos(gallery, Waiting(), begin(gallery), together=True))
    assert outcomes[-1] == Exchanged(PHOTOS, 0)
    assert sum(groups) == PHOTOS
    assert max(groups) > 1


def test_vectors_that_are_not_numbers_hold_the_exchange_up(place: Path) -> None:
    class Broken(BrokenEncoder):
        dimensions = 64

    with GalleryFile.open(place / "gallery.db") as gallery:
        outcomes = list(reencode_photos(gallery, Broken(), begin(gallery)))
        assert {type(each) for each in outcomes} == {NotReencoded}
        assert gallery.model("encoder") == OLD


def test_another_set_is_refused_until_begun_anew(place: Path) -> None:
    with GalleryFile.open(place / "gallery.db") as gallery:
        next(reencode_photos(gallery, GreyEncoder(), begin(gallery)))
        with pytest.raises(ReencodingBegun, match="set of new, not for set of x"):
            begin(gallery, OTHER)
        assert begin(gallery).photos > 0
        begun = begin(gallery, OTHER, restart=True)
        assert begun.photos == 0
        with pytest.raises(GalleryChanged):  # the run of the other one
            list(reencode_photos(gallery, GreyEncoder(), NextEncoder(NEW, "set of new", 0)))
        assert begin_reencoding(gallery, OLD, "set", restart=True) is None
        assert next_encoder(gallery) is None
    assert state(place / "gallery.db") is FindingState.OK
    with GalleryFile.open(place / "none.db", create=True) as empty, pytest.raises(GalleryEmpty):
        begin(empty)


@pytest.mark.parametrize(
    "change",
    [
        "insert into regions select null, photo_id, 99, x0, y0, x1, y1, area, 0.5, 0.5, rle from regions "
        "where id = 1",
        "delete from regions where id = 2",
        "update next_vectors set vectors = x'00' where photo_id = 1",
        "update next_vectors set residuals = 'x' where photo_id = 1",
        "update next_vectors set newest_region = 'x' where photo_id = 1",
        "delete from photos where id = 1",
    ],
)
def test_what_changes_meanwhile_is_made_anew(
    place: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reencode, "PHOTOS_AT_ONCE", 1)
    with GalleryFile.open(place / "gallery.db") as gallery:
        outcomes = reencode_photos(gallery, GreyEncoder(), begin(gallery))
        next(outcomes)
        gallery.connection.execute(change)
        rest = list(outcomes)
        assert isinstance(rest[-1], Exchanged)
        regions = gallery.connection.execute("select count(*) from regions").get
        assert len(stored(gallery)) == regions
    assert state(place / "gallery.db") is FindingState.OK


def test_who_relies_on_the_former_encoder_is_told(place: Path) -> None:
    with GalleryFile.open(place / "gallery.db") as other, GalleryFile.open(place / "gallery.db") as gallery:
        other.check_model("encoder", OLD)
        with same_models(other):
            pass
        list(reencode_photos(gallery, GreyEncoder(), begin(gallery)))
        with pytest.raises(GalleryChanged), same_models(other):
            pass
        with pytest.raises(GalleryChanged), same_models(other):  # vectors of another length look damaged
            rank_photos(other, np.ones(64, np.float32), 3)
        with pytest.raises(GalleryChanged), other.atomic():
            store_vectors(other, 1, [1], np.ones((1, 64), np.float32))
        gallery.check_model("encoder", NEW)
        with same_models(gallery):
            assert rank_photos(gallery, np.ones(96, np.float32), 3)


def test_the_space_is_known_before(place: Path) -> None:
    with GalleryFile.open(place / "gallery.db") as gallery:
        begun, size = begin(gallery), gallery.file_bytes
        needed = space_needed(gallery, 96)
        regions = len(stored(gallery))
        assert regions * 96 * 1.5 < needed < 10 * regions * 96
        list(reencode_photos(gallery, GreyEncoder(), begun))
        assert gallery.file_bytes - size < needed


def kill_at(path: Path, number: int) -> bool:
    """Go on with `path` in a process that kills itself before its n-th statement; True if it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with GalleryFile.open(path) as gallery:
                statements = count(1)

                def kill(*_: object) -> bool:
                    if next(statements) == number:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return True

                gallery.connection.exec_trace = kill
                begun = begin_reencoding(gallery, NEW, "set of new", restart=False)
                if begun is not None:
                    list(reencode_photos(gallery, GreyEncoder(), begun))
            code = 0
        finally:
            os._exit(code)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in (0, -signal.SIGKILL)
    return ended != 0


def test_killed_before_any_statement_it_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every thirteenth statement; after each kill, the vectors are those of the encoder that is named."""
    monkeypatch.setattr(reencode, "PHOTOS_AT_ONCE", 4)
    with GalleryFile.open(place / "gallery.db") as gallery:
        old = stored(gallery)
    shutil.copy(place / "gallery.db", place / "whole.db")
    assert not kill_at(place / "whole.db", 0)
    with GalleryFile.open(place / "whole.db") as gallery:
        new = stored(gallery)
    kills = 0
    for number in count(1, 13):
        path = Path(shutil.copy(place / "gallery.db", place / "killed.db"))
        if not kill_at(path, number):
            break
        kills += 1
        with GalleryFile.open(path) as gallery:
            assert (stored(gallery), gallery.model("encoder")) in ((old, OLD), (new, NEW))
        assert state(path) is not FindingState.PROBLEM
        assert not kill_at(path, 0)
        with GalleryFile.open(path) as gallery:
            assert (stored(gallery), gallery.model("encoder")) == (new, NEW)
        assert state(path) is FindingState.OK
    assert kills > 10
