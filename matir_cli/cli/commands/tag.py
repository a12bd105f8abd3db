"""`matir tag`: write labels and regions to XMP sidecars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click

from matir_cli.cli.boundary import explain, say
from matir_cli.cli.exit_codes import DONE, INTERRUPTED, NOTHING_FOUND, SKIPPED
from matir_cli.cli.options.common import (
    CommandFunction,
    SectionedCommand,
    choose_model_set,
    device_option,
    galleries_option,
    limit_option,
    models_option,
    null_option,
    open_for_reading,
    skip_missing_option,
    verbose_option,
    without_damaged,
)
from matir_cli.cli.options.decoding import decode_timeout_option
from matir_cli.cli.options.metadata import METADATA_SECTION, metadata_options
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.options.query import (
    FILTER_SECTION,
    NO_QUERY,
    QUERY_SECTION,
    STREAM,
    QueryArguments,
    query_options,
)
from matir_cli.cli.options.search import (
    check_judge_options,
    min_p_option,
    min_score_option,
    no_ground_option,
    no_rerank_option,
    whole_option,
)
from matir_cli.cli.path_lists import write_path
from matir_cli.cli.results import resolve_and_say_examples, say_unread_metadata, why_empty
from matir_cli.cli.server_search import CommandSearcher, server_option
from matir_cli.cli.text import count_of
from matir_cli.errors import OutputError, PhotoUnreadable, QueryEmpty
from matir_cli.gallery.files import known_files
from matir_cli.gallery.union import GalleryReader
from matir_cli.model_sets.session import ModelSession
from matir_cli.output.xmp import APPEND, AUTO, REGION_TYPES, REPLACE, XmpTag, is_label, region_boxes
from matir_cli.photos.discover import stat_file
from matir_cli.search.events import SearchOutcome
from matir_cli.search.filters import Filters, passing_photos
from matir_cli.search.pipeline import CANDIDATES, SearchOptions, check_searchable
from matir_cli.search.query import normal_text
from matir_cli.search.results import SearchResult

if TYPE_CHECKING:
    from matir_cli.output.sidecar_paths import SidecarChoice
    from matir_cli.output.sidecars import Sidecar

PLAIN = "plain"
"""The --region that stands for a region without a type."""

NO_REGION = "none"
"""The --region that stands for no region at all."""

SECTIONS = {
    "What to find": QUERY_SECTION,
    "Where": (*FILTER_SECTION, *METADATA_SECTION),
    "How": ("limit", "min_score", "min_p", "whole", "no_rerank", "no_ground", "use_server"),
    "What to write": (
        *("label", "all_instances", "region", "sidecar", "follow_links", "remove", "dry_run", "null"),
    ),
}


@dataclass(frozen=True, slots=True)
class TagOptions:
    """What to do to each sidecar."""

    label: str | None
    """Keyword, and name of the region; None: the query's text."""
    all_instances: bool
    """A region for every object that the judge pointed at, not only for the first."""
    region: str
    """Type of the region, `PLAIN` or `NO_REGION`."""
    sidecar: str
    """Form of its name: `AUTO`, `APPEND` or `REPLACE`."""
    follow_links: bool
    """Write to a sidecar in another folder if a link leads to it."""
    remove: bool
    """Remove the label instead of adding it."""
    dry_run: bool
    """Only print the sidecars that would change."""
    null: bool
    """End printed paths with NUL."""


def _check_label(_context: click.Context, _parameter: click.Parameter, label: str | None) -> str | None:
    label = None if label is None else normal_text(label)
    if label is not None and not is_label(label):
        raise click.BadParameter("it is empty, or holds a control character, which XMP cannot store.")
    return label


def tag_options(command: CommandFunction) -> CommandFunction:
    """Add the options of `TagOptions`; the command gets them as its parameter `tagging`."""

    @click.option(
        "--label",
        metavar="TEXT",
        callback=_check_label,
        help="The keyword, and the name of the region.  [default: QUERY]",
    )
    @click.option(
        "--all-instances", is_flag=True, help="A region for every object that the judge pointed at."
    )
    @click.option(
        "--region",
        type=click.Choice([PLAIN, *REGION_TYPES, NO_REGION], case_sensitive=False),
        default=PLAIN,
        show_default=True,
        help="Type of the region; plain: no type, as the guidelines have none for things; none: no region.",
    )
    @click.option(
        "--sidecar",
        type=click.Choice([AUTO, APPEND, REPLACE]),
        default=AUTO,
        show_default=True,
        help="Name of the sidecar; append: photo.jpg.xmp (digiKam, darktable); replace: photo.xmp "
        "(Lightroom); auto: each that the photo has, or else append.",
    )
    @click.option(
        "--follow-links", is_flag=True, help="Write to a sidecar in another folder if a link leads to it."
    )
    @click.option("--remove", is_flag=True, help="Remove the keyword and the regions of this label.")
    @click.option("--dry-run", is_flag=True, help="Only print the sidecars that would be written.")
    @null_option("End each path with NUL instead of a newline.")
    @wraps(command)
    def with_tagging(
        *,
        label: str | None,
        all_instances: bool,
        region: str,
        sidecar: str,
        follow_links: bool,
        remove: bool,
        dry_run: bool,
        null: bool,
        **others: object,
    ) -> object:
        tagging = TagOptions(label, all_instances, region, sidecar, follow_links, remove, dry_run, null)
        return command(tagging=tagging, **others)

    return with_tagging


