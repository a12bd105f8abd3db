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

from matir_cli import add, catalogue, weights
from matir_cli.catalogue import ModelSet
from matir_cli.cli import boundary, common, indexing
from matir_cli.cli.boundary import say
from matir_cli.cli.common import choose_model_set
from matir_cli.cli.eval_options import WORLD_MODEL_SET, Wanted
from matir_cli.errors import AnnotationsInvalid, OutputExists
from matir_cli.evaluation import baselines, coverage, external, reports, run
from matir_cli.evaluation.choices import BASELINE_NAMES, OF_STAGE_1
from matir_cli.evaluation.coco import VAL2017, read_coco
from matir_cli.evaluation.d3 import Subset, read_d3
from matir_cli.evaluation.dataset import Dataset
from matir_cli.evaluation.indexed import lookup
from matir_cli.evaluation.methods import Bench
from matir_cli.evaluation.reports import Report
from matir_cli.evaluation.run import Outcome, Plan
from matir_cli.evaluation.subset import limited
from matir_cli.evaluation.world import read_objects, read_world, write_world
from matir_cli.gallery import GalleryFile
from matir_cli.loading import INDEXING_PARTS, Engines, located
from matir_cli.models.tiny import benchmark
from matir_cli.records import Rle

PACKAGES = ("matir-cli", "torch", "sam2", "llama-cpp-python", "sqlite-vec", "numpy", "pillow", "pycocotools")

BASELINES = dict(zip(BASELINE_NAMES, baselines.BASELINES, strict=True))


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


def on_coco(wanted: Wanted, images: Path, annotations: Path, *, crowd: bool) -> None:
    """Evaluate on a data set in COCO's format."""
    name = "coco" if annotations.stem == VAL2017 else annotations.stem
    source = Source(name, annotations, lambda _: read_coco(images, annotations, crowd=crowd))
    _evaluate(wanted, source, {"crowd annotations": "count" if crowd else "do not count"})


def on_d3(wanted: Wanted, images: Path, annotations: Path, subset: Subset) -> None:
    """Evaluate on D3."""
    source = Source("d3", annotations, lambda _: read_d3(images, annotations, subset=subset))
    _evaluate(wanted, source, {"subset": subset})


def on_world(wanted: Wanted, split: str) -> None:
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


def _evaluate(wanted: Wanted, source: Source, settings: Mapping[str, str]) -> None:
    """Index, evaluate, write and print."""
    chosen = choose_model_set(None, wanted.model_set)
    clips = tuple(catalogue.find(name) for name in wanted.clips)
    judge = not wanted.no_rerank and any(part.kind == "judge" for part in chosen.parts)
    if not judge and not wanted.no_rerank:
        say(f"the model set {chosen.name} has no judge: stage 1 alone")
    _check_weights(chosen, clips, judge=judge)
    for path in (wanted.export_ranking, wanted.export_masks):
        if path is not None and path.is_file() and not wanted.force:
            raise OutputExists(path)  # said now, not after hours
    out = wanted.out or Path("matir-eval") / f"{source.name}-{chosen.name}"
    whole = source.read(out)
    imported = tuple(external.import_masks(name, path, whole) for name, path in wanted.import_masks)
    dataset = limited(whole, wanted.limit_images, wanted.limit_queries)
    plan = Plan(
        wanted.candidates,
        wanted.keep,
        judge=judge,
        refine=wanted.refine,
        baselines=tuple(BASELINES[name] for name in wanted.baselines),
        clips=clips,
        ablations=tuple(name for name in wanted.ablations if judge or name in OF_STAGE_1),
        imported=imported,
        all_masks=wanted.export_masks is not None,
    )
    if useless := [name for name in wanted.ablations if name not in plan.ablations]:
        say(f"without a judge there is nothing to ablate in: {', '.join(useless)}")
    with GalleryFile.open(out / "gallery.db", create=True) as gallery:
        _index(gallery, chosen, wanted.device, dataset)
        bench = _bench(gallery, dataset, source.annotations)
        engines = Engines(gallery, chosen, wanted.device)
        with _kept_on_interrupt(gallery, out):
            objects = source.objects(out) if source.objects else coverage.objects_of(dataset)
            outcome = run.evaluate(bench, engines, plan, objects, out, _watch)
        _export(bench, outcome, wanted)
        report = _report(bench, outcome, {**_settings(wanted, plan, chosen), **settings}, chosen, clips)
        click.echo(reports.write(report, out), nl=False)
    say(f"written to {out}: tables.md, results.json, per_query.csv")
    if len(bench.indexed.photos) < len(dataset.images):
        click.get_current_context().exit(boundary.SKIPPED)


def _check_weights(chosen: ModelSet, clips: Sequence[ModelSet], *, judge: bool) -> None:
    """Missing weights are said now, not after hours."""
    for part in (*INDEXING_PARTS, "judge") if judge else INDEXING_PARTS:
        located(chosen, part)
    for each in clips:
        weights.locate(each, "encoder")


def _index(gallery: GalleryFile, chosen: ModelSet, device: str, dataset: Dataset) -> None:
    """What `matir add` does, with engines of their own that are gone afterwards."""
    engines = Engines(gallery, chosen, device)
    engines.bind()
    paths = [image.path for image in dataset.images]
    outcomes = add.add(gallery, paths, add.Models.of(engines), previews=True)
    indexing.watch(outcomes, len(dataset.images), lambda counts: f"{counts[add.Added]} images added")


def _bench(gallery: GalleryFile, dataset: Dataset, annotations: Path) -> Bench:
    """The data set in the gallery; there is something to look at and to ask."""
    bench = Bench(dataset, gallery, lookup(gallery, dataset))
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
def _watch(total: int, name: str, unit: str) -> Iterator[Callable[[], object]]:
    """A bar where somebody watches, else a line when a step begins; nothing where there is nothing to do."""
    if not total:
        yield lambda: None
        return
    if not sys.stderr.isatty():
        many = {"photo": "photos", "query": "queries"}[unit] if total > 1 else unit
        say(f"{name}: {total:,} {many}")
    with common.watch(total, name, unit) as advance:
        yield advance


def _export(bench: Bench, outcome: Outcome, wanted: Wanted) -> None:
    if wanted.export_ranking is not None:
        external.export_ranking(wanted.export_ranking, bench, outcome.rankings, force=wanted.force)
    if wanted.export_masks is not None:
        external.export_masks(
            wanted.export_masks, bench, outcome.rankings, outcome.predicted, force=wanted.force
        )


def _report(
    bench: Bench,
    outcome: Outcome,
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
        identity = weights.locate(source, part.kind).identity
        options = msgspec.json.encode(part.options).decode()
        models[f"{part.kind}{whose}"] = f"{identity.name}, SHA-256 {identity.weight_hash}, {options}"
    versions = {"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return Report(bench.dataset, bench.queries, outcome, settings, models, versions, tuple(notes))


def _settings(wanted: Wanted, plan: Plan, chosen: ModelSet) -> dict[str, str]:
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
