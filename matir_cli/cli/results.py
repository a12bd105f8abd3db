"""How results leave the process: options that commands with results take, and what they do."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import wraps
from pathlib import Path

import click

from matir_cli.answers import Found
from matir_cli.cli.boundary import say
from matir_cli.cli.common import form_option
from matir_cli.cli.form import ANSWER, Form
from matir_cli.gallery import GalleryFile
from matir_cli.output import result_json, terminal
from matir_cli.output.plain_json import to_json
from matir_cli.output.result_json import Files
from matir_cli.output.subject import Subject


def _folder(name: str, text: str) -> Callable[..., Callable[..., object]]:
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option(name, type=kind, metavar="DIR", help=text)


def _file(name: str, text: str) -> Callable[..., Callable[..., object]]:
    kind = click.Path(dir_okay=False, path_type=Path)
    return click.option(name, type=kind, metavar="FILE", help=text)


_OPTIONS = (
    form_option("printed", "json", "--json", text="Print one JSON array."),
    form_option("printed", "jsonl", "--jsonl", text="Print one JSON object a line."),
    form_option("printed", "paths", "--paths", text="Print paths only."),
    form_option("printed", "null", "-0", "--null", text="Print paths, each ended by NUL."),
    click.option("--rle", is_flag=True, help="Put each mask into the JSON, as COCO RLE."),
    click.option("--preview", is_flag=True, help="Show each photo with its mask in the terminal."),
    click.option(
        "--all-instances", is_flag=True, help="Every object the judge pointed at, not the first alone."
    ),
    _folder("--masks", "Write each mask as PNG (0 / 255) at the photo's true size."),
    _folder("--cutouts", "Write each object as PNG, cut out at full resolution where the original is there."),
    _folder("--overlays", "Write each photo with the mask tinted, box and score, as JPEG."),
    _file(
        "--coco", "Write COCO instances: masks as RLE at true size, boxes, scores; each query is a category."
    ),
    _folder(
        "--yolo",
        "Write a YOLO segmentation data set: photos, polygons, data.yaml; each query is a class.",
    ),
    _file("--html", "Write one page for a browser: photos with masks to switch, scores, paths."),
    click.option("--force", is_flag=True, help="Replace files that exist, instead of keeping them."),
)


SECTION = (
    *("printed_json", "printed_jsonl", "printed_paths", "printed_null"),
    *(field.name for field in fields(Form)),
)
"""Names of the options of a `Form`, for the help."""


def result_options(command: Callable[..., object]) -> Callable[..., object]:
    """The options of a `Form`, in the order of the help; the command gets them as its one argument `form`."""

    @wraps(command)
    def with_form(**values: object) -> object:
        form = Form(**{field.name: values.pop(field.name) for field in fields(Form)})  # type: ignore[arg-type]
        form.check()
        return command(form=form, **values)

    for option in reversed(_OPTIONS):
        with_form = option(with_form)
    return with_form


@contextmanager
def showing(gallery: GalleryFile, form: Form) -> Iterator[Callable[[str, Sequence[Found]], None]]:
    """Gives what shows the results of a query: first the files asked for, then stdout."""
    if not form.writes:
        yield lambda query, found: _print(gallery, query, found, [Files()] * len(found), form)
        return
    # Here: none of this is needed to print.
    from matir_cli.cli.result_files import ResultFiles

    with ResultFiles(gallery, form) as files:
        yield lambda query, found: _print(gallery, query, found, files.write(query, found), form)


def _print(
    gallery: GalleryFile, query: str, found: Sequence[Found], written: Sequence[Files], form: Form
) -> None:
    if form.printed in ("json", "jsonl", ANSWER):
        _print_json(query, found, written, form)
    elif form.printed in ("paths", "null"):
        _print_paths(found, b"\0" if form.printed == "null" else b"\n")
    elif found:
        _print_table(gallery, found, form)


def _print_json(query: str, found: Sequence[Found], written: Sequence[Files], form: Form) -> None:
    """A result at a time: masks at true size are long."""
    lines = (
        to_json(result_json.record(item, files, with_rle=form.rle, all_instances=form.all_instances))
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


def _print_paths(found: Sequence[Found], end: bytes) -> None:
    """The bytes of each path as they are, unless a terminal is to show them."""
    raw = end == b"\0" or not sys.stdout.isatty()
    for item in found:
        name = os.fsencode(item.path) if raw else terminal.printable(str(item.path)).encode()
        sys.stdout.buffer.write(name + end)


def _print_table(gallery: GalleryFile, found: Sequence[Found], form: Form) -> None:
    host = socket.gethostname() if sys.stdout.isatty() else None
    show_picture = _picture_shower() if form.preview else None
    click.echo(terminal.HEADER)
    for item in found:
        for row in terminal.rows(item, all_instances=form.all_instances, link_host=host):
            click.echo(row)
        if show_picture is not None:
            show_picture(Subject(gallery, item, all_instances=form.all_instances))


def _picture_shower() -> Callable[[Subject], None] | None:
    """What shows a result on the terminal; None, and said, where there is none that could."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("NO_COLOR"):
        say("--preview needs a terminal with colours as standard input and output; no pictures")
        return None
    from matir_cli.output.overlays import overlay
    from matir_cli.output.thumbnails import open_terminal

    show = open_terminal()

    def show_result(subject: Subject) -> None:
        picture = overlay(subject)
        if picture is not None:
            show(picture)

    return show_result
