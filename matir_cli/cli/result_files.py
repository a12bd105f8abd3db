"""Writes search results to files, for one query or many."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from matir_cli.atomic_write import STREAM
from matir_cli.cli.boundary import say
from matir_cli.cli.options.output import OutputOptions
from matir_cli.cli.progress import progress_bar
from matir_cli.cli.text import count_of
from matir_cli.gallery.database import GalleryFile
from matir_cli.output.coco import CocoFile, coco_file
from matir_cli.output.cutouts import CutoutLook, Cutouts
from matir_cli.output.html_page import HtmlPage, html_page
from matir_cli.output.json_records import WrittenFiles
from matir_cli.output.mask_files import write_masks
from matir_cli.output.overlays import write_overlay
from matir_cli.output.picture_folder import PictureFolder
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.output.task_file import ResultTasks, task_file
from matir_cli.output.yolo import YoloFolder, yolo_folder
from matir_cli.search.results import SearchResult


class ResultFiles:
    """The files that `OutputOptions` ask for.

    A context manager: at its end the data sets are complete, and what was written is reported.
    """

    def __init__(self, gallery: GalleryFile, output: OutputOptions) -> None:
        self._gallery, self._options = gallery, output
        self._stack = ExitStack()
        self._masks, self._cutout_folder, self._overlays = (
            None if path is None else PictureFolder(path, force=output.force)
            for path in (output.masks, output.cutouts, output.overlays)
        )
        look = CutoutLook(output.feather, output.background)
        self._cutouts = None if self._cutout_folder is None else Cutouts(self._cutout_folder, look)
        self._sets: list[CocoFile | YoloFolder | ResultTasks] = []
        self._tasks: ResultTasks | None = None
        self._results = self._unavailable = 0

    def __enter__(self) -> Self:
        options = self._options
        if options.coco is not None:
            self._sets.append(self._stack.enter_context(coco_file(options.coco, force=options.force)))
        if options.yolo is not None:
            self._sets.append(self._stack.enter_context(yolo_folder(options.yolo, force=options.force)))
        if options.labelstudio is not None:
            file = task_file(options.labelstudio, options.document_root, force=options.force)
            self._tasks = ResultTasks(self._stack.enter_context(file))
            self._sets.append(self._tasks)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if error is None:
            self._report()

    def write(self, query: str, found: Sequence[SearchResult]) -> list[WrittenFiles]:
        """Write the results of a query and return the files of each.

        One result is written at a time, so that only one photo's pixels are in memory.
        """
        files = []
        form = self._options.mask_form
        with ExitStack() as stack:
            outputs: list[CocoFile | YoloFolder | ResultTasks | HtmlPage] = [*self._sets]
            for data_set in self._sets:
                data_set.begin(query)
            if self._options.html is not None:
                outputs.append(
                    stack.enter_context(
                        html_page(self._options.html, query, found, force=self._options.force)
                    )
                )
            advance = stack.enter_context(progress_bar(len(found), "writing")).advance
            for result in found:
                pixels = ResultPixels(self._gallery, result, all_instances=self._options.all_instances)
                files.append(
                    WrittenFiles(
                        masks=write_masks(self._masks, pixels, form) if self._masks else (),
                        cutouts=self._cutouts.write(pixels) if self._cutouts else (),
                        overlay=write_overlay(self._overlays, pixels) if self._overlays else None,
                    )
                )
                for output in outputs:
                    output.add(pixels)
                self._unavailable += self._options.needs_pixels and pixels.working is None
                advance()
        self._results += len(found)
        return files

    def _report(self) -> None:
        """Say what was written, and what is missing in it."""
        for folder, what in (
            (self._masks, "mask"),
            (self._cutout_folder, "cut-out"),
            (self._overlays, "overlay"),
        ):
            if folder is not None:
                kept = f", {folder.kept} existed and were kept" if folder.kept else ""
                say(f"{count_of(folder.written, what)} written to {folder.path}{kept}")
        for path in (self._options.coco, self._options.yolo, self._options.html, self._options.labelstudio):
            if path is not None and path != STREAM:
                say(f"{path} written")
        if self._tasks is not None and self._tasks.file.outside:
            root = self._options.document_root
            say(f"{count_of(self._tasks.file.outside, 'photo')} left out of the tasks: not below {root}")
        if self._cutouts is not None and self._cutouts.from_preview:
            originals = f"{self._cutouts.from_preview} of {count_of(self._results, 'original')}"
            say(f"{originals} missing or changed: cut out from the preview, at working size")
        if self._unavailable:
            photos = f"{self._unavailable} of {count_of(self._results, 'photo')}"
            say(f"{photos} missing or changed, and without a preview: not shown in any picture")
