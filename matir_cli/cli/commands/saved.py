"""`matir saved`: searches kept in the gallery, to be run again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from matir_cli.cli.boundary import say
from matir_cli.cli.commands.find import answer_query, check_background
from matir_cli.cli.options.common import (
    SectionedCommand,
    choose_model_set,
    device_option,
    gallery_option,
    models_option,
    verbose_option,
)
from matir_cli.cli.options.decoding import decode_timeout_option
from matir_cli.cli.options.metadata import METADATA_SECTION, metadata_options, sort_option
from matir_cli.cli.options.output import SECTION as OUTPUT_SECTION
from matir_cli.cli.options.output import OutputOptions, output_options
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.options.query import (
    FILTER_SECTION,
    NO_QUERY,
    QUERY_SECTION,
    STREAM,
    QueryArguments,
    query_options,
)
from matir_cli.cli.options.search import SECTION as SEARCH_SECTION
from matir_cli.cli.options.search import check_judge_options, search_options
from matir_cli.cli.results import say_unread_metadata
from matir_cli.cli.server_search import CommandSearcher, server_option
from matir_cli.cli.text import count_of
from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.saved_searches import (
    StoredSearch,
    check_name,
    find_saved_search,
    remember_results,
    remove_saved_searches,
    returned_photos,
    save_search,
    saved_searches,
)
from matir_cli.model_sets.session import ModelSession
from matir_cli.output.json_encoding import to_json
from matir_cli.output.printable import printable
from matir_cli.photos.discover import hash_file, stat_file
from matir_cli.search.events import SearchOutcome
from matir_cli.search.pipeline import SearchOptions, check_searchable
from matir_cli.search.query import Example, ResolvedExample
from matir_cli.search.saved_query import SavedExample, SavedQuery, read_saved_query
from matir_cli.search.sorting import SortKey


@click.group()
def saved() -> None:
    """Save searches in the gallery, and run them again.

    \b
    Examples:
      matir saved add dogs "dog led by rope" --min-p 0.8 -n 100
      matir saved run dogs --new
    """


def _check_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        return check_name(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


@saved.command(
    cls=SectionedCommand,
    sections={
        "What to find": QUERY_SECTION,
        "Where": (*FILTER_SECTION, *METADATA_SECTION),
        "How": SEARCH_SECTION,
    },
)
@click.argument("name", callback=_check_name)
@gallery_option
@click.option("--replace", is_flag=True, help="Replace a saved search of this name.")
@query_options
@metadata_options
@search_options
def add(
    name: str, gallery_path: Path, replace: bool, arguments: QueryArguments, options: SearchOptions
) -> None:
    """Save a search as NAME; nothing is searched yet.

    QUERY and the options are those of `matir find`. What is written and where, the models and the
    device are given when it is run. The photos of --image and --unlike must be in the gallery: the
    search keeps the hashes of their contents, no file names. --fresh is not kept.

    \b
    Exit code: 0 done, 2 an error.

    \b
    Examples:
      matir saved add dogs "dog led by rope" --min-p 0.8 -n 100
      matir saved add mugs --image mug.jpg --box 310,220,480,400 --unique
      matir saved add "last summer" "a bicycle" --since 2024-06 --until 2024-08
    """
    query = arguments.query
    if arguments.is_empty:
        raise click.UsageError(NO_QUERY)
    if query.text == STREAM:
        raise click.UsageError("A saved search has one QUERY: - is no stream here.")
    check_judge_options(options, query)
    query.check()
    with GalleryFile.open(gallery_path) as gallery:
        asked = SavedQuery(
            query.text,
            _saved_examples(gallery, query.examples),
            query.weight,
            query.without,
            _with_filters(options, arguments),
            _saved_examples(gallery, query.unlike),
            query.rule,
        )
        save_search(gallery, name, asked.to_json(), replace=replace)
    say(f"saved; run it with: matir saved run {shlex.quote(name)}")


def _with_filters(options: SearchOptions, arguments: QueryArguments) -> SearchOptions:
    return replace(options, fresh=False, filters=arguments.filters)


def _saved_examples(
    gallery: GalleryFile, examples: Sequence[Example | ResolvedExample]
) -> tuple[SavedExample, ...]:
    """Return examples as photos of the gallery; UsageError if the gallery does not hold one."""
    return tuple(_saved_example(gallery, each) for each in examples if isinstance(each, Example))


def _saved_example(gallery: GalleryFile, example: Example) -> SavedExample:
    digest = hash_file(stat_file(example.path))
    if gallery.photo_with(digest) is None:
        raise click.UsageError(
            f"A saved search shows photos of the gallery; add it first: matir add {example.path}"
        )
    return SavedExample(digest.hex(), example.box, example.point)


@saved.command(cls=SectionedCommand, sections={"What to write": ("sort", *OUTPUT_SECTION)})
@click.argument("name")
@gallery_option
@click.option("--new", "only_new", is_flag=True, help="Only photos that earlier runs have not returned.")
@models_option
@device_option
@decode_timeout_option
@progress_option
@verbose_option
@server_option
@sort_option
@output_options
def run(
    name: str,
    gallery_path: Path,
    only_new: bool,
    model_set: str | None,
    device: str,
    use_server: bool,
    sort: SortKey,
    output: OutputOptions,
) -> None:
    """Run the saved search NAME, and write its results as `matir find` does.

    The photos that it returns are remembered. With --new, those of earlier runs are left out of the
    results; the others keep their ranks. A gallery that cannot be written is searched all the same,
    and nothing is remembered; nor is it after Ctrl-C.

    \b
    Exit code: 0 found, 1 nothing found or nothing new, 2 an error, 130 interrupted.

    \b
    Examples:
      matir saved run dogs
      matir sync && matir saved run dogs --new --masks new-dogs/
      matir saved run dogs --new -0 | xargs -0 -r cp -t new-dogs/
    """
    with GalleryFile.open(gallery_path) as gallery:
        stored = find_saved_search(gallery, name)
        asked = _read(gallery, stored)
        check_searchable(gallery, asked.text or "like an example")
        options = replace(asked.options, sort=sort, explain=output.explain)
        if options.filters is not None:
            say_unread_metadata(gallery, options.filters)
        engines = ModelSession(gallery, choose_model_set(gallery, model_set), device)
        query = asked.resolve(gallery, engines)
        check_background(options, query, output)
        searcher = CommandSearcher(gallery, engines, use_server=use_server)
        select = _leave_out(returned_photos(gallery, stored)) if only_new else None
        code, outcome = answer_query(gallery, searcher, query, options, output, asked.title, select)
        if outcome.complete:
            remember_outcome(gallery, stored, outcome)
    click.get_current_context().exit(code)


def _read(gallery: GalleryFile, stored: StoredSearch) -> SavedQuery:
    try:
        return read_saved_query(stored.search)
    except ValueError as error:
        raise GalleryDamaged(gallery.path, f"{stored.name}: {error}") from error


def _leave_out(known: set[int]) -> Callable[[SearchOutcome], SearchOutcome]:
    """Return a function that leaves known photos out of an outcome, and says how many."""

    def select(outcome: SearchOutcome) -> SearchOutcome:
        new = [result for result in outcome.results if result.photo.id not in known]
        say(f"{len(new)} of {count_of(len(outcome.results), 'result')} new")
        return replace(outcome, results=new)

    return select


def remember_outcome(gallery: GalleryFile, stored: StoredSearch, outcome: SearchOutcome) -> None:
    """Remember what a saved search has returned; say so if the gallery cannot be written."""
    if gallery.connection.readonly("main"):
        say("the gallery cannot be written: the results are not remembered")
        return
    remember_results(gallery, stored, [result.photo.id for result in outcome.results])


@dataclass(frozen=True, slots=True)
class SavedSearchRow:
    """A saved search, as `list --json` prints it."""

    name: str
    search: dict[str, Any]
    """The query, the filters and the options that differ from their defaults."""
    saved_at: str
    """ISO 8601, UTC."""
    run_at: str | None
    """Last run, ISO 8601, UTC; absent if there was none."""
    returned: int
    """Number of photos that it has returned so far."""


@saved.command("list")
@gallery_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def list_searches(gallery_path: Path, as_json: bool) -> None:
    """List the saved searches: name, photos returned so far, last run, query; columns end with TAB.

    \b
    Exit code: 0 done, also when there is none, 2 an error.

    \b
    Examples:
      matir saved list
      matir saved list --json | jq -r '.[] | select(.run_at == null) | .name'
    """
    with GalleryFile.open(gallery_path) as gallery:
        rows = [(stored, _read(gallery, stored)) for stored in saved_searches(gallery)]
    if as_json:
        records = (
            SavedSearchRow(
                stored.name, json.loads(stored.search), stored.saved_at, stored.run_at, stored.returned
            )
            for stored, _ in rows
        )
        click.echo(f"[{', '.join(map(to_json, records))}]")
        return
    for stored, asked in rows:
        cells = stored.name, str(stored.returned), stored.run_at or "never", asked.title
        click.echo("\t".join(map(printable, cells)))


@saved.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@gallery_option
def rm(names: tuple[str, ...], gallery_path: Path) -> None:
    """Forget saved searches, all of those named or none; no photo is touched.

    \b
    Exit code: 0 done, 2 an error.

    \b
    Examples:
      matir saved rm dogs mugs
    """
    with GalleryFile.open(gallery_path) as gallery:
        remove_saved_searches(gallery, names)
    say(f"{count_of(len(names), 'saved search', 'saved searches')} forgotten")
