"""The Python API with the tiny model set."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import pytest
from PIL import Image

import matir_cli
from matir_cli import (
    Added,
    Box,
    Gallery,
    Hit,
    Linked,
    MatirError,
    Point,
    Refreshed,
    Skipped,
    StoredPhoto,
    Unchanged,
    errors,
)
from matir_cli.engines.protocols import GroundingQuestion, JudgePhoto
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import store_metadata
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import ModelSession
from matir_cli.records import FileMetadata, Grounding, Verdict
from matir_cli.search.filters import Orientation
from tests.support.process import PHOTOS, Indexed, matir

ROOT = Path(__file__).parent.parent


@pytest.fixture
def path(indexed: Indexed, tmp_path: Path) -> Path:
    """A copy of the indexed gallery, which still refers to the drawn pictures."""
    return Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))


def test_the_public_names_are_these() -> None:
    assert sorted(matir_cli.__all__) == [
        *("Added", "Box", "Example", "Gallery", "Hit", "Instance", "Linked", "MatirError", "PhotoRecord"),
        *("PhotoRegion", "Point", "RayOptions", "Refreshed", "Skipped", "StoredPhoto", "Unchanged", "errors"),
    ]
    assert set(matir_cli.__all__) <= set(dir(matir_cli))
    assert all(getattr(matir_cli, name) is not None for name in matir_cli.__all__)
    assert errors.MatirError is MatirError
    with pytest.raises(AttributeError, match="nonsense"):
        matir_cli.nonsense  # noqa: B018 - that is the test
    public = [name for name in vars(Gallery) if not name.startswith("_")]
    assert sorted(public) == ["add", "close", "find", "open_many", "photo", "photos", "regions", "remove"]


def test_importing_the_package_loads_nothing() -> None:
    script = (
        "import sys; before = {*sys.modules}; import matir_cli; loaded = {*sys.modules} - before; "
        "print(*(name for name in loaded if name.split('.')[0] not in sys.stdlib_module_names)); "
        "matir_cli.Gallery; print('numpy' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, check=False, cwd=ROOT)
    first = done.stdout.decode().splitlines()[0]
    assert first == "matir_cli", done.stderr
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.decode().splitlines()[1] == "True False"  # searching needs no torch


def test_photos_are_added_once(indexed: Indexed, tmp_path: Path) -> None:
    new, folder = tmp_path / "sub" / "new.db", tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        shutil.copy(indexed.photos / f"000{number}.png", folder)
    (folder / "b.jpg").write_bytes(b"junk")
    with Gallery(new, models="tiny", device="cpu") as gallery:
        assert (len(gallery), bool(gallery), [*gallery.photos()]) == (0, True, [])
        assert not new.exists()
        outcomes = {outcome.path.name: outcome for outcome in gallery.add(str(folder))}
        assert [type(outcomes[name]) for name in sorted(outcomes)] == [Added, Added, Skipped]
        shutil.copy(folder / "0000.png", folder / "copy.png")
        again = {outcome.path.name: type(outcome) for outcome in gallery.add([folder])}
        assert again == {"0000.png": Unchanged, "0001.png": Unchanged, "b.jpg": Skipped, "copy.png": Linked}
        assert len(gallery) == 2
        photo = next(gallery.photos())
        assert [found.name for found in photo.paths] == ["0000.png", "copy.png"]
    with Gallery(new) as gallery:
        assert len(gallery.find("dog", rerank=False)) == 2


def test_what_is_found_is_what_the_command_finds(path: Path) -> None:
    words = ("find", "red house", "--no-rerank", "-n", 5, "--jsonl", "--db", path)
    records = [json.loads(line) for line in matir(*words).stdout.splitlines()]
    with Gallery(str(path)) as gallery:
        hits = gallery.find("red house", limit=5, rerank=False)
    assert len(hits) == 5
    for hit, record in zip(hits, records, strict=True):
        assert (hit.rank, str(hit.path)) == (record["rank"], record["path"])
        assert hit.score == hit.stage1_score == pytest.approx(record["score"], abs=1e-6)
        assert hit.p_true is None
        assert hit.box is not None
        assert [hit.box.x0, hit.box.y0, hit.box.x1, hit.box.y1] == pytest.approx(record["box"], abs=0.01)
        with Image.open(hit.path) as picture:
            assert (hit.photo.record.width, hit.photo.record.height) == picture.size
        assert hit.mask is not None
        assert hit.mask.dtype == np.bool_
        assert hit.mask.shape == (picture.height, picture.width)
        rows, columns = np.nonzero(hit.mask)
        tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.array(tight) - record["box"]).max() <= 2
        (instance,) = hit.instances
        assert (instance.box, instance.iou) == (hit.box, None)


def test_an_object_shown_in_a_photo_is_found(indexed: Indexed, path: Path) -> None:
    with Gallery(path) as gallery:
        photo = gallery.photo(indexed.photos / "0003.png")
        whole, region, *_ = gallery.regions(photo)
        assert (whole.ordinal, bool(whole.mask.all())) == (0, True)
        assert region.mask.shape == (photo.record.height, photo.record.width)
        first = gallery.find(image=str(indexed.photos / "0003.png"), box=region.box, limit=1)[0]
        assert first.photo == photo
        assert first.box == region.box
        assert first.stage1_score == pytest.approx(1.0, abs=0.02)
        corners = (region.box.x0, region.box.y0, region.box.x1, region.box.y1)
        for given in (corners, [*corners]):
            assert gallery.find(image=indexed.photos / "0003.png", box=given, limit=1) == [first]


class Filters(TypedDict, total=False):
    """Arguments of `Gallery.find` that choose photos."""

    below: Path | list[Path]
    since: str | date
    until: str
    camera: str
    min_score: float
    near: tuple[float, float]
    within: float
    has_gps: bool
    orientation: Orientation
    rating: str | int
    keywords: str | list[str]
    no_keywords: str | list[str]


def test_where_to_look(indexed: Indexed, path: Path) -> None:
    def names(**filters: Unpack[Filters]) -> list[str]:
        hits = gallery.find("dog", rerank=False, limit=PHOTOS, **filters)
        return sorted(hit.path.name for hit in hits)

    with GalleryFile.open(path) as file:
        file.connection.execute("update photos set taken_at = '2024-05-1' || id || 'T10:00:00' where id < 4")
        file.connection.execute("update photos set camera = 'Pixel 9' where id = 3")
        file.connection.execute(
            "update photos set latitude = 52.4 + id / 20.0, longitude = 13.4 where id in (2, 3)"
        )
        for number, rating in ((1, 5), (2, 3)):
            described = FileMetadata(rating, ("holiday", f"number {number}"))
            store_metadata(file.connection, file.paths(number)[0], described, None)
        file.connection.execute("delete from file_metadata where path = ?", (str(file.paths(4)[0]),))
    with Gallery(path) as gallery:
        assert names(below=indexed.photos / "0004.png") == ["0004.png"]
        assert len(names(below=[indexed.photos])) == PHOTOS
        assert names(since="2024-05-12") == ["0001.png", "0002.png"]
        assert names(since=date(2024, 5, 12), until="2024-05-12T12") == ["0001.png"]
        assert names(camera="pixel") == ["0002.png"]
        assert names(min_score=1.5) == []
        assert names(near=(52.5, 13.4)) == ["0001.png"]
        assert names(near=(52.5, 13.4), within=20_000) == names(has_gps=True) == ["0001.png", "0002.png"]
        assert len(names(has_gps=False)) == PHOTOS - 2
        assert names(orientation="portrait") == ["0002.png"]
        with pytest.warns(UserWarning, match=r"ratings and keywords of some files \(1\) are not known"):
            assert names(rating="3+") == ["0000.png", "0001.png"]
        assert list(gallery.add(indexed.photos / "0003.png", metadata=True)) == [
            Refreshed(indexed.photos / "0003.png")
        ]
        assert names(rating=3) == names(keywords=["HOLIDAY", "number 2"]) == ["0001.png"]
        assert len(names(no_keywords="holiday")) == len(names(rating=0)) == PHOTOS - 2
        by_path = gallery.find("dog", rerank=False, limit=3, sort="path")
        assert [hit.path for hit in by_path] == sorted(
            hit.path for hit in gallery.find("dog", rerank=False, limit=3)
        )
        regions = [hit.found.objects[0].region for hit in gallery.find("dog", rerank=False, max_size=0.9)]
        assert all(region is not None and region.ordinal for region in regions)
        assert gallery.find("dog", rerank=False, without="a cat") != gallery.find("dog", rerank=False)


def test_photos_regions_and_forgetting(path: Path) -> None:
    with Gallery(path) as gallery:
        photos = [*gallery.photos()]
        assert [photo.id for photo in photos] == [*range(1, PHOTOS + 1)]
        assert all(isinstance(photo, StoredPhoto) for photo in photos)
        known = photos[4].paths[0]
        assert gallery.photo(5) == gallery.photo(known) == gallery.photo(photos[4]) == photos[4]
        assert gallery.regions(5) == gallery.regions(str(known))
        with pytest.raises(errors.PhotoUnknown):
            gallery.remove(photos[0], "/no/such.jpg")
        assert len(gallery) == PHOTOS
        for unknown in (99, -1, "12"):  # a path is never taken for an id
            with pytest.raises(errors.PhotoUnknown):
                gallery.photo(unknown)
        assert set(gallery.remove(photos[4], 6)) == {*photos[4].paths, *photos[5].paths}
        assert len(gallery) == PHOTOS - 2
        assert known.exists()
        assert known not in [hit.path for hit in gallery.find("dog", rerank=False, limit=PHOTOS)]


def test_what_is_found_prints_as_one_harmless_line(path: Path) -> None:
    with Gallery(path) as gallery:
        (hit,) = gallery.find("red house", limit=1, rerank=False)
        assert hit.box is not None
        box = ",".join(str(round(edge)) for edge in (hit.box.x0, hit.box.y0, hit.box.x1, hit.box.y1))
        name = hit.path.name
        assert repr(hit) == f"<Hit 1: '{name}', score {hit.score:.3f}, box {box}>"
        assert repr(hit.instances) == f"(<Instance in '{name}', box {box}>,)"
        whole = gallery.regions(hit.photo)[0]
        size = whole.photo.record
        assert repr(whole) == f"<PhotoRegion 0 of '{name}', box 0,0,{size.width},{size.height}>"
        steering = replace(hit.photo, paths=(Path("/a/x\x1b[31m\n\u202e\udcffé.png"),))
        (bare,) = (replace(answer, mask=None) for answer in hit.found.objects)
        shown = repr(Hit(replace(hit.found, photo=steering, objects=(bare,))))
        assert shown == rf"<Hit 1: 'x\x1b[31m\n\u202e\udcffé.png', score {hit.score:.3f}, box {box}, no mask>"
        nowhere = Hit(replace(hit.found, photo=replace(hit.photo, paths=()), objects=()))
        assert repr(nowhere) == f"<Hit 1: photo {hit.photo.id}, score {hit.score:.3f}, no box>"


def test_errors_are_those_documented(path: Path, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_bytes(b"hello " * 100)
    with pytest.raises(errors.NotAGallery):
        Gallery(tmp_path / "text.db")
    with pytest.raises(errors.ModelSetUnknown):
        Gallery(path, models="nonsense")
    with Gallery(tmp_path / "new.db", models="lite") as gallery:
        with pytest.raises(errors.WeightsMissing):
            gallery.add(["photos"])  # at once, not with the first outcome
        with pytest.raises(errors.GalleryMissing, match=rf"^there is no gallery at {tmp_path}/new\.db\.$"):
            gallery.find("dog")
        with pytest.raises(errors.GalleryMissing):
            gallery.photo(1)
    assert not (tmp_path / "new.db").exists()
    with Gallery(path) as gallery:
        contradictions: list[Callable[[], object]] = [
            lambda: gallery.find("dog", box=Box(0, 0, 1, 1)),
            lambda: gallery.find("dog", image="a", box=(0, 0, 1, 1), point=Point(0, 0)),
            lambda: gallery.find("dog", since="May"),
            lambda: gallery.find("dog", min_p=0.5, rerank=False),
        ]
        for contradict in contradictions:
            with pytest.raises(ValueError, match=r"\w"):
                contradict()
        outside: dict[str, Callable[[], object]] = {
            "limit is 0": lambda: gallery.find("dog", limit=0),
            "min_p is 3": lambda: gallery.find("dog", min_p=3),
            "weight is 7": lambda: gallery.find("dog", weight=7),
            "min_size is 3": lambda: gallery.find("dog", min_size=3),
            "max_size is -1": lambda: gallery.find("dog", max_size=-1),
        }
        for problem, find in outside.items():
            with pytest.raises(ValueError, match=f"{problem}; it must be"):
                find()
        with pytest.raises(errors.QueryEmpty, match="the query is empty"):
            gallery.find()
        with pytest.raises(errors.PhotoUnreadable):
            gallery.find(image=tmp_path / "no.jpg")
        with pytest.warns(UserWarning, match="its end was left out"):
            gallery.find("dog " * 200, rerank=False)
    for use in (
        lambda: len(gallery),
        lambda: gallery.find("dog"),
        lambda: gallery.add([]),
        lambda: next(gallery.photos()),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()


class InterruptedJudge:
    """A judge that is interrupted (Ctrl-C) at its third photo."""

    grounds_at_once = 1
    offers = 0

    def __init__(self) -> None:
        self.asked = 0

    def rerank(self, photo: JudgePhoto, queries: Sequence[str]) -> Sequence[Verdict | None]:
        self.asked += 1
        if self.asked == 3:
            raise KeyboardInterrupt
        return [Verdict(1.0, 0.0) for _ in queries]

    def ground(self, questions: Sequence[GroundingQuestion]) -> Sequence[Grounding | None]:
        return [Grounding((), "", True) for _ in questions]

    def close(self) -> None:
        pass


class WithJudge(ModelSession):
    """The tiny set's engines, with the interrupted judge."""

    judge = InterruptedJudge()
    judge_key = "interrupted"


