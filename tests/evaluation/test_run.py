"""The evaluation's pipeline with stand-ins by colour: what is asked, remembered, ranked and counted."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matir_cli import masks
from matir_cli.engines.protocols import GroundingQuestion, Judge, JudgePhoto
from matir_cli.errors import AnnotationsInvalid, OutputExists
from matir_cli.evaluation.ablations import AblationRunner, candidates_needed, copy_gallery
from matir_cli.evaluation.coverage import Coverage, annotated_objects, measure_coverage
from matir_cli.evaluation.datasets.dataset import Dataset, EvalImage, EvalQuery
from matir_cli.evaluation.datasets.subset import limit_dataset
from matir_cli.evaluation.image_index import index_images
from matir_cli.evaluation.methods import (
    NOT_ASKED,
    BoxMasks,
    EvaluationSetup,
    JudgeSessions,
    Method,
    PrecisionByQuery,
    ask_judge,
    photo_ids,
    region_masks,
    run_stage_1,
)
from matir_cli.evaluation.other_segmenters import export_masks, export_ranking, import_masks
from matir_cli.evaluation.reporting import paper
from matir_cli.evaluation.reporting.tables import (
    NO_JUDGE,
    NOT_CHOSEN,
    NOT_IMPORTED,
    Measured,
    Segmented,
    paper_tables,
)
from matir_cli.evaluation.run import EvaluationPlan, Scoring
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import ModelSession
from matir_cli.photos.decode import decode_photo
from matir_cli.photos.discover import stat_file
from matir_cli.progress import no_progress
from matir_cli.records import EngineConfig, Grounding, ModelIdentity, Rle, Verdict
from matir_cli.search.grounding import MatchOptions, results_by_box
from matir_cli.search.pipeline import rank_candidates
from matir_cli.search.rerank import JudgeSession, order_by_verdict, rerank_candidates
from matir_cli.search.results import MATCHED
from tests.support.fakes import COLOURS, ColourEncoder, ColourJudge, ColourProposer, ColourText, near
from tests.support.pictures import save_scenes, scene

SCENES = {"a": "green", "b": "red", "c": "red green", "d": "blue", "e": "green red", "f": "blue red"}
QUERIES = {1: "red", 2: "green", 3: "blue", 4: "mauve"}


class Recorder(ColourJudge):
    """Keeps each call's photo and queries; stops like Ctrl-C when it was asked `patience` times."""

    def __init__(self, patience: int = 1000, shift: float = 0.0) -> None:
        super().__init__(shift)
        self.calls: list[tuple[int, tuple[str, ...]]] = []
        self.batches: list[int] = []
        self.patience = patience

    def rerank(self, photo: JudgePhoto, queries: Sequence[str]) -> list[Verdict]:
        if len(self.calls) == self.patience:
            raise KeyboardInterrupt
        self.calls.append((photo.key, tuple(queries)))
        return super().rerank(photo, queries)

    def ground(self, questions: Sequence[GroundingQuestion]) -> list[Grounding]:
        self.batches.append(len(questions))
        return super().ground(questions)


def refuse() -> Judge:
    raise AssertionError("the judge was loaded without need")


def dataset_of(paths: Sequence[Path]) -> Dataset:
    """The scenes as a data set: each colour's squares are one instance."""
    truth: dict[int, dict[int, tuple[Rle, ...]]] = {query: {} for query in QUERIES}
    images = []
    for number, path in enumerate(paths, start=11):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        images.append(EvalImage(number, path.name, path, pixels.shape[1], pixels.shape[0]))
        for query, colour in QUERIES.items():
            if colour in COLOURS and (mask := near(pixels, colour)).any():
                truth[query][number] = (masks.encode(mask),)
    queries = tuple(EvalQuery(number, text, (text[0],)) for number, text in QUERIES.items())
    return Dataset("scenes", tuple(images), queries, truth, "0" * 64)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return save_scenes(tmp_path / "photos", **SCENES)


@pytest.fixture
def gallery(tmp_path: Path, paths: list[Path]) -> Iterator[GalleryFile]:
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as opened:
        list(add_photos(opened, paths, IndexingModels(ColourProposer, ColourEncoder), previews=True))
        yield opened


@pytest.fixture
def bench(gallery: GalleryFile, paths: list[Path]) -> EvaluationSetup:
    dataset = dataset_of(paths)
    return EvaluationSetup(dataset, gallery, index_images(gallery, dataset))


