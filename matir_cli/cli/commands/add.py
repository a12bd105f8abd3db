"""`matir add`: index photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import click

from matir_cli.atomic_write import STREAM
from matir_cli.cli.boundary import say
from matir_cli.cli.exit_codes import DONE, SKIPPED
from matir_cli.cli.indexing import open_for_indexing, open_or_empty, run_with_progress, say_passed_over
from matir_cli.cli.options.cluster import ray_options
from matir_cli.cli.options.common import (
    PathName,
    device_option,
    gallery_option,
    models_option,
    verbose_option,
    where_it_applies,
)
from matir_cli.cli.options.decoding import decode_timeout_option
from matir_cli.cli.options.excluding import folder_options
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.path_lists import expand_paths, write_path
from matir_cli.cli.progress import shows_progress
from matir_cli.cli.text import count_of
from matir_cli.cluster.options import RayOptions
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.annotations import AnnotationFile
from matir_cli.indexing.file_state import FileCounts
from matir_cli.indexing.outcomes import Added, Linked, Outcome, Refreshed, Skipped, Unchanged
from matir_cli.indexing.own_regions import OwnRegions, Updated
from matir_cli.indexing.pipeline import IndexingModels, add_photos, pending_files
from matir_cli.indexing.steps import propose_all
from matir_cli.output.json_encoding import to_json
from matir_cli.photos.discover import FolderRules


@dataclass(frozen=True, slots=True)
class AddReport:
    """Output of --json."""

    added: int
    """Number of new photos."""
    recognised: int
    """Number of files that hold a photo of the gallery: copies, renamed files, raw files beside pictures."""
    refreshed: int
    """Number of unchanged files whose ratings and keywords were read."""
    unchanged: int
    """Number of files that were not read."""
    skipped: int
    """Number of files that cannot be indexed."""
    updated: int
    """Number of known photos that were given other regions, with --regions."""
    regions: int
    """Number of regions of the new photos; whole photos are not counted."""
    prompts: int
    """Number of points and boxes that the proposer was asked about in the new photos."""


@click.command(short_help="Index photos.")
@click.argument("paths", nargs=-1, required=True, type=PathName(allow_dash=True))
@gallery_option
@models_option
@device_option
@decode_timeout_option
@progress_option
@verbose_option
@folder_options
@ray_options
@click.option("--no-previews", is_flag=True, help="Do not store the working-size JPEG of each photo.")
@click.option(
    "--regions",
    type=PathName(dir_okay=False),
    metavar="FILE",
    help="Take the masks and boxes of a data set (COCO instances JSON) as regions, too.",
)
@click.option(
    "--only-regions",
    is_flag=True,
    help="Of the photos that --regions lists, take no regions but its own, and the whole photo.",
)
@click.option("--allow-root", is_flag=True, help="Let the list name the root of the file system.")
@click.option("--dry-run", is_flag=True, help="Only print the files that would be read.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers at the end as one JSON object.")
@click.pass_context
def add(
    context: click.Context,
    paths: tuple[Path, ...],
    gallery_path: Path,
    model_set: str | None,
    device: str,
    rules: FolderRules,
    no_previews: bool,
    regions: Path | None,
    only_regions: bool,
    allow_root: bool,
    dry_run: bool,
    as_json: bool,
    ray: RayOptions | None,
) -> None:
    """Index photos: files, folders (recursively), or - for a list of paths on standard input.

    The list has one path per line, or paths separated by NUL, as `find -print0` writes them. It is
    bytes or UTF-8; the root of the file system in it is left out unless --allow-root is given.
    Unchanged files are not read again; copies and renamed files are recognised. In folders,
    formats that are not read are passed over, cameras' raw files (CR2, NEF, DNG, ...) with
    --no-raw or without the extra raw. They are counted at the end, and so is what --exclude or a
    file .matirignore in a folder leaves out: patterns as in .gitignore, relative to the folder. A
    PATH that you name is never left out. A raw file beside a JPEG or HEIC of the same name is the
    same photo, in two files.

    Ratings and keywords are read from the file and from its XMP sidecar, and read again when the
    sidecar changes.

    With --ray, the photos are decoded and run through the models by workers on a cluster, while
    this process reads and hashes files and writes the gallery: see `matir help scaling`. The
    result is the same, except for the order of the photos.

    With --regions, a labelled data set is searched by its own objects: see `matir help regions`.
    Its file names are relative to a folder PATH, or absolute. Photos that were indexed before
    get their regions as well, and the same command again changes nothing.

    \b
    Exit code: 0 done, 2 an error, 3 done but some files were skipped, 130 interrupted.

    \b
    Examples:
      matir add ~/Photos
      find . -name '*.jpg' -print0 | matir add -
      matir add ~/Photos --exclude '*.png' --exclude screenshots/
      matir add ~/Photos --dry-run | wc -l
      matir add ~/Photos --json | jq .prompts
      matir add /mnt/photos --ray 10.0.0.1:6379 --shared-files
      matir add coco/val2017 --regions coco/annotations/instances_val2017.json --only-regions
    """
    only_regions = where_it_applies("only_regions", only_regions, False, applies=regions is not None)
    if only_regions and regions is None:
        raise click.UsageError("--only-regions goes with --regions FILE.")
    if ray is not None and regions is not None:
        raise click.UsageError("--regions does not go with --ray: index first, then give the photos regions.")
    as_json = where_it_applies("as_json", as_json, False, applies=not dry_run)
    if dry_run and as_json:
        raise click.UsageError("--json and --dry-run contradict each other: use only one of them.")
    if dry_run:
        _print_pending(gallery_path, expand_paths(paths, allow_root=allow_root), rules)
        return
    passed_over = Counter[str]()
    own = None if regions is None else OwnRegions(AnnotationFile.read(regions), only_regions)
    # What a list still brings is not known before its end.
    expected = FileCounts() if shows_progress() and STREAM not in paths else None
    with open_for_indexing(gallery_path, model_set, device, ray) as (gallery, models):
        expanded = expand_paths(paths, allow_root=allow_root)
        outcomes: Generator[_Outcome, None, None] = add_photos(
            gallery,
            expanded if own is None else own.noting_folders(expanded),
            models,
            previews=not no_previews,
            passed_over=passed_over,
            rules=rules,
            propose=propose_all if own is None else own.propose,
            expected=expected,
        )
        if own is not None:
            outcomes = _with_own_regions(gallery, outcomes, own, models)
        sums = Counter[str]()
        outcomes = _summing(outcomes, sums)
        counts = run_with_progress(outcomes, expected, _summary)
    say_passed_over(passed_over)
    if own is not None:
        _say_left_out(own.annotations)
    say(_summary(counts))
    if as_json:
        click.echo(to_json(_report(counts, sums)))
    left_out = own is not None and own.annotations.left_out.total()
    context.exit(SKIPPED if counts[Skipped] or left_out else DONE)


_Outcome: TypeAlias = Outcome | Updated


def _with_own_regions(
    gallery: GalleryFile,
    outcomes: Generator[_Outcome, None, None],
    own: OwnRegions,
    models: IndexingModels,
) -> Generator[_Outcome, None, None]:
    """Yield the outcomes of `add_photos`, and then those of giving known photos their regions."""
    known = []
    with closing(outcomes):
        for outcome in outcomes:
            if isinstance(outcome, Unchanged | Linked) and own.images_of([outcome.path]):
                known.append(outcome.path)
            yield outcome
    yield from own.update_known(gallery, known, models)


def _summing(
    outcomes: Generator[_Outcome, None, None], sums: Counter[str]
) -> Generator[_Outcome, None, None]:
    """Yield `outcomes`, and add up the regions and the prompts of new photos."""
    with closing(outcomes):
        for outcome in outcomes:
            if isinstance(outcome, Added):
                sums.update(regions=outcome.regions, prompts=outcome.prompts)
            yield outcome


def _report(counts: Counter[type[_Outcome]], sums: Counter[str]) -> AddReport:
    return AddReport(
        added=counts[Added],
        recognised=counts[Linked],
        refreshed=counts[Refreshed],
        unchanged=counts[Unchanged],
        skipped=counts[Skipped],
        updated=counts[Updated],
        regions=sums["regions"],
        prompts=sums["prompts"],
    )


def _say_left_out(annotations: AnnotationFile) -> None:
    """Report the annotations and images that were not used, one line for each kind."""
    for reason, count in annotations.left_out.most_common():
        say(f"{count_of(count, 'annotation')} left out: {reason}")
    if unused := annotations.count_unused():
        say(f"{count_of(unused, 'image')} of the annotations not among the photos here")


def _print_pending(gallery_path: Path, paths: Iterable[Path], rules: FolderRules) -> None:
    passed_over = Counter[str]()
    with open_or_empty(gallery_path) as gallery:
        for item in pending_files(gallery, paths, passed_over, rules):
            if isinstance(item, Skipped):
                say(f"would skip {item.path}: {item.reason}")
            else:
                write_path(item, null=False)
    say_passed_over(passed_over)


def _summary(counts: Counter[type[_Outcome]]) -> str:
    refreshed = f"{counts[Refreshed]} with new metadata, " if counts[Refreshed] else ""
    updated = f", {counts[Updated]} given other regions" if counts[Updated] else ""
    return (
        f"{counts[Added]} added, {counts[Linked]} recognised, {refreshed}"
        f"{counts[Unchanged]} unchanged, {counts[Skipped]} skipped{updated}"
    )
