"""`matir tag`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from matir_cli.cli.boundary import explain, say
from matir_cli.cli.exit_codes import INTERRUPTED, NOTHING_FOUND, SKIPPED
from matir_cli.cli.options.common import (
    SectionedCommand,
    choose_model_set,
    device_option,
    gallery_option,
    limit_option,
    models_option,
    verbose_option,
)
from matir_cli.cli.options.query import NOTHING_ASKED, WHAT, WHERE, QueryArguments, query_options
from matir_cli.cli.path_lists import write_path
from matir_cli.cli.progress import show_progress
from matir_cli.cli.results import why_empty
from matir_cli.cli.text import count_of
from matir_cli.errors import OutputError, PhotoUnreadable, QueryEmpty
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import known_files
from matir_cli.model_sets.session import ModelSession
from matir_cli.output.xmp import APPEND, REGION_TYPES, REPLACE, XmpTag, is_label, region_boxes, sidecar_path
from matir_cli.photos.discover import stat_file
from matir_cli.search.filters import Filters
from matir_cli.search.pipeline import CANDIDATES, SearchOptions, SearchOutcome, check_searchable, run_search
from matir_cli.search.results import SearchResult

if TYPE_CHECKING:
    from matir_cli.output.sidecars import Sidecar

PLAIN = "plain"
"""A region without a type."""

NO_REGION = "none"


@dataclass(frozen=True, slots=True)
class TagOptions:
    """What is to be done to each sidecar."""

    label: str
    sidecar: str
    region: str
    all_instances: bool
    remove: bool
    dry_run: bool
    null: bool


def _check_label(_context: click.Context, _parameter: click.Parameter, label: str | None) -> str | None:
    if label is not None and not is_label(label.strip()):
        raise click.BadParameter("it is empty, or holds a control character, which XMP cannot.")
    return None if label is None else label.strip()


SECTIONS = {
    "What to find": WHAT,
    "Where": WHERE,
    "How": ("limit", "min_score", "min_p", "no_rerank", "no_ground"),
    "What to write": ("label", "all_instances", "region", "sidecar", "remove", "dry_run", "null"),
}


@click.command(
    cls=SectionedCommand,
    sections=SECTIONS,
    short_help="Write found labels to XMP sidecars, never to a photo.",
)
@gallery_option
@models_option
@device_option
@verbose_option
@query_options
@click.option(
    "--label",
    metavar="TEXT",
    callback=_check_label,
    help="The keyword, and the name of the region.  [default: QUERY]",
)
@limit_option(help=f"Photos to tag at most.  [default: {CANDIDATES}]")
@click.option("--min-score", type=float, help="Leave out photos whose best region scores lower in stage 1.")
@click.option(
    "--min-p", type=click.FloatRange(0, 1), help="Leave out photos that the judge gives a lower probability."
)
@click.option("--no-rerank", is_flag=True, help="Stage 1 alone: rank by region vectors.")
@click.option("--no-ground", is_flag=True, help="Rerank, but take the box of stage 1's best region.")
@click.option("--all-instances", is_flag=True, help="A region for every object the judge pointed at.")
@click.option(
    "--region",
    type=click.Choice([PLAIN, *REGION_TYPES, NO_REGION], case_sensitive=False),
    default=PLAIN,
    show_default=True,
    help="The region's type; plain: none, as the guidelines have none for things; none: the keyword alone.",
)
@click.option(
    "--sidecar",
    type=click.Choice([APPEND, REPLACE]),
    default=APPEND,
    show_default=True,
    help="Its name: photo.jpg.xmp (digiKam, darktable), or photo.xmp (Lightroom).",
)
@click.option("--remove", is_flag=True, help="Take keyword and regions of this label away again.")
@click.option("--dry-run", is_flag=True, help="Only print the sidecars that would be written.")
@click.option("-0", "--null", is_flag=True, help="End each path by NUL, not a newline.")
def tag(
    gallery_path: Path,
    model_set: str | None,
    device: str,
    asked: QueryArguments,
    limit: int | None,
    min_score: float | None,
    min_p: float | None,
    no_rerank: bool,
    no_ground: bool,
    **options: object,
) -> None:
    """Give the photos that show what QUERY describes a label, in an XMP sidecar beside each.

    The label becomes a keyword (dc:subject), and where the object is becomes a region after the
    Metadata Working Group, which photo managers show. The photo is never touched, and whatever
    else a sidecar holds stays. One that cannot be read or merged into is left as it is. Say what
    counts as found: --min-p, --min-score or -n. A photo that lies in several files is tagged
    where `matir find` finds it.

    Some programs take a region without a type for a face: give them --region Focus. Two photos
    that differ by the suffix alone share a sidecar with --sidecar replace.

    With --remove the label is taken away from what QUERY finds; without QUERY from all photos, or
    from those in a folder. The sidecars written are printed, one a line.

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
    label = options.pop("label") or (asked.query.text or "").strip()
    search = SearchOptions(
        limit=limit or CANDIDATES,
        filters=asked.within,
        **{"rerank": not no_rerank, "ground": not no_ground, "min_score": min_score, "min_p": min_p},  # type: ignore[arg-type]
    )
    _check(asked, str(label), limit, search, removing=bool(options["remove"]))
    sidecars = _Sidecars(TagOptions(label, **options))  # type: ignore[arg-type]
    with GalleryFile.open(gallery_path) as gallery:
        if asked.is_empty:
            for path in _files(gallery, asked.within):
                sidecars.remove(path)
        else:
            check_searchable(gallery, asked.query)
            engines = ModelSession(gallery, choose_model_set(gallery, model_set), device)
            result = run_search(gallery, engines, asked.query, search, show_progress)
            _end_early(gallery, result, asked.within)
            for found in result.results:
                if options["remove"]:
                    sidecars.remove(found.path)
                else:
                    sidecars.add(gallery, found)
    sidecars.sum_up()
    click.get_current_context().exit(SKIPPED if sidecars.skipped else 0)


