"""Pictures between the lines of a terminal, as well as it can: Kitty's protocol, Sixel, or half blocks.

The optional package `textual-image` finds out what the terminal can do and speaks its protocol.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from PIL import Image

from matir_cli.errors import PackageMissing

COLUMNS = 40
"""Of a thumbnail at most; half the width of a usual terminal."""

ROWS = 16
"""At most: two results fit on a screen."""

_CELL = (10, 20)
"""Pixels of a character cell, about; only its shape matters here."""


def open_picture_terminal() -> Callable[[Image.Image], None]:
    """What shows an RGB picture on the terminal that standard input and output are.

    Raises:
        PackageMissing: the package that does it is not installed.
    """
    # It warns of terminals that do not tell their cell size, and goes on without; heard with -v only.
    logging.getLogger("textual_image").addHandler(logging.NullHandler())
    try:
        # Here: importing asks the terminal what it can do.
        from rich.console import Console
        from textual_image.renderable import Image as Renderable
    except ImportError as error:
        raise PackageMissing("preview") from error
    console = Console()

    def show(picture: Image.Image) -> None:
        width, height = picture.size
        columns = min(COLUMNS, console.width, round(ROWS * (width / height) * (_CELL[1] / _CELL[0])))
        console.print(Renderable(picture, width=max(1, columns), height="auto"))

    return show
