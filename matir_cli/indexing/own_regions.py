"""Regions that the user gives: annotations of a data set, beside or instead of the proposer's regions.

New photos get them while they are indexed (`OwnRegions.propose`), in the transaction in which they are
added. Photos that were indexed before get them afterwards (`update_known`), each in a transaction of its own.
The regions of origin "data set" of an annotated photo become those of the file: the same run again changes
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np

from matir_cli import masks
from matir_cli.engines.protocols import RegionEncoder, RegionProposer
from matir_cli.errors import PhotoUnknown, PhotoUnreadable
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import photo_in_file
from matir_cli.gallery.region_rows import store_origin
from matir_cli.gallery.rows import StoredPhoto, StoredRegion
from matir_cli.gallery.working_image import load_working_image
from matir_cli.indexing.annotations import NO_OBJECT, AnnotatedImage, AnnotationFile
from matir_cli.indexing.outcomes import Skipped
from matir_cli.indexing.pipeline import ATTEMPTS, IndexingModels
from matir_cli.photos.decode import DecodedPhoto
from matir_cli.photos.discover import absolute_path
from matir_cli.records import ImageArray, OriginKind, PhotoRecord, Region, RegionOrigin, Rle
from matir_cli.search.index import seal_index
from matir_cli.search.region_update import replace_regions

SAME_OBJECT = 0.8
"""IoU from which on two masks, made of the pixels of a file and of those of its preview, are the same one."""

NO_PIXELS = "no preview is stored, and the file is missing or has changed"


@dataclass(frozen=True, slots=True)
class Updated:
    """The regions of a photo that was indexed before have changed."""

    path: Path
    regions: int
    """Number of its regions now, not counting the whole photo."""


@dataclass(frozen=True, slots=True)
class OwnRegions:
    """The annotations of a data set, for the photos below some folders."""

    annotations: AnnotationFile
    only: bool
    """Leave out the proposer's regions in photos that the file lists."""
    _folders: set[Path] = field(default_factory=set)

    def noting_folders(self, paths: Iterable[Path]) -> Iterator[Path]:
        """Yield `paths`, and take each, or the folder of each file, for what file names are relative to."""
        for path in paths:
            absolute = absolute_path(path)
            self._folders.add(absolute if absolute.is_dir() else absolute.parent)
            yield path

    def images_of(self, paths: Iterable[Path]) -> list[AnnotatedImage]:
        """Return the images of the file that are called like one of these files, relative or absolute."""
        names: dict[str, None] = {}
        for path in paths:
            below = [folder for folder in path.parents if folder in self._folders]
            for folder in below:
                names[path.relative_to(folder).as_posix()] = None
            if below:
                names[path.as_posix()] = None
        return self.annotations.images_named([*names])

    def propose(self, photo: DecodedPhoto, proposer: Callable[[], RegionProposer]) -> list[Region]:
        """Return the regions of a new photo, without the whole photo: the proposer's first."""
        images = self.images_of([photo.file.path])
        proposed = [] if self.only and images else proposer().propose(photo.image)
        given = self._given(images, photo.record, lambda: photo.image, proposer)
        return [*proposed, *given]

    def update_known(
        self, gallery: GalleryFile, paths: Iterable[Path], models: IndexingModels
    ) -> Iterator[Updated | Skipped]:
        """Give the photos in these files, which are in the gallery, their regions; yields those that change.

        Raises:
            MatirError: an error that ends the run; photos that were changed before stay so.
        """
        loaded = IndexingModels(cache(models.proposer), cache(models.encoder), models.side_by_side)
        seen: set[int] = set()
        changed = 0
        for path in paths:
            photo_id = photo_in_file(gallery, path)
            if photo_id is None or photo_id in seen:
                continue
            seen.add(photo_id)
            outcome = self._update(gallery, path, photo_id, loaded)
            if outcome is not None:
                changed += isinstance(outcome, Updated)
                yield outcome
        if changed:
            seal_index(gallery)

    def _update(
        self, gallery: GalleryFile, path: Path, photo_id: int, models: IndexingModels
    ) -> Updated | Skipped | None:
        """Update one photo; None if nothing is to be changed."""
        before = self.annotations.left_out.copy()
        for _ in range(ATTEMPTS):
            self.annotations.left_out.clear()
            self.annotations.left_out.update(before)
            try:
                with gallery.snapshot():
                    photo, stored = gallery.photo(photo_id), gallery.regions(photo_id)
                plan = self._plan(gallery, photo, stored, models)
                if plan is None:
                    return None
                if write_plan(gallery, photo_id, stored, plan, models.encoder):
                    return Updated(path, len(plan.kept) + len(plan.added) - 1)
            except PhotoUnknown:
                return None
            except PhotoUnreadable as error:
                return Skipped(path, error.reason)
        return Skipped(path, "other commands keep changing its regions")

    def _plan(
        self, gallery: GalleryFile, photo: StoredPhoto, stored: Sequence[StoredRegion], models: IndexingModels
    ) -> RegionPlan | None:
        """Decide which regions a photo keeps and gets; None if it has them already, or is not annotated."""
        images = self.images_of(photo.paths)
        if not images:
            return None

        @cache
        def image() -> ImageArray:
            return working_image(gallery, photo)

        given = [
            _stored_equivalent(region, stored)
            for region in self._given(images, photo.record, image, models.proposer)
        ]
        drawn = {each.region.rle for each in stored if each.region.is_human}
        given = [region for region in given if region.rle not in drawn]
        missing = Counter(map(_key, given))
        kept: list[StoredRegion] = []
        proposed = 0
        for each in stored:
            origin = each.region.origin
            if each.ordinal == 0 or (origin is not None and origin.kind is OriginKind.HUMAN):
                kept.append(each)
            elif origin is None:
                if not self.only:
                    proposed += 1
                    kept.append(each)
            elif missing[_key(each.region)]:
                missing[_key(each.region)] -= 1
                kept.append(each)
        added = [] if self.only or proposed else models.proposer().propose(image())
        ious = masks.iou([region.rle for region in added], [*drawn])
        added = [each for each, row in zip(added, ious, strict=True) if row.max(initial=0) < SAME_OBJECT]
        for region in given:
            if missing[_key(region)]:
                missing[_key(region)] -= 1
                added.append(region)
        unchanged = not added and len(kept) == len(stored)
        return None if unchanged else RegionPlan(kept, added, image)

    def _given(
        self,
        images: Sequence[AnnotatedImage],
        record: PhotoRecord,
        image: Callable[[], ImageArray],
        proposer: Callable[[], RegionProposer],
    ) -> list[Region]:
        """Return the regions of annotations; the proposer makes masks of their boxes."""
        annotations = self.annotations.convert(images, record)
        regions = dict.fromkeys(annotations.regions)
        if annotations.boxes:
            prompts = [prompt.box for prompt in annotations.boxes]
            refined = proposer().refine(image(), prompts)
            for prompt, region in zip(annotations.boxes, refined, strict=True):
                if region is None:
                    self.annotations.left_out[NO_OBJECT] += 1
                else:
                    regions[replace(region, origin=prompt.origin)] = None
        return [*regions]


