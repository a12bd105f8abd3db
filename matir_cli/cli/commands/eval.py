"""`matir eval`: evaluation on COCO, D3 or the drawn world.

The evaluation itself is imported inside the commands, so that help is shown quickly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from matir_cli.cli.boundary import say
from matir_cli.cli.exit_codes import SKIPPED
from matir_cli.cli.options.common import PathName, choose_model_set
from matir_cli.cli.options.evaluation import WORLD_MODEL_SET, EvaluationArguments, evaluation_options
from matir_cli.cli.progress import show_progress, shows_progress
from matir_cli.cli.text import count_of
from matir_cli.progress import Advance, no_progress

if TYPE_CHECKING:
    from matir_cli.evaluation.datasets.d3 import Subset
    from matir_cli.evaluation.datasets.source import DatasetSource
    from matir_cli.evaluation.reporting.reports import Report
    from matir_cli.gallery.database import GalleryFile
    from matir_cli.models.tiny.benchmark import Benchmark

_images_option = click.option(
    "--images",
    required=True,
    type=PathName(exists=True, file_okay=False),
    metavar="DIR",
    help="Folder that the file names in the annotations are relative to.",
)


@click.group("eval", short_help="Measure retrieval and segmentation: the paper's tables.")
def evaluate() -> None:
    """Index a data set, run all its queries, and print the four tables of the paper.

    Everything that takes time to compute is stored in one folder: after an interruption the
    same command resumes, and with other options only what is missing is computed. The tables
    are printed and, with the figures of each query, written to that folder: tables.md,
    results.json, per_query.csv, and with matplotlib (pip install 'matir-cli[plot]') a figure of the
    quality over the judge's verdicts per query, verdicts.svg and verdicts.png.

    \b
    Exit code: 0 done, 2 error, 3 done but some images could not be read, 130 interrupted.

    \b
    Examples:
      matir eval world
      matir eval coco --images val2017 --annotations annotations/instances_val2017.json
      matir eval d3 --images d3_images --annotations d3_pkl --no-rerank
    """


@evaluate.command("coco", short_help="COCO, or any data set in its format.")
@_images_option
@click.option(
    "--annotations",
    required=True,
    type=PathName(exists=True, dir_okay=False),
    metavar="FILE",
    help="Instances JSON file; its categories are the queries.",
)
@click.option("--crowd", is_flag=True, help="Count crowd annotations as instances.")
@evaluation_options
def coco(arguments: EvaluationArguments, images: Path, annotations: Path, crowd: bool) -> None:
    """Evaluate on COCO val2017, or on your own data set in COCO's instances format.

    \b
    Examples:
      matir eval coco --images val2017 --annotations annotations/instances_val2017.json
      matir eval coco --images val2017 --annotations annotations/instances_val2017.json \\
          --limit-images 200 --models lite
      matir eval coco --images photos --annotations mine.json --no-rerank --baselines none
    """
    from matir_cli.evaluation.datasets.source import coco_source

    _evaluate(coco_source(images, annotations, crowd=crowd), arguments)


@evaluate.command("d3", short_help="D3, the described objects of d-cube.")
@_images_option
@click.option(
    "--annotations",
    required=True,
    type=PathName(exists=True, file_okay=False),
    metavar="DIR",
    help="Folder with the pickles sentences.pkl, annotations.pkl and images.pkl.",
)
@click.option(
    "--subset",
    type=click.Choice(["full", "pres", "abs"]),
    default="full",
    show_default=True,
    help="Which descriptions: all, those of something present, or those of something absent.",
)
@evaluation_options
def d3(arguments: EvaluationArguments, images: Path, annotations: Path, subset: Subset) -> None:
    """Evaluate on D3; every description is searched for in the images of all groups.

    \b
    Examples:
      matir eval d3 --images d3_images --annotations d3_pkl
      matir eval d3 --images d3_images --annotations d3_pkl --subset abs --export-ranking abs.jsonl
      matir eval d3 --images d3_images --annotations d3_pkl --import-masks APE=ape.json
    """
    from matir_cli.evaluation.datasets.source import d3_source

    _evaluate(d3_source(images, annotations, subset), arguments)


_split_option = click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="Pictures to draw; validation is the split that settings were chosen on.",
)


@evaluate.command("world", short_help="The drawn world of the tiny models.")
@_split_option
@click.option(
    "--descriptions",
    type=click.Choice(["short", "long"]),
    default="short",
    show_default=True,
    help="Queries: 64 of the grammar that the models were trained on, or 300 of two or three clauses.",
)
@evaluation_options
def world(arguments: EvaluationArguments, split: str, descriptions: str) -> None:
    """Evaluate the tiny models on the drawn world that they were trained for.

    Nothing is downloaded: the pictures are drawn, from seeds not used in training. The paper's
    figures, in columns of their own, are of other models on photographs.

    \b
    Examples:
      matir eval world
      matir eval world --limit-images 100 --baselines none
      matir eval world --ablate whole-photo --ablate fusion
      matir eval world --split validation --descriptions long
    """
    from matir_cli.models.tiny.benchmark import WORLD, WORLD_LONG

    _evaluate_world(WORLD_LONG if descriptions == "long" else WORLD, arguments, split)


@evaluate.command("world-large", short_help="4,000 pictures of the drawn world.")
@_split_option
@evaluation_options
def world_large(arguments: EvaluationArguments, split: str) -> None:
    """Evaluate the tiny models on 4,000 pictures of the drawn world with 200 queries.

    The judge sees 100 candidates of 4,000, as few as on COCO. 60 of the queries name looks, relations
    or combinations that training never showed; they have a column of their own.

    \b
    Examples:
      matir eval world-large --baselines none
      matir eval world-large --split validation --no-rerank
    """
    from matir_cli.models.tiny.benchmark import WORLD_LARGE

    _evaluate_world(WORLD_LARGE, arguments, split)


def _evaluate_world(benchmark: Benchmark, arguments: EvaluationArguments, split: str) -> None:
    """Evaluate on a benchmark of the drawn world, by default the models that were trained for it."""
    from matir_cli.evaluation.datasets.source import world_source

    source = world_source(benchmark, split, arguments.options.limit_images)
    _evaluate(source, replace(arguments, model_set=arguments.model_set or WORLD_MODEL_SET))


def _evaluate(source: DatasetSource, arguments: EvaluationArguments) -> None:
    """Run the pipeline on a data set, and print its report and remarks."""
    from matir_cli.cli.indexing import run_with_progress
    from matir_cli.evaluation import pipeline
    from matir_cli.evaluation.reporting.reports import write_report
    from matir_cli.gallery.database import GalleryFile
    from matir_cli.indexing.file_state import FileCounts
    from matir_cli.indexing.outcomes import Added
    from matir_cli.model_sets.catalogue import load_model_set

    models = choose_model_set(None, arguments.model_set)
    clips = [load_model_set(name) for name in arguments.clips]
    folder = arguments.out or Path("matir-eval") / f"{source.name}-{models.name}"
    prepared = pipeline.prepare_evaluation(source, models, clips, arguments.options, folder, _show_step)
    if prepared.lacks_judge:
        say(f"the model set {models.name} has no judge: stage 1 only")
    if prepared.skipped_ablations:
        say(f"without a judge these ablations change nothing: {', '.join(prepared.skipped_ablations)}")
    with GalleryFile.open(prepared.gallery_path, create=True) as gallery:
        run_with_progress(
            pipeline.index_dataset(prepared, gallery),
            FileCounts(len(prepared.dataset.images)),
            lambda counts: f"{count_of(counts[Added], 'image')} added",
        )
        with _report_interruption(gallery, folder):
            report = pipeline.evaluate_dataset(prepared, gallery, _show_step)
        click.echo(write_report(report, folder), nl=False)
    files = ["tables.md", "results.json", "per_query.csv", *_write_figure(report, folder)]
    say(f"written to {folder}: {', '.join(files)}")
    if report.unreadable_images:
        click.get_current_context().exit(SKIPPED)


def _write_figure(report: Report, folder: Path) -> list[str]:
    """Write the figure, or say why not; return the names of the files."""
    from matir_cli.evaluation.reporting.figure import can_draw, write_figure

    comparison = report.outcome.comparison
    if comparison.curve and not can_draw():
        say("no figure: matplotlib is not installed; install it with: pip install 'matir-cli[plot]'")
        return []
    return [path.name for path in write_figure(comparison, folder)]


@contextmanager
def _report_interruption(gallery: GalleryFile, folder: Path) -> Iterator[None]:
    """On Ctrl-C, say what is stored and how to resume."""
    from matir_cli.gallery.verdict_cache import count_groundings, count_verdicts

    try:
        yield
    except KeyboardInterrupt:
        counts = (
            count_of(gallery.count_photos(), "photo"),
            count_of(count_verdicts(gallery), "verdict"),
            count_of(count_groundings(gallery), "box", "boxes"),
        )
        stored = "{}, {} and {}".format(*counts)
        say(f"{stored} are kept in {folder}; run the same command again to go on")
        raise


@contextmanager
def _show_step(name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show a progress bar on a terminal, elsewhere one line when a step begins; nothing for an empty step."""
    if not total:
        with no_progress(name, total, unit) as ignore:
            yield ignore
        return
    if not shows_progress():
        say(f"{name}: {count_of(total, unit, {'query': 'queries'}.get(unit))}")
    with show_progress(name, total, unit, done) as advance:
        yield advance
