"""Corrections from Label Studio, as regions and answers of a person."""

import io
import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli import masks
from matir_cli.errors import RegionFileInvalid
from matir_cli.gallery.brush_rle import encode_brush
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.label_studio import REGION_ID, Prediction, TaskFile
from matir_cli.gallery.rows import StoredRegion
from matir_cli.gallery.verdict_cache import HUMAN_FALSE, HUMAN_JUDGE, HUMAN_TRUE, VerdictCache
from matir_cli.indexing import corrections as reasons
from matir_cli.indexing import drawn_results
from matir_cli.indexing.corrections import CorrectionCounts, import_tasks, read_tasks
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.maintenance.compact import compact_gallery
from matir_cli.maintenance.doctor.findings import FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.records import Box, MaskArray, OriginKind, RegionOrigin, Verdict
from matir_cli.search.grounding import MatchOptions, results_by_box
from matir_cli.search.rerank import rerank_candidates
from matir_cli.search.results import MATCHED
from tests.search.judged_gallery import candidates, open_session
from tests.support.fakes import ColourEncoder, ColourJudge, ColourProposer
from tests.support.pictures import save_scenes

WIDTH, HEIGHT = 120, 90

MODELS = IndexingModels(ColourProposer, ColourEncoder)

Tasks = list[dict[str, Any]]

Apply = dict[str, int]


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    save_scenes(tmp_path / "photos", a="red green", b="red")
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as opened:
        list(add_photos(opened, [tmp_path / "photos"], MODELS, previews=True))
        yield opened


def exported(gallery: GalleryFile, query: str | None = "red") -> Tasks:
    """Tasks of both photos with their regions as predictions, each annotated by accepting them all."""
    stream = io.StringIO()
    file = TaskFile(stream, io.StringIO(), Path("/"))
    file.start()
    for photo_id in (1, 2):
        predictions = [
            Prediction(f"{REGION_ID}{each.id}", query or "region", each.box, each.region.rle, 0.5)
            for each in gallery.regions(photo_id)
            if each.ordinal > 0
        ]
        photo = gallery.photo(photo_id)
        file.add(photo, photo.paths[0], query, predictions)
    file.end()
    tasks: Tasks = json.loads(stream.getvalue())
    for number, task in enumerate(tasks):
        result = deepcopy(task["predictions"][0]["result"])
        task |= {"id": number, "annotations": [{"id": 7, "result": result, "was_cancelled": False}]}
    return tasks


def result_of(tasks: Tasks, task: int = 0) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = tasks[task]["annotations"][0]["result"]
    return result


def imported(gallery: GalleryFile, tasks: object, models: IndexingModels = MODELS) -> CorrectionCounts:
    path = gallery.path.with_name("export.json")
    path.write_text(json.dumps(tasks))
    counts = CorrectionCounts()
    for _ in import_tasks(gallery, read_tasks(path), models, counts):
        pass
    return counts


def figures(counts: CorrectionCounts) -> tuple[int, int, int, int, int]:
    return counts.accepted, counts.changed, counts.new, counts.rejected, counts.answers


def brush(mask: MaskArray, label: str = "red", name: str = "own") -> dict[str, Any]:
    value = {"format": "rle", "rle": encode_brush(mask), "brushlabels": [label]}
    return sized({"id": name, "type": "brushlabels", "value": value})


def sized(result: dict[str, Any]) -> dict[str, Any]:
    return {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, **result}


def square(x: int, y: int, side: int = 20) -> MaskArray:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def human(gallery: GalleryFile, photo_id: int) -> list[StoredRegion]:
    return [each for each in gallery.regions(photo_id) if each.region.is_human]


def answer(gallery: GalleryFile, photo_id: int, query: str = "red") -> Verdict | None:
    """What a search with some judge learns about the photo."""
    return VerdictCache(gallery, "k" * 64, query).verdict(photo_id)


def content(gallery: GalleryFile) -> list[list[Any]]:
    tables = ("regions", "region_origins", "vectors", "residuals", "questions", "verdicts", "groundings")
    return [gallery.connection.execute(f"select * from {table}").fetchall() for table in tables]


def check_sound(gallery: GalleryFile) -> None:
    findings = list(examine_gallery(gallery.path, deep=True))
    assert [each for each in findings if each.state is not FindingState.OK] == []


