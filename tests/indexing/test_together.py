"""Indexing on a processor of the models' own: photos encoded together, and proposed two at a time."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from matir_cli import masks
from matir_cli.engines.protocols import MaskedPhoto, RegionEncoder, RegionProposer
from matir_cli.engines.registry import load_proposer, load_region_encoder, proposals_at_once
from matir_cli.errors import EngineFailed
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.outcomes import Added, Outcome, Skipped
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.indexing.prefetch import prefetch_groups
from matir_cli.indexing.steps import MOST_PHOTOS, MOST_REGIONS, encode_together
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import locate_part
from matir_cli.models.tiny.world import SPLITS, picture
from matir_cli.records import FloatArray, ImageArray, Region, Rle
from tests.support.fakes import ColourEncoder, ColourProposer, near
from tests.support.pictures import save_scenes

NAMES = [f"p{number:02}" for number in range(12)]
COLOURS = ("red", "green blue", "blue", "red green blue")


@dataclass
class GroupingEncoder(ColourEncoder):
    """Notes how many photos it is given, and encodes none before it is told to."""

    may_begin: threading.Event = field(default_factory=threading.Event)
    groups: list[int] = field(default_factory=list)

    def encode_photos(self, photos: Sequence[MaskedPhoto]) -> list[FloatArray]:
        assert self.may_begin.wait(20)
        self.groups.append(len(photos))
        return super().encode_photos(photos)


@dataclass
class SignallingProposer(ColourProposer):
    """Tells when it has proposed the regions of so many photos."""

    enough: int
    reached: threading.Event
    seen: int = 0

    def propose(self, image: ImageArray) -> list[Region]:
        regions = super().propose(image)
        if self.seen == self.enough:
            self.reached.set()
        return regions


class RedError(Exception):
    """An error about photos with red things."""


class SelectiveEncoder(ColourEncoder):
    """Fails, or gives no numbers, for photos with red things."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def encode(self, image: ImageArray, rles: Sequence[Rle]) -> FloatArray:
        vectors = super().encode(image, rles)
        if near(image, "red").any():
            if self.error is not None:
                raise self.error
            vectors[-1, 0] = np.nan
        return vectors


class LonelyEncoder(ColourEncoder):
    """Has memory for one photo at a time."""

    def encode_photos(self, photos: Sequence[MaskedPhoto]) -> list[FloatArray]:
        if len(photos) > 1:
            raise EngineFailed("the device has not enough memory for one item at a time")
        return super().encode_photos(photos)


@dataclass(frozen=True)
class Place:
    """A folder of scenes, and galleries that are made of them."""

    folder: Path
    paths: list[Path]

    def add(
        self,
        encoder: RegionEncoder,
        proposer: RegionProposer | None = None,
        *,
        side_by_side: bool = True,
        proposed_at_once: int = 2,
        name: str = "gallery.db",
        outcomes: list[Outcome] | None = None,
    ) -> list[Outcome]:
        """Add all scenes."""
        found: list[Outcome] = [] if outcomes is None else outcomes
        models = IndexingModels(
            lambda: proposer or ColourProposer(),
            lambda: encoder,
            lambda: side_by_side,
            lambda: proposed_at_once,
        )
        with GalleryFile.open(self.folder / name, create=True) as gallery:
            for outcome in add_photos(gallery, [self.folder / "photos"], models, previews=True):
                found.append(outcome)
        return found

    def content(self, name: str = "gallery.db") -> list[tuple[int, int, bytes, bytes]]:
        """Return the photos' regions and vectors, in the order of the gallery."""
        with GalleryFile.open(self.folder / name) as gallery:
            select = (
                "select regions.photo_id, ordinal, rle, vector from regions "
                "join vectors on region_id = regions.id order by regions.photo_id, ordinal"
            )
            rows: list[Any] = gallery.connection.execute(select).fetchall()
        return [(int(photo), int(ordinal), bytes(rle), bytes(vector)) for photo, ordinal, rle, vector in rows]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A dozen scenes of several colours."""
    scenes = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(NAMES)}
    return Place(tmp_path, save_scenes(tmp_path / "photos", **scenes))


# -- Encoding together ---------------------------------------------------------------------


def test_photos_that_wait_for_the_encoder_are_encoded_together(place: Place) -> None:
    encoder = GroupingEncoder()
    proposer = SignallingProposer(1 + MOST_PHOTOS, encoder.may_begin)
    assert place.add(encoder, proposer, proposed_at_once=1) == place.add(
        ColourEncoder(), side_by_side=False, name="alone.db"
    )
    assert sum(encoder.groups) == len(NAMES)
    assert 1 < max(encoder.groups) <= MOST_PHOTOS
    assert place.content() == place.content("alone.db")


def test_nothing_waits_for_others(place: Place) -> None:
    """An encoder that is faster than the proposer gets one photo at a time."""
    encoder = GroupingEncoder()
    encoder.may_begin.set()
    written: list[Outcome] = []
    turns = threading.Semaphore(1)

    class SlowProposer(ColourProposer):
        def propose(self, image: ImageArray) -> list[Region]:
            assert turns.acquire(timeout=20)
            return super().propose(image)

    models = IndexingModels(SlowProposer, lambda: encoder, lambda: True)
    with GalleryFile.open(place.folder / "gallery.db", create=True) as gallery:
        for outcome in add_photos(gallery, [place.folder / "photos"], models, previews=False):
            written.append(outcome)
            turns.release()
    assert encoder.groups == [1] * len(NAMES)
    assert len(written) == len(NAMES)


def test_on_a_cpu_photos_are_encoded_one_by_one(place: Place) -> None:
    encoder = GroupingEncoder()
    encoder.may_begin.set()
    place.add(encoder, side_by_side=False)
    assert encoder.groups == [1] * len(NAMES)


def test_groups_are_bounded_by_regions(tmp_path: Path) -> None:
    class Splitting(SignallingProposer):
        def propose(self, image: ImageArray) -> list[Region]:
            return super().propose(image)[:1] * (MOST_REGIONS // 2 - 1)

    encoder = GroupingEncoder()
    bounded = Place(tmp_path, save_scenes(tmp_path / "photos", **dict.fromkeys(NAMES, "red")))
    bounded.add(encoder, Splitting(1 + MOST_PHOTOS, encoder.may_begin), proposed_at_once=1)
    assert max(encoder.groups) == 2


@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_vector_of_nan_concerns_its_own_photo(place: Place, side_by_side: bool) -> None:
    outcomes = place.add(SelectiveEncoder(None), side_by_side=side_by_side)
    refused = [outcome.path for outcome in outcomes if isinstance(outcome, Skipped)]
    assert refused == [path for number, path in enumerate(place.paths) if number % 4 in (0, 3)]
    assert sum(isinstance(outcome, Added) for outcome in outcomes) == 6


def test_an_error_comes_at_its_own_photo(place: Place) -> None:
    """The photos before it in its group are written; those behind it are added by the next run."""
    for path in (place.paths[0], place.paths[3]):
        path.unlink()
    written: list[Outcome] = []
    with pytest.raises(RedError):
        place.add(SelectiveEncoder(RedError()), outcomes=written)
    assert [outcome.path for outcome in written] == [place.paths[1], place.paths[2]]
    again = place.add(ColourEncoder())
    assert sum(isinstance(outcome, Added) for outcome in again) == len(NAMES) - 4


def test_photos_that_do_not_fit_together_are_encoded_alone(place: Place) -> None:
    outcomes = place.add(LonelyEncoder())
    assert [type(outcome) for outcome in outcomes] == [Added] * len(NAMES)
    photo = MaskedPhoto(np.zeros((8, 8, 3), np.uint8), [masks.whole(8, 8)])
    assert len(list(encode_together([photo] * 3, LonelyEncoder()))) == 3


# -- Two photos proposed at a time ---------------------------------------------------------


class MeetingProposer(ColourProposer):
    """Proposes no regions before another thread does so, too; notes how many do at a time."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self.meeting = threading.Barrier(threads)

    def propose(self, image: ImageArray) -> list[Region]:
        self.meeting.wait(20)
        return super().propose(image)


