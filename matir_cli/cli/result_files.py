"""Writes search results to files, for one query or many."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from matir_cli.atomic_write import STREAM
from matir_cli.cli.boundary import say
from matir_cli.cli.options.output import OutputOptions
from matir_cli.cli.progress import progress_bar
from matir_cli.cli.text import count_of
from matir_cli.errors import PhotoUnknown
from matir_cli.gallery.union import GalleryReader
from matir_cli.output.coco import CocoFile, SplitCoco, coco_file, split_coco_files
from matir_cli.output.cutouts import CutoutLook, Cutouts
from matir_cli.output.data_split import BackgroundPhotos, val_photos
from matir_cli.output.html_page import HtmlPage, html_page
from matir_cli.output.json_records import WrittenFiles
from matir_cli.output.mask_files import write_masks
from matir_cli.output.overlays import write_overlay
from matir_cli.output.picture_folder import PictureFolder
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.output.task_file import ResultTasks, task_file
from matir_cli.output.yolo import YoloFolder, yolo_folder
from matir_cli.search.events import SearchOutcome
from matir_cli.search.results import SearchResult


class ResultFiles:
    """The files that `OutputOptions` ask for.

    A context manager: at its end the data sets are complete, and what was written is reported.
    """

    def __init__(self, gallery: GalleryReader, output: OutputOptions) -> None:
        self._gallery, self._options = gallery, output
        self._stack = ExitStack()
        self._masks, self._cutout_folder, self._overlays = (
            None if path is None else PictureFolder(path, force=output.force)
            for path in (output.masks, output.cutouts, output.overlays)
        )
        look = CutoutLook(output.feather, output.background)
        self._cutouts = None if self._cutout_folder is None else Cutouts(self._cutout_folder, look)
        self._sets: list[CocoFile | YoloFolder] = []
        self._split: list[SplitCoco | YoloFolder] = []
        self._tasks: ResultTasks | None = None
        self._backgrounds = BackgroundPhotos(output.background_photos)
        self._said: list[str] = []
        self._results = self._unavailable = 0

    def __enter__(self) -> Self:
        options = self._options
        enter, force = self._stack.enter_context, options.force
        if options.coco is not None and options.val:
            self._split.append(enter(split_coco_files(options.coco, force=force)))
        elif options.coco is not None:
            self._sets.append(enter(coco_file(options.coco, force=force)))
        if options.yolo is not None:
            data_set = enter(yolo_folder(options.yolo, force=force, has_val=options.val > 0))
            (self._split if options.val else self._sets).append(data_set)
        self._sets += self._split
        if options.labelstudio is not None:
            file = task_file(options.labelstudio, options.document_root, force=force)
            self._tasks = ResultTasks(enter(file))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._complete_data_sets()
        self._report()

    def _complete_data_sets(self) -> None:
        """Add background photos to the data sets, and divide them into train and val."""
        if self._options.background_photos:
            labelled = set[int]().union(*(data_set.photo_ids for data_set in self._sets))
            chosen = self._backgrounds.choose(self._gallery, labelled)
            for item in chosen:
                with suppress(PhotoUnknown):  # another process has removed it meanwhile
                    photo = self._gallery.photo(item.candidate.photo_id)
                    result = SearchResult(0, photo, item.candidate, (), item.verdict)
                    for data_set in self._sets:
                        data_set.add_background(ResultPixels(self._gallery, result, all_instances=False))
            wanted = self._backgrounds.wanted(len(labelled))
            few = ""
            if not wanted:
                few = f": {self._options.background_photos:g} of so few photos is less than one"
            elif len(chosen) < wanted:
                few = f" of {wanted}: the judge called no more False for every query"
            self._said.append(f"{count_of(len(chosen), 'background photo')}{few}")
        if self._split:
            photos = set[int]().union(*(data_set.photo_ids for data_set in self._split))
            val = val_photos(self._gallery, photos, self._options.val)
            for divided in self._split:
                divided.split(val)
            sides = f"{len(photos - val)} photos to train with, {len(val)} to validate with"
            empty = "; choose another --val" if photos and not 0 < len(val) < len(photos) else ""
            self._said.append(f"{sides}{empty}")

    def write(self, query: str, outcome: SearchOutcome) -> list[WrittenFiles]:
        """Write the results of a query and return the files of each.

        One result is written at a time, so that only one photo's pixels are in memory.
        """
        files, found = [], outcome.results
        form = self._options.mask_form
        self._backgrounds.note(query, outcome)
        with ExitStack() as stack:
            named = [*self._sets, *([self._tasks] if self._tasks else [])]
            for each in named:
                each.begin(query)
            outputs: list[CocoFile | YoloFolder | ResultTasks | HtmlPage] = [*named]
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
        for text in self._said:
            say(text)
        if self._cutouts is not None and self._cutouts.from_preview:
            originals = f"{self._cutouts.from_preview} of {count_of(self._results, 'original')}"
            say(f"{originals} missing or changed: cut out from the preview, at working size")
        if self._unavailable:
            photos = f"{self._unavailable} of {count_of(self._results, 'photo')}"
            say(f"{photos} missing or changed, and without a preview: not shown in any picture")
