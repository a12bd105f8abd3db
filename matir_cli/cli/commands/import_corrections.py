"""`matir import-corrections`: bring corrections from Label Studio into the gallery."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from matir_cli.cli.boundary import say
from matir_cli.cli.exit_codes import DONE, SKIPPED
from matir_cli.cli.options.common import (
    PathName,
    choose_model_set,
    device_option,
    gallery_option,
    models_option,
    verbose_option,
)
from matir_cli.cli.options.decoding import decode_timeout_option
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.progress import progress_bar
from matir_cli.cli.text import count_of
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.corrections import CorrectionCounts, import_tasks, read_tasks
from matir_cli.indexing.pipeline import IndexingModels
from matir_cli.model_sets.session import ModelSession


@click.command(short_help="Bring corrections from Label Studio into the gallery.")
@click.argument("file", type=PathName(dir_okay=False))
@gallery_option
@models_option
@device_option
@decode_timeout_option
@progress_option
@verbose_option
@click.pass_context
def import_corrections(
    context: click.Context, file: Path, gallery_path: Path, model_set: str | None, device: str
) -> None:
    """Read Label Studio's JSON export of tasks that `matir find` or `matir export` has written.

    Masks that were accepted, changed or drawn become regions of origin "human", which go before all
    others where an object is looked for. Boxes become masks through SAM 2. For tasks of a query, the
    person's answer is stored too: a photo without a mask of the query's label does not show it. It
    goes before the judge's answer. The same file again changes nothing, and the last line
    says that nothing in it is new.

    \b
    Exit code: 0 done, 2 an error, 3 done but something was left out, 130 interrupted.

    \b
    Examples:
      matir find "dog led by rope" --labelstudio tasks.json --document-root ~/Photos
      matir import-corrections project-1.json
    """
    counts = CorrectionCounts()
    with GalleryFile.open(gallery_path) as gallery:
        tasks = read_tasks(file)
        engines = ModelSession(gallery, choose_model_set(gallery, model_set), device)
        engines.bind()
        imported = import_tasks(gallery, tasks, IndexingModels.of(engines), counts)
        try:
            with closing(imported), progress_bar(len(tasks), "task") as bar:
                for _ in imported:
                    bar.advance()
        except KeyboardInterrupt:
            say(f"{_summary(counts)}; run the same command again to go on")
            raise
    for reason, count in counts.tasks.most_common():
        say(f"{count_of(count, 'task')} left out: {reason}")
    for reason, count in counts.results.most_common():
        say(f"{count_of(count, 'mask or box', 'masks and boxes')} left out: {reason}")
    say(_summary(counts))
    context.exit(SKIPPED if counts.tasks or counts.results else DONE)


def _summary(counts: CorrectionCounts) -> str:
    known = f"; nothing new in {count_of(counts.known, 'task')}" if counts.known else ""
    return (
        f"{counts.accepted} accepted, {counts.changed} changed, {counts.new} new, "
        f"{counts.rejected} rejected, {counts.answers} answers{known}"
    )