def test_ctrl_c_is_the_callers(path: Path) -> None:
    with Gallery(path) as gallery, GalleryFile.open(path) as file:
        gallery._engines = WithJudge(file, load_model_set("tiny"), "cpu")
        with pytest.raises(KeyboardInterrupt):
            gallery.find("dog")
        hits = gallery.find("dog")  # the verdicts so far were remembered
        assert WithJudge.judge.asked == 3 + PHOTOS - 2
        assert [hit.p_true is not None for hit in hits] == [True] * 10
        assert [(hit.box, hit.mask, hit.instances) for hit in hits] == [(None, None, ())] * 10


def test_several_galleries_are_searched_as_one(path: Path, tmp_path: Path) -> None:
    halves = [tmp_path / "shards" / "1.db", tmp_path / "shards" / "2.db"]
    halves[0].parent.mkdir()
    for number, half in enumerate(halves):
        shutil.copy(path, half)
        with Gallery(half) as gallery:
            ids = [photo.id for photo in gallery.photos()]
            gallery.remove(*(ids[:6] if number else ids[6:]))
    with Gallery(path) as whole, Gallery.open_many(tmp_path / "shards") as gallery:
        assert len(gallery) == len(whole) == PHOTOS
        found, expected = (each.find("red house", rerank=False) for each in (gallery, whole))
        assert [(hit.path, hit.score) for hit in found] == [(hit.path, hit.score) for hit in expected]
        assert [photo.id for photo in gallery.photos()] == [*range(1, PHOTOS + 1)]
        photo = gallery.photo(found[0].path)
        assert photo.paths == gallery.photo(photo.id).paths
        assert len(gallery.regions(photo)) == len(whole.regions(found[0].path))
        with pytest.raises(ValueError, match="only read"):
            gallery.remove(photo)
        with pytest.raises(errors.PhotoUnknown):
            gallery.photo(PHOTOS + 1)
    with pytest.raises(errors.GalleryMissing):
        Gallery.open_many([*halves, tmp_path / "none.db"])
    with (
        pytest.warns(UserWarning, match="left out: there is no gallery"),
        Gallery.open_many([*halves, tmp_path / "none.db"], skip_missing=True) as gallery,
    ):
        assert len(gallery) == PHOTOS