def rooms_of(bench: EvaluationSetup, judge: Judge | None, key: str = "k") -> JudgeSessions:
    load = refuse if judge is None else lambda: judge
    return {
        query.text: JudgeSession(
            bench.gallery, load, VerdictCache(bench.gallery, key, query.text), query.text
        )
        for query in bench.queries
    }


def method_of(bench: EvaluationSetup, rooms: JudgeSessions | None, **settings: float) -> Method:
    retrieved = run_stage_1(bench, bench.gallery, ColourText(), 50, no_progress)
    return Method(retrieved, rooms, **settings)  # type: ignore[arg-type]


def scored(bench: EvaluationSetup, method: Method, **plan: object) -> Measured:
    engines = ModelSession(bench.gallery, load_model_set("tiny"), "cpu")  # loads nothing
    return Scoring(bench, method, EvaluationPlan(**plan), no_progress).measured(engines)  # type: ignore[arg-type]


def means(values: PrecisionByQuery | None) -> float:
    assert values is not None
    return float(np.mean([value.by_relevant for value in values.values()]))


# Asking


def test_each_photo_is_looked_at_once_and_asked_all_its_questions(bench: EvaluationSetup) -> None:
    judge = Recorder()
    rooms = rooms_of(bench, judge)
    method = method_of(bench, rooms)
    ask_judge(bench, rooms, [method, replace(method, keep=1)], no_progress)
    assert [photo for photo, _ in judge.calls] == sorted(bench.indexed.images)
    assert {texts for _, texts in judge.calls} == {("red", "green", "blue")}
    # Where an object lies is asked in relevant photos alone, several photos in one batch.
    assert judge.batches == [3, 3, 3]
    ask_judge(bench, rooms_of(bench, None), [method], no_progress)


def test_the_memory_is_what_searching_query_by_query_leaves(bench: EvaluationSetup) -> None:
    rooms = rooms_of(bench, ColourJudge())
    ask_judge(bench, rooms, [method_of(bench, rooms)], no_progress, everywhere=True)
    silent, plain = rooms_of(bench, None), rooms_of(bench, ColourJudge(), key="another judge")
    for query in bench.queries:
        ranked = rank_candidates(bench.gallery, ColourText().encode(query.text).vector, 50)
        found = [
            list(
                results_by_box(room, order_by_verdict(list(rerank_candidates(room, ranked))), MatchOptions())
            )
            for room in (silent[query.text], plain[query.text])
        ]
        assert len(found[0]) == len(SCENES)
        assert found[0] == found[1]


def test_a_stopped_evaluation_goes_on_at_the_photo_it_was_at(bench: EvaluationSetup) -> None:
    impatient = Recorder(patience=2)
    rooms = rooms_of(bench, impatient)
    with pytest.raises(KeyboardInterrupt):
        ask_judge(bench, rooms, [method_of(bench, rooms)], no_progress)
    judge = Recorder()
    rooms = rooms_of(bench, judge)
    ask_judge(bench, rooms, [method_of(bench, rooms)], no_progress)
    assert len(impatient.calls) == 2
    assert [photo for photo, _ in impatient.calls + judge.calls] == sorted(bench.indexed.images)


def test_more_candidates_ask_only_what_is_new(bench: EvaluationSetup) -> None:
    judge = Recorder()
    rooms = rooms_of(bench, judge)
    narrow, wide = method_of(bench, rooms, candidates=2), method_of(bench, rooms)
    ask_judge(bench, rooms, [narrow], no_progress)
    first = sum(len(texts) for _, texts in judge.calls)
    ask_judge(bench, rooms, [narrow, wide], no_progress)
    assert (first, sum(len(texts) for _, texts in judge.calls)) == (6, 3 * len(SCENES))


def test_photos_that_cannot_be_had_are_passed_over(bench: EvaluationSetup, paths: list[Path]) -> None:
    bench.gallery.connection.execute("delete from previews")
    paths[0].unlink()
    judge = Recorder()
    rooms = rooms_of(bench, judge)
    method = method_of(bench, rooms)
    ask_judge(bench, rooms, [method], no_progress)
    assert len(judge.calls) == len(SCENES) - 1
    query = bench.queries[1]  # "green", which the lost photo shows
    assert method.ranking(query)[-1].verdict is None
    boxes = BoxMasks(bench, rooms, MatchOptions())
    assert boxes.predicted(query, method.ranking(query)).keys() == {11, 13, 15}
    assert boxes.outcomes == {MATCHED: 2, NOT_ASKED: 1}


