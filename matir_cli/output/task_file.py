"""Results as tasks of Label Studio, for people to correct."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matir_cli.atomic_write import open_text
from matir_cli.gallery.label_studio import REGION_ID, Prediction, TaskFile, configuration_path
from matir_cli.output.result_pixels import ResultPixels


class ResultTasks:
    """Writes a task for each photo and query."""

    def __init__(self, file: TaskFile) -> None:
        self.file = file
        self._query = ""
        self._seen: set[tuple[str, int]] = set()

    def begin(self, query: str) -> None:
        """Let the results that are added now be those of `query`, which is their label."""
        self._query = query

    def add(self, pixels: ResultPixels) -> None:
        """Add a photo with its objects; one that its query has already is left out."""
        result = pixels.result
        if (self._query, result.photo.id) in self._seen:
            return
        self._seen.add((self._query, result.photo.id))
        predictions: list[Prediction] = []
        for number, each in enumerate(pixels.objects):
            is_stored = each.region is not None and each.region.region.rle == each.mask
            region_id = pixels.region_id(each.region) if each.region is not None and is_stored else None
            name = f"object-{number}" if region_id is None else f"{REGION_ID}{region_id}"
            if all(name != other.id for other in predictions):
                predictions.append(Prediction(name, self._query, each.box, each.mask, round(result.score, 6)))
        self.file.add(result.photo, result.path, self._query, predictions)


@contextmanager
def task_file(path: Path, root: Path, *, force: bool) -> Iterator[TaskFile]:
    """Open a file of tasks for writing, with its labeling configuration, and complete both at the end.

    Args:
        root: as in `TaskFile`.

    Raises:
        OutputExists, OutputError: see `open_text`.
    """
    with (
        open_text(path, force=force) as tasks,
        open_text(configuration_path(path), force=force) as configuration,
    ):
        file = TaskFile(tasks, configuration, root)
        file.start()
        yield file
        file.end()
