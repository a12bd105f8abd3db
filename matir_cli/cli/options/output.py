"""Options that choose what a search prints and which files it writes."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Literal, TypeAlias

import click

from matir_cli.atomic_write import STREAM
from matir_cli.cli.options.common import (
    CommandFunction,
    OptionDecorator,
    PathName,
    check_distinct,
    output_form_option,
    where_it_applies,
)
from matir_cli.errors import OutputExists
from matir_cli.gallery.label_studio import configuration_path
from matir_cli.output.coco import SPLIT_NAMES
from matir_cli.output.cutouts import Background
from matir_cli.output.data_split import MOST_BACKGROUND
from matir_cli.output.mask_files import MaskForm
from matir_cli.photos.discover import absolute_path

ANSWER: Literal["answer"] = "answer"
"""Form of output for one query of many: one JSON object with the query and its results."""

PrintedForm: TypeAlias = Literal["json", "jsonl", "paths", "null", "answer"]
"""Form of output on stdout; "null" stands for paths that end with NUL."""


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What to print, and which files to write."""

    printed: PrintedForm | None
    """None: the table."""
    rle: bool
    """Put each mask into the JSON, as COCO RLE."""
    preview: bool
    """Show pictures in the terminal."""
    all_instances: bool
    """Every object that the judge pointed at, not only the first."""
    stream: bool
    """Print what is known as soon as it is, one event per line."""
    masks: Path | None
    """Folder for masks."""
    cutouts: Path | None
    """Folder for cut-out objects."""
    feather: int
    """Pixels on either side of the edge over which cut-outs fade."""
    background: Background
    """Background of cut-outs."""
    overlays: Path | None
    """Folder for photos with the mask drawn in."""
    coco: Path | None
    """COCO file."""
    yolo: Path | None
    """Folder for a YOLO data set."""
    val: float
    """Share of the data sets' photos to validate with, 0..1; 0: no split."""
    background_photos: float
    """Share of the data sets' photos that show no class."""
    html: Path | None
    """HTML page."""
    force: bool
    """Replace files that exist."""
    mask_form: MaskForm = "png"
    """Form of the masks."""
    labelstudio: Path | None = None
    """File of Label Studio's tasks."""
    document_root: Path = Path(os.sep)
    """Folder that photos are relative to in these tasks; absolute."""
    explain: bool = False
    """Show where each score and mask come from."""

    def check(self) -> None:
        """Refuse what could not be written, before a long search starts.

        Raises:
            OutputExists: a file exists and would not be replaced.
            UsageError: options contradict each other.
        """
        if self.preview and self.printed is not None:
            raise click.UsageError("--preview goes with the table, not with --json, --jsonl, --paths or -0.")
        if self.stream and self.printed != "jsonl":
            raise click.UsageError("--stream prints lines of JSON: use it with --jsonl.")
        if self.explain and (self.uses_stdout or self.printed in ("paths", "null")):
            raise click.UsageError("--explain goes with the table, --json and --jsonl.")
        if self.uses_stdout and (self.preview or self.printed is not None or self.coco == self.html):
            raise click.UsageError("- is standard output, which can hold one form of output only.")
        if self.cutouts is None and (self.feather or self.background != "transparent"):
            raise click.UsageError("--feather and --background go with --cutouts.")
        if self.masks is None and self.mask_form != "png":
            raise click.UsageError("--mask-form goes with --masks.")
        if (self.val or self.background_photos) and self.coco is None and self.yolo is None:
            raise click.UsageError("--val and --background-photos go with --yolo or --coco.")
        if self.val and self.coco == STREAM:
            raise click.UsageError("--val writes two files: give --coco a folder.")
        if self.coco is not None and not self.val and self.coco.is_dir():
            raise click.UsageError("--coco is a file; with --val it is a folder.")
        configuration = None if self.labelstudio is None else configuration_path(self.labelstudio)
        check_distinct(self.coco, self.html, self.labelstudio, configuration)
        config = None if self.yolo is None else self.yolo / "data.yaml"
        coco = [self.coco / name for name in SPLIT_NAMES.values()] if self.coco and self.val else [self.coco]
        for path in (*coco, self.html, config, self.labelstudio, configuration):
            if path is not None and path != STREAM and path.is_file() and not self.force:
                raise OutputExists(path)

    @property
    def uses_stdout(self) -> bool:
        """True if a file is written to standard output, in place of the table."""
        return STREAM in (self.coco, self.html)

    @property
    def writes(self) -> bool:
        """True if files are to be written."""
        return any(
            (self.masks, self.cutouts, self.overlays, self.coco, self.yolo, self.html, self.labelstudio)
        )

    @property
    def needs_pixels(self) -> bool:
        """True if an output shows the photos themselves."""
        return any((self.cutouts, self.overlays, self.yolo, self.html, self.preview))


SECTION = (
    *("printed_json", "printed_jsonl", "printed_paths", "printed_null"),
    *(field.name for field in fields(OutputOptions)),
)
"""Names of the parameters of `output_options`, for the help."""


def _folder_option(name: str, text: str) -> OptionDecorator:
    kind = PathName(file_okay=False)
    return click.option(name, type=kind, metavar="DIR", help=text)


def _file_option(name: str, text: str) -> OptionDecorator:
    kind = PathName(dir_okay=name == "--coco", allow_dash=True)
    return click.option(name, type=kind, metavar="FILE", help=text)