def _check(
    asked: QueryArguments, label: str, limit: int | None, search: SearchOptions, *, removing: bool
) -> None:
    """Make sure that the command says what is to be labelled, and how."""
    if asked.is_empty and not removing:
        raise click.UsageError(NOTHING_ASKED)
    text = asked.query.text
    if not label and text is not None:
        raise QueryEmpty
    if not is_label(label):
        raise click.UsageError("Name the --label: it cannot be taken from what there is of a query.")
    if asked.is_empty:
        return
    if limit is None and search.min_p is None and search.min_score is None:
        raise click.UsageError("Say what counts as found: --min-p, --min-score or -n.")
    if search.min_p is not None and (text is None or not search.rerank):
        raise click.UsageError("--min-p is about what the judge says: it needs QUERY, and no --no-rerank.")


def _files(gallery: GalleryFile, within: Filters | None) -> Iterator[Path]:
    """All files of the photos there."""
    wanted = within.photos(gallery) if within is not None else None
    among = None if wanted is None else set(wanted.tolist())
    return (file.path for file in known_files(gallery) if among is None or file.photo_id in among)


def _end_early(gallery: GalleryFile, result: SearchOutcome, within: Filters | None) -> None:
    """Leave when there is nothing to write, or not everything to decide it by."""
    context = click.get_current_context()
    if not result.complete:
        say("interrupted: no sidecar was written; what the judge said is remembered")
        context.exit(INTERRUPTED)
    if not result.results:
        say(f"nothing found{why_empty(gallery, within) if result.best_score is None else ''}")
        context.exit(NOTHING_FOUND)


class _Sidecars:
    """Changes one sidecar after the other, prints those changed and counts."""

    def __init__(self, wanted: TagOptions) -> None:
        self._wanted = wanted
        self._changed = 0
        self._left = 0
        self.skipped = 0

    def add(self, gallery: GalleryFile, found: SearchResult) -> None:
        """Merge the label and where it is into the sidecar of the photo."""
        with self._skipping(found.path):
            if not gallery.is_unchanged(stat_file(found.path)):
                raise PhotoUnreadable(found.path, "it has changed since it was indexed; first run matir add")
            sidecar = self._sidecar(found.path)
            boxes = (
                region_boxes(found, self._wanted.all_instances) if self._wanted.region != NO_REGION else ()
            )
            kind = self._wanted.region if self._wanted.region in REGION_TYPES else None
            tag = XmpTag(self._wanted.label, boxes, kind)
            self._end(sidecar, sidecar.add(tag, found.photo.record))

    def remove(self, photo: Path) -> None:
        """Take the label and its regions out of the sidecar of the photo."""
        with self._skipping(photo):
            sidecar = self._sidecar(photo)
            self._end(sidecar, sidecar.remove(self._wanted.label))

    def sum_up(self) -> None:
        """Say what was done."""
        done = "to change" if self._wanted.dry_run else "changed"
        reason = "without the label" if self._wanted.remove else "had it already"
        say(f"{count_of(self._changed, 'sidecar')} {done}, {self._left} {reason}, {self.skipped} skipped")

    def _sidecar(self, photo: Path) -> Sidecar:
        # Here: no other command needs lxml.
        from matir_cli.output.sidecars import Sidecar

        return Sidecar(sidecar_path(photo, self._wanted.sidecar))

    def _end(self, sidecar: Sidecar, changed: bool) -> None:
        """Write the sidecar where there is anything new in it, print its path, and count."""
        if not changed:
            self._left += 1
            return
        if not self._wanted.dry_run:
            sidecar.write()
        self._changed += 1
        write_path(sidecar.path, b"\0" if self._wanted.null else b"\n")

    @contextmanager
    def _skipping(self, photo: Path) -> Iterator[None]:
        """Say and count what cannot be done to one photo, and go on."""
        try:
            yield
        except PhotoUnreadable as error:
            self.skipped += 1
            say(f"skipped {photo}: {error.reason}")
        except OutputError as error:
            self.skipped += 1
            say(f"skipped {photo}: {' '.join(explain(error))}")
