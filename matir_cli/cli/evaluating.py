"""What `matir eval` does, for each data set."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import click
import msgspec

from matir_cli.cli.boundary import say
from matir_cli.cli.exit_codes import SKIPPED
from matir_cli.cli.indexing import run_with_progress
from matir_cli.cli.options.common import choose_model_set
from matir_cli.cli.options.evaluation import WORLD_MODEL_SET, EvaluationArguments
from matir_cli.cli.progress import show_progress
from matir_cli.errors import AnnotationsInvalid, OutputExists
from matir_cli.evaluation.baselines.vectors import BASELINES
from matir_cli.evaluation.coverage import annotated_objects
from matir_cli.evaluation.datasets.coco import VAL2017, read_coco
from matir_cli.evaluation.datasets.d3 import Subset, read_d3
from matir_cli.evaluation.datasets.dataset import Dataset
from matir_cli.evaluation.datasets.drawn_world import read_objects, read_world, write_world
from matir_cli.evaluation.datasets.subset import limit_dataset
from matir_cli.evaluation.image_index import index_images
from matir_cli.evaluation.methods import EvaluationSetup
from matir_cli.evaluation.names import BASELINE_NAMES, STAGE_1_ABLATIONS
from matir_cli.evaluation.other_segmenters import export_masks, export_ranking, import_masks
from matir_cli.evaluation.reporting.reports import Report, write_report
from matir_cli.evaluation.run import EvaluationOutcome, EvaluationPlan, run_evaluation
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import Added, IndexingModels, add_photos
from matir_cli.model_sets.catalogue import ModelSet, load_model_set
from matir_cli.model_sets.session import INDEXING_PARTS, ModelSession, locate_part
from matir_cli.model_sets.weights import locate_files
from matir_cli.models.tiny import benchmark
from matir_cli.progress import Advance, no_progress
from matir_cli.records import Rle

PACKAGES = ("matir-cli", "torch", "sam2", "llama-cpp-python", "sqlite-vec", "numpy", "pillow", "pycocotools")

BASELINES_BY_NAME = dict(zip(BASELINE_NAMES, BASELINES, strict=True))


@dataclass(frozen=True, slots=True)
class Source:
    """Where a data set comes from."""

    name: str
    annotations: Path
    """Named in complaints."""
    read: Callable[[Path], Dataset]
    """Reads it; what has to be made goes into the folder given."""
    objects: Callable[[Path], Mapping[int, Sequence[Rle]]] | None = None
    """What the proposer should find, by image id; None: what the queries ask for."""


def on_coco(wanted: EvaluationArguments, images: Path, annotations: Path, *, crowd: bool) -> None:
    """Evaluate on a data set in COCO's format."""
    name = "coco" if annotations.stem == VAL2017 else annotations.stem
    source = Source(name, annotations, lambda _: read_coco(images, annotations, crowd=crowd))
    _evaluate(wanted, source, {"crowd annotations": "count" if crowd else "do not count"})


def on_d3(wanted: EvaluationArguments, images: Path, annotations: Path, subset: Subset) -> None:
    """Evaluate on D3."""
    source = Source("d3", annotations, lambda _: read_d3(images, annotations, subset=subset))
    _evaluate(wanted, source, {"subset": subset})


def on_world(wanted: EvaluationArguments, split: str) -> None:
    """Evaluate on the drawn world, drawing it first."""

    def read(out: Path) -> Dataset:
        folder = out / split
        write_world(folder, split, wanted.limit_images)
        dataset = read_world(folder)
        if len(dataset.images) == benchmark.PICTURES:
            return dataset
        part = f"a part of the drawn world: {len(dataset.images)} of {benchmark.PICTURES} pictures"
        return replace(dataset, notes=(*dataset.notes, part))

    chosen = replace(wanted, model_set=wanted.model_set or WORLD_MODEL_SET)
    source = Source("world", Path("the drawn world"), read, lambda out: read_objects(out / split))
    _evaluate(chosen, source, {"split": split})


def _evaluate(wanted: EvaluationArguments, source: Source, settings: Mapping[str, str]) -> None:
    """Index, evaluate, write and print."""
    chosen = choose_model_set(None, wanted.model_set)
    clips = tuple(load_model_set(name) for name in wanted.clips)
    judge = not wanted.no_rerank and any(part.kind == "judge" for part in chosen.parts)
    if not judge and not wanted.no_rerank:
        say(f"the model set {chosen.name} has no judge: stage 1 alone")
    _check_weights(chosen, clips, judge=judge)
    for path in (wanted.export_ranking, wanted.export_masks):
        if path is not None and path.is_file() and not wanted.force:
            raise OutputExists(path)  # said now, not after hours
    out = wanted.out or Path("matir-eval") / f"{source.name}-{chosen.name}"
    whole = source.read(out)
    imported = tuple(import_masks(name, path, whole) for name, path in wanted.import_masks)
    dataset = limit_dataset(whole, wanted.limit_images, wanted.limit_queries)
    plan = EvaluationPlan(
        wanted.candidates,
        wanted.keep,
        judge=judge,
        refine=wanted.refine,
        baselines=tuple(BASELINES_BY_NAME[name] for name in wanted.baselines),
        clips=clips,
        ablations=tuple(name for name in wanted.ablations if judge or name in STAGE_1_ABLATIONS),
        imported=imported,
        all_masks=wanted.export_masks is not None,
    )
    if useless := [name for name in wanted.ablations if name not in plan.ablations]:
        say(f"without a judge there is nothing to ablate in: {', '.join(useless)}")
    with GalleryFile.open(out / "gallery.db", create=True) as gallery:
        _index(gallery, chosen, wanted.device, dataset)
        bench = _bench(gallery, dataset, source.annotations)
        engines = ModelSession(gallery, chosen, wanted.device)
        with _kept_on_interrupt(gallery, out):
            objects = source.objects(out) if source.objects else annotated_objects(dataset)
            outcome = run_evaluation(bench, engines, plan, objects, out, _show_step)
        _export(bench, outcome, wanted)
        report = _report(bench, outcome, {**_settings(wanted, plan, chosen), **settings}, chosen, clips)
        click.echo(write_report(report, out), nl=False)
    say(f"written to {out}: tables.md, results.json, per_query.csv")
    if len(bench.indexed.photos) < len(dataset.images):
        click.get_current_context().exit(SKIPPED)


