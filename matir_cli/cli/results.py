"""Printing search results on stdout."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from matir_cli.cli.boundary import say
from matir_cli.cli.options.output import ANSWER, OutputOptions
from matir_cli.gallery.database import GalleryFile
from matir_cli.output.json_encoding import to_json
from matir_cli.output.json_records import WrittenFiles, result_record
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.output.terminal import HEADER, printable, table_rows
from matir_cli.search.filters import Filters
from matir_cli.search.results import SearchResult


def why_empty(gallery: GalleryFile, within: Filters | None) -> str:
    """Which filter leaves no photo to search, where one by itself does."""
    if within is None:
        return ""
    if within.places and _none(gallery, Filters(within.places)):
        places = " or ".join(map(str, within.places))
        return f": no photo is in {places} (see: matir ls)"
    if within.since or within.until:
        if _none(gallery, Filters(since="")):
            return ": no photo has a date, so --since and --until find none"
        if _none(gallery, Filters(since=within.since, until=within.until)):
            return ": no photo was taken then (--since, --until)"
    if within.camera is not None and _none(gallery, Filters(camera=within.camera)):
        return f": no photo is by a camera whose name contains {within.camera} (see: matir ls --long)"
    if _none(gallery, within):
        return ": no photo meets all of these filters"
    return ": no object has that size (--min-size, --max-size)" if within.is_sized else ""


def _none(gallery: GalleryFile, within: Filters) -> bool:
    there = within.photos(gallery)
    return there is not None and not there.size


@contextmanager
def open_output(
    gallery: GalleryFile, form: OutputOptions
) -> Iterator[Callable[[str, Sequence[SearchResult]], None]]:
    """Gives what shows the results of a query: first the files asked for, then stdout."""
    if not form.writes:
        yield lambda query, found: _print(gallery, query, found, [WrittenFiles()] * len(found), form)
        return
    # Here: none of this is needed to print.
    from matir_cli.cli.result_files import ResultFiles

    with ResultFiles(gallery, form) as files:
        yield lambda query, found: _print(gallery, query, found, files.write(query, found), form)


def _print(
    gallery: GalleryFile,
    query: str,
    found: Sequence[SearchResult],
    written: Sequence[WrittenFiles],
    form: OutputOptions,
) -> None:
    if form.printed in ("json", "jsonl", ANSWER):
        _print_json(query, found, written, form)
    elif form.printed in ("paths", "null"):
        _print_paths(found, b"\0" if form.printed == "null" else b"\n")
    elif found:
        _print_table(gallery, found, form)


def _print_json(
    query: str, found: Sequence[SearchResult], written: Sequence[WrittenFiles], form: OutputOptions
) -> None:
    """A result at a time: masks at true size are long."""
    lines = (
        to_json(result_record(item, files, with_rle=form.rle, all_instances=form.all_instances))
        for item, files in zip(found, written, strict=True)
    )
    if form.printed == "jsonl":
        for line in lines:
            click.echo(line)
        return
    before, after = "", ""
    if form.printed == ANSWER:
        before, after = f'{{"query": {json.dumps(query)}, "results": ', "}"
    click.echo(f"{before}[", nl=False)
    for number, line in enumerate(lines):
        click.echo(f"{', ' if number else ''}{line}", nl=False)
    click.echo(f"]{after}")


def _print_paths(found: Sequence[SearchResult], end: bytes) -> None:
    """The bytes of each path as they are, unless a terminal is to show them."""
    raw = end == b"\0" or not sys.stdout.isatty()
    for item in found:
        name = os.fsencode(item.path) if raw else printable(str(item.path)).encode()
        sys.stdout.buffer.write(name + end)


def _print_table(gallery: GalleryFile, found: Sequence[SearchResult], form: OutputOptions) -> None:
    host = socket.gethostname() if sys.stdout.isatty() else None
    show_picture = _picture_shower() if form.preview else None
    click.echo(HEADER)
    for item in found:
        for row in table_rows(item, all_instances=form.all_instances, link_host=host):
            click.echo(row)
        if show_picture is not None:
            show_picture(ResultPixels(gallery, item, all_instances=form.all_instances))


def _picture_shower() -> Callable[[ResultPixels], None] | None:
    """What shows a result on the terminal; None, and said, where there is none that could."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("NO_COLOR"):
        say("--preview needs a terminal with colours as standard input and output; no pictures")
        return None
    from matir_cli.output.overlays import overlay
    from matir_cli.output.thumbnails import open_picture_terminal

    show = open_picture_terminal()

    def show_result(subject: ResultPixels) -> None:
        picture = overlay(subject)
        if picture is not None:
            show(picture)

    return show_result
