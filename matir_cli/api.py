"""The Python API: a gallery as an object.

It runs the same pipelines as the command line.

    from matir_cli import Gallery

    with Gallery("photos.db", models="tiny") as gallery:
        for outcome in gallery.add(["~/Photos"]):
            print(outcome)
        for hit in gallery.find("dog led by rope", limit=10):
            print(hit.path, hit.score, hit.box)

Boxes are XYXY in photo pixels: the photo at its true size, upright, with its origin at the top left
corner and continuous edges. Masks are numpy arrays of bool, (height, width), at the photo's true size.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import TracebackType

from matir_cli.api_arguments import AnyPath, listed, photo_name, to_date, to_examples
from matir_cli.api_results import Hit, PhotoRegion
from matir_cli.cluster.options import RayOptions
from matir_cli.cluster.ray_workers import RayStages, indexing_on_ray
from matir_cli.errors import GalleryMissing, PhotoUnknown
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import count_unread
from matir_cli.gallery.files import find_photo, forget_files
from matir_cli.gallery.read_only import photo_ids
from matir_cli.gallery.rows import StoredPhoto
from matir_cli.gallery.sqlite_errors import translated
from matir_cli.gallery.union import GalleryReader, files_of
from matir_cli.indexing.outcomes import Outcome
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.maintenance.many import expand_galleries, open_galleries
from matir_cli.maintenance.remove import files_of_photo
from matir_cli.model_sets.choice import choose_set
from matir_cli.model_sets.session import ModelSession, check_indexing_weights
from matir_cli.photos.discover import FolderRules, absolute_path
from matir_cli.records import Box, MatchRule, Point
from matir_cli.search.early_stopping import CERTAINTY
from matir_cli.search.filters import WITHIN, Filters, Orientation
from matir_cli.search.index import seal_index
from matir_cli.search.keywords import parse_rating
from matir_cli.search.pipeline import SearchOptions, check_searchable, run_search
from matir_cli.search.query import Example, ExampleRule, Query, resolve_each
from matir_cli.search.sorting import SortKey


class Gallery:
    """A gallery of photos to add to and to search. Use it as a context manager, in one thread.

    Nothing is loaded before it is needed, and each model is loaded once. A gallery file that cannot be
    written can still be searched; the judge's verdicts are then not remembered.
    """

    def __init__(self, path: AnyPath, models: str | None = None, device: str = "auto") -> None:
        """Open the gallery at `path` if it exists; otherwise `add` creates it.

        Args:
            models: name of a model set, or path of a TOML file; "full:fast" is one with a preset. None: those
                that the gallery was created with, or "full" if new. A file is to be named once per machine.
            device: "auto", "cuda", "mps" or "cpu".

        Raises:
            GalleryError: the file exists, but is not a gallery that can be opened.
            ModelSetError: the model set does not exist, is invalid, or lacks the preset.
        """
        path = Path(path).expanduser()
        self._open(path, GalleryFile.open(path) if path.exists() else None, models, device)

    def _open(self, path: Path, file: GalleryReader | None, models: str | None, device: str) -> None:
        self.path = path
        """Path of the gallery; of several, that of the first."""
        self._file = file
        self._engines: ModelSession | None = None
        self._closed = False
        try:
            with translated(self.path):
                self._models = choose_set(self._file, models)
        except BaseException:
            self.close()
            raise
        self._device = device

    @classmethod
    def open_many(
        cls,
        paths: AnyPath | Iterable[AnyPath],
        models: str | None = None,
        device: str = "auto",
        *,
        skip_missing: bool = False,
    ) -> Gallery:
        """Open several galleries to search them as the one that `matir merge` would make of them.

        They are only searched: `add` and `remove` raise ValueError. Other arguments as for one gallery.

        Args:
            paths: gallery files, folders of such, or patterns such as "shards/*.db".
            skip_missing: leave out galleries that are missing or damaged, with a warning.

        Raises:
            GalleryError: a gallery cannot be opened, none is left, or their models differ.
            ModelSetError: the model set does not exist, or is invalid.
        """
        skip = (lambda error: warnings.warn(f"left out: {error}", stacklevel=4)) if skip_missing else None
        names = [Path(path).expanduser() for path in listed(paths)]
        file = open_galleries(expand_galleries(names, skip), skip)
        gallery = cls.__new__(cls)
        gallery._open(file.path, file, models, device)
        return gallery

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and free the judge; any further use of the gallery raises ValueError."""
        self._closed = True
        if self._engines is not None:
            self._engines.release_judge()
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        """Return the number of photos; 0 while there is no file."""
        with translated(self.path):
            return 0 if self._is_new() else self._opened().count_photos()

    def __bool__(self) -> bool:
        """Return True, even for an empty gallery."""
        return True

    def add(
        self,
        paths: AnyPath | Iterable[AnyPath],
        *,
        previews: bool = True,
        exclude: str | Iterable[str] = (),
        metadata: bool = False,
        ray: str | RayOptions | None = None,
    ) -> Iterator[Outcome]:
        """Index photos: files, and folders recursively; `~` is the home folder.

        Unchanged files are not read again; copies and renamed files are recognised. Photos are
        indexed while the caller iterates, and each is stored before its outcome is yielded: stopping
        early is safe.

        Args:
            previews: store a JPEG of each photo at working size, so that the judge can see the photo
                while its file is unavailable.
            exclude: patterns of files and folders to leave out, as in .gitignore.
            metadata: read ratings and keywords of unchanged files that a version which did not has added.
            ray: let a Ray cluster index new photos: HOST:PORT, "auto" (the one in RAY_ADDRESS, else one that
                is started on this machine), or `RayOptions`. A connection of this process to a cluster is
                used and kept.

        Returns:
            One outcome per file: `Added`, `Linked` (the same bytes as a stored photo, or a raw file beside
            its picture), `Unchanged`, `Refreshed` (unchanged, but with another sidecar) or `Skipped` (with
            the reason), each with its path.

        Raises:
            WeightsMissing, WeightsChanged: raised at once; no file is created.
            ModelMismatch: raised at once; the gallery was created with other models.
            PackageMissing: raised at once; Ray is not installed.
            MatirError: raised while iterating, for an error that ends the run, such as a full disk.
        """
        files = [Path(path).expanduser() for path in listed(paths)]
        patterns = [exclude] if isinstance(exclude, str) else [*exclude]
        check_indexing_weights(self._models, self.path)
        if self._is_new():
            self._file = GalleryFile.open(self.path, create=True)
        with translated(self.path):
            file = self._writable()
            engines = self._loaded(file)
            engines.bind()
            options = RayOptions(ray) if isinstance(ray, str) else ray
            stages = None if options is None else indexing_on_ray(engines, options)
        outcomes = add_photos(
            file,
            files,
            replace(IndexingModels.of(engines), remote=stages),
            previews=previews,
            rules=FolderRules(patterns),
            fill_metadata=metadata,
        )
        return self._translated(outcomes, stages)

    def _translated(
        self, outcomes: Generator[Outcome, None, None], stages: RayStages | None
    ) -> Iterator[Outcome]:
        with translated(self.path), stages or nullcontext(), closing(outcomes):
            yield from outcomes

    def find(
        self,
        text: str | None = None,
        *,
        image: AnyPath | Example | Iterable[AnyPath | Example] | None = None,
        box: Box | Sequence[float] | None = None,
        point: Point | Sequence[float] | None = None,
        unlike: AnyPath | Example | Iterable[AnyPath | Example] = (),
        examples: ExampleRule = "max",
        weight: float = 0.5,
        without: str | Iterable[str] = (),
        below: AnyPath | Iterable[AnyPath] = (),
        since: str | date | None = None,
        until: str | date | None = None,
        camera: str | None = None,
        min_size: float | None = None,
        max_size: float | None = None,
        near: tuple[float, float] | None = None,
        within: float = WITHIN,
        has_gps: bool | None = None,
        orientation: Orientation | None = None,
        rating: str | int | None = None,
        keywords: str | Iterable[str] = (),
        no_keywords: str | Iterable[str] = (),
        sort: SortKey = "score",
        limit: int = 10,
        whole: bool = False,
        rerank: bool = True,
        ground: bool = True,
        candidates: int | None = None,
        certainty: float = CERTAINTY,
        min_score: float | None = None,
        min_p: float | None = None,
        unique: bool = False,
        match: MatchRule | None = None,
        min_iou: float | None = None,
        refine: bool = False,
        fresh: bool = False,
        budget: float | None = None,
        explain: bool = False,
    ) -> list[Hit]:
        """Find the photos that show what is described or shown, best first, like `matir find`.

        Args:
            text: description of the object. None: search by the example alone, ranked by stage 1.
            image: an example or several, up to 32: photos that show such an object. An `Example` has a box
                or point of its own.
            box: box around the object in `image`, XYXY in pixels of that photo.
            point: point on the object in `image`, X and Y in pixels of that photo; not with `box`.
            unlike: an example or several of what must not be found, as in `image`.
            examples: of several in `image`, "max" compares a region with the one that it is most like, "mean"
                with their mean.
            weight: share of the examples next to a text, 0..1.
            without: descriptions of what must not be found.
            below: only photos in these folders, at any depth, or these files.
            since: only photos taken on this date or later: a date, or ISO 8601 of any precision
                ("2024", "2024-05-17", "2024-05-17T14:30"), in the camera's local time.
            until: only photos taken up to and including this date.
            camera: part of the camera's name.
            min_size: least fraction of the photo that the object covers, 0..1.
            max_size: greatest fraction of the photo that the object covers, 0..1.
            near: only photos taken near this latitude and longitude: degrees, north and east positive.
            within: greatest distance from `near` along a great circle, metres.
            has_gps: True: only photos with a position; False: only those without one.
            orientation: "portrait", "landscape" or "square": only upright photos of this shape.
            rating: only photos with this rating: 3, "3+" (or more), "2-4", 0 (unrated), "rejected".
            keywords: only photos with all of these keywords, in any case; * stands for anything.
            no_keywords: only photos without any of these keywords.
            sort: order of the hits: "score" (best first), "taken" (oldest first), "path", or "size" (largest
                object first). Which photos are returned depends on their scores alone.
            limit: number of photos to return, 1 or more.
            whole: compare the text as a whole in stage 1, as the paper does, not by its parts.
            rerank: let the judge look at the best photos and rank them again.
            ground: let the judge point at the object; otherwise the mask is that of the best region.
            candidates: number of photos that the judge reranks at most (N_C of the paper), 1 or more; None:
                100, or `limit` if that is more.
            certainty: certainty about the first `limit` photos at which judging ends, 0..1; 1: all candidates
                are judged, as in the paper.
            min_score: leave out photos whose best region scores lower in stage 1, where scores are -1..1.
            min_p: leave out photos to which the judge gives a lower probability, 0..1.
            unique: leave out near-copies, and other photos of a burst, of photos that rank higher.
            match: how the region of the judge's box is chosen: "iou", or "joint" with the text and the
                region's quality; None: as the model set says.
            min_iou: least IoU of a stored region with the judge's box, 0..1; None: 0.5, or 0 for "joint".
            refine: if no region fits, ask the proposer for the mask in the box.
            fresh: ask the judge again, ignoring remembered verdicts.
            budget: seconds, 0 or more, after which the judge is asked about no further photo.
            explain: let each hit say where its score and its mask come from (`Hit.explanation`).

        Returns:
            At most `limit` hits, in the order of `sort`; an empty list if nothing is good enough.

        Warns:
            UserWarning: the text is longer than the encoder reads, and its end was left out; or the region
                found in `box` fits it poorly; or ratings or keywords of some files have not been read.

        Raises:
            GalleryMissing, GalleryEmpty: there is nothing to search.
            QueryEmpty, QueryContradicts: there is nothing to search for.
            PhotoUnreadable, ExampleOutside, ExampleBlank: the example cannot be used.
            PartMissing: the model set has no judge; search with rerank=False.
            WeightsMissing, WeightsChanged: files of the models are missing, or have changed.
            ModelMismatch: the gallery was created with another model set.
            OutOfRange: a number is outside the range stated above; this is also a ValueError.
            ValueError: arguments contradict each other, or a date is invalid.
            KeyboardInterrupt: Ctrl-C; the verdicts so far are remembered.
        """
        query = Query(
            text,
            to_examples(() if image is None else image, box, point),
            weight,
            tuple(str(other) for other in listed(without)),
            to_examples(unlike),
            examples,
        )
        places = tuple(absolute_path(Path(path).expanduser()) for path in listed(below))
        filters = Filters(places, to_date(since), to_date(until), camera, min_size, max_size)
        filters = replace(
            filters,
            near=near,
            within=within,
            has_gps=has_gps,
            orientation=orientation,
            rating=None if rating is None else parse_rating(str(rating)),
            keywords=tuple(str(keyword) for keyword in listed(keywords)),
            no_keywords=tuple(str(keyword) for keyword in listed(no_keywords)),
        )
        options = SearchOptions(
            limit=limit,
            whole=whole,
            candidates=candidates,
            certainty=certainty,
            rerank=rerank,
            ground=ground,
            min_score=min_score,
            min_p=min_p,
            unique=unique,
            match=match,
            min_iou=min_iou,
            refine=refine,
            fresh=fresh,
            budget=budget,
            filters=filters if filters != Filters() else None,
            sort=sort,
            explain=explain,
        )
        with translated(self.path):
            file = self._opened()
            engines = self._loaded(file)
            check_searchable(file, query)
            files = files_of(file) if filters.needs_metadata else ()
            unread = sum(count_unread(each.connection) for each in files)
            good, bad = (resolve_each(file, engines, some) for some in (query.examples, query.unlike))
            query = replace(query, examples=good, unlike=bad)
            result = run_search(file, engines, query, options)
        if not result.complete:
            raise KeyboardInterrupt
        for example in (*good, *bad):
            if example.fits_poorly:
                warnings.warn(
                    f"the region found in {example.path} fits the box poorly (IoU {example.iou:.2f})",
                    stacklevel=2,
                )
        if unread:
            warnings.warn(
                f"ratings and keywords of some files ({unread}) are not known yet: add(..., metadata=True)",
                stacklevel=2,
            )
        if result.truncated:
            warnings.warn("the query is longer than the encoder reads; its end was left out", stacklevel=2)
        return [Hit(item) for item in result.results]

    def photos(self) -> Iterator[StoredPhoto]:
        """Yield all photos in the order in which they were added; none while there is no file."""
        if self._is_new():
            return
        with translated(self.path):
            file = self._opened()
            for photo_id in photo_ids(file):
                with suppress(PhotoUnknown):  # another process has forgotten it in the meantime
                    yield file.photo(photo_id)

    def photo(self, photo: StoredPhoto | AnyPath | int) -> StoredPhoto:
        """Return the photo with this id, or in this file.

        Raises:
            GalleryMissing, PhotoUnknown: there is no such photo.
        """
        with translated(self.path):
            file = self._opened()
            return file.photo(find_photo(file, photo_name(photo)))

    def regions(self, photo: StoredPhoto | AnyPath | int) -> list[PhotoRegion]:
        """Return all regions of a photo, the whole photo first.

        Raises:
            GalleryMissing, PhotoUnknown: there is no such photo.
        """
        with translated(self.path):
            file = self._opened()
            stored = file.photo(find_photo(file, photo_name(photo)))
            return [PhotoRegion(stored, region) for region in file.regions(stored.id)]

    def remove(self, *photos: StoredPhoto | AnyPath | int) -> list[Path]:
        """Forget photos; the files on disk are not touched.

        Args:
            photos: a photo or its id forgets all files that hold the photo, a path only that file; a
                photo is forgotten with its last file.

        Returns:
            The files that were forgotten.

        Raises:
            GalleryMissing, PhotoUnknown: one of them does not exist; then none is forgotten.
        """
        with translated(self.path):
            file = self._writable()
            files = [
                path for photo in photos for path in files_of_photo(file, photo_name(photo), all_copies=False)
            ]
            forgotten = list(forget_files(file, files))
            seal_index(file)
            return forgotten

    def _is_new(self) -> bool:
        if self._closed:
            raise ValueError("the gallery is closed")
        return self._file is None

    def _opened(self) -> GalleryReader:
        if self._is_new() or self._file is None:
            raise GalleryMissing(self.path)
        return self._file

    def _writable(self) -> GalleryFile:
        file = self._opened()
        if not isinstance(file, GalleryFile):
            raise ValueError("several galleries are only read: open the one to change")
        return file

    def _loaded(self, file: GalleryReader) -> ModelSession:
        if self._engines is None:
            self._engines = ModelSession(file, self._models, self._device)
        return self._engines
