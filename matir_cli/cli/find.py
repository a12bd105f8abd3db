"""`matir find`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from matir_cli import answers
from matir_cli import find as finding
from matir_cli.cli import results
from matir_cli.cli.boundary import INTERRUPTED, say
from matir_cli.cli.common import (
    choose_model_set,
    device_option,
    gallery_option,
    models_option,
    progress_bar,
    verbose_option,
)
from matir_cli.cli.results import Form, result_options
from matir_cli.find import Result, Search
from matir_cli.gallery import GalleryFile
from matir_cli.loading import Engines

NOTHING_FOUND = 1


@click.command(short_help="Find photos and the object's mask in each.")
@click.argument("query")
@gallery_option
@models_option
@device_option
@verbose_option
@click.option(
    "-n", "limit", type=click.IntRange(1, 100_000), default=10, show_default=True, help="Photos to return."
)
@click.option("--no-rerank", is_flag=True, help="Stage 1 alone: rank by region vectors.")
@click.option("--no-ground", is_flag=True, help="Rerank, but take the mask of stage 1's best region.")
@click.option(
    "--candidates",
    type=click.IntRange(1),
    help=f"Photos that the judge reranks.  [default: {finding.CANDIDATES}, or -n]",
)
@click.option(
    "--keep", type=click.IntRange(1), help=f"Photos left after reranking.  [default: {finding.KEEP}, or -n]"
)
@click.option("--min-score", type=float, help="Leave out photos whose best region scores lower in stage 1.")
@click.option(
    "--min-iou",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="How well a stored region must fit the judge's box.",
)
@click.option("--refine", is_flag=True, help="Where none fits, ask the proposer for the mask in the box.")
@click.option("--fresh", is_flag=True, help="Ask the judge anew, ignoring remembered verdicts.")
@click.option("--budget", type=click.FloatRange(0), metavar="SECONDS", help="Stop judging after this time.")
@result_options
def find(
    gallery_path: Path,
    model_set: str | None,
    device: str,
    query: str,
    no_rerank: bool,
    no_ground: bool,
    form: str | None,
    rle: bool,
    all_instances: bool,
    masks: Path | None,
    **settings: object,
) -> None:
    """Find the photos that show what QUERY describes, and the object's mask in each.

    Stage 1 ranks photos by their best region; then the judge looks at the best of them,
    ranks them anew and says where the object is. Verdicts are remembered: the same query
    again costs nothing, and an interrupted one goes on where it stopped.

    \b
    Exit code: 0 found, 1 nothing found, 2 an error, 130 interrupted.

    \b
    Examples:
      matir find "dog led by rope" -n 20 --masks out/
      matir find --no-rerank "red car"
      matir find "a bicycle" -0 | xargs -0 cp -t bicycles/
      matir find "a bicycle" --jsonl | jq -r 'select(.p_true > 0.9) | .path'
      matir find "a bicycle" --budget 60 --json --rle > bicycles.json
    """
    wanted = Search(rerank=not no_rerank, ground=not no_ground, **settings)  # type: ignore[arg-type]
    with GalleryFile.open(gallery_path) as gallery:
        finding.check_askable(gallery, query)
        engines = Engines(gallery, choose_model_set(gallery, model_set), device)
        result = finding.find(gallery, engines, query, wanted, _watch)
        _remark(result)
        results.show(result.found, Form(form, rle, all_instances, masks))
    if not result.complete:
        click.get_current_context().exit(INTERRUPTED)
    if not result.found:
        say("nothing found")
        click.get_current_context().exit(NOTHING_FOUND)


@contextmanager
def _watch(total: int, name: str) -> Iterator[Callable[[], object]]:
    with progress_bar(total, name) as bar:
        yield bar.advance


def _remark(result: Result) -> None:
    """What a user should know about how the results came about."""
    if result.truncated:
        say("the query is longer than the encoder reads; its end was left out")
    if not result.complete:
        say(f"interrupted: {result.judged} of {result.candidates} candidates were judged; these alone follow")
    elif result.judged < result.candidates:
        missed = result.candidates - result.judged
        say(f"{missed} of {result.candidates} candidates were not judged; they follow in stage-1 order")
    for word, note in _GROUNDING_NOTES.items():
        count = sum(item.grounding == word for item in result.found)
        if count:
            say(f"{count} of {len(result.found)} photos: {note}")


_GROUNDING_NOTES = {
    answers.UNMATCHED: "no stored region fits the judge's box, so there is no mask (try --refine)",
    answers.NO_BOX: "the judge pointed at nothing",
    answers.UNREADABLE: "the judge's answer holds no boxes that can be read",
}
