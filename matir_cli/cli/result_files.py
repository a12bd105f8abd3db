"""The files that results are written to, open while one query or many are answered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from matir_cli.cli.boundary import say
from matir_cli.cli.options.output import OutputOptions
from matir_cli.cli.progress import progress_bar
from matir_cli.cli.text import count_of
from matir_cli.gallery.database import GalleryFile
from matir_cli.output.coco import CocoFile, coco_file
from matir_cli.output.cutouts import Cutouts
from matir_cli.output.html_page import HtmlPage, html_page
from matir_cli.output.json_records import WrittenFiles
from matir_cli.output.mask_files import write_masks
from matir_cli.output.overlays import write_overlay
from matir_cli.output.picture_folder import PictureFolder
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.output.yolo import YoloFolder, yolo_folder
from matir_cli.search.results import SearchResult


class ResultFiles:
    """All that a `Form` asks for. A context manager: data sets are whole, and counts said, at its end."""

    def __init__(self, gallery: GalleryFile, form: OutputOptions) -> None:
        self._gallery, self._form = gallery, form
        self._stack = ExitStack()
        self._masks, self._cut, self._overlays = (
            None if path is None else PictureFolder(path, force=form.force)
            for path in (form.masks, form.cutouts, form.overlays)
        )
        self._cutouts = None if self._cut is None else Cutouts(self._cut)
        self._sets: list[CocoFile | YoloFolder] = []
        self._results = self._away = 0

    def __enter__(self) -> Self:
        form = self._form
        if form.coco is not None:
            self._sets.append(self._stack.enter_context(coco_file(form.coco, force=form.force)))
        if form.yolo is not None:
            self._sets.append(self._stack.enter_context(yolo_folder(form.yolo, force=form.force)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if error is None:
            self._remark()

    def write(self, query: str, found: Sequence[SearchResult]) -> list[WrittenFiles]:
        """Write the results of a query, one at a time: a photo's pixels live no longer. Where files lie."""
        files = []
        with ExitStack() as stack:
            outputs: list[CocoFile | YoloFolder | HtmlPage] = [*self._sets]
            for each in self._sets:
                each.begin(query)
            if self._form.html is not None:
                outputs.append(
                    stack.enter_context(html_page(self._form.html, query, found, force=self._form.force))
                )
            advance = stack.enter_context(progress_bar(len(found), "writing")).advance
            for item in found:
                subject = ResultPixels(self._gallery, item, all_instances=self._form.all_instances)
                files.append(
                    WrittenFiles(
                        masks=write_masks(self._masks, subject) if self._masks else (),
                        cutouts=self._cutouts.write(subject) if self._cutouts else (),
                        overlay=write_overlay(self._overlays, subject) if self._overlays else None,
                    )
                )
                for output in outputs:
                    output.add(subject)
                self._away += self._form.needs_pixels and subject.working is None
                advance()
        self._results += len(found)
        return files

    def _remark(self) -> None:
        """What was written, and what is missing in it."""
        for folder, what in ((self._masks, "mask"), (self._cut, "cut-out"), (self._overlays, "overlay")):
            if folder is not None:
                kept = f", {folder.kept} there already and kept" if folder.kept else ""
                say(f"{count_of(folder.written, what)} written to {folder.path}{kept}")
        for path in (self._form.coco, self._form.yolo, self._form.html):
            if path is not None:
                say(f"{path} written")
        if self._cutouts is not None and self._cutouts.from_preview:
            originals = f"{self._cutouts.from_preview} of {count_of(self._results, 'original')}"
            say(f"{originals} away or changed: cut out from the preview, at working size")
        if self._away:
            photos = f"{self._away} of {count_of(self._results, 'photo')}"
            say(f"{photos} away or changed, and without a preview: not shown in any picture")
