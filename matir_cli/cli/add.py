"""`matir add`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path

import click

from matir_cli import add as indexing
from matir_cli import engines, photos, weights
from matir_cli.catalogue import ModelSet
from matir_cli.cli import boundary
from matir_cli.cli.boundary import say
from matir_cli.cli.common import (
    choose_model_set,
    device_option,
    gallery_option,
    models_option,
    progress_bar,
    verbose_option,
)
from matir_cli.gallery import GalleryFile
from matir_cli.output import printable

READ_AT_ONCE = 1 << 16
"""Bytes of a list of paths read from standard input at a time."""


@click.command(short_help="Index photos.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
@gallery_option
@models_option
@device_option
@verbose_option
@click.option("--no-previews", is_flag=True, help="Do not store the working-size JPEG of each photo.")
@click.option("--dry-run", is_flag=True, help="Only print the files that would be read.")
@click.pass_context
def add(
    context: click.Context,
    paths: tuple[Path, ...],
    gallery_path: Path,
    model_set: str | None,
    device: str,
    no_previews: bool,
    dry_run: bool,
) -> None:
    """Index photos: files, folders (recursively), or - for a list of paths on standard input.

    The list has one path a line, or is separated by NUL as `find -print0` makes it.
    Unchanged files are not read again; copies and renamed files are recognised.

    \b
    Exit code: 0 done, 2 an error, 3 done but some files were skipped, 130 interrupted.

    \b
    Examples:
      matir add ~/Photos
      find . -name '*.jpg' -print0 | matir add -
      matir add ~/Photos --dry-run | wc -l
    """
    if dry_run:
        _print_pending(gallery_path, paths)
        return
    chosen = _choose(gallery_path, model_set)
    configs = {role: weights.locate(chosen, role) for role in ("proposer", "encoder")}
    with GalleryFile.open(gallery_path, create=True) as gallery:
        for role, config in configs.items():
            gallery.bind_model(role, config.identity, chosen.handle)
        models = indexing.Models(
            partial(engines.load_proposer, configs["proposer"], device),
            partial(engines.load_region_encoder, configs["encoder"], device),
            partial(engines.has_own_processor, device),
        )
        counts = _index(gallery, paths, models, previews=not no_previews)
    say(_summary(counts))
    context.exit(boundary.SKIPPED if counts[indexing.Skipped] else 0)


def _choose(gallery_path: Path, wanted: str | None) -> ModelSet:
    """The model set to index with; no gallery is made before its weights are known to be here."""
    if not gallery_path.exists():
        return choose_model_set(None, wanted)
    with GalleryFile.open(gallery_path, create=True) as gallery:
        return choose_model_set(gallery, wanted)


def _index(
    gallery: GalleryFile, paths: tuple[Path, ...], models: indexing.Models, *, previews: bool
) -> Counter[type[indexing.Outcome]]:
    """Run the pipeline with a progress bar; on Ctrl-C say what was done, and leave."""
    counts: Counter[type[indexing.Outcome]] = Counter()
    outcomes = indexing.add(gallery, _expand(paths), models, previews=previews)
    try:
        with closing(outcomes), progress_bar(_count(paths)) as bar:
            for outcome in outcomes:
                counts[type(outcome)] += 1
                if isinstance(outcome, indexing.Skipped):
                    bar.say(f"skipped {printable(str(outcome.path))}: {outcome.reason}")
                bar.advance()
    except KeyboardInterrupt:
        say(f"{_summary(counts)}; run the same command again to go on")
        raise
    return counts


def _count(paths: tuple[Path, ...]) -> int | None:
    """How many files there are, for the time left; it takes a moment, so only where somebody watches."""
    if not sys.stderr.isatty() or Path("-") in paths:
        return None
    return sum(1 for _ in photos.find_files(paths))


def _print_pending(gallery_path: Path, paths: tuple[Path, ...]) -> None:
    if gallery_path.exists():
        with GalleryFile.open(gallery_path) as gallery:
            for path in indexing.pending(gallery, _expand(paths)):
                click.echo(os.fsencode(path))
    else:
        for path in photos.find_files(_expand(paths)):
            click.echo(os.fsencode(path))


def _expand(paths: tuple[Path, ...]) -> Iterator[Path]:
    """`paths`, with - replaced by the list on standard input, read as it comes."""
    for path in paths:
        if path == Path("-"):
            yield from _listed_paths()
        else:
            yield path


def _listed_paths() -> Iterator[Path]:
    """Paths from standard input: separated by NUL if there is one in the first bytes, else by lines."""
    chunks = iter(partial(os.read, sys.stdin.fileno(), READ_AT_ONCE), b"")
    rest = b""
    for chunk in chunks:
        rest += chunk
        if b"\0" in rest or b"\n" in rest:
            break
    separator = b"\0" if b"\0" in rest else b"\n"
    for chunk in chain([b""], chunks):
        *whole, rest = (rest + chunk).split(separator)
        yield from (Path(os.fsdecode(name)) for name in whole if name)
    if rest:
        yield Path(os.fsdecode(rest))


def _summary(counts: Counter[type[indexing.Outcome]]) -> str:
    return (
        f"{counts[indexing.Added]} added, {counts[indexing.Linked]} recognised, "
        f"{counts[indexing.Unchanged]} unchanged, {counts[indexing.Skipped]} skipped"
    )
