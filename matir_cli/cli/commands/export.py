"""`matir export`: write all regions or vectors for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from matir_cli.atomic_write import STREAM, atomic_write, open_text
from matir_cli.cli.boundary import say
from matir_cli.cli.options.common import PathName, check_distinct, gallery_option
from matir_cli.cli.options.output import document_root_option, labelstudio_option
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.progress import progress_bar
from matir_cli.cli.text import count_of
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.label_studio import configuration_path
from matir_cli.maintenance.export import ExportOptions, export_coco, export_tasks, export_vectors
from matir_cli.output.task_file import task_file
from matir_cli.photos.discover import absolute_path


@click.command(short_help="Write all regions as COCO JSON, or all vectors as an array.")
@gallery_option
@progress_option
@click.option(
    "--coco",
    type=PathName(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write every photo and region as COCO instances JSON; - is standard output.",
)
@click.option(
    "--vectors",
    type=PathName(dir_okay=False),
    metavar="FILE.npy",
    help="Write every vector, (n, d) float32, and next to it FILE.ids.jsonl, which identifies each row.",
)
@labelstudio_option
@document_root_option
@click.option(
    "--working-size", is_flag=True, help="Write masks as they are stored, not scaled up to the photo's size."
)
@click.option(
    "--relative-to",
    type=PathName(),
    metavar="FOLDER",
    help="Write paths relative to FOLDER instead of absolute ones.",
)
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def export(
    gallery_path: Path,
    coco: Path | None,
    vectors: Path | None,
    labelstudio: Path | None,
    document_root: Path,
    working_size: bool,
    relative_to: Path | None,
    force: bool,
) -> None:
    """Write the content of the gallery for other programs.

    The COCO file has an annotation for each region: its mask as RLE at the photo's true size
    (or, much faster, at the working size: at most 1024 pixels), box, area, and the predicted IoU
    as score. The whole photo, which is also stored as a region, is left out.

    Vectors have unit length in the encoder's own space, with the precision of the gallery (eight
    bits per number), so that dot products with the encoder's text vectors are meaningful.

    The tasks for Label Studio have each region as a brush mask at the photo's true size. What is
    corrected there comes back by `matir import-corrections`: see `matir help regions`.

    \b
    Exit code: 0 done, 2 an error, 130 interrupted.

    \b
    Examples:
      matir export --coco regions.json
      matir export --coco - --working-size | jq '.annotations | length'
      matir export --vectors vectors.npy --force
      matir export --labelstudio tasks.json --document-root ~/Photos
    """
    if coco is None and vectors is None and labelstudio is None:
        raise click.UsageError(
            "Choose what to export: --coco FILE, --vectors FILE.npy, --labelstudio FILE.json."
        )
    if vectors is not None and vectors.suffix != ".npy":
        raise click.BadParameter("the name must end in .npy.", param_hint="--vectors")
    check_distinct(
        *(coco, vectors, None if vectors is None else _ids_path(vectors)),
        *(labelstudio, None if labelstudio is None else configuration_path(labelstudio)),
    )
    options = ExportOptions(working_size, relative_to)
    with GalleryFile.open(gallery_path) as gallery:
        if coco is not None:
            with open_text(coco, force=force) as stream, progress_bar(gallery.count_photos(), "coco") as bar:
                for _ in export_coco(gallery, stream, options):
                    bar.advance()
            if coco != STREAM:
                say(f"{coco} written")
        if vectors is not None:
            _write_vectors(gallery, vectors, options, force)
            say(f"{vectors} and {_ids_path(vectors)} written")
        if labelstudio is not None:
            root = absolute_path(document_root)
            with (
                task_file(labelstudio, root, force=force) as file,
                progress_bar(gallery.count_photos(), "tasks") as bar,
            ):
                for _ in export_tasks(gallery, file):
                    bar.advance()
            if file.outside:
                say(f"{count_of(file.outside, 'photo')} left out: not below {root}")
            say(f"{labelstudio} and {configuration_path(labelstudio)} written")


def _write_vectors(gallery: GalleryFile, path: Path, options: ExportOptions, force: bool) -> None:
    with (
        atomic_write(path, force=force) as array_path,
        open_text(_ids_path(path), force=force) as ids,
        array_path.open("wb") as array,
    ):
        for _ in export_vectors(gallery, array, ids, options):
            pass


def _ids_path(vectors: Path) -> Path:
    return vectors.with_suffix(".ids.jsonl")
