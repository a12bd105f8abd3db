"""Options that several commands take."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import platformdirs

from matir_cli import catalogue
from matir_cli.catalogue import ModelSet
from matir_cli.cli.boundary import say
from matir_cli.gallery import GalleryFile


def default_gallery() -> Path:
    """Where the gallery lies unless --db or MATIR_DB says otherwise."""
    return platformdirs.user_data_path("matir", appauthor=False) / "gallery.db"


gallery_option = click.option(
    "--db",
    "gallery_path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="MATIR_DB",
    default=default_gallery,
    show_default="gallery.db in the user's data folder",
    show_envvar=True,
    metavar="FILE",
    help="The gallery.",
)

models_option = click.option(
    "--models",
    "model_set",
    envvar="MATIR_MODEL_SET",
    show_envvar=True,
    metavar="SET",
    help="Model set: a name from `matir models list`, or a TOML file."
    f"  [default: the gallery's own, for a new one {catalogue.DEFAULT_MODEL_SET}]",
)

device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cuda", "mps", "cpu"]),
    default="auto",
    show_default=True,
    help="Where the models run.",
)


@dataclass(frozen=True, slots=True)
class Progress:
    """A bar on stderr, or nothing where stderr is no terminal."""

    advance: Callable[[], object]
    """One photo is done."""
    say: Callable[[str], object]
    """A line above the bar."""


@contextmanager
def progress_bar(total: int | None, name: str | None = None, unit: str = "photo") -> Iterator[Progress]:
    """Photos done of `total`, photos/s and time left, while the block runs; `unit` if it is not photos."""
    if not sys.stderr.isatty():
        yield Progress(lambda: None, partial(click.echo, err=True))
        return
    # Here: only who watches a terminal needs it.
    from tqdm import tqdm

    with tqdm(desc=name, total=total, unit=unit, file=sys.stderr, leave=name is None) as bar:
        yield Progress(bar.update, partial(tqdm.write, file=sys.stderr))


@contextmanager
def watch(total: int, name: str, unit: str) -> Iterator[Callable[[], object]]:
    """A bar for one step, where somebody watches; a `matir_cli.watch.Watch`."""
    with progress_bar(total, name, unit) as bar:
        yield bar.advance


def readable_size(count: int) -> str:
    """`count` bytes for people, in powers of 1000."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _show_log(_context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(name)s: %(message)s")


verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_log,
    help="Show what the models' libraries say.",
)


def choose_model_set(gallery: GalleryFile | None, wanted: str | None) -> ModelSet:
    """The set asked for, else the one the gallery was made with, else the default; its note is shown."""
    stored = gallery.model_set() if gallery is not None else None
    chosen = catalogue.find(wanted or stored or catalogue.DEFAULT_MODEL_SET)
    if chosen.note:
        say(f"model set {chosen.name}: {chosen.note}")
    return chosen