# From rankings to figures


def test_a_judge_that_knows_scores_full_marks(bench: EvaluationSetup) -> None:
    rooms = rooms_of(bench, ColourJudge())
    method = method_of(bench, rooms)
    ask_judge(bench, rooms, [method], no_progress)
    measured = scored(bench, method)
    assert [query.text for query in bench.queries] == ["red", "green", "blue"]  # nothing is mauve
    assert means(measured.matir) == means(measured.boxes) == means(measured.best_region_reranked) == 1.0
    assert measured.refined is None


def test_average_precision_by_hand(bench: EvaluationSetup) -> None:
    # What stage 1 says is made up: red is right at ranks 2 and 4 of 4 relevant; masks at rank 4 alone.
    order = [11, 12, 14, 13]
    value = bench.image_values({1: order})[1]
    assert value.by_relevant == pytest.approx((1 / 2 + 2 / 4) / 4)
    assert value.by_hits == pytest.approx((1 / 2 + 2 / 4) / 2)
    right, wrong = bench.dataset.instances(1, 13)[0], bench.dataset.instances(2, 13)[0]
    value = bench.object_value(1, order, {12: wrong, 13: right})
    assert value.by_relevant == pytest.approx((1 / 4) / 4)
    assert bench.object_value(1, order, {}).by_relevant == 0.0


def test_the_region_that_fits_best_is_taken_however_badly_it_fits(bench: EvaluationSetup) -> None:
    rooms = rooms_of(bench, ColourJudge(shift=12))
    method = method_of(bench, rooms)
    ask_judge(bench, rooms, [method], no_progress)
    assert means(scored(bench, method).boxes) == 1.0
    strict = BoxMasks(bench, rooms, MatchOptions(min_iou=0.5))
    predicted = strict.predicted(bench.queries[0], method.ranking(bench.queries[0]))
    assert set(predicted.values()) == {None}


def test_fusion_adds_stage_1_to_the_margin(bench: EvaluationSetup) -> None:
    rooms = rooms_of(bench, ColourJudge())
    method = method_of(bench, rooms)
    ask_judge(bench, rooms, [method], no_progress)
    query = bench.queries[0]
    backwards = replace(method, fusion=-1e6).ranking(query)  # so much of it that nothing else counts
    scores = [round(item.candidate.score, 3) for item in backwards]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]
    plain = {item.candidate.photo_id: item for item in method.ranking(query)}
    for item in replace(method, fusion=10.0).ranking(query):
        judged = plain[item.candidate.photo_id]
        assert item.verdict is not None
        assert judged.verdict is not None
        assert item.verdict.margin == pytest.approx(judged.verdict.margin + 10 * item.candidate.score)


def test_without_a_judge_stage_1_is_measured_and_the_rest_is_absent(bench: EvaluationSetup) -> None:
    method = method_of(bench, None)
    measured = scored(bench, method)
    four = paper_tables(measured)
    assert [table.number for table in four] == [1, 2, 3, 4]
    assert means(measured.stage_1) == means(measured.best_region) == 1.0
    absent = {row.method: row.note for table in four for row in table.rows if row.values is None}
    assert absent["MaTIR"] == NO_JUDGE
    assert absent["Dense-CLIP"] == NOT_CHOSEN
    assert absent["LISA++"] == NOT_IMPORTED
    stage_1 = next(row for row in four[0].rows if "stage 1" in row.method)
    assert stage_1.paper == paper.Figures(83.54, 40.75)
    assert stage_1.summary is not None
    assert stage_1.by_group(bench.queries).keys() == {"r", "g", "b"}


def test_the_proposers_coverage(bench: EvaluationSetup) -> None:
    objects = annotated_objects(bench.dataset)
    assert sum(map(len, objects.values())) == 9
    assert measure_coverage(bench, objects, no_progress) == Coverage(9, (9, 9))
    # A mask three fifths as high overlaps its region by 0.6.
    whole = masks.decode(bench.dataset.instances(3, 14)[0])
    part = whole.copy()
    part[35:] = False
    assert 0.5 < part.sum() / whole.sum() < 0.75
    halved = {14: [masks.encode(part)], 99: [masks.encode(whole)]}
    assert measure_coverage(bench, halved, no_progress) == Coverage(2, (1, 0))


# Images and photos


