"""`matir demo`: index and search drawn pictures."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from PIL import Image

from matir_cli.atomic_write import atomic_write
from matir_cli.cli.boundary import say
from matir_cli.cli.commands.add import add
from matir_cli.cli.commands.find import find
from matir_cli.cli.exit_codes import INTERRUPTED
from matir_cli.cli.options.common import PathName
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.progress import progress_form
from matir_cli.cli.text import count_of

MODEL_SET = "tiny"

MIN_IOU = 0.2
"""Below the default: the tiny judge's boxes are rough, but the right one of the few regions fits best."""

QUERIES = ("striped red house", "yellow tree", "house left of a tree")


@click.command(short_help="Try the program on drawn pictures.")
@click.argument("folder", type=PathName(file_okay=False), default=Path("matir-demo"))
@click.option("--photos", "count", type=click.IntRange(1, 10_000), default=200, show_default=True)
@click.option(
    "--results", type=click.IntRange(1, 100), default=5, show_default=True, help="Photos for each query."
)
@progress_option
def demo(folder: Path, count: int, results: int) -> None:
    """Draw a small gallery into FOLDER, index it with the tiny models and search it.

    Nothing is downloaded: the pictures are drawn from seeds, and the tiny models are part of
    the package. They know only these drawings.

    \b
    Exit code: 0 done, 2 an error, 130 interrupted.

    \b
    Examples:
      matir demo
      matir demo /tmp/drawn --photos 50 --results 3
    """
    photos, gallery = folder / "photos", folder / "gallery.db"
    progress = ("--progress", progress_form())  # the commands below choose it anew
    say(f"drawing {count_of(count, 'picture')} into {photos}")
    draw(photos, count)
    _run(add, "add", photos, "--db", gallery, "--models", MODEL_SET, *progress)
    for query in QUERIES:
        name = query.replace(" ", "-")
        page = folder / f"{name}.html"
        files = ("--masks", folder / "masks" / name, "--html", page, "--force")
        _run(find, "find", query, "-n", results, "--min-iou", MIN_IOU, "--db", gallery, *files, *progress)


def draw(folder: Path, count: int) -> None:
    """Write `count` pictures of the drawn world to `folder` as PNG; files that exist are kept."""
    from matir_cli.models.tiny import world

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:04}.png"
        if not path.exists():
            with atomic_write(path, force=True) as temporary:  # half a picture would be kept
                Image.fromarray(world.picture(world.SPLITS["demo"][number]).image).save(temporary)


def _run(command: click.Command, *words: object) -> None:
    """Show a command line as a user would type it, and run the command."""
    name, *arguments = map(str, words)
    click.echo(click.style(f"\n$ matir {name} {shlex.join(arguments)}", bold=True), err=True)
    code = command.main(arguments, prog_name=f"matir {name}", standalone_mode=False)
    if code == INTERRUPTED:
        click.get_current_context().exit(code)
