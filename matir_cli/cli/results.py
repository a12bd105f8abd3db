"""How results leave the process: options that commands with results take, and what they do."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path

import click

from matir_cli.answers import Found
from matir_cli.cli.boundary import say
from matir_cli.cli.common import check_distinct, counted, form_option, progress_bar
from matir_cli.errors import OutputExists
from matir_cli.gallery import GalleryFile
from matir_cli.output import result_json, terminal
from matir_cli.output.plain_json import to_json
from matir_cli.output.result_json import Files
from matir_cli.output.subject import Subject

ANSWER = "answer"
"""One JSON object for one query of many: the query and its results."""


@dataclass(frozen=True, slots=True)
class Form:
    """What is to become of results."""

    printed: str | None
    """"json", "jsonl", "paths", "null", `ANSWER`, or None for the table."""
    rle: bool
    preview: bool
    all_instances: bool
    masks: Path | None
    cutouts: Path | None
    overlays: Path | None
    coco: Path | None
    yolo: Path | None
    html: Path | None
    force: bool

    def check(self) -> None:
        """Refuse at once what could not be written after a long search.

        Raises:
            OutputExists: a file that is to be kept.
            UsageError: options that contradict each other.
        """
        if self.preview and self.printed is not None:
            raise click.UsageError("--preview goes with the table, not with --json, --jsonl, --paths or -0.")
        check_distinct(self.coco, self.html)
        config = None if self.yolo is None else self.yolo / "data.yaml"
        for path in (self.coco, self.html, config):
            if path is not None and path.is_file() and not self.force:
                raise OutputExists(path)

    @property
    def writes(self) -> bool:
        """Whether files are asked for."""
        return any((self.masks, self.cutouts, self.overlays, self.coco, self.yolo, self.html))

    @property
    def needs_pixels(self) -> bool:
        return any((self.cutouts, self.overlays, self.yolo, self.html, self.preview))


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
        "--coco", "Write COCO instances: masks as RLE at true size, boxes, scores; the query is the category."
    ),
    _folder("--yolo", "Write a YOLO segmentation data set: photos at working size, polygons, data.yaml."),
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


def show(gallery: GalleryFile, query: str, found: Sequence[Found], form: Form) -> None:
    """Write the files asked for, then the results to stdout in the form asked for.

    A photo's pixels live while its files are written, no longer.
    """
    written = _write(gallery, query, found, form) if form.writes else [Files()] * len(found)
    if form.printed in ("json", "jsonl", ANSWER):
        _print_json(query, found, written, form)
    elif form.printed in ("paths", "null"):
        _print_paths(found, b"\0" if form.printed == "null" else b"\n")
    elif found:
        _print_table(gallery, found, form)


def _write(gallery: GalleryFile, query: str, found: Sequence[Found], form: Form) -> list[Files]:
    """Write all files, a result at a time; where they lie."""
    # Here: none of this is needed to print.
    from matir_cli.output.coco import CocoFile, coco_file
    from matir_cli.output.cutouts import Cutouts
    from matir_cli.output.folders import PictureFolder
    from matir_cli.output.overlays import write_overlay
    from matir_cli.output.page import Page, page
    from matir_cli.output.photo_masks import write_masks
    from matir_cli.output.yolo import YoloFolder, yolo_folder

    masks, cut, overlays = (
        None if path is None else PictureFolder(path, force=form.force)
        for path in (form.masks, form.cutouts, form.overlays)
    )
    cutouts = None if cut is None else Cutouts(cut)
    outputs: list[CocoFile | YoloFolder | Page] = []
    files = []
    away = 0
    with ExitStack() as stack:
        if form.coco is not None:
            outputs.append(stack.enter_context(coco_file(form.coco, query, force=form.force)))
        if form.yolo is not None:
            outputs.append(stack.enter_context(yolo_folder(form.yolo, query, force=form.force)))
        if form.html is not None:
            outputs.append(stack.enter_context(page(form.html, query, found, force=form.force)))
        advance = stack.enter_context(progress_bar(len(found), "writing")).advance
        for item in found:
            subject = Subject(gallery, item, all_instances=form.all_instances)
            files.append(
                Files(
                    masks=write_masks(masks, subject) if masks else (),
                    cutouts=cutouts.write(subject) if cutouts else (),
                    overlay=write_overlay(overlays, subject) if overlays else None,
                )
            )
            for output in outputs:
                output.add(subject)
            away += form.needs_pixels and subject.working is None
            advance()
    for folder, what in ((masks, "mask"), (cut, "cut-out"), (overlays, "overlay")):
        if folder is not None:
            kept = f", {folder.kept} there already and kept" if folder.kept else ""
            say(f"{counted(folder.written, what)} written to {folder.path}{kept}")
    _remark(found, form, away, 0 if cutouts is None else cutouts.from_preview)
    return files


def _remark(found: Sequence[Found], form: Form, away: int, from_preview: int) -> None:
    """What is missing in the files."""
    for path in (form.coco, form.yolo, form.html):
        if path is not None:
            say(f"{path} written")
    if from_preview:
        say(
            f"{from_preview} of {counted(len(found), 'original')} away or changed: "
            "cut out from the preview, at working size"
        )
    if away:
        photos = counted(len(found), "photo")
        say(f"{away} of {photos} away or changed, and without a preview: not shown in any picture")


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