def test_images_with_the_same_bytes_share_a_photo_and_strangers_are_not_ranked(
    tmp_path: Path, gallery: GalleryFile, paths: list[Path]
) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(paths[1].read_bytes())
    list(add_photos(gallery, [copy], IndexingModels(ColourProposer, ColourEncoder), previews=True))
    dataset = dataset_of([paths[1], paths[4], copy])
    bench = EvaluationSetup(dataset, gallery, index_images(gallery, dataset))
    assert len(bench.indexed.images) == 2
    ranking = method_of(bench, None).first_stage(bench.queries[0])
    assert bench.indexed.ranked(photo_ids(ranking)) in ([11, 13, 12], [12, 11, 13])
    predicted = region_masks(bench, bench.queries[0], ranking)
    assert predicted[11] == predicted[13]
    assert means(scored(bench, method_of(bench, None)).stage_1) == 1.0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_annotations_of_photos_that_are_not_upright(tmp_path: Path, orientation: int) -> None:
    picture = scene("red", size=(120, 90))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    picture.save(path, exif=exif)
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        list(add_photos(gallery, [path], IndexingModels(ColourProposer, ColourEncoder), previews=True))
        dataset = dataset_of([path])  # Pillow does not turn it by itself
        bench = EvaluationSetup(dataset, gallery, index_images(gallery, dataset))
        measured = scored(bench, method_of(bench, None))
        assert means(measured.best_region) == 1.0
        assert measure_coverage(bench, annotated_objects(dataset), no_progress).covered == (1, 1)
        if orientation >= 5:  # annotations of the upright photo: its size tells
            upright = decode_photo(stat_file(path), b"").image
            image = replace(dataset.images[0], width=90, height=120)
            truth = {1: {11: (masks.encode(near(upright, "red")),)}}
            dataset = replace(dataset, images=(image,), truth=truth)
            bench = EvaluationSetup(dataset, gallery, index_images(gallery, dataset))
            assert means(scored(bench, method_of(bench, None)).best_region) == 1.0


def test_an_image_of_another_size_than_its_annotations_is_named(
    gallery: GalleryFile, paths: list[Path]
) -> None:
    dataset = dataset_of(paths)
    wrong = replace(dataset.images[2], width=121)
    with pytest.raises(AnnotationsInvalid, match="image 13 has 120 x 90 pixels, its annotations 121 x 90"):
        index_images(gallery, replace(dataset, images=(wrong,)))


def test_a_part_of_a_data_set_says_so(paths: list[Path]) -> None:
    dataset = dataset_of(paths)
    assert limit_dataset(dataset, None, 4) is dataset
    part = limit_dataset(dataset, 2, 2)
    assert [image.id for image in part.images] == [11, 12]
    assert [query.text for query in part.queries] == ["red", "blue"]  # spread, not the first two
    assert part.relevant(1) == {12}
    assert part.notes == ("a part of the data set: 2 of 6 images, 2 of 4 queries",)


# Ablations


def laboratory(bench: EvaluationSetup, folder: Path) -> AblationRunner:
    config = EngineConfig("alpha_clip", {"transform": "squash"}, {}, ModelIdentity("encoder", "0"))
    return AblationRunner(bench, config, folder, "cpu", no_progress)


def test_ablations_of_the_second_stage(bench: EvaluationSetup, tmp_path: Path) -> None:
    here = laboratory(bench, tmp_path)
    base = method_of(bench, None, candidates=50, keep=25)
    settings = {
        name: [here.own_setting(name, base), *(each.setting for each in here.variants(name, base))]
        for name in ("candidates", "keep", "fusion", "pixels")
    }
    assert settings["candidates"] == ["50", "25", "100", "200"]
    assert settings["keep"] == ["25", "10", "50"]
    assert settings["fusion"] == ["0", "3", "10", "30", "100"]
    assert settings["pixels"] == ["as set"]
    assert [each.method.keep for each in here.variants("keep", base)] == [10, 50]
    assert candidates_needed(10, ()) == 50
    assert candidates_needed(10, ("candidates",)) == 200


