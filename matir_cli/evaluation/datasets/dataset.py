"""Data sets in memory: images, queries and ground-truth masks.

The readers `coco`, `d3` and `drawn_world` make them; their common checks of files are here, too.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from matir_cli.errors import AnnotationsInvalid, PhotoUnreadable
from matir_cli.photos.discover import absolute_path, stat_file
from matir_cli.records import Rle


@dataclass(frozen=True, slots=True)
class EvalImage:
    """An image of the data set; its file exists."""

    id: int
    """Id in the data set."""
    name: str
    """File name in the annotations; may contain "/"."""
    path: Path
    """Absolute, as `photos.discover.find_photo_files` gives it; always inside the image folder."""
    width: int
    """Pixels, according to the annotations."""
    height: int
    """Pixels, according to the annotations."""


@dataclass(frozen=True, slots=True)
class EvalQuery:
    """A description that every image of the data set is searched for."""

    id: int
    """Id in the data set."""
    text: str
    """The description that is searched for."""
    groups: tuple[str, ...] = ()
    """Kinds of query with means of their own that it counts in, such as ("relational", "held out")."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images, queries and the ground truth between them."""

    name: str
    """ "coco" for COCO val2017, "d3", "world"; else the annotation file's stem."""
    images: tuple[EvalImage, ...]
    """All images that are searched, including those without annotations; ids and files are unique."""
    queries: tuple[EvalQuery, ...]
    """All queries; ids are unique, and some may have no relevant image."""
    truth: Mapping[int, Mapping[int, tuple[Rle, ...]]]
    """Query id to image id to the masks of the query's instances, at the image's size; images without an
    instance are missing."""
    digest: str
    """SHA-256 of the annotation file, hex; for several files, of their concatenated SHA-256."""
    notes: tuple[str, ...] = ()
    """Remarks on these files for the reader, each a sentence without its full stop."""

    def relevant_images(self, query_id: int) -> frozenset[int]:
        """Ids of the images that show an instance of the query."""
        return frozenset(self.truth.get(query_id, ()))

    def instances(self, query_id: int, image_id: int) -> tuple[Rle, ...]:
        """Masks of the query's instances in an image, at the image's size; empty if it is not relevant."""
        return self.truth.get(query_id, {}).get(image_id, ())


def read_annotation_file(path: Path, limit: int) -> bytes:
    """Read a whole annotation file.

    Raises:
        AnnotationsInvalid: the file cannot be read, is not a regular file, or has more than `limit` bytes.
    """
    try:
        size = stat_file(path).bytes
        if size > limit:
            raise AnnotationsInvalid(path, f"{size} bytes, more than {limit}")
        return path.read_bytes()
    except PhotoUnreadable as error:
        raise AnnotationsInvalid(path, error.reason) from error
    except OSError as error:
        raise AnnotationsInvalid(path, (error.strerror or str(error)).lower()) from error


def content_digest(*contents: bytes) -> str:
    """SHA-256 of one file's bytes, hex; for several files, of their concatenated SHA-256."""
    hashes = [hashlib.sha256(content).digest() for content in contents]
    return hashes[0].hex() if len(hashes) == 1 else hashlib.sha256(b"".join(hashes)).hexdigest()


def locate_image(images: Path, image: int, name: str, width: int, height: int) -> EvalImage:
    """Make the image with this id, file name and size (pixels), checking all but whether its file exists.

    Args:
        images: the folder that file names are relative to; an absolute name must lie inside it.

    Raises:
        ValueError: the size is not positive, or the name is empty or leads out of the folder `images`.
    """
    if width < 1 or height < 1:
        raise ValueError(f"image {image}: an impossible size of {width} x {height} pixels")
    folder = absolute_path(images)
    relative = name
    with suppress(ValueError):  # raised by relative_to for a name that does not start with the folder
        relative = str(Path(name).relative_to(folder))
    # Windows rules cover both separators, drives and roots; a file may move between systems.
    path = PureWindowsPath(relative)
    if not path.parts or path.anchor or ".." in path.parts or "\0" in relative:
        raise ValueError(f"image {image}: the file name {relative!r} leads out of the image folder")
    return EvalImage(image, name, absolute_path(folder / relative), width, height)


def check_image_files(images: Sequence[EvalImage], annotations: Path) -> None:
    """Make sure that every image has a file, and no two have the same one.

    Raises:
        AnnotationsInvalid: naming the first image without a file and the number of the others.
    """
    seen: dict[Path, int] = {}
    for image in images:
        if (other := seen.setdefault(image.path, image.id)) != image.id:
            reason = f"images {other} and {image.id} have the same file, {image.name}"
            raise AnnotationsInvalid(annotations, reason)
    missing: list[tuple[EvalImage, str]] = []
    for image in images:
        try:
            stat_file(image.path)
        except PhotoUnreadable as error:
            missing.append((image, error.reason))
    if missing:
        image, reason = missing[0]
        others = f"; {len(missing) - 1} more like it" if len(missing) > 1 else ""
        raise AnnotationsInvalid(annotations, f"image {image.id}: {image.path}: {reason}{others}")
