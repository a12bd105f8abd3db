"""The Python API: a gallery as an object, as thin over the pipelines as the command line is.

    from matir_cli import Gallery

    with Gallery("photos.db", models="tiny") as gallery:
        for outcome in gallery.add(["~/Photos"]):
            print(outcome)
        for hit in gallery.find("dog led by rope", limit=10):
            print(hit.path, hit.score, hit.box)

Boxes are XYXY in photo pixels: the photo at its true size, upright, origin at the top left corner,
continuous edges. Masks are numpy arrays of bool, (height, width), at the photo's true size.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from matir_cli.api_results import Hit, PhotoRegion
from matir_cli.errors import GalleryMissing, PhotoUnknown
from matir_cli.gallery.database import GalleryFile, translated
from matir_cli.gallery.files import find_photo, forget_files
from matir_cli.gallery.read_only import photo_ids
from matir_cli.gallery.rows import StoredPhoto
from matir_cli.indexing.pipeline import IndexingModels, Outcome, add_photos
from matir_cli.maintenance.remove import files_of_photo
from matir_cli.model_sets.catalogue import DEFAULT_MODEL_SET, load_model_set
from matir_cli.model_sets.session import ModelSession, check_indexing_weights
from matir_cli.photos.discover import absolute_path
from matir_cli.records import Box, Point
from matir_cli.search.filters import Filters, parse_date
from matir_cli.search.index import seal_index
from matir_cli.search.pipeline import SearchOptions, run_search
from matir_cli.search.query import Example, Query

AnyPath: TypeAlias = str | os.PathLike[str]


class Gallery:
    """A gallery of photos: add to it, search it. Use as a context manager, from one thread.

    Nothing is loaded before it is needed, and each model is loaded once. A file that cannot be
    written can still be searched; what the judge says is then not remembered.
    """

    def __init__(self, path: AnyPath, models: str | None = None, device: str = "auto") -> None:
        """Open the gallery at `path`, if there is one; `add` makes it.

        Args:
            models: a model set by name, or the path of a TOML file. None: the one that the gallery
                was made with, for a new one "full".
            device: "auto", "cuda", "mps" or "cpu".

        Raises:
            GalleryError: the file is there but is not a gallery that can be opened.
            ModelSetError: there is no such model set.
        """
        self.path = Path(path).expanduser()
        self._file = GalleryFile.open(self.path) if self.path.exists() else None
        self._engines: ModelSession | None = None
        self._closed = False
        try:
            with translated(self.path):
                stored = self._file.model_set() if self._file is not None else None
            self._models = load_model_set(models or stored or DEFAULT_MODEL_SET)
        except BaseException:
            self.close()
            raise
        self._device = device

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and free the judge; whatever is asked of the gallery then raises ValueError."""
        self._closed = True
        if self._engines is not None:
            self._engines.release_judge()
        if self._file is not None:
            self._file.connection.close()

    def __len__(self) -> int:
        """How many photos there are; 0 while there is no file."""
        with translated(self.path):
            return 0 if self._is_new() else self._opened().count_photos()

    def __bool__(self) -> bool:
        """True, also while it is empty."""
        return True

    def add(self, paths: AnyPath | Iterable[AnyPath], *, previews: bool = True) -> Iterator[Outcome]:
        """Index photos: files, and folders recursively; `~` is the home folder.

        Unchanged files are not read again; copies and renamed files are recognised. Photos are
        indexed while you iterate, and each is kept from its outcome on: stopping early is safe.

        Args:
            previews: store a JPEG of each photo at working size, so that the judge can look at it
                while the file is away.

        Returns:
            One outcome a file: `Added`, `Linked` (the same bytes as a photo that is here),
            `Unchanged` or `Skipped` (with the reason), each with its path.

        Raises:
            WeightsMissing, WeightsChanged: at once; then no file is made.
            ModelMismatch: at once; the gallery was made with other models.
            MatirError: while iterating, what ends the run, such as a full disk.
        """
        wanted = [Path(path).expanduser() for path in _listed(paths)]
        check_indexing_weights(self._models, self.path)
        if self._is_new():
            self._file = GalleryFile.open(self.path, create=True)
        with translated(self.path):
            file = self._opened()
            engines = self._loaded(file)
            engines.bind()
        return self._outcomes(file, wanted, IndexingModels.of(engines), previews)

    def _outcomes(
        self, file: GalleryFile, paths: list[Path], models: IndexingModels, previews: bool
    ) -> Iterator[Outcome]:
        outcomes = add_photos(file, paths, models, previews=previews)
        with translated(self.path), closing(outcomes):
            yield from outcomes

    def find(
        self,
        text: str | None = None,
        *,
        image: AnyPath | None = None,
        box: Box | Sequence[float] | None = None,
        point: Point | Sequence[float] | None = None,
        weight: float = 0.5,
        without: str | Iterable[str] = (),
        below: AnyPath | Iterable[AnyPath] = (),
        since: str | date | None = None,
        until: str | date | None = None,
        camera: str | None = None,
        min_size: float | None = None,
        max_size: float | None = None,
        limit: int = 10,
        rerank: bool = True,
        ground: bool = True,
        candidates: int | None = None,
        min_score: float | None = None,
        min_p: float | None = None,
        min_iou: float = 0.5,
        refine: bool = False,
        fresh: bool = False,
        budget: float | None = None,
    ) -> list[Hit]:
        """The photos that show what is described or shown, best first; as `matir find` does it.

        Args:
            text: describes the object. None: search by the example alone, which stage 1 ranks.
            image: an example: any photo that shows such an object.
            box: around the object in `image`, its pixels, XYXY.
            point: on the object in `image`, its pixels; not beside `box`.
            weight: of the example beside a text, 0..1.
            without: what not to find.
            below: only photos in these folders, at any depth, or these files.
            since: only photos taken then or later: a date, or ISO 8601 as exact as is meant
                ("2024", "2024-05-17", "2024-05-17T14:30"), in the camera's local time.
            until: likewise, to the end of then.
            camera: part of the camera's name.
            min_size: the least fraction of the photo that the object covers, 0..1.
            max_size: the greatest.
            limit: photos to return, 1 or more.
            rerank: let the judge look at the best photos and rank them anew.
            ground: let it say where the object is; else the mask is that of the best region.
            candidates: photos that the judge looks at (N_C of the paper), 1 or more; None: 100, or `limit`.
            min_score: leave out photos whose best region scores lower in stage 1, where scores are -1..1.
            min_p: leave out photos that the judge gives a lower probability, 0..1.
            min_iou: how well a stored region must fit the judge's box, 0..1.
            refine: where none does, ask the proposer for the mask in the box.
            fresh: ask the judge anew, ignoring remembered verdicts.
            budget: seconds, 0 or more, after which the judge is asked about no further photo.

        Returns:
            At most `limit` hits; none where nothing is good enough.

        Warns:
            UserWarning: the text is longer than the encoder reads; its end was left out.

        Raises:
            GalleryMissing, GalleryEmpty: there is nothing to search.
            QueryEmpty, QueryContradicts: there is nothing to search for.
            PhotoUnreadable, ExampleOutside, ExampleBlank: the example is none.
            PartMissing: the model set has no judge: search with rerank=False.
            WeightsMissing, WeightsChanged: the models' files are not here, or not what they were.
            ModelMismatch: the gallery was made with another model set.
            OutOfRange: a number outside the range that is said above; this is a ValueError, too.
            ValueError: arguments that contradict each other, or a date that is none.
            KeyboardInterrupt: Ctrl-C; what the judge said is remembered.
        """
        query = Query(
            text, _example(image, box, point), weight, tuple(str(other) for other in _listed(without))
        )
        places = tuple(absolute_path(Path(path).expanduser()) for path in _listed(below))
        within = Filters(places, _date(since), _date(until), camera, min_size, max_size)
        settings = SearchOptions(
            limit=limit,
            candidates=candidates,
            rerank=rerank,
            ground=ground,
            min_score=min_score,
            min_p=min_p,
            min_iou=min_iou,
            refine=refine,
            fresh=fresh,
            budget=budget,
            filters=within if within != Filters() else None,
        )
        with translated(self.path):
            file = self._opened()
            result = run_search(file, self._loaded(file), query, settings)
        if not result.complete:
            raise KeyboardInterrupt
        if result.truncated:
            warnings.warn("the query is longer than the encoder reads; its end was left out", stacklevel=2)
        return [Hit(found) for found in result.results]

    def photos(self) -> Iterator[StoredPhoto]:
        """All photos, in the order in which they were added; none while there is no file."""
        if self._is_new():
            return
        with translated(self.path):
            file = self._opened()
            for photo_id in photo_ids(file):
                with suppress(PhotoUnknown):  # another process forgot it meanwhile
                    yield file.photo(photo_id)

    def photo(self, photo: StoredPhoto | AnyPath | int) -> StoredPhoto:
        """The photo of this id, or in this file.

        Raises:
            GalleryMissing, PhotoUnknown: it is not here.
        """
        with translated(self.path):
            file = self._opened()
            return file.photo(find_photo(file, _name(photo)))

    def regions(self, photo: StoredPhoto | AnyPath | int) -> list[PhotoRegion]:
        """All regions of a photo, the photo as a whole first.

        Raises:
            GalleryMissing, PhotoUnknown: it is not here.
        """
        with translated(self.path):
            file = self._opened()
            stored = file.photo(find_photo(file, _name(photo)))
            return [PhotoRegion(stored, region) for region in file.regions(stored.id)]

    def remove(self, *photos: StoredPhoto | AnyPath | int) -> list[Path]:
        """Forget photos; the files on disk are not touched.

        Args:
            photos: a photo or its id forgets all files that hold it, a path that file alone; the
                photo goes with its last file.

        Returns:
            The files forgotten.

        Raises:
            GalleryMissing, PhotoUnknown: one of them is not here; then none is forgotten.
        """
        with translated(self.path):
            file = self._opened()
            gone = [path for photo in photos for path in files_of_photo(file, _name(photo), all_copies=False)]
            forgotten = list(forget_files(file, gone))
            seal_index(file)
            return forgotten

    def _is_new(self) -> bool:
        if self._closed:
            raise ValueError("the gallery is closed")
        return self._file is None

    def _opened(self) -> GalleryFile:
        if self._is_new() or self._file is None:
            raise GalleryMissing(self.path)
        return self._file

    def _loaded(self, file: GalleryFile) -> ModelSession:
        if self._engines is None:
            self._engines = ModelSession(file, self._models, self._device)
        return self._engines


def _name(photo: StoredPhoto | AnyPath | int) -> str:
    """The photo as `files.photo_named` understands it; a path is never taken for an id."""
    if isinstance(photo, StoredPhoto):
        return str(photo.id)
    return str(photo) if isinstance(photo, int) else str(absolute_path(Path(photo).expanduser()))


def _listed(one_or_more: AnyPath | Iterable[AnyPath]) -> list[AnyPath]:
    """A string is one path or text, not its letters."""
    return [one_or_more] if isinstance(one_or_more, str | os.PathLike) else list(one_or_more)


def _example(
    image: AnyPath | None, box: Box | Sequence[float] | None, point: Point | Sequence[float] | None
) -> Example | None:
    if image is None:
        if box is not None or point is not None:
            raise ValueError("box and point are about image, which is missing")
        return None
    if box is not None and point is not None:
        raise ValueError("box or point, not both")
    return Example(
        Path(image).expanduser(),
        box if box is None or isinstance(box, Box) else Box(*box),
        point if point is None or isinstance(point, Point) else Point(*point),
    )


def _date(given: str | date | None) -> str | None:
    if given is None:
        return None
    return parse_date(given if isinstance(given, str) else given.isoformat()[:19])