def test_accepted_masks_become_a_persons(gallery: GalleryFile) -> None:
    before = gallery.connection.execute("select * from regions").fetchall()
    counts = imported(gallery, exported(gallery))
    assert (figures(counts), counts.known) == ((3, 0, 0, 0, 2), 0)
    assert gallery.connection.execute("select * from regions").fetchall() == before
    origin = RegionOrigin(OriginKind.HUMAN, "red")
    for photo_id in (1, 2):
        assert [each.region.origin for each in gallery.regions(photo_id)[1:]] == [origin] * (3 - photo_id)
        assert answer(gallery, photo_id) == HUMAN_TRUE
    after = content(gallery)
    counts = imported(gallery, exported(gallery))
    assert (figures(counts), counts.known) == ((3, 0, 0, 0, 2), 2)
    assert content(gallery) == after
    check_sound(gallery)


def test_changed_new_and_rejected_masks(gallery: GalleryFile) -> None:
    tasks = exported(gallery)
    red, green = result_of(tasks)
    changed, new = square(12, 22), square(80, 60)
    red["value"]["rle"] = encode_brush(changed)
    tasks[0]["annotations"][0]["result"] = [red, brush(new)]  # the green one was deleted
    tasks[1]["annotations"][0]["result"] = []
    counts = imported(gallery, tasks)
    assert figures(counts) == (0, 1, 1, 2, 2)
    assert (counts.tasks, counts.results) == ({}, {})
    assert [each.region.rle for each in human(gallery, 1)] == [masks.encode(changed), masks.encode(new)]
    assert len(gallery.regions(1)) == 5  # the proposer's stay
    assert green["id"] in tasks[0]["data"]["matir"]["predicted"]
    assert human(gallery, 2) == []
    assert (answer(gallery, 1), answer(gallery, 2)) == (HUMAN_TRUE, HUMAN_FALSE)
    grounding = VerdictCache(gallery, "k" * 64, "red").grounding(1)
    assert grounding is not None
    assert grounding.boxes == tuple(each.box for each in human(gallery, 1))
    after = content(gallery)
    assert imported(gallery, tasks).known == 2
    assert content(gallery) == after
    result_of(tasks).pop()  # the region stays, and the places in the answer are others
    assert imported(gallery, tasks).known == 1
    assert imported(gallery, tasks).known == 2
    check_sound(gallery)


def test_a_person_goes_before_the_judge_and_finds_the_own_mask(gallery: GalleryFile) -> None:
    judge = ColourJudge()
    session = open_session(gallery, judge)
    assert {item.candidate.photo_id for item in rerank_candidates(session, candidates(gallery))} == {1, 2}
    tasks = exported(gallery)
    drawn = square(15, 25)
    tasks[0]["annotations"][0]["result"] = [brush(drawn)]
    tasks[1]["annotations"][0]["result"] = []
    imported(gallery, tasks)
    judged = {
        item.candidate.photo_id: item
        for item in rerank_candidates(open_session(gallery, None), candidates(gallery))
    }
    verdicts = {photo_id: item.verdict for photo_id, item in judged.items()}
    assert verdicts == {1: HUMAN_TRUE, 2: HUMAN_FALSE}
    results = list(results_by_box(open_session(gallery, None), [judged[1]], MatchOptions()))
    assert results[0].grounding == MATCHED
    assert results[0].objects[0].mask == masks.encode(drawn)
    # Also when the judge is asked anew, when its answers are forgotten, and for another judge.
    open_session(gallery, judge, fresh=True)
    compact_gallery(gallery, drop_previews=False, forget_verdicts=True)
    assert answer(gallery, 2) == HUMAN_FALSE
    assert VerdictCache(gallery, "f" * 64, "red", limit=1).verdict(1) == HUMAN_TRUE
    other = VerdictCache(gallery, "f" * 64, "blue", limit=1)
    other.remember(1, Verdict(1.0, 2.0))
    VerdictCache(gallery, "f" * 64, "green", limit=1).remember(1, Verdict(1.0, 2.0))
    assert answer(gallery, 1) == HUMAN_TRUE  # a person's answers are not the oldest to go
    assert VerdictCache(gallery, HUMAN_JUDGE, "red").verdict(2) == HUMAN_FALSE
    # The judge's boxes also lead to the person's region, for another question about the same object.
    judge.shift = 3.0
    again = open_session(gallery, judge, "red")
    gallery.connection.execute("delete from questions")
    (found,) = results_by_box(again, [judged[1]], MatchOptions())
    assert found.objects[0].mask == masks.encode(drawn)


