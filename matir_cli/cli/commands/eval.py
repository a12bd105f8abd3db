"""`matir eval`: what it takes and says of itself; `evaluating` does it.

That one is imported by the commands alone, so that all others start without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from matir_cli.cli.options.evaluation import EvaluationArguments, evaluation_options

if TYPE_CHECKING:
    from matir_cli.evaluation.datasets.d3 import Subset

_images_option = click.option(
    "--images",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder that the file names of the annotations are relative to.",
)


@click.group("eval", short_help="Measure retrieval and segmentation: the paper's tables.")
def evaluate() -> None:
    """Index a data set, ask all its queries, and print the four tables of the paper.

    Everything that takes time is kept in one folder: stopped at any moment, the same
    command goes on where it was, and another option computes only what is new. The tables
    go to stdout and, with every query's figures, to that folder: tables.md, results.json,
    per_query.csv.

    \b
    Exit code: 0 done, 2 an error, 3 done but some images could not be read, 130 interrupted.

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
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Instances JSON; its categories are the queries.",
)
@click.option("--crowd", is_flag=True, help="Count annotations of crowds as instances.")
@evaluation_options
def coco(wanted: EvaluationArguments, images: Path, annotations: Path, crowd: bool) -> None:
    """Evaluate on COCO val2017, or on a data set of your own in COCO's instances format.

    \b
    Examples:
      matir eval coco --images val2017 --annotations annotations/instances_val2017.json
      matir eval coco --images val2017 --annotations annotations/instances_val2017.json \\
          --limit-images 200 --models lite
      matir eval coco --images photos --annotations mine.json --no-rerank --baselines none
    """
    from matir_cli.cli.evaluating import on_coco

    on_coco(wanted, images, annotations, crowd=crowd)


@evaluate.command("d3", short_help="D3, the descriptions of d-cube.")
@_images_option
@click.option(
    "--annotations",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of the pickles: sentences.pkl, annotations.pkl, images.pkl.",
)
@click.option(
    "--subset",
    type=click.Choice(["full", "pres", "abs"]),
    default="full",
    show_default=True,
    help="All descriptions, those of something present, or those of something absent.",
)
@evaluation_options
def d3(wanted: EvaluationArguments, images: Path, annotations: Path, subset: Subset) -> None:
    """Evaluate on D3: every description is searched for in the images of all groups.

    \b
    Examples:
      matir eval d3 --images d3_images --annotations d3_pkl
      matir eval d3 --images d3_images --annotations d3_pkl --subset abs --export-ranking abs.jsonl
      matir eval d3 --images d3_images --annotations d3_pkl --import-masks APE=ape.json
    """
    from matir_cli.cli.evaluating import on_d3

    on_d3(wanted, images, annotations, subset)


@evaluate.command("world", short_help="The drawn world of the tiny set.")
@click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="Pictures to draw; settings are chosen on validation.",
)
@evaluation_options
def world(wanted: EvaluationArguments, split: str) -> None:
    """Evaluate the tiny models on the world that they were trained for; nothing is downloaded.

    The pictures are drawn from seeds that training never saw. The paper's figures stand in
    columns of their own: they are of other models on photographs.

    \b
    Examples:
      matir eval world
      matir eval world --limit-images 100 --baselines none
      matir eval world --ablate whole-photo --ablate fusion
    """
    from matir_cli.cli.evaluating import on_world

    on_world(wanted, split)