@click.command(
    cls=SectionedCommand,
    sections=SECTIONS,
    short_help="Write labels to XMP sidecars, never to a photo.",
)
@galleries_option
@skip_missing_option
@models_option
@device_option
@decode_timeout_option
@progress_option
@verbose_option
@query_options
@metadata_options
@limit_option(help=f"Photos to tag at most.  [default: {CANDIDATES}]")
@min_score_option
@min_p_option
@whole_option
@no_rerank_option
@no_ground_option("Rerank, but take the box of stage 1's best region.")
@server_option
@tag_options
def tag(
    gallery_paths: tuple[Path, ...],
    skip_missing: bool,
    model_set: str | None,
    device: str,
    arguments: QueryArguments,
    limit: int | None,
    min_score: float | None,
    min_p: float | None,
    whole: bool,
    no_rerank: bool,
    no_ground: bool,
    use_server: bool,
    tagging: TagOptions,
) -> None:
    """Label the photos that show what QUERY describes, in an XMP sidecar next to each.

    The label becomes a keyword (dc:subject), and the object's place a region as defined by the
    Metadata Working Group, which photo managers show. The photo itself is never changed, and
    everything else in a sidecar is kept. A sidecar that cannot be read or merged is left as it is.
    Say what counts as found: --min-p, --min-score or -n. A photo stored in several files is tagged
    at the file that `matir find` shows.

    Some programs take a region without a type for a face: use --region Focus for them. A sidecar
    named photo.xmp that may belong to another file, such as photo.cr2, is left alone unless
    --sidecar replace is given.

    With --remove, the label is removed from the photos that QUERY finds; without QUERY from all
    photos, or from those in a folder. The sidecars written are printed, one per line.

    \b
    Exit code: 0 done, 1 nothing found, 2 an error, 3 done but some photos were skipped,
    130 interrupted.

    \b
    Examples:
      matir tag "dog led by rope" --label "dog on a lead" --min-p 0.9
      matir tag "dog led by rope" --label "dog on a lead" --min-p 0.9 --dry-run
      matir tag "red car" --no-rerank -n 20 --region none
      matir tag --image mug.jpg --point 390,300 --label "my mug" --min-score 0.8
      matir tag --remove --label "dog on a lead" --in ~/Photos/2019
    """
    options = SearchOptions(
        limit=limit or CANDIDATES,
        certainty=1,  # no label without a verdict
        rerank=not no_rerank,
        ground=not no_ground,
        whole=whole,
        min_score=min_score,
        min_p=min_p,
        filters=arguments.filters,
    )
    label = _choose_label(arguments, tagging)
    if not arguments.is_empty:
        if limit is None and min_p is None and min_score is None:
            raise click.UsageError("Say what counts as found: --min-p, --min-score or -n.")
        check_judge_options(options, arguments.query)
    sidecars = _Sidecars(label, tagging)
    with open_for_reading(gallery_paths, skip_missing=skip_missing) as gallery:
        say_unread_metadata(gallery, arguments.filters, skip_missing=skip_missing)
        if arguments.is_empty:
            paths = without_damaged(
                gallery, lambda: [*_files(gallery, arguments.filters)], skip_missing=skip_missing
            )
            for path in paths:
                sidecars.remove(path)
        else:
            check_searchable(gallery, arguments.query)
            engines = ModelSession(gallery, choose_model_set(gallery, model_set), device)
            query = resolve_and_say_examples(gallery, engines, arguments.query)
            searcher = CommandSearcher(gallery, engines, use_server=use_server, skip_damaged=skip_missing)
            result = searcher.run(query, options)
            _end_early(gallery, result, arguments.filters)
            for item in result.results:
                if tagging.remove:
                    sidecars.remove(item.path)
                else:
                    sidecars.add(gallery, item)
    sidecars.report()
    click.get_current_context().exit(SKIPPED if sidecars.skipped else DONE)


