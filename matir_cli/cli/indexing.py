"""Steps shared by the commands that index photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from matir_cli.cli.boundary import say
from matir_cli.cli.options.common import choose_model_set
from matir_cli.cli.progress import ProgressBar, progress_bar
from matir_cli.cli.text import count_of, describe_absent, describe_notes
from matir_cli.cluster.options import RayOptions
from matir_cli.gallery.absence import AbsentFolder
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.file_state import FileCounts
from matir_cli.indexing.outcomes import Added, Refreshed, Skipped, Unchanged
from matir_cli.indexing.pipeline import IndexingModels
from matir_cli.indexing.sync import Dropped
from matir_cli.model_sets.catalogue import ModelSet
from matir_cli.model_sets.session import ModelSession, check_indexing_weights
from matir_cli.output.printable import printable
from matir_cli.photos.discover import EXCLUDED, EXCLUDED_FOLDERS, UNUSED_PATTERNS
from matir_cli.photos.excludes import IGNORE_FILE
from matir_cli.photos.suffixes import NEEDS_RAW, RAW_SUFFIXES, reads_raw

Outcome = TypeVar("Outcome")


@contextmanager
def open_for_indexing(
    gallery_path: Path, model_set: str | None, device: str, ray: RayOptions | None = None
) -> Iterator[tuple[GalleryFile, IndexingModels]]:
    """Open the gallery, or create it, together with the models to index with, bound to it.

    Args:
        ray: let a Ray cluster index new photos; it is joined or started when the first one is met.
    """
    chosen = _choose(gallery_path, model_set)
    check_indexing_weights(chosen, gallery_path)
    if model_set is None and not gallery_path.exists():
        _say_licences(chosen)
    with GalleryFile.open(gallery_path, create=True) as gallery:
        engines = ModelSession(gallery, chosen, device)
        engines.bind()
        models = IndexingModels.of(engines)
        if ray is None:
            yield gallery, models
            return
        # Imported here: hardly anybody has a cluster.
        from matir_cli.cluster.ray_workers import indexing_on_ray

        with indexing_on_ray(engines, ray) as remote:
            yield gallery, replace(models, remote=remote)


@contextmanager
def open_or_empty(path: Path) -> Iterator[GalleryFile]:
    """Open the gallery, or an empty temporary one if the file does not exist yet."""
    with GalleryFile.open(path) if path.exists() else GalleryFile.open_temporary(path) as gallery:
        yield gallery


def say_passed_over(passed_over: Counter[str]) -> None:
    """Report what was left out by patterns or for its format; say nothing if that is nothing.

    Args:
        passed_over: as in `find_photo_files`.
    """
    files, folders, unused = (passed_over.pop(k, 0) for k in (EXCLUDED, EXCLUDED_FOLDERS, UNUSED_PATTERNS))
    excluded = [count_of(n, kind) for n, kind in ((files, "file"), (folders, "folder")) if n]
    if excluded:
        say(f"{' and '.join(excluded)} left out by --exclude or {IGNORE_FILE}")
    if unused:
        count = count_of(unused, f"file {IGNORE_FILE}", f"files {IGNORE_FILE}")
        say(f"{count} not used: unreadable, not UTF-8, or more than 64 KiB")
    if reads_raw():
        raw = sum(passed_over.pop(suffix, 0) for suffix in RAW_SUFFIXES)
        if raw:
            say(f"{count_of(raw, 'raw file')} passed over (--no-raw)")
    if passed_over:
        kinds = ", ".join(f"{suffix[1:].upper()} {count:,}" for suffix, count in passed_over.most_common())
        verb = "is" if passed_over.total() == 1 else "are"
        formats = "a format that is" if len(passed_over) == 1 else "formats that are"
        say(f"{count_of(passed_over.total(), 'file')} {verb} of {formats} not read ({kinds})")
    if not reads_raw() and passed_over.keys() & RAW_SUFFIXES:
        say(NEEDS_RAW)


def _say_licences(chosen: ModelSet) -> None:
    """Report the licences of a new gallery's model set, which the user has not chosen."""
    licences = "; ".join(dict.fromkeys(part.licence for part in chosen.parts))
    say(
        f"new gallery with the default model set {chosen.name}, licences: {licences}; "
        "sets for any use: matir models list --long"
    )


def _choose(gallery_path: Path, name: str | None) -> ModelSet:
    """Choose the model set to index with, without creating a gallery: its weights may be missing."""
    if not gallery_path.exists():
        return choose_model_set(None, name)
    with GalleryFile.open(gallery_path, create=True) as gallery:
        return choose_model_set(gallery, name)


def run_with_progress(
    outcomes: Generator[Outcome, None, None],
    expected: FileCounts | None,
    summary: Callable[[Counter[type[Outcome]]], str],
) -> Counter[type[Outcome]]:
    """Run a pipeline with a progress bar, and count its outcomes by type.

    Args:
        outcomes: the pipeline; it is closed in any case.
        expected: numbers of files, which `outcomes` may fill in; None if they will not be known.
        summary: turns the counts into a sentence, which is shown after Ctrl-C.

    Raises:
        KeyboardInterrupt: Ctrl-C, after saying what was done.
    """
    counts: Counter[type[Outcome]] = Counter()
    incomplete = 0
    try:
        total, work = (None, None) if expected is None else (expected.total, expected.pending)
        with closing(outcomes), progress_bar(total, work=work) as bar:
            for outcome in outcomes:
                if total is None:
                    total = _expect(bar, expected)
                counts[type(outcome)] += 1
                if isinstance(outcome, Skipped):
                    bar.say(f"skipped {printable(str(outcome.path))}: {printable(outcome.reason)}")
                elif isinstance(outcome, AbsentFolder):
                    bar.say(f"kept {printable(describe_absent(outcome))}")
                elif isinstance(outcome, Added | Refreshed) and outcome.notes:
                    incomplete += isinstance(outcome, Added)
                    bar.say(f"incomplete {printable(str(outcome.path))}: {describe_notes(outcome.notes)}")
                (bar.pass_over if isinstance(outcome, Unchanged | Dropped) else bar.advance)()
            if total is None:
                _expect(bar, expected)
    except KeyboardInterrupt:
        say(f"{summary(counts)}; run the same command again to go on")
        raise
    if incomplete:
        say(f"{count_of(incomplete, 'photo')} added without parts that cannot be read")
    return counts


def _expect(bar: ProgressBar, expected: FileCounts | None) -> int | None:
    """Tell the bar how many outcomes there will be, if that is known, and return their number."""
    if expected is None or expected.total is None:
        return None
    bar.expect(expected.total, expected.pending)
    return expected.total