def test_a_persons_region_is_corrected_again(gallery: GalleryFile) -> None:
    tasks = exported(gallery)
    tasks[0]["annotations"][0]["result"] = [brush(square(15, 25))]
    imported(gallery, tasks)
    (first,) = human(gallery, 1)
    tasks = exported(gallery)
    (own,) = [each for each in result_of(tasks) if each["id"] == f"{REGION_ID}{first.id}"]
    own["value"]["rle"] = encode_brush(square(16, 26))
    imported(gallery, tasks)
    assert masks.encode(square(16, 26)) in [each.region.rle for each in human(gallery, 1)]
    assert first.region.rle not in [each.region.rle for each in human(gallery, 1)]
    tasks = exported(gallery)
    tasks[0]["annotations"][0]["result"] = []
    imported(gallery, tasks)
    assert human(gallery, 1) == []
    check_sound(gallery)


def test_boxes_and_polygons(gallery: GalleryFile) -> None:
    tasks = exported(gallery)
    box = {"x": 10, "y": 20, "width": 25, "height": 30, "rotation": 0, "rectanglelabels": ["red"]}
    points = [[50, 50], [75, 50], [75, 100], [50, 100]]
    tasks[0]["annotations"][0]["result"] = [
        sized({"id": "r", "type": "rectanglelabels", "value": box}),
        sized({"id": "p", "type": "polygonlabels", "value": {"points": points, "polygonlabels": ["green"]}}),
    ]
    imported(gallery, tasks)
    boxed, polygon = human(gallery, 1)
    assert {boxed.region.origin, polygon.region.origin} == {
        RegionOrigin(OriginKind.HUMAN, "red"),
        RegionOrigin(OriginKind.HUMAN, "green"),
    }
    by_label = {each.region.origin.label: each for each in (boxed, polygon) if each.region.origin}
    assert by_label["red"].box == Box(12, 18, 42, 45)
    assert by_label["green"].box == Box(60, 45, 90, 90)
    grounding = VerdictCache(gallery, HUMAN_JUDGE, "red").grounding(1)
    assert grounding is not None
    assert grounding.boxes == (Box(12, 18, 42, 45),)


def test_other_labels_are_no_answer_for_the_query(gallery: GalleryFile) -> None:
    tasks = exported(gallery)
    for result in result_of(tasks, 1):
        result["value"]["brushlabels"] = ["green"]
    imported(gallery, tasks)
    assert answer(gallery, 2) == HUMAN_FALSE
    assert [each.region.origin for each in human(gallery, 2)] == [RegionOrigin(OriginKind.HUMAN, "green")]


def test_without_a_query_there_is_no_answer(gallery: GalleryFile) -> None:
    tasks = exported(gallery, None)
    tasks[0]["annotations"][0]["result"] = result_of(tasks)[:1]
    assert figures(imported(gallery, tasks)) == (2, 0, 0, 1, 0)
    assert [each.region.origin for each in human(gallery, 1)] == [RegionOrigin(OriginKind.HUMAN, None)]
    assert gallery.connection.execute("select count(*) from questions").get == 0


