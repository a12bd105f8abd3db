"""Options that say what to print and which files to write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path

import click

from matir_cli.cli.options.common import check_distinct, output_form_option
from matir_cli.errors import OutputExists

ANSWER = "answer"
"""One JSON object for one query of many: the query and its results."""


@dataclass(frozen=True, slots=True)
class OutputOptions:
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


def _folder_option(name: str, text: str) -> Callable[..., Callable[..., object]]:
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option(name, type=kind, metavar="DIR", help=text)


def _file_option(name: str, text: str) -> Callable[..., Callable[..., object]]:
    kind = click.Path(dir_okay=False, path_type=Path)
    return click.option(name, type=kind, metavar="FILE", help=text)


_OPTIONS = (
    output_form_option("printed", "json", "--json", text="Print one JSON array."),
    output_form_option("printed", "jsonl", "--jsonl", text="Print one JSON object a line."),
    output_form_option("printed", "paths", "--paths", text="Print paths only."),
    output_form_option("printed", "null", "-0", "--null", text="Print paths, each ended by NUL."),
    click.option("--rle", is_flag=True, help="Put each mask into the JSON, as COCO RLE."),
    click.option("--preview", is_flag=True, help="Show each photo with its mask in the terminal."),
    click.option(
        "--all-instances", is_flag=True, help="Every object the judge pointed at, not the first alone."
    ),
    _folder_option("--masks", "Write each mask as PNG (0 / 255) at the photo's true size."),
    _folder_option(
        "--cutouts", "Write each object as PNG, cut out at full resolution where the original is there."
    ),
    _folder_option("--overlays", "Write each photo with the mask tinted, box and score, as JPEG."),
    _file_option(
        "--coco", "Write COCO instances: masks as RLE at true size, boxes, scores; each query is a category."
    ),
    _folder_option(
        "--yolo",
        "Write a YOLO segmentation data set: photos, polygons, data.yaml; each query is a class.",
    ),
    _file_option("--html", "Write one page for a browser: photos with masks to switch, scores, paths."),
    click.option("--force", is_flag=True, help="Replace files that exist, instead of keeping them."),
)

SECTION = (
    *("printed_json", "printed_jsonl", "printed_paths", "printed_null"),
    *(field.name for field in fields(OutputOptions)),
)
"""Names of the options of a `Form`, for the help."""


def result_options(command: Callable[..., object]) -> Callable[..., object]:
    """The options of a `Form`, in the order of the help; the command gets them as its one argument `form`."""

    @wraps(command)
    def with_form(**values: object) -> object:
        form = OutputOptions(**{field.name: values.pop(field.name) for field in fields(OutputOptions)})  # type: ignore[arg-type]
        form.check()
        return command(form=form, **values)

    for option in reversed(_OPTIONS):
        with_form = option(with_form)
    return with_form
