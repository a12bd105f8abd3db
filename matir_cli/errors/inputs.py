"""Errors about inputs: photos, folders, data sets, examples, queries and numbers."""

import math
from dataclasses import dataclass
from pathlib import Path

from matir_cli.errors.base import MatirError


@dataclass(eq=False)
class PhotoUnreadable(MatirError):
    """`path` cannot be indexed; `reason` is short, in lower case, and is stored in the gallery."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} cannot be read: {self.reason}."


class PhotoInaccessible(PhotoUnreadable):
    """The system does not let `path` be read, so nothing is known of what it holds now."""

    def __str__(self) -> str:
        return f"{self.path} cannot be accessed: {self.reason}."


@dataclass(eq=False)
class ListNotUtf8(MatirError):
    """The list on standard input is encoded as `encoding`, whose bytes are no names of files."""

    encoding: str

    def __str__(self) -> str:
        return f"the list on standard input is encoded as {self.encoding}."


@dataclass(eq=False)
class DecoderUnavailable(MatirError):
    """The process that decodes photos does not start; `reason` is short, in lower case."""

    reason: str

    def __str__(self) -> str:
        return f"the process that decodes photos does not start: {self.reason}."


@dataclass(eq=False)
class AnnotationsInvalid(MatirError):
    """The annotations in `path` cannot be used; `reason` names the id and the mistake in it."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} cannot be evaluated against: {self.reason}."


@dataclass(eq=False)
class RegionFileInvalid(MatirError):
    """The file at `path` is none of regions or corrections; `reason` is a sentence in lower case."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} cannot be used: {self.reason}."


@dataclass(eq=False)
class FolderVanished(MatirError):
    """None of the `count` files that the gallery knows below `path` exists.

    With a `count` of 0, `path` does not exist and the gallery knows no file below it.
    """

    path: Path
    count: int

    def __str__(self) -> str:
        if self.count == 0:
            return f"{self.path} does not exist."
        if self.count == 1:
            return f"the one file that the gallery knows in {self.path} no longer exists."
        return f"none of the {self.count} files that the gallery knows in {self.path} still exists."


@dataclass(eq=False)
class ExampleOutside(MatirError):
    """The box or point lies outside the photo at `path`, which has `width` x `height` pixels."""

    path: Path
    width: int
    height: int

    def __str__(self) -> str:
        return f"the box or point lies outside {self.path}, which is {self.width} x {self.height} pixels."


@dataclass(eq=False)
class ExampleBlank(MatirError):
    """The proposer finds no object at the box or point in the photo at `path`."""

    path: Path

    def __str__(self) -> str:
        return f"no object was found at the box or point in {self.path}."


class QueryEmpty(MatirError):
    """The query has no words and no example."""

    def __str__(self) -> str:
        return "the query is empty."


@dataclass(eq=False)
class QueryNotText(MatirError):
    """The query `text` holds bytes that are not UTF-8, as lone surrogates."""

    text: str

    def __str__(self) -> str:
        return f"the query {self.text!a} is not UTF-8 text."


@dataclass(eq=False)
class QueryContradicts(MatirError):
    """The excluded `text` means the same to the encoder as the query itself."""

    text: str

    def __str__(self) -> str:
        return f"excluding {self.text!r} leaves nothing to find: it means the same as the query."


@dataclass(eq=False)
class OutOfRange(MatirError, ValueError):
    """The argument `name` has the value `value`, outside the range `least` to `most`, both included."""

    name: str
    value: float
    least: float
    most: float = math.inf

    def __str__(self) -> str:
        bounds = f"{self.least} or more" if self.most == math.inf else f"from {self.least} to {self.most}"
        if self.least == -math.inf:
            bounds = "a number"
        return f"{self.name} is {self.value}; it must be {bounds}."
