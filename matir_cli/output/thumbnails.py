"""Thumbnails in a terminal, by Kitty's protocol, Sixel or half blocks.

The optional package `textual-image` detects which of them the terminal supports.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from PIL import Image

from matir_cli.errors import PackageMissing

COLUMNS = 40
"""Greatest width of a thumbnail: half that of a usual terminal."""

ROWS = 16
"""Greatest height of a thumbnail, so that two results fit on a screen."""

_CELL = (10, 20)
"""Approximate width and height of a character cell in pixels; only their ratio matters."""


def open_picture_terminal() -> Callable[[Image.Image], None]:
    """Return a function that shows an RGB picture on the terminal of standard input and output.

    Raises:
        PackageMissing: `textual-image` or `rich` is not installed.
    """
    # It warns about terminals that do not report their cell size, and goes on without; shown with -v only.
    logging.getLogger("textual_image").addHandler(logging.NullHandler())
    try:
        # Imported late, since the import asks the terminal what it supports.
        from rich.console import Console
        from textual_image.renderable import Image as Renderable
    except ImportError as error:
        raise PackageMissing("preview") from error
    console = Console()

    def show(picture: Image.Image) -> None:
        width, height = picture.size
        per_row = (width / height) * (_CELL[1] / _CELL[0])  # columns for each row
        columns = max(1, min(COLUMNS, console.width, round(ROWS * per_row)))
        # "auto" is by the terminal's own cells; less than one of them would be no picture.
        console.print(Renderable(picture, width=columns, height="auto" if columns >= 2 * per_row else 1))

    return show