def test_two_photos_are_proposed_at_a_time_and_written_in_order(place: Place) -> None:
    proposer = MeetingProposer(2)
    loads: list[None] = []

    def load() -> RegionProposer:
        loads.append(None)
        return proposer

    models = IndexingModels(load, ColourEncoder, lambda: True, lambda: 2)
    with GalleryFile.open(place.folder / "gallery.db", create=True) as gallery:
        outcomes = list(add_photos(gallery, [place.folder / "photos"], models, previews=False))
    assert [outcome.path for outcome in outcomes] == place.paths
    assert len(loads) == 1
    place.add(ColourEncoder(), side_by_side=False, name="alone.db")
    assert place.content() == place.content("alone.db")


def test_on_a_cpu_one_photo_is_proposed_at_a_time() -> None:
    assert proposals_at_once("cpu") == 1


def test_two_threads_get_the_regions_and_prompts_of_one_after_the_other() -> None:
    """With the trained tiny SAM 2, whose threads share the model and the sizes of its batches."""
    proposer = load_proposer(locate_part(load_model_set("tiny"), "proposer"), "cpu")
    start = SPLITS["demo"].start
    images = [picture(seed).image for seed in range(start, start + 5)]
    names: set[str] = set()
    meeting = threading.Barrier(2)

    def propose(image: ImageArray) -> tuple[list[Region], int]:
        if len(names) < 2:
            names.add(threading.current_thread().name)
            meeting.wait(20)
        before = proposer.prompts_asked
        regions = proposer.propose(image)
        return regions, proposer.prompts_asked - before

    groups = prefetch_groups(images, propose, depth=4, workers=2, full=lambda _: False)
    together = [result for group in groups for result in group]
    assert len(names) == 2
    assert proposer.prompts_asked == 0, "this thread has asked nothing"
    for image, (regions, prompts) in zip(images, together, strict=True):
        before = proposer.prompts_asked
        assert regions == proposer.propose(image)
        assert prompts == proposer.prompts_asked - before > 0


def test_a_gallery_of_the_tiny_models_is_that_of_photos_one_by_one(tmp_path: Path) -> None:
    tiny = load_model_set("tiny")
    proposer = load_proposer(locate_part(tiny, "proposer"), "cpu")
    encoder = load_region_encoder(locate_part(tiny, "encoder"), "cpu")
    place = Place(tmp_path, [tmp_path / "photos" / f"{number}.png" for number in range(4)])
    (tmp_path / "photos").mkdir()
    for path, seed in zip(place.paths, range(SPLITS["demo"].start, SPLITS["demo"].start + 4), strict=True):
        Image.fromarray(picture(seed).image).save(path)
    outcomes = place.add(encoder, proposer)
    assert outcomes == place.add(encoder, proposer, side_by_side=False, name="alone.db")
    assert all(isinstance(outcome, Added) and outcome.prompts > 0 for outcome in outcomes)
    together, alone = place.content(), place.content("alone.db")
    assert [row[:3] for row in together] == [row[:3] for row in alone]
    for ours, theirs in zip(together, alone, strict=True):
        left, right = (np.frombuffer(row[3], np.int8).astype(int) for row in (ours, theirs))
        assert np.abs(left - right).max() <= 1  # vectors are rounded to bytes