@dataclass(frozen=True, slots=True)
class RegionPlan:
    """A change to the regions of a photo."""

    kept: Sequence[StoredRegion]
    """Regions that stay, the whole photo first."""
    added: Sequence[Region]
    """New regions, in working pixels."""
    image: Callable[[], ImageArray]
    """Returns the photo at working size; PhotoUnreadable if its pixels are unavailable."""
    origins: Sequence[tuple[int, RegionOrigin]] = ()
    """Ids of regions that stay, and their new origins."""


def write_plan(
    gallery: GalleryFile,
    photo_id: int,
    stored: Sequence[StoredRegion],
    plan: RegionPlan,
    encoder: Callable[[], RegionEncoder],
    also: Callable[[], None] = lambda: None,
) -> bool:
    """Encode the new regions of a photo, and write the change in one transaction.

    Args:
        stored: the photo's regions when the plan was made.
        also: called within the transaction.

    Returns:
        False if another process has changed them since; nothing is written then.

    Raises:
        PhotoUnreadable: the photo's pixels are unavailable, or the encoder gave no numbers for it.
        PhotoUnknown: another process has removed the photo.
    """
    vectors = np.zeros((0, 1), np.float32)
    if plan.added:
        vectors = encoder().encode(plan.image(), [region.rle for region in plan.added])
        if not np.isfinite(vectors).all():
            raise PhotoUnreadable(
                gallery.paths(photo_id)[0], "the encoder gave a vector that is not a number"
            )
    with gallery.atomic():
        if gallery.regions(photo_id) != stored:
            return False
        if plan.added or len(plan.kept) < len(stored):
            replace_regions(gallery, photo_id, stored, plan.kept, plan.added, vectors)
        for region_id, origin in plan.origins:
            store_origin(gallery.connection, region_id, origin)
        also()
    return True


def working_image(gallery: GalleryFile, photo: StoredPhoto) -> ImageArray:
    """Load a photo at working size.

    Raises:
        PhotoUnreadable: neither a preview nor the unchanged file is available.
    """
    image = load_working_image(gallery, photo.id)
    if image is None:
        raise PhotoUnreadable(photo.paths[0], NO_PIXELS)
    return image


def _stored_equivalent(region: Region, stored: Sequence[StoredRegion]) -> Region:
    """Return the stored region for which a mask that the proposer made of a box stands, otherwise `region`.

    The first time it was made of the file's pixels, now of those of the preview, which differ a little.
    """
    if region.predicted_iou == 1.0:  # a mask that was given
        return region
    alike = [each.region for each in stored if each.region.origin == region.origin]
    ious = masks.iou([each.rle for each in alike], [region.rle])
    best = int(ious.argmax()) if alike else 0
    return alike[best] if alike and ious[best, 0] >= SAME_OBJECT else region


_Key: TypeAlias = tuple[Rle, RegionOrigin | None]


def _key(region: Region) -> _Key:
    """Return what two equal regions of one photo have in common."""
    return region.rle, region.origin
