"""Results as one self-contained HTML page: photos with switchable masks, scores, paths.

The page loads nothing, and its content security policy forbids it: images are data URIs, masks are SVG
paths, and only the style sheet and the script written here, allowed by their SHA-256, are applied. File
names and the query are escaped; a link holds the file's exact name, percent-encoded.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import IO

from PIL import Image

from matir_cli.atomic_write import open_text
from matir_cli.output.outlines import svg_path
from matir_cli.output.printable import printable
from matir_cli.output.result_pixels import ResultPixels, file_url
from matir_cli.records import Box, Rle
from matir_cli.search.results import GroundedObject, SearchResult

SIDE = 800
"""Pixels: greatest long side of an embedded photo, which then takes some 100 kB."""

QUALITY = 82
"""JPEG quality of embedded photos."""

_SHAPES = 0.62, 2.6
"""Least and greatest width divided by height of a grid cell; photos of other shapes get a border."""

_SWITCH = '<button class="switch" type="button" tabindex="-1" aria-label="Mask" aria-pressed="true"></button>'


class HtmlPage:
    """Writes the photos of a page as they come."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def add(self, pixels: ResultPixels) -> None:
        """Add a photo with its objects; without masks it shows the boxes, without pixels a note."""
        result = pixels.result
        name, folder = (_shown(part) for part in (result.path.name, str(result.path.parent)))
        kinds = f"{_shape_class(result)}{'' if pixels.masked_objects else ' maskless'}"
        described = f"{result.rank}. {name}, score {pixels.label}"
        self._stream.write(
            f'<figure class="{kinds}">\n<div class="frame">'
            f'<button class="open" type="button" aria-label="{described}" aria-keyshortcuts="Space Enter">'
            f"{_picture(pixels)}{_drawing(pixels)}</button>{_SWITCH if pixels.masked_objects else ''}</div>\n"
            f'<figcaption><span class="rank">{result.rank}</span>'
            f'<a href="{escape(file_url(result.path))}" title="{name}"><bdi>{name}</bdi></a>'
            f'<span class="score">{pixels.label}</span>'
            f'<span class="folder" title="{folder}"><bdi>{folder}</bdi></span>{_corners(pixels)}'
            "</figcaption>\n</figure>\n"
        )


@contextmanager
def html_page(path: Path, query: str, results: Sequence[SearchResult], *, force: bool) -> Iterator[HtmlPage]:
    """Open a page for `results` for writing; the block adds each of them in order.

    Raises:
        OutputExists, OutputError: see `open_text`.
    """
    style = _resource("html_page.css") + "".join(sorted({_shape_rule(result) for result in results}))
    script = _resource("html_page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    photos = f"{len(results)} {'photo' if len(results) == 1 else 'photos'}"
    with open_text(path, force=force, encoding="utf-8") as stream:
        stream.write(
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="referrer" content="no-referrer">\n'
            f"<title>{_shown(query)} – matir</title>\n<style>{style}</style>\n</head>\n<body>\n"
            f"<header><div><h1><bdi>{_shown(query)}</bdi></h1><p>{photos}, best first</p></div>\n"
            '<nav aria-label="View" hidden>'
            '<button id="masks" type="button" aria-pressed="true">Masks</button>'
            '<button id="boxes" type="button" aria-pressed="false">Boxes</button>'
            '<button id="theme" type="button">Theme</button></nav></header>\n<main>\n'
        )
        yield HtmlPage(stream)
        stream.write(
            "</main>\n<footer hidden><kbd>←</kbd> <kbd>↑</kbd> <kbd>↓</kbd> <kbd>→</kbd> move · "
            "<kbd>Space</kbd> this mask · <kbd>Enter</kbd> enlarge · <kbd>M</kbd> all masks · "
            "<kbd>B</kbd> boxes · <kbd>T</kbd> light or dark</footer>\n"
            '<dialog aria-label="Enlarged"><div class="shown"></div></dialog>\n'
            f"<script>{script}</script>\n</body>\n</html>\n"
        )


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return the content security policy's source expression for an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _shown(text: str) -> str:
    """Return `text` as HTML, with control and invisible characters shown as escapes."""
    return escape(printable(text))


def _shape(result: SearchResult) -> int:
    """Return width divided by height in hundredths, at least 1."""
    size = result.photo.record
    return max(1, round(100 * size.width / size.height))


def _shape_class(result: SearchResult) -> str:
    return f"s{_shape(result)}"


def _shape_rule(result: SearchResult) -> str:
    """Return the style rule for photos of this shape; the policy forbids style attributes on elements."""
    shape = _shape(result) / 100
    low, high = _SHAPES
    return f".{_shape_class(result)} {{ --true: {shape:g}; --shape: {min(max(shape, low), high):g}; }}\n"


def _picture(pixels: ResultPixels) -> str:
    if pixels.working is None:
        return '<span class="away">the photo is not available</span>'
    small = pixels.working.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=QUALITY)
    data = base64.b64encode(stream.getvalue()).decode()
    size = f'width="{small.width}" height="{small.height}"'
    return f'<img alt="" {size} decoding="async" src="data:image/jpeg;base64,{data}">'


def _drawing(pixels: ResultPixels) -> str:
    """Return masks and boxes as SVG over the photo, in half working pixels, so that outlines are integers."""
    size = pixels.result.photo.record
    width, height = 2 * size.mask_width, 2 * size.mask_height
    drawn = [_mask(each, rle) for each, rle in pixels.masked_objects]
    boxes = [size.scaled_to(each.box, width, height) for each in pixels.objects]
    drawn += [_rectangle(kind, box) for box in boxes for kind in ("box under", "box")]
    return f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(drawn)}</svg>'


def _mask(grounded: GroundedObject, rle: Rle) -> str:
    kind = "mask whole" if _is_whole(grounded) else "mask"
    return f'<path class="{kind}" fill-rule="evenodd" d="{svg_path(rle)}"/>'


def _rectangle(kind: str, box: Box) -> str:
    width, height = max(0.0, box.x1 - box.x0), max(0.0, box.y1 - box.y0)
    return (
        f'<rect class="{kind}" x="{box.x0:.1f}" y="{box.y0:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    )


def _is_whole(grounded: GroundedObject) -> bool:
    return grounded.mask is not None and grounded.region is not None and grounded.region.ordinal == 0


def _corners(pixels: ResultPixels) -> str:
    """Return the first object's box in photo pixels, with a note if its box or mask is missing."""
    if not pixels.objects:
        return '<span class="note">no box, no mask</span>'
    box = pixels.objects[0].box
    numbers = ", ".join(str(round(v)) for v in (box.x0, box.y0, box.x1, box.y1))
    note = "" if pixels.masked_objects else " · no mask"
    if _is_whole(pixels.objects[0]):
        note = " · the whole photo"
    return f'<span class="corners" title="box: x0, y0, x1, y1 in photo pixels">{numbers}{note}</span>'