def test_a_twin_has_the_same_regions_and_is_made_anew_when_the_gallery_changes(
    gallery: GalleryFile, paths: list[Path], tmp_path: Path
) -> None:
    regions = "select count(*) from main.regions"
    with copy_gallery(gallery, tmp_path / "twin" / "t.db") as other:
        assert other.connection.execute(regions).get == gallery.connection.execute(regions).get
        other.connection.execute("insert into main.vectors values (1, 1, x'01')")
    with copy_gallery(gallery, tmp_path / "twin" / "t.db") as other:  # kept
        assert other.connection.execute("select count(*) from main.vectors").get == 1
    scene("blue", seed=99).save(paths[0])
    list(add_photos(gallery, paths, IndexingModels(ColourProposer, ColourEncoder), previews=True))
    with copy_gallery(gallery, tmp_path / "twin" / "t.db") as other:
        assert other.connection.execute("select count(*) from main.vectors").get == 0
        assert other.connection.execute(regions).get == gallery.connection.execute(regions).get


# Other segmenters


def test_our_masks_come_back_as_they_went(bench: EvaluationSetup, tmp_path: Path) -> None:
    rooms = rooms_of(bench, ColourJudge())
    method = method_of(bench, rooms)
    ask_judge(bench, rooms, [method], no_progress, everywhere=True)
    scoring = Scoring(bench, method, EvaluationPlan(all_masks=True), no_progress)
    engines = ModelSession(bench.gallery, load_model_set("tiny"), "cpu")
    ours = scoring.measured(engines).boxes
    export_masks(tmp_path / "m.json", bench, scoring.rankings, scoring.predicted, force=False)
    export_ranking(tmp_path / "r.jsonl", bench, scoring.rankings, force=False)
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert len(lines) == 3 * len(SCENES)
    assert [line["rank"] for line in lines] == 3 * [1, 2, 3, 4, 5, 6]
    first = scoring.rankings[1][0]
    name = next(image.name for image in bench.dataset.images if image.id == first)
    assert lines[0] == {"query_id": 1, "query": "red", "rank": 1, "image_id": first, "image": name}
    given = import_masks("ours", tmp_path / "m.json", bench.dataset)
    back = scored(bench, method, imported=(given,)).imported
    assert back is not None
    assert back["ours"] == Segmented(ours or {}, 9, 3 * len(SCENES))
    with pytest.raises(OutputExists):
        export_ranking(tmp_path / "r.jsonl", bench, scoring.rankings, force=False)


def result(bench: EvaluationSetup, image: int, query: int = 1, **fields: object) -> dict[str, object]:
    rle = bench.dataset.instances(1, 12)[0]
    shape = {"size": [rle.height, rle.width], "counts": rle.counts.decode()}
    return {"image_id": image, "category_id": query, "segmentation": shape, "score": 0.5, **fields}


def test_of_several_masks_the_surest_counts(bench: EvaluationSetup, tmp_path: Path) -> None:
    other = [[1, 1, 9, 1, 9, 9, 1, 9]]  # a polygon, as instances have it
    results = [
        result(bench, 12),
        result(bench, 12, segmentation=other, score=0.9),
        result(bench, 12, score=0.1),
    ]
    (tmp_path / "m.json").write_text(json.dumps(results))
    given = import_masks("x", tmp_path / "m.json", bench.dataset)
    mask = given.masks[1][12]
    assert mask is not None
    assert masks.area(mask) == 64


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"image_id": 99}, "result number 2: there is no image 99"),
        ({"category_id": 99}, "result number 2: there is no query 99"),
        ({"segmentation": {"size": [5, 5], "counts": "X"}}, "result number 2: a mask of 5 x 5 pixels"),
        ({"segmentation": {"size": [90, 120], "counts": "0"}}, "result number 2: runs do not fill"),
        ({"segmentation": None}, "result number 2: "),
        ({"score": "high"}, "result number 2: "),
    ],
)
def test_a_wrong_result_is_named_by_its_place(
    bench: EvaluationSetup, tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    results = [result(bench, 12), {**result(bench, 13), **change}]
    (tmp_path / "m.json").write_text(json.dumps(results))
    with pytest.raises(AnnotationsInvalid) as caught:
        import_masks("x", tmp_path / "m.json", bench.dataset)
    assert caught.value.reason.startswith(complaint)


@pytest.mark.parametrize("content", ["", "{}", "[1, 2", '{"annotations": []}', "\xff"])
def test_a_file_that_is_no_list_of_results(bench: EvaluationSetup, tmp_path: Path, content: str) -> None:
    (tmp_path / "m.json").write_text(content, encoding="latin-1")
    with pytest.raises(AnnotationsInvalid, match="not COCO's list of results"):
        import_masks("x", tmp_path / "m.json", bench.dataset)
