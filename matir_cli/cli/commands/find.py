"""`matir find`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import click

from matir_cli.cli.boundary import explain, say
from matir_cli.cli.exit_codes import INTERRUPTED, NOTHING_FOUND
from matir_cli.cli.options.common import (
    SectionedCommand,
    choose_model_set,
    device_option,
    gallery_option,
    limit_option,
    models_option,
    verbose_option,
)
from matir_cli.cli.options.output import ANSWER, SECTION, OutputOptions, result_options
from matir_cli.cli.options.query import NOTHING_ASKED, WHAT, WHERE, QueryArguments, query_options
from matir_cli.cli.progress import show_progress
from matir_cli.cli.results import open_output, why_empty
from matir_cli.cli.text import count_of
from matir_cli.errors import ContextTooSmall, QueryContradicts
from matir_cli.gallery.database import GalleryFile
from matir_cli.model_sets.session import ModelSession
from matir_cli.output.terminal import format_corners
from matir_cli.search.pipeline import (
    CANDIDATES,
    SearchOptions,
    SearchOutcome,
    check_searchable,
    run_search,
)
from matir_cli.search.query import Example, Query, ResolvedExample, resolve_example
from matir_cli.search.results import NO_BOX, UNMATCHED, UNREADABLE, SearchResult

LARGEST_OBJECT = 0.95
"""Fraction of a photo: any bound keeps to objects, and hardly one of them is larger."""

STREAM = "-"
"""As QUERY: queries come on standard input."""

SECTIONS = {
    "What to find": WHAT,
    "Where": WHERE,
    "How": (
        *("limit", "no_rerank", "no_ground", "candidates", "min_score", "min_p", "min_iou"),
        *("refine", "fresh", "budget"),
    ),
    "What to write": SECTION,
}


@click.command(
    cls=SectionedCommand, sections=SECTIONS, short_help="Find photos and the object's mask in each."
)
@gallery_option
@models_option
@device_option
@verbose_option
@query_options
@limit_option(default=10, show_default=True, help="Photos to return.")
@click.option("--no-rerank", is_flag=True, help="Stage 1 alone: rank by region vectors.")
@click.option("--no-ground", is_flag=True, help="Rerank, but take the mask of stage 1's best region.")
@click.option(
    "--candidates",
    type=click.IntRange(1),
    help=f"Photos that the judge reranks.  [default: {CANDIDATES}, or -n]",
)
@click.option("--min-score", type=float, help="Leave out photos whose best region scores lower in stage 1.")
@click.option(
    "--min-p", type=click.FloatRange(0, 1), help="Leave out photos that the judge gives a lower probability."
)
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
    asked: QueryArguments,
    no_rerank: bool,
    no_ground: bool,
    form: OutputOptions,
    **settings: object,
) -> None:
    """Find the photos that show what QUERY describes, and the object's mask in each.

    Stage 1 ranks photos by their best region; then the judge looks at the best of them,
    ranks them anew and says where the object is. Verdicts are remembered: the same query
    again costs nothing, and an interrupted one goes on where it stopped.

    An object can be shown instead of described, or shown and described: --image is any photo,
    --box or --point says which object in it. An example alone has no words for the judge, so
    stage 1 ranks. With --not, photos rank by the probability that they show QUERY and not TEXT.

    As QUERY, - reads queries from standard input, one a line, and answers each at once with one
    line of JSON: {"query": ..., "results": [...]}, with the results as --jsonl has them. An empty
    line gets no answer.

    \b
    Exit code: 0 found, 1 nothing found, 2 an error, 130 interrupted.

    \b
    Examples:
      matir find "dog led by rope" -n 20 --masks out/
      matir find --no-rerank "red car"
      matir find --image mug.jpg --box 310,220,480,400
      matir find "a mug on a desk" --image mug.jpg --point 390,300 --weight 0.3
      matir find "a dog" --not "a dog on a lead" --in ~/Photos/2024
      matir find "a bicycle" --since 2023-06 --until 2023-08 --camera pixel --min-size 0.1
      matir find "a unicorn" --min-p 0.5 || echo "none there"
      matir find "a bicycle" -0 | xargs -0 cp -t bicycles/
      matir find "a bicycle" --jsonl | jq -r 'select(.p_true > 0.9) | .path'
      matir find "a bicycle" --budget 60 --json --rle > bicycles.json
      matir find - < queries.txt | jq -r '.query as $q | .results[] | [$q, .path] | @tsv'
      matir find - --min-p 0.8 --yolo streets/ < classes.txt > streets.jsonl
    """
    wanted = SearchOptions(
        filters=asked.within,
        **{"rerank": not no_rerank, "ground": not no_ground, **settings},  # type: ignore[arg-type]
    )
    if asked.is_empty:
        raise click.UsageError(NOTHING_ASKED)
    _check(asked.query, wanted, form)
    with GalleryFile.open(gallery_path) as gallery:
        check_searchable(gallery, asked.query)
        engines = ModelSession(gallery, choose_model_set(gallery, model_set), device)
        query = asked.query
        if isinstance(query.example, Example):
            shown = resolve_example(gallery, engines, query.example)
            _say_region(shown)
            query = replace(query, example=shown)
        if query.text == STREAM:
            with open_output(gallery, replace(form, printed=ANSWER)) as show:
                code = _answer_each(gallery, engines, query, wanted, show)
        else:
            if query.text is None and wanted.rerank:
                say("an example alone has no words for the judge: ranked by stage 1")
            result = run_search(gallery, engines, query, wanted, show_progress)
            code = _remark(gallery, result, wanted)
            _remark_whole(result, form)
            with open_output(gallery, form) as show:
                show(asked.title, result.results)
    click.get_current_context().exit(code)


def _check(query: Query, wanted: SearchOptions, form: OutputOptions) -> None:
    """Refuse options that contradict each other."""
    if wanted.min_p is not None and (query.text is None or not wanted.rerank):
        raise click.UsageError("--min-p is about what the judge says: it needs QUERY, and no --no-rerank.")
    if query.text != STREAM:
        return
    if form.printed not in (None, "jsonl") or form.preview:
        raise click.UsageError("Queries from standard input are answered in lines of JSON, in no other form.")
    if form.html:
        raise click.UsageError("--html holds the results of one query.")


def _answer_each(
    gallery: GalleryFile,
    engines: ModelSession,
    query: Query,
    wanted: SearchOptions,
    show: Callable[[str, Sequence[SearchResult]], None],
) -> int:
    """Answer each line of standard input before the next is read; the exit code."""
    code = NOTHING_FOUND
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            text = line.decode().strip()
        except UnicodeDecodeError:
            say(f"line {number} is not UTF-8; skipped")
            continue
        if not text:
            say(f"line {number} is empty; skipped")
            continue
        try:
            result = run_search(gallery, engines, replace(query, text=text), wanted, show_progress)
        except (ContextTooSmall, QueryContradicts) as error:
            say(f"line {number}: {' '.join(explain(error))}")
            result = SearchOutcome([], truncated=False, candidates=0, judged=0, complete=True)
        else:
            if _remark(gallery, result, wanted, f"line {number}: ") == 0:
                code = 0
        show(text, result.results)
        # Who asks one query at a time waits for this.
        sys.stdout.flush()
        if not result.complete:
            return INTERRUPTED
    return code


def _say_region(shown: ResolvedExample) -> None:
    say(f"example: the region {format_corners(shown.box)} of {shown.path}, {shown.share:.1%} of the photo")


def _remark_whole(result: SearchOutcome, form: OutputOptions) -> None:
    """Say that a region of stage 1 which is the whole photo is one; a list of paths shows no regions."""
    if form.printed in ("paths", "null") and not form.writes:
        return
    shown = [item.objects[0].region for item in result.results if item.grounding is None]
    whole = sum(region is not None and region.ordinal == 0 for region in shown)
    if whole:
        verb = "is" if whole == 1 else "are"
        of = f"{whole} of {count_of(len(result.results), 'result')} {verb} the whole photo"
        say(f"{of}; --max-size {LARGEST_OBJECT} keeps to objects")


def _remark(gallery: GalleryFile, result: SearchOutcome, wanted: SearchOptions, before: str = "") -> int:
    """Say what a user should know about how the results came about; the exit code."""
    if result.truncated:
        say(f"{before}the query is longer than the encoder reads; its end was left out")
    if not result.complete:
        judged = f"{result.judged} of {count_of(result.candidates, 'candidate')} judged"
        say(f"{before}interrupted: {judged}; these alone follow")
    elif result.judged < result.candidates:
        missed = result.candidates - result.judged
        say(f"{before}{missed} of {count_of(result.candidates, 'candidate')} not judged{_rest(wanted)}")
    for word, note in _GROUNDING_NOTES.items():
        count = sum(item.grounding == word for item in result.results)
        if count:
            say(f"{before}{count} of {count_of(len(result.results), 'photo')}: {note}")
    if result.other_size:
        left_out = f"{count_of(result.other_size, 'photo')} left out"
        say(f"{before}{left_out}: the object there is not of the size asked for")
    if not result.complete:
        return INTERRUPTED
    if not result.results:
        say(f"{before}nothing found{_reason(gallery, result, wanted)}")
        return NOTHING_FOUND
    return 0


def _rest(wanted: SearchOptions) -> str:
    """What became of the candidates that were not judged."""
    if wanted.min_p is not None:
        return "; --min-p leaves them out"
    return "; they follow in stage-1 order"


def _reason(gallery: GalleryFile, result: SearchOutcome, wanted: SearchOptions) -> str:
    """Why there is nothing, where a threshold or the filters are the reason."""
    if result.best_score is None:
        return why_empty(gallery, wanted.filters)
    if wanted.min_score is not None and result.best_score < wanted.min_score:
        return f": the best photo scores {result.best_score:.3f}"
    if wanted.min_p is not None and result.best_p is not None and result.best_p < wanted.min_p:
        return f": the judge gives the best photo {result.best_p:.3f}"
    return ""


_GROUNDING_NOTES = {
    UNMATCHED: "no stored region fits the judge's box, so there is no mask (try --refine)",
    NO_BOX: "the judge pointed at nothing, so there is no mask",
    UNREADABLE: "the judge's answer holds no boxes that can be read, so there is no mask",
}
