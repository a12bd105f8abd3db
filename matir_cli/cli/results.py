"""How results leave the process: options that commands with results take, and what they do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from matir_cli.answers import Found
from matir_cli.cli.boundary import say
from matir_cli.output import photo_masks, result_json, terminal

Command = TypeVar("Command", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Form:
    """How results are printed."""

    form: str | None
    """"json", "jsonl", "paths", "null", or None for the table."""
    rle: bool
    all_instances: bool
    masks: Path | None


_OPTIONS = (
    click.option("--json", "form", flag_value="json", help="Print one JSON array."),
    click.option("--jsonl", "form", flag_value="jsonl", help="Print one JSON object a line."),
    click.option("--paths", "form", flag_value="paths", help="Print paths only."),
    click.option("-0", "--null", "form", flag_value="null", help="Print paths, each ended by NUL."),
    click.option("--rle", is_flag=True, help="Put each mask into the JSON, as COCO RLE."),
    click.option(
        "--all-instances", is_flag=True, help="Every object the judge pointed at, not the first alone."
    ),
    click.option(
        "--masks",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Write each mask as PNG (0 / 255) at the photo's true size.",
    ),
)


def result_options(command: Command) -> Command:
    """The options of a `Form`, in the order of the help."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def show(found: Sequence[Found], form: Form) -> None:
    """Write the masks, then the results to stdout in the form asked for."""
    mask_files = [
        photo_masks.write_masks(form.masks, item, form.all_instances) if form.masks else () for item in found
    ]
    if form.form in ("json", "jsonl"):
        lines = [
            result_json.to_json(
                result_json.record(item, files, with_rle=form.rle, all_instances=form.all_instances)
            )
            for item, files in zip(found, mask_files, strict=True)
        ]
        if form.form == "json":
            click.echo(f"[{', '.join(lines)}]")
        for line in lines if form.form == "jsonl" else []:
            click.echo(line)
    elif form.form in ("paths", "null"):
        _print_paths(found, b"\0" if form.form == "null" else b"\n")
    else:
        for line in terminal.table(found):
            click.echo(line)
    if form.masks:
        say(f"{sum(file is not None for files in mask_files for file in files)} masks in {form.masks}")


def _print_paths(found: Sequence[Found], end: bytes) -> None:
    """The bytes of each path as they are, unless a terminal is to show them."""
    raw = end == b"\0" or not sys.stdout.isatty()
    for item in found:
        name = os.fsencode(item.path) if raw else terminal.printable(str(item.path)).encode()
        sys.stdout.buffer.write(name + end)