def _choose_label(arguments: QueryArguments, tagging: TagOptions) -> str:
    """Return the label: --label, else QUERY.

    Raises:
        UsageError: the command does not say what to label, or how.
        QueryEmpty: QUERY has no words.
    """
    if arguments.is_empty and not tagging.remove:
        raise click.UsageError(NO_QUERY)
    text = arguments.query.text
    if text == STREAM:
        raise click.UsageError("matir tag takes one QUERY; for a list, run it once per line.")
    label = tagging.label or text or ""
    if not label and text is not None:
        raise QueryEmpty
    if not is_label(label):
        raise click.UsageError("Give the label with --label: QUERY is missing, or cannot be a label.")
    return label


def _files(gallery: GalleryReader, filters: Filters | None) -> Iterator[Path]:
    """Yield all files of the photos that pass the filters."""
    selected = None if filters is None else passing_photos(gallery, filters)
    ids = None if selected is None else set(selected.tolist())
    return (file.path for file in known_files(gallery) if ids is None or file.photo_id in ids)


def _end_early(gallery: GalleryReader, result: SearchOutcome, filters: Filters | None) -> None:
    """Exit if the search was interrupted or found nothing."""
    context = click.get_current_context()
    if not result.complete:
        say("interrupted: no sidecar was written; the verdicts so far are remembered")
        context.exit(INTERRUPTED)
    if not result.results:
        say(f"nothing found{why_empty(gallery, filters) if result.best_score is None else ''}")
        context.exit(NOTHING_FOUND)


class _Sidecars:
    """Changes sidecars one by one; prints and counts those that changed."""

    def __init__(self, label: str, options: TagOptions) -> None:
        self._label = label
        self._options = options
        self._choice: SidecarChoice | None = None
        self._changed = 0
        self._unchanged = 0
        self._ignored = 0
        self._first_ignored: Path | None = None
        self.skipped = 0

    def add(self, gallery: GalleryReader, result: SearchResult) -> None:
        """Add the label and the object's region to the sidecar of a photo."""
        with self._skipping(result.path):
            if not gallery.is_unchanged(stat_file(result.path)):
                reason = "it has changed since it was indexed; first run matir add"
                raise PhotoUnreadable(result.path, reason)
            sidecars = self._open(result.path)
            region = self._options.region
            boxes = () if region == NO_REGION else region_boxes(result, self._options.all_instances)
            tag = XmpTag(self._label, boxes, region if region in REGION_TYPES else None)
            # All are changed in memory before any is written.
            self._finish([each for each in sidecars if each.add(tag, result.photo.record)])

    def remove(self, photo: Path) -> None:
        """Remove the label and its regions from the sidecar of a photo."""
        with self._skipping(photo):
            self._finish([each for each in self._open(photo) if each.remove(self._label)])

    def report(self) -> None:
        """Say what was done."""
        done = "to change" if self._options.dry_run else "changed"
        reason = "did not have the label" if self._options.remove else "already had it"
        say(
            f"{count_of(self._changed, 'sidecar')} {done}, {self._unchanged} {reason}, {self.skipped} skipped"
        )
        if self._ignored:
            others = count_of(self._ignored, "other sidecar")
            say(
                f"{others} left alone, which some programs read instead (such as {self._first_ignored}); "
                "--sidecar append and --sidecar replace write to one or the other name"
            )

    def _open(self, photo: Path) -> tuple[Sidecar, ...]:
        """Open the sidecars of a photo, and note one that is left alone."""
        if self._choice is None:
            # Imported here: no other command needs lxml.
            from matir_cli.output.sidecar_paths import SidecarChoice

            self._choice = SidecarChoice(self._options.sidecar, follow_links=self._options.follow_links)
        chosen = self._choice.of(photo)
        if chosen.ignored is not None:
            self._ignored += 1
            self._first_ignored = self._first_ignored or chosen.ignored
        return chosen.sidecars

    def _finish(self, changed: Sequence[Sidecar]) -> None:
        """Write the sidecars that changed, print their paths, and count."""
        self._unchanged += not changed
        for sidecar in changed:
            if not self._options.dry_run:
                sidecar.write()
            self._changed += 1
            write_path(sidecar.path, null=self._options.null)

    @contextmanager
    def _skipping(self, photo: Path) -> Iterator[None]:
        """Report and count a photo that cannot be tagged, and go on."""
        try:
            yield
        except PhotoUnreadable as error:
            self.skipped += 1
            say(f"skipped {photo}: {error.reason}")
        except OutputError as error:
            self.skipped += 1
            say(f"skipped {photo}: {' '.join(explain(error))}")