def _check_weights(chosen: ModelSet, clips: Sequence[ModelSet], *, judge: bool) -> None:
    """Missing weights are said now, not after hours."""
    for part in (*INDEXING_PARTS, "judge") if judge else INDEXING_PARTS:
        locate_part(chosen, part)
    for each in clips:
        locate_files(each, "encoder")


def _index(gallery: GalleryFile, chosen: ModelSet, device: str, dataset: Dataset) -> None:
    """What `matir add` does, with engines of their own that are gone afterwards."""
    engines = ModelSession(gallery, chosen, device)
    engines.bind()
    paths = [image.path for image in dataset.images]
    outcomes = add_photos(gallery, paths, IndexingModels.of(engines), previews=True)
    run_with_progress(outcomes, len(dataset.images), lambda counts: f"{counts[Added]} images added")


def _bench(gallery: GalleryFile, dataset: Dataset, annotations: Path) -> EvaluationSetup:
    """The data set in the gallery; there is something to look at and to ask."""
    bench = EvaluationSetup(dataset, gallery, index_images(gallery, dataset))
    if not bench.indexed.photos:
        raise AnnotationsInvalid(annotations, "none of its images can be read")
    if not bench.queries:
        raise AnnotationsInvalid(annotations, "none of its queries has a relevant image")
    return bench


@contextmanager
def _kept_on_interrupt(gallery: GalleryFile, out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        counts = [
            gallery.connection.execute(f"select count(*) from {table}").get  # noqa: S608 - constants
            for table in ("photos", "verdicts", "groundings")
        ]
        kept = "{} photos, {} verdicts and {} boxes".format(*counts)
        say(f"{kept} are kept in {out}; run the same command again to go on")
        raise


@contextmanager
def _show_step(name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show a bar on a terminal, elsewhere a line when the step begins; nothing if there is nothing to do."""
    if not total:
        with no_progress(name, total, unit) as ignore:
            yield ignore
        return
    if not sys.stderr.isatty():
        many = {"photo": "photos", "query": "queries"}[unit] if total > 1 else unit
        say(f"{name}: {total:,} {many}")
    with show_progress(name, total, unit, done) as advance:
        yield advance


def _export(bench: EvaluationSetup, outcome: EvaluationOutcome, wanted: EvaluationArguments) -> None:
    if wanted.export_ranking is not None:
        export_ranking(wanted.export_ranking, bench, outcome.rankings, force=wanted.force)
    if wanted.export_masks is not None:
        export_masks(wanted.export_masks, bench, outcome.rankings, outcome.predicted, force=wanted.force)


def _report(
    bench: EvaluationSetup,
    outcome: EvaluationOutcome,
    settings: Mapping[str, str],
    chosen: ModelSet,
    clips: Sequence[ModelSet],
) -> Report:
    notes = []
    if missing := len(bench.dataset.images) - len(bench.indexed.photos):
        notes.append(f"images that could not be read and count as not found: {missing}")
    if outcome.truncated:
        notes.append(
            f"queries whose end was left out, since the encoder reads no further: {outcome.truncated}"
        )
    if chosen.note:
        notes.append(chosen.note.rstrip("."))
    parts = [(each, "") for each in chosen.parts]
    parts += [(each.part("encoder"), f" of {each.name}") for each in clips]
    models = {}
    for part, whose in parts:
        source = next(each for each in (chosen, *clips) if part in each.parts)
        identity = locate_files(source, part.kind).identity
        options = msgspec.json.encode(part.options).decode()
        models[f"{part.kind}{whose}"] = f"{identity.name}, SHA-256 {identity.weight_hash}, {options}"
    versions = {"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return Report(bench.dataset, bench.queries, outcome, settings, models, versions, tuple(notes))


def _settings(wanted: EvaluationArguments, plan: EvaluationPlan, chosen: ModelSet) -> dict[str, str]:
    """The options as a person would say them."""
    return {
        "model set": chosen.handle,
        "stages": "both" if plan.judge else "the first alone",
        "N_C": str(plan.candidates),
        "N_K": str(plan.keep),
        "a box becomes": "the stored region that fits it best",
        "baselines": ", ".join(wanted.baselines) or "none",
        "device": wanted.device,
    }
