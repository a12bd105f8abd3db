"""`matir find`: search photos."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click

from matir_cli.cli.boundary import explain, say
from matir_cli.cli.exit_codes import DONE, INTERRUPTED, NOTHING_FOUND
from matir_cli.cli.options.common import (
    SectionedCommand,
    choose_model_set,
    device_option,
    galleries_option,
    models_option,
    open_for_reading,
    skip_missing_option,
    verbose_option,
)
from matir_cli.cli.options.decoding import decode_timeout_option
from matir_cli.cli.options.metadata import METADATA_SECTION, metadata_options, sort_option
from matir_cli.cli.options.output import ANSWER, OutputOptions, output_options
from matir_cli.cli.options.output import SECTION as OUTPUT_SECTION
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.options.query import (
    FILTER_SECTION,
    NO_QUERY,
    QUERY_SECTION,
    STREAM,
    QueryArguments,
    query_options,
)
from matir_cli.cli.options.search import SECTION as SEARCH_SECTION
from matir_cli.cli.options.search import check_judge_options, search_options
from matir_cli.cli.path_lists import arriving_lines, without_mark
from matir_cli.cli.progress import can_redraw
from matir_cli.cli.results import (
    OutcomeWriter,
    event_printer,
    open_output,
    resolve_and_say_examples,
    say_unread_metadata,
    why_empty,
)
from matir_cli.cli.server_search import CommandSearcher, server_option
from matir_cli.cli.text import count_of, list_some
from matir_cli.errors import ContextTooSmall, ListNotUtf8, QueryContradicts
from matir_cli.gallery.union import GalleryReader
from matir_cli.model_sets.session import ModelSession
from matir_cli.search.events import SearchOutcome
from matir_cli.search.pipeline import SearchOptions, check_searchable
from matir_cli.search.query import Query, normal_text
from matir_cli.search.results import NO_BOX, UNMATCHED, UNREADABLE
from matir_cli.search.sorting import SortKey
from matir_cli.search.stage_1 import Stage1Ranking

LINES_AT_ONCE = 16
"""Queries from standard input whose photos are ranked together at most: those behind them wait for these."""

OBJECTS_MAX_SIZE = 0.95
"""Fraction of a photo. Any --max-size leaves out whole photos; hardly any object is larger than this one."""


@click.command(
    cls=SectionedCommand,
    sections={
        "What to find": QUERY_SECTION,
        "Where": (*FILTER_SECTION, *METADATA_SECTION),
        "How": SEARCH_SECTION,
        "What to write": ("sort", *OUTPUT_SECTION),
    },
    short_help="Find photos and the object's mask in each.",
)
@galleries_option
@skip_missing_option
@models_option
@device_option
@decode_timeout_option
@progress_option
@verbose_option
@query_options
@metadata_options
@search_options
@server_option
@sort_option
@output_options
def find(
    gallery_paths: tuple[Path, ...],
    skip_missing: bool,
    model_set: str | None,
    device: str,
    arguments: QueryArguments,
    options: SearchOptions,
    use_server: bool,
    sort: SortKey,
    output: OutputOptions,
) -> None:
    """Find the photos that show what QUERY describes, and the object's mask in each.

    Stage 1 ranks photos by their best region. Then the judge looks at the best of them, ranks
    them again and points at the object. Its verdicts are remembered: the same query costs nothing
    the second time, and an interrupted one continues where it stopped.

    Stage 1 scores the parts of QUERY: the object, its relations to others, and what must not be
    there. `matir parse` shows the parts of a description; --whole ignores them.

    An object can be shown instead of described, or both: --image is any photo, and --box or
    --point behind it selects the object in it. Several examples may be given, and with --unlike
    what is not wanted. An example without words cannot be put to the judge, so
    stage 1 ranks. With --not, photos rank by the probability that they show QUERY and not TEXT.

    If QUERY is -, queries are read from standard input, one per line. Each is answered at once
    with one line of JSON: {"query": ..., "results": [...]}, with results as in --jsonl. An empty
    line gets no answer, and neither does one that is not UTF-8. A line given twice is answered
    twice and is one category.

    --jsonl --stream prints a line of JSON as soon as something is known: stage 1's ranking, each
    verdict, each object pointed at, and the results. See: matir help outputs

    A server for the gallery, if one runs, searches with models that stay loaded. The output is the
    same. See: matir help serving

    Several galleries are searched as the one that `matir merge` would make of them, without a server.
    They must have been made with the same models. See: matir help maintenance

    \b
    Exit code: 0 found, 1 nothing found, 2 an error, 130 interrupted.

    \b
    Examples:
      matir find "dog led by rope" -n 20 --masks out/
      matir find --no-rerank "red car"
      matir find --image mug.jpg --box 310,220,480,400
      matir find --image mug.jpg --point 390,300 --image cup.jpg --unlike jug.jpg
      matir find "a mug on a desk" --image mug.jpg --point 390,300 --weight 0.3
      matir find "a dog" --not "a dog on a lead" --in ~/Photos/2024
      matir find "a bicycle" --since 2023-06 --until 2023-08 --camera pixel --min-size 0.1
      matir find "a boat" --near 45.437,12.335 --within 5km --sort taken
      matir find "a boat" --rating 3+ --keyword holiday --no-keyword draft
      matir find "a unicorn" --min-p 0.5 || echo "none there"
      matir find "a bicycle" -0 | xargs -0 cp -t bicycles/
      matir find "a bicycle" --jsonl | jq -r 'select(.p_true > 0.9) | .path'
      matir find "a bicycle" --budget 60 --json --rle > bicycles.json
      matir find - < queries.txt | jq -r '.query as $q | .results[] | [$q, .path] | @tsv'
      matir find "a dog left of a tree" -n 1 --explain
      matir find "a dog" --db 'shards/*.db' --db /media/disk/gallery.db
      matir find "a bicycle" --jsonl --stream | jq -c 'select(.event == "verdict")'
      matir find - --min-p 0.8 --yolo streets/ < classes.txt > streets.jsonl
    """
    options = replace(options, filters=arguments.filters, sort=sort, explain=output.explain)
    query = arguments.query
    if arguments.is_empty:
        raise click.UsageError(NO_QUERY)
    check_judge_options(options, query)
    check_background(options, query, output)
    if query.text == STREAM:
        _check_stream_output(output)
    with open_for_reading(gallery_paths, skip_missing=skip_missing) as gallery:
        check_searchable(gallery, query)
        say_unread_metadata(gallery, arguments.filters, skip_missing=skip_missing)
        engines = ModelSession(gallery, choose_model_set(gallery, model_set), device)
        query = resolve_and_say_examples(gallery, engines, query)
        # What is printed while a search is at work cannot be taken back.
        skips = skip_missing and not output.stream
        searcher = CommandSearcher(gallery, engines, use_server=use_server, skip_damaged=skips)
        if query.text == STREAM:
            output = output if output.stream else replace(output, printed=ANSWER)
            with open_output(gallery, output) as write:
                code = _answer_each(gallery, searcher, query, options, output, write)
        else:
            if query.text is None and options.rerank:
                say("an example without words cannot be put to the judge: ranked by stage 1")
            code, _ = answer_query(gallery, searcher, query, options, output, arguments.title)
    click.get_current_context().exit(code)


def check_background(options: SearchOptions, query: Query, output: OutputOptions) -> None:
    """Refuse background photos for a search that does not tell which photos lack the object.

    Raises:
        UsageError: the judge is not asked, or its answer is about excluded objects as well.
    """
    if output.background_photos and (query.without or not options.asks_judge(query)):
        raise click.UsageError("--background-photos needs the judge, and its answers to QUERY alone.")


def answer_query(
    gallery: GalleryReader,
    searcher: CommandSearcher,
    query: Query,
    options: SearchOptions,
    output: OutputOptions,
    title: str,
    select: Callable[[SearchOutcome], SearchOutcome] | None = None,
) -> tuple[int, SearchOutcome]:
    """Search, say how the results came about and write them; return the exit code and the whole outcome.

    Args:
        title: the query in a few words.
        select: leaves results out before they are written.
    """
    result = _search(gallery, searcher, query, options, output, title)
    code = _report(gallery, result, options)
    written = result if select is None or code == NOTHING_FOUND else select(result)
    _report_whole_photos(written, output)
    with open_output(gallery, output) as write:
        write(title, written)
    return NOTHING_FOUND if code == DONE and not written.results else code, result


def _search(
    gallery: GalleryReader,
    searcher: CommandSearcher,
    query: Query,
    options: SearchOptions,
    output: OutputOptions,
    title: str,
) -> SearchOutcome:
    """Run the search; show what is known meanwhile, on a terminal as a table in place."""
    shows_table = output.printed is None and not output.uses_stdout and options.asks_judge(query)
    if not (shows_table and can_redraw() and not logging.getLogger().isEnabledFor(logging.DEBUG)):
        return searcher.run(query, options, event_printer(gallery, title, output))
    # Imported only if a terminal shows it.
    from matir_cli.cli.preliminary_table import PreliminaryTable

    table = PreliminaryTable(gallery, options.limit)
    try:
        return searcher.run(query, options, table.observe, table.progress, table.say_above)
    finally:
        table.clear()


def _check_stream_output(output: OutputOptions) -> None:
    """Refuse forms of output that cannot answer queries from standard input."""
    if output.printed not in (None, "jsonl") or output.preview:
        raise click.UsageError("Queries from standard input are answered as lines of JSON only.")
    if output.uses_stdout:
        raise click.UsageError("Standard output has the answers: give --coco or --html a file.")
    if output.html:
        raise click.UsageError("--html shows the results of one query.")


def _answer_each(
    gallery: GalleryReader,
    searcher: CommandSearcher,
    query: Query,
    options: SearchOptions,
    output: OutputOptions,
    write: OutcomeWriter,
) -> int:
    """Answer the lines of standard input, those that are there before more are read; return the exit code.

    Args:
        query: the example and exclusions that go with every line.
    """
    code = NOTHING_FOUND
    for number, text, ahead in _ranked_lines(searcher, query, options):
        if not text:
            say(f"line {number} is {'not UTF-8' if text is None else 'empty'}; skipped")
            continue
        try:
            observe = event_printer(gallery, text, output)
            result = searcher.run(replace(query, text=text), options, observe, ahead=ahead)
        except (ContextTooSmall, QueryContradicts) as error:
            say(f"line {number}: {' '.join(explain(error))}")
            result = SearchOutcome([], truncated=False, candidates=0, judged=0, complete=True)
        else:
            if _report(gallery, result, options, f"line {number}: ") == DONE:
                code = DONE
        write(text, result)
        # A program that sends one query at a time waits for this answer.
        sys.stdout.flush()
        if not result.complete:
            return INTERRUPTED
    return code


def _ranked_lines(
    searcher: CommandSearcher, query: Query, options: SearchOptions
) -> Iterator[tuple[int, str | None, Stage1Ranking | None]]:
    """Yield number, text and stage 1's ranking of each line of standard input.

    The text is None if it is not UTF-8. Stage 1 runs for several lines that are there at once: first for one,
    so that its answer does not wait for others, then each time for twice as many.
    """
    number = 0
    for lines in arriving_lines(sys.stdin.fileno()):
        start, size = 0, 1
        while start < len(lines):
            group = lines[start : start + size]
            texts = [_text_of(line, is_first=number + place == 0) for place, line in enumerate(group)]
            rankings = iter(searcher.rank_ahead([replace(query, text=t) for t in texts if t], options))
            for text in texts:
                number += 1
                yield number, text, next(rankings) if text else None
            start, size = start + size, min(2 * size, LINES_AT_ONCE)


def _text_of(line: bytes, *, is_first: bool) -> str | None:
    """Return the query in a line of standard input; None if it is not UTF-8.

    Raises:
        UsageError: the first line shows that all are in another encoding.
    """
    try:
        return normal_text((without_mark(line) if is_first else line).decode())
    except ListNotUtf8 as error:
        convert = f"iconv -f {error.encoding} -t UTF-8 QUERIES | matir find -"
        raise click.UsageError(f"The queries are in {error.encoding}; convert them: {convert}") from error
    except UnicodeDecodeError:
        return None


def _report_whole_photos(result: SearchOutcome, output: OutputOptions) -> None:
    """Say how many of the regions found by stage 1 are the whole photo, unless only paths are shown."""
    if output.printed in ("paths", "null") and not output.writes:
        return
    regions = [item.objects[0].region for item in result.results if item.grounding is None]
    whole = sum(region is not None and region.ordinal == 0 for region in regions)
    if whole:
        verb = "is" if whole == 1 else "are"
        subject = f"{whole} of {count_of(len(result.results), 'result')} {verb} the whole photo"
        say(f"{subject}; use --max-size {OBJECTS_MAX_SIZE} to match objects only")


def _report(gallery: GalleryReader, result: SearchOutcome, options: SearchOptions, prefix: str = "") -> int:
    """Say how the results came about, and return the exit code.

    Args:
        prefix: begins each message.
    """
    if result.truncated:
        say(f"{prefix}the query is longer than the encoder reads; its end was left out")
    if result.ungrounded:
        rest = f"{result.ungrounded} of {count_of(len(result.results), 'result')}"
        say(f"{prefix}interrupted: no box was asked for in {rest}; their masks are stage 1's")
    elif not result.complete:
        judged = f"{result.judged} of {count_of(result.candidates, 'candidate')} judged"
        say(f"{prefix}interrupted: {judged}; only these follow")
    else:
        consequence = "they follow in stage-1 order" if options.min_p is None else "--min-p leaves them out"
        missed = result.candidates - result.judged - len(result.unanswered) - result.unlikely
        if result.unlikely:
            judged = f"{result.judged} of {count_of(result.candidates, 'candidate')} judged"
            places = f"the first {options.limit}" if options.limit > 1 else "the first"
            say(f"{prefix}{judged}; the others are unlikely to change {places} (--certainty)")
        if missed:
            say(f"{prefix}{missed} of {count_of(result.candidates, 'candidate')} not judged; {consequence}")
        if result.unanswered:
            share = f"{len(result.unanswered)} of {count_of(result.candidates, 'candidate')}"
            names = list_some([str(path) for path in result.unanswered])
            say(f"{prefix}{share} could not be judged; {consequence}: {names}")
    for grounding, note in _GROUNDING_NOTES.items():
        count = sum(item.grounding == grounding for item in result.results)
        if count:
            say(f"{prefix}{count} of {count_of(len(result.results), 'photo')}: {note}")
    if result.other_size:
        left_out = f"{count_of(result.other_size, 'photo')} left out"
        say(f"{prefix}{left_out}: the object does not have the size asked for")
    if not result.complete:
        return INTERRUPTED
    if not result.results:
        say(f"{prefix}nothing found{_reason(gallery, result, options)}")
        return NOTHING_FOUND
    return DONE


def _reason(gallery: GalleryReader, result: SearchOutcome, options: SearchOptions) -> str:
    """Return why nothing was found, if a threshold or the filters are the reason; else an empty string."""
    if result.best_score is None:
        return why_empty(gallery, options.filters)
    if options.min_score is not None and result.best_score < options.min_score:
        return f": the best photo scores {result.best_score:.3f}"
    if options.min_p is not None and result.best_p is not None and result.best_p < options.min_p:
        return f": the judge gives the best photo {result.best_p:.3f}"
    return ""


_GROUNDING_NOTES = {
    UNMATCHED: "no stored region fits the judge's box, so there is no mask (try --refine)",
    NO_BOX: "the judge pointed at nothing, so there is no mask",
    UNREADABLE: "the judge's answer holds no readable box, so there is no mask",
}