labelstudio_option = click.option(
    "--labelstudio",
    type=PathName(dir_okay=False),
    metavar="FILE.json",
    help="Write tasks for Label Studio with the masks as predictions, and next to it FILE.labels.xml, "
    "the labeling configuration.",
)

document_root_option = click.option(
    "--document-root",
    type=PathName(file_okay=False),
    default=Path(os.sep),
    show_default=True,
    metavar="DIR",
    help="Label Studio's LOCAL_FILES_DOCUMENT_ROOT, which its tasks name photos relative to.",
)


def output_options(command: CommandFunction) -> CommandFunction:
    """Add the options of `OutputOptions`; the command gets them, checked, as its parameter `output`."""

    @output_form_option("printed", "json", "--json", text="Print one JSON array.")
    @output_form_option("printed", "jsonl", "--jsonl", text="Print one JSON object per line.")
    @output_form_option("printed", "paths", "--paths", text="Print paths only.")
    @output_form_option("printed", "null", "-0", "--null", text="Print paths, each ended by NUL.")
    @click.option("--rle", is_flag=True, help="Include each mask in the JSON, as COCO RLE.")
    @click.option("--preview", is_flag=True, help="Show each photo with its mask in the terminal.")
    @click.option(
        "--all-instances", is_flag=True, help="Every object that the judge pointed at, not only the first."
    )
    @click.option(
        "--stream", is_flag=True, help="With --jsonl: print one event per line, as soon as it is known."
    )
    @click.option(
        "--explain", is_flag=True, help="Show where each score and mask come from, below the row or in JSON."
    )
    @_folder_option("--masks", "Write each mask as PNG (0 / 255) at the photo's true size.")
    @click.option(
        "--mask-form",
        type=click.Choice(["png", "darktable", "npz"]),
        default="png",
        show_default=True,
        help="Form of the masks; darktable: PFM for its module external raster masks; npz: NumPy's arrays.",
    )
    @_folder_option(
        "--cutouts",
        "Write each object, cut out, as PNG; at full resolution if the original file is available.",
    )
    @click.option(
        "--feather",
        type=click.IntRange(0, 500),
        default=0,
        metavar="PX",
        help="Let cut-outs fade over this many pixels on either side of their edge.",
    )
    @click.option(
        "--background",
        type=click.Choice(["transparent", "white", "blur"]),
        default="transparent",
        show_default=True,
        help="Background of cut-outs; blur is the photo itself, blurred.",
    )
    @_folder_option("--overlays", "Write each photo as JPEG, with the mask tinted, the box and the score.")
    @_file_option(
        "--coco",
        "Write COCO instances: masks as RLE at true size, boxes, scores; each query is a category. "
        "- is standard output. With --val: a folder for instances_train.json and instances_val.json.",
    )
    @_folder_option(
        "--yolo",
        "Write a YOLO segmentation data set: photos, polygons, data.yaml; each query is a class.",
    )
    @click.option(
        "--val",
        type=click.FloatRange(0, 1),
        default=0.0,
        metavar="FRACTION",
        help="Keep this share of the photos of --yolo and --coco for validation, near-copies on one side.",
    )
    @click.option(
        "--background-photos",
        type=click.FloatRange(0, MOST_BACKGROUND),
        default=0.0,
        metavar="FRACTION",
        help="Let this share of the photos of --yolo and --coco be some that the judge called False.",
    )
    @_file_option(
        "--html",
        "Write one page for a browser: photos with masks to switch on and off, scores, paths. "
        "- is standard output.",
    )
    @labelstudio_option
    @document_root_option
    @click.option("--force", is_flag=True, help="Replace files that exist, instead of keeping them.")
    @wraps(command)
    def with_output(
        *,
        printed: PrintedForm | None,
        rle: bool,
        preview: bool,
        all_instances: bool,
        stream: bool,
        explain: bool,
        masks: Path | None,
        mask_form: MaskForm,
        cutouts: Path | None,
        feather: int,
        background: Background,
        overlays: Path | None,
        coco: Path | None,
        yolo: Path | None,
        val: float,
        background_photos: float,
        html: Path | None,
        labelstudio: Path | None,
        document_root: Path,
        force: bool,
        **others: object,
    ) -> object:
        json_or_table = printed in (None, "json", "jsonl") and STREAM not in (coco, html)
        preview = where_it_applies("preview", preview, False, applies=printed is None)
        stream = where_it_applies("stream", stream, False, applies=printed == "jsonl")
        explain = where_it_applies("explain", explain, False, applies=json_or_table)
        mask_form = where_it_applies("mask_form", mask_form, "png", applies=masks is not None)
        feather = where_it_applies("feather", feather, 0, applies=cutouts is not None)
        background = where_it_applies("background", background, "transparent", applies=cutouts is not None)
        in_data_set = bool(coco or yolo)
        val = where_it_applies("val", val, 0.0, applies=in_data_set)
        background_photos = where_it_applies("background_photos", background_photos, 0.0, applies=in_data_set)
        output = OutputOptions(
            printed,
            rle,
            preview,
            all_instances,
            stream,
            masks,
            cutouts,
            feather,
            background,
            overlays,
            coco,
            yolo,
            val,
            background_photos,
            html,
            force,
            mask_form,
            labelstudio,
            absolute_path(document_root),
            explain,
        )
        output.check()
        return command(output=output, **others)

    return with_output
