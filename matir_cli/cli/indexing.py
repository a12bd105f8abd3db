"""What commands that index photos have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from matir_cli.cli.boundary import say
from matir_cli.cli.options.common import choose_model_set
from matir_cli.cli.progress import progress_bar
from matir_cli.cli.text import count_of
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import IndexingModels, Skipped
from matir_cli.model_sets.catalogue import ModelSet
from matir_cli.model_sets.session import ModelSession, check_indexing_weights
from matir_cli.output.terminal import printable

Outcome = TypeVar("Outcome")


@contextmanager
def open_for_indexing(
    gallery_path: Path, model_set: str | None, device: str
) -> Iterator[tuple[GalleryFile, IndexingModels]]:
    """The gallery, made if there is none, and the models to index with, bound to it."""
    chosen = _choose(gallery_path, model_set)
    check_indexing_weights(chosen, gallery_path)
    with GalleryFile.open(gallery_path, create=True) as gallery:
        engines = ModelSession(gallery, chosen, device)
        engines.bind()
        yield gallery, IndexingModels.of(engines)


@contextmanager
def open_or_empty(path: Path) -> Iterator[GalleryFile]:
    """The gallery, or an empty one in memory where there is none yet."""
    with GalleryFile.open(path if path.exists() else Path(":memory:"), create=True) as gallery:
        yield gallery


def say_passed_over(passed_over: Counter[str]) -> None:
    """Say once how many files have formats that are not read, if any have."""
    if passed_over:
        kinds = ", ".join(f"{suffix[1:].upper()} {count:,}" for suffix, count in passed_over.most_common())
        verb = "is" if passed_over.total() == 1 else "are"
        formats = "a format that is" if len(passed_over) == 1 else "formats that are"
        say(f"{count_of(passed_over.total(), 'file')} {verb} of {formats} not read ({kinds})")


def _choose(gallery_path: Path, wanted: str | None) -> ModelSet:
    """The model set to index with; no gallery is made before its weights are known to be here."""
    if not gallery_path.exists():
        return choose_model_set(None, wanted)
    with GalleryFile.open(gallery_path, create=True) as gallery:
        return choose_model_set(gallery, wanted)


def run_with_progress(
    outcomes: Generator[Outcome, None, None],
    total: int | None,
    summary: Callable[[Counter[type[Outcome]]], str],
) -> Counter[type[Outcome]]:
    """Run a pipeline with a progress bar; on Ctrl-C say what was done, and leave."""
    counts: Counter[type[Outcome]] = Counter()
    try:
        with closing(outcomes), progress_bar(total) as bar:
            for outcome in outcomes:
                counts[type(outcome)] += 1
                if isinstance(outcome, Skipped):
                    bar.say(f"skipped {printable(str(outcome.path))}: {outcome.reason}")
                bar.advance()
    except KeyboardInterrupt:
        say(f"{summary(counts)}; run the same command again to go on")
        raise
    return counts