def test_what_is_wrong_is_counted_and_is_no_rejection(gallery: GalleryFile) -> None:
    tasks = exported(gallery)
    foreign, unknown, cancelled, fresh = (deepcopy(tasks[1]) for _ in range(4))
    del foreign["data"]["matir"]
    unknown["data"]["matir"]["sha256"] = "00" * 32
    cancelled["annotations"][0]["was_cancelled"] = True
    fresh["annotations"] = []
    good = result_of(tasks)[0]
    values = {"x": 5, "y": 5, "width": 10, "height": 10}
    bad: list[Any] = [
        {**good, "image_rotation": 90},
        {**good, "original_width": 300},
        {**good, "value": {"format": "rle", "rle": [1, 2, 3], "brushlabels": ["red"]}},
        {**good, "value": {"format": "rle", "rle": [999], "brushlabels": ["red"]}},
        {**good, "value": {"brushlabels": ["red"]}},
        {**good, "type": "choices"},
        {"type": 5},
        None,
        sized({"id": "x", "type": "rectanglelabels", "value": {**values, "rotation": 20}}),
        sized({"id": "x", "type": "rectanglelabels", "value": {**values, "x": 200}}),
        sized({"id": "x", "type": "polygonlabels", "value": {"points": [[1, 1], [2, 2]]}}),
        brush(np.zeros((HEIGHT, WIDTH), np.bool_)),
    ]
    tasks[0]["annotations"][0]["result"] = bad
    counts = imported(gallery, [tasks[0], foreign, unknown, cancelled, fresh, 7, {"data": 5}])
    assert counts.tasks == {
        reasons.FOREIGN: 1,
        reasons.NO_PHOTO: 1,
        reasons.NOT_ANNOTATED: 2,
        reasons.NOT_A_TASK: 2,
    }
    assert counts.results == {
        drawn_results.TURNED: 1,
        drawn_results.WRONG_SIZE: 1,
        drawn_results.MALFORMED: 7,
        drawn_results.OTHER_KIND: 1,
        drawn_results.EMPTY: 2,
    }
    assert figures(counts) == (0, 0, 0, 0, 0)
    assert answer(gallery, 1) is None
    check_sound(gallery)


def test_the_annotation_updated_last_counts_unless_one_is_the_truth(gallery: GalleryFile) -> None:
    tasks = exported(gallery)
    accepted = tasks[1]["annotations"][0] | {"updated_at": "2024-05-06T07:08:09Z"}
    rejected = {"result": [], "updated_at": "2024-05-07T07:08:09Z"}
    tasks[1]["annotations"] = [rejected, accepted]
    imported(gallery, tasks)
    assert answer(gallery, 2) == HUMAN_FALSE
    accepted["ground_truth"] = True
    imported(gallery, tasks)
    assert answer(gallery, 2) == HUMAN_TRUE


class StoppingEncoder(ColourEncoder):
    """Ends the run at the second photo, as Ctrl-C would."""

    calls = 0

    def encode(self, image: Any, rles: Any) -> Any:
        StoppingEncoder.calls += 1
        if StoppingEncoder.calls == 2:
            raise KeyboardInterrupt
        return super().encode(image, rles)


def test_a_stopped_import_leaves_whole_tasks(gallery: GalleryFile) -> None:
    tasks = exported(gallery)
    for number in (0, 1):
        tasks[number]["annotations"][0]["result"] = [brush(square(70, 60))]
    with pytest.raises(KeyboardInterrupt):
        imported(gallery, tasks, IndexingModels(ColourProposer, StoppingEncoder))
    assert (len(human(gallery, 1)), answer(gallery, 1)) == (1, HUMAN_TRUE)
    assert (len(human(gallery, 2)), answer(gallery, 2)) == (0, None)
    check_sound(gallery)
    imported(gallery, tasks)
    assert (len(human(gallery, 2)), answer(gallery, 2)) == (1, HUMAN_TRUE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_export_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    if not folder.exists():
        save_scenes(folder / "photos", a="red green", b="red")
        with GalleryFile.open(folder / "gallery.db", create=True) as opened:
            list(add_photos(opened, [folder / "photos"], MODELS, previews=True))
    with GalleryFile.open(folder / "gallery.db") as gallery:
        tasks: Any = exported(gallery)
        place: Any = tasks
        for _ in range(data.draw(st.integers(0, 7))):
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list):
                break
            place = place[key]
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        if keys:
            place[data.draw(st.sampled_from(keys))] = data.draw(JSON)
        else:
            tasks = data.draw(JSON)
        try:
            counts = imported(gallery, tasks)
        except RegionFileInvalid as error:
            if len(str(error).splitlines()) != 1:
                raise
            return
        assert min(figures(counts)) >= 0
        for photo_id in (1, 2):
            for region in gallery.regions(photo_id):
                masks.check(region.region.rle)


@pytest.mark.parametrize("text", ["", "{}", "[", "null", '{"tasks": []}', "[" * 100_000])
def test_other_files_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "e.json").write_text(text)
    with pytest.raises(RegionFileInvalid) as caught:
        read_tasks(tmp_path / "e.json")
    assert len(str(caught.value).splitlines()) == 1
