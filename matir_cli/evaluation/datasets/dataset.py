"""What an evaluation is held against: images, queries, and which instance in which image fulfils which query.

One reader a format fills it: `coco`, `d3` and `world`.
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
    """An image of the data set; its file is there, its size is what the annotations say."""

    id: int
    """The data set's own."""
    name: str
    """As in the annotation file; may hold "/"."""
    path: Path
    """Absolute, as `photos.find_files` gives it; never outside the folder of images that was given."""
    width: int
    """Pixels, as in the annotation file."""
    height: int
    """Pixels, as in the annotation file."""


@dataclass(frozen=True, slots=True)
class EvalQuery:
    """A description that every image of the data set is searched for."""

    id: int
    """The data set's own."""
    text: str
    """What is asked."""
    groups: tuple[str, ...] = ()
    """Kinds of query that it is also counted under, such as ("relational", "held out")."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images, queries and the ground truth between them."""

    name: str
    """ "coco" for COCO val2017, "d3", "world"; else the annotation file's stem."""
    images: tuple[EvalImage, ...]
    """All that are searched, those without any annotation too; unique ids and files."""
    queries: tuple[EvalQuery, ...]
    """Unique ids; some may have no relevant image."""
    truth: Mapping[int, Mapping[int, tuple[Rle, ...]]]
    """Query id to image id to the instances there, at the image's size; nothing where there is none."""
    digest: str
    """SHA-256 of the annotation file, hex; of several, over their SHA-256."""
    notes: tuple[str, ...] = ()
    """What a person should know of these files, each a sentence without its full stop."""

    def relevant(self, query_id: int) -> frozenset[int]:
        """Ids of the images that hold an instance of the query."""
        return frozenset(self.truth.get(query_id, ()))

    def instances(self, query_id: int, image_id: int) -> tuple[Rle, ...]:
        """Masks of the query's instances in an image, at the image's size; none if it is not relevant."""
        return self.truth.get(query_id, {}).get(image_id, ())


def read_bytes(path: Path, limit: int) -> bytes:
    """The whole of an annotation file.

    Raises:
        AnnotationsInvalid: it cannot be read, is no plain file, or has more than `limit` bytes.
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
    """SHA-256 of one file's bytes, hex; of several, over their SHA-256."""
    hashes = [hashlib.sha256(content).digest() for content in contents]
    return hashes[0].hex() if len(hashes) == 1 else hashlib.sha256(b"".join(hashes)).hexdigest()


def image_path(images: Path, image: int, name: str) -> Path:
    """Where the file `name` of an image lies, absolute; the name may be, too, if it lies in `images`.

    Raises:
        ValueError: the name is empty or leads out of the folder `images`.
    """
    folder = absolute_path(images)
    with suppress(ValueError):  # it does not lie there
        name = str(Path(name).relative_to(folder))
    # Windows' rules know both separators, drives and roots; a file may move between systems.
    read = PureWindowsPath(name)
    if not read.parts or read.anchor or ".." in read.parts or "\0" in name:
        raise ValueError(f"image {image}: the file name {name!r} leads out of the folder of images")
    return absolute_path(folder / name)


def check_files(images: Sequence[EvalImage], annotations: Path) -> None:
    """Make sure that every image has a file, and none has another one's.

    Raises:
        AnnotationsInvalid: names the first image without one and how many more there are.
    """
    seen: dict[Path, int] = {}
    for image in images:
        if (other := seen.setdefault(image.path, image.id)) != image.id:
            reason = f"images {other} and {image.id} are both the file {image.name}"
            raise AnnotationsInvalid(annotations, reason)
    missing: list[tuple[EvalImage, str]] = []
    for image in images:
        try:
            stat_file(image.path)
        except PhotoUnreadable as error:
            missing.append((image, error.reason))
    if missing:
        image, why = missing[0]
        others = f"; {len(missing) - 1} more like it" if len(missing) > 1 else ""
        raise AnnotationsInvalid(annotations, f"image {image.id}: {image.path}: {why}{others}")
