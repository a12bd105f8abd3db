"""The `matir find` command line that does the same search as a request of the HTTP API."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matir_cli.gallery.database import GalleryFile
from matir_cli.output.printable import printable
from matir_cli.server.searches import ExampleBody, SearchBody


def _number(value: float) -> str:
    return f"{value:.12g}"


def _numbers(values: Sequence[float]) -> str:
    return ",".join(map(_number, values))


def _rating(stars: tuple[int, int]) -> str:
    low, high = stars
    if high == -1:
        return "rejected"
    return str(low) if low == high else f"{low}-{high}"


_FLAGS = {
    ("rerank", False): "--no-rerank",
    ("ground", False): "--no-ground",
    ("whole", True): "--whole",
    ("refine", True): "--refine",
    ("fresh", True): "--fresh",
    ("unique", True): "--unique",
    ("explain", True): "--explain",
    ("has_gps", True): "--has-gps",
    ("has_gps", False): "--no-gps",
}
"""Setting and its value to the option for it."""

_LISTS = {"without": "--not", "places": "--in", "keywords": "--keyword", "no_keywords": "--no-keyword"}
"""Setting to the option that is repeated for each of its texts."""

_VALUES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "since": ("--since", str),
    "until": ("--until", str),
    "camera": ("--camera", str),
    "min_size": ("--min-size", _number),
    "max_size": ("--max-size", _number),
    "near": ("--near", _numbers),
    "within": ("--within", lambda metres: f"{_number(metres)}m"),
    "orientation": ("--orientation", str),
    "rating": ("--rating", _rating),
    "sort": ("--sort", str),
    "candidates": ("--candidates", _number),
    "certainty": ("--certainty", _number),
    "min_score": ("--min-score", _number),
    "min_p": ("--min-p", _number),
    "match": ("--match", str),
    "min_iou": ("--min-iou", _number),
    "budget": ("--budget", _number),
}
"""Setting to its option, and how its value is written."""

_DEFAULTS = SearchBody(text="")


def command_line(gallery: GalleryFile, body: SearchBody, models: str) -> str:
    """Return the line for a POSIX shell with `$'...'` quotes (bash, zsh, ksh).

    Args:
        models: the server's model set.

    Raises:
        PhotoUnknown: the gallery does not hold an example.
    """
    words = ["matir", "find", *_query_words(gallery, body)]
    words += ["--db", os.path.realpath(gallery.path)]
    if models != gallery.model_set():
        words += ["--models", models]
    if body.text is not None:
        words += ["--", body.text] if body.text.startswith("-") else [body.text]
    return " ".join(map(shell_word, words))


def shell_word(word: str) -> str:
    """Quote a word for a shell.

    Names of files are strangers': bytes that are not UTF-8, and characters that hide in a terminal or that
    it takes for a key when the line is pasted, become escapes.
    """
    if printable(word) == word:
        return shlex.quote(word)
    return f"$'{''.join(map(_escape, word))}'"


def _escape(character: str) -> str:
    if character in "'\\":
        return f"\\{character}"
    if printable(character) == character:
        return character
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))


def _query_words(gallery: GalleryFile, body: SearchBody) -> Iterator[str]:
    """Yield the options; those that have their defaults are left out."""
    for name, option in _LISTS.items():
        for text in getattr(body, name):
            yield from _option(option, text)
    for option, examples in (("--image", body.examples), ("--unlike", body.unlike)):
        for example in examples:
            yield from _example_words(gallery, option, example)
    if len(body.examples) > 1 and body.rule != _DEFAULTS.rule:
        yield from ("--examples", body.rule)
    if body.examples and body.text is not None and body.weight != _DEFAULTS.weight:
        yield from ("--weight", _number(body.weight))
    for name, (option, write) in _VALUES.items():
        value = getattr(body, name)
        if value != getattr(_DEFAULTS, name) and (name != "within" or body.near is not None):
            yield from _option(option, write(value))
    yield from ("-n", str(body.limit))
    for (name, value), option in _FLAGS.items():
        if getattr(body, name) is value and getattr(_DEFAULTS, name) is not value:
            yield option


def _example_words(gallery: GalleryFile, option: str, example: ExampleBody) -> Iterator[str]:
    box, point, photo_id = example.box, example.point, example.photo
    if example.region is not None:
        region = gallery.region(example.region)
        photo_id = region.photo_id
        box = None if region.ordinal == 0 else region.box.rounded(2)
    assert photo_id is not None
    yield from (option, str(_existing(gallery.photo(photo_id).paths)))
    if box is not None:
        yield from _option("--box", _numbers(box))
    if point is not None:
        yield from _option("--point", _numbers(point))


def _existing(paths: tuple[Path, ...]) -> Path:
    """Return the first path at which there is a file, else the first."""
    return next((path for path in paths if os.path.lexists(path)), paths[0])


def _option(name: str, value: str) -> tuple[str, ...]:
    """Write an option; a value that looks like an option itself is joined to its name."""
    return (f"{name}={value}",) if value.startswith("-") else (name, value)
