"""Prints search results on standard output."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeAlias

import click

from matir_cli.cli.boundary import is_dumb, say
from matir_cli.cli.options.common import without_damaged
from matir_cli.cli.options.output import ANSWER, OutputOptions
from matir_cli.cli.path_lists import write_path
from matir_cli.cli.text import count_of
from matir_cli.gallery.file_metadata import count_unread
from matir_cli.gallery.sqlite_errors import translated
from matir_cli.gallery.union import GalleryReader, files_of
from matir_cli.output.event_records import event_record, final_figures
from matir_cli.output.json_encoding import to_json
from matir_cli.output.json_records import WrittenFiles, result_record
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.output.terminal import HEADER, explanation_rows, format_corners, table_rows
from matir_cli.search.events import SearchEvent, SearchOutcome
from matir_cli.search.filters import Filters, passing_photos
from matir_cli.search.models import SearchModels
from matir_cli.search.query import Query, ResolvedExample, resolve_each
from matir_cli.search.results import SearchResult


def why_empty(gallery: GalleryReader, filters: Filters | None) -> str:
    """Return which filter leaves no photo to search, as the end of a message.

    Returns:
        ": " and the reason, or an empty string if no filter by itself is the reason.
    """
    if filters is None:
        return ""
    on = "".join(f" --db {shlex.quote(str(file.path))}" for file in files_of(gallery))
    if filters.places and _select_none(gallery, Filters(filters.places)):
        places = " or ".join(map(str, filters.places))
        return f": no photo is in {places} (see: matir ls{on})"
    if filters.since or filters.until:
        if _select_none(gallery, Filters(since="")):
            return ": no photo has a date, so --since and --until match none"
        if _select_none(gallery, Filters(since=filters.since, until=filters.until)):
            return ": no photo was taken in that period (--since, --until)"
    if filters.camera is not None and _select_none(gallery, Filters(camera=filters.camera)):
        return f": no photo is by a camera whose name contains {filters.camera} (see: matir ls --long{on})"
    if (filters.near or filters.has_gps) and _select_none(gallery, Filters(has_gps=True)):
        return ": no photo has a position, so --near and --has-gps match none"
    if filters.near is not None and _select_none(gallery, Filters(near=filters.near, within=filters.within)):
        return ": no photo was taken that near (--near, --within)"
    if filters.rating is not None and _select_none(gallery, Filters(rating=filters.rating)):
        return ": no photo has such a rating (--rating)"
    for keyword in filters.keywords:
        if _select_none(gallery, Filters(keywords=(keyword,))):
            return f": no photo has the keyword {keyword} (see: matir ls --long{on})"
    if _select_none(gallery, filters):
        return ": no photo passes all of these filters"
    return ": no object has that size (--min-size, --max-size)" if filters.is_sized else ""


def say_unread_metadata(
    gallery: GalleryReader, filters: Filters | None, *, skip_missing: bool = False
) -> None:
    """Say that ratings and keywords of some files have not been read, if the filters ask for them.

    Args:
        skip_missing: as in `without_damaged`.
    """
    if filters is None or not filters.needs_metadata:
        return

    def count_all() -> int:
        count = 0
        for file in files_of(gallery):
            with translated(file.path):
                count += count_unread(file.connection)
        return count

    if count := without_damaged(gallery, count_all, skip_missing=skip_missing):
        remedy = "matir sync --metadata FOLDER reads them"
        say(f"ratings and keywords of {count_of(count, 'file')} are not known yet: {remedy}")


def _select_none(gallery: GalleryReader, filters: Filters) -> bool:
    photos = passing_photos(gallery, filters)
    return photos is not None and not photos.size


def resolve_and_say_examples(gallery: GalleryReader, models: SearchModels, query: Query) -> Query:
    """Find the regions that the query's examples refer to, if it has any, and say which they are.

    Raises:
        MatirError: as in `resolve_example`.
    """
    good, bad = (resolve_each(gallery, models, examples) for examples in (query.examples, query.unlike))
    for example in good:
        _say_example("example", example)
    for example in bad:
        _say_example("unlike", example)
    return replace(query, examples=good, unlike=bad)


def _say_example(role: str, example: ResolvedExample) -> None:
    """Say which region an example refers to, and whether it fits the box poorly."""
    region = f"the region {format_corners(example.box)} of {example.path}"
    say(f"{role}: {region}, {example.share:.1%} of the photo")
    if example.fits_poorly:
        say(
            f"that region fits --box poorly (IoU {example.iou:.2f}); draw the box tight around the object, "
            "mark it with --point, or omit both for the whole photo"
        )


OutcomeWriter: TypeAlias = Callable[[str, SearchOutcome], None]
"""Function that writes the outcome of a query."""


def event_printer(
    gallery: GalleryReader, query: str, output: OutputOptions
) -> Callable[[SearchEvent], object]:
    """Return a function that prints each event of a search as a line of JSON, if `output` asks for that.

    The final event is left to the `OutcomeWriter`, which knows the files that were written.
    """
    if not output.stream:
        return lambda _: None

    def print_event(event: SearchEvent) -> None:
        record = event_record(gallery, query, event, all_instances=output.all_instances)
        if record is not None:
            click.echo(to_json(record))  # which flushes

    return print_event


@contextmanager
def open_output(gallery: GalleryReader, output: OutputOptions) -> Iterator[OutcomeWriter]:
    """Yield a function that writes the results of a query: first the files, then standard output."""
    if not output.writes:
        yield lambda query, outcome: _print(
            gallery, query, outcome, [WrittenFiles()] * len(outcome.results), output
        )
        return
    # Imported only if files are written.
    from matir_cli.cli.result_files import ResultFiles

    with ResultFiles(gallery, output) as files:
        yield lambda query, outcome: _print(gallery, query, outcome, files.write(query, outcome), output)


def _print(
    gallery: GalleryReader,
    query: str,
    outcome: SearchOutcome,
    files: Sequence[WrittenFiles],
    output: OutputOptions,
) -> None:
    if output.uses_stdout:
        return
    found = outcome.results
    match output.printed:
        case "json" | "jsonl" | "answer":
            _print_json(query, outcome, files, output)
        case "paths" | "null":
            for result in found:
                write_path(result.path, null=output.printed == "null")
        case None:
            if found:
                _print_table(gallery, found, output)


def _print_json(
    query: str, outcome: SearchOutcome, files: Sequence[WrittenFiles], output: OutputOptions
) -> None:
    """Print one result at a time: masks at true size are long."""
    lines = (
        to_json(result_record(result, written, with_rle=output.rle, all_instances=output.all_instances))
        for result, written in zip(outcome.results, files, strict=True)
    )
    if output.printed == "jsonl" and not output.stream:
        for line in lines:
            click.echo(line)
        return
    before, after = "", ""
    if output.stream:
        figures = to_json(final_figures(query, outcome))
        before, after = f'{figures[:-1]}, "results": ', "}"
    elif output.printed == ANSWER:
        before, after = f'{{"query": {json.dumps(query)}, "results": ', "}"
    click.echo(f"{before}[", nl=False)
    for number, line in enumerate(lines):
        click.echo(f"{', ' if number else ''}{line}", nl=False)
    click.echo(f"]{after}")


def _print_table(gallery: GalleryReader, found: Sequence[SearchResult], output: OutputOptions) -> None:
    host = None
    if sys.stdout.isatty() and not is_dumb():
        # Imported here: only links on a terminal need it.
        from socket import gethostname

        host = gethostname()
    show_picture = _open_preview() if output.preview else None
    click.echo(HEADER)
    for result in found:
        for row in table_rows(result, all_instances=output.all_instances, link_host=host):
            click.echo(row)
        if result.explanation is not None:
            for row in explanation_rows(result.explanation):
                click.echo(f"      {row}")
        if show_picture is not None:
            show_picture(ResultPixels(gallery, result, all_instances=output.all_instances))


def _open_preview() -> Callable[[ResultPixels], None] | None:
    """Return a function that shows a result as a picture; None, with a message, if the terminal cannot."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("NO_COLOR") or is_dumb():
        say("--preview needs a terminal with colours as standard input and output; no pictures")
        return None
    if 0 in os.get_terminal_size(sys.stdout.fileno()):  # a serial line, or a program's pseudo-terminal
        say(
            "--preview needs a terminal that knows its size, such as by: stty rows 24 columns 80; no pictures"
        )
        return None
    from matir_cli.output.overlays import overlay
    from matir_cli.output.thumbnails import open_picture_terminal

    show = open_picture_terminal()

    def show_result(pixels: ResultPixels) -> None:
        picture = overlay(pixels)
        if picture is not None:
            show(picture)

    return show_result
