"""Qwen-VL's image sizes, answer grammar and box coordinates.

Pure Python, without the model. Qwen2.5-VL gives boxes in absolute pixels of the *resized* image, Qwen3-VL on
a grid of 1000 x 1000 over the image, whatever its size; `parse_answer` maps them to pixels of the original
image.
"""

import json
import math
import re
from dataclasses import dataclass

from matir_cli.records import Box

ANSWER_GRAMMAR = r"""
root ::= ("```json" space)? (list | object) space "```"?
list ::= "[" space (object (space "," space object)*)? space "]"
object ::= "{" space (label space "," space)? box-member (space "," space member)* space "}"
label ::= "\"label\"" space ":" space text
box-member ::= "\"bbox_2d\"" space ":" space box
member ::= text space ":" space (text | number)
box ::= "[" space number space "," space number space "," space number space "," space number space "]"
number ::= "-"? ("0" | [1-9] [0-9]{0,4}) ("." [0-9]{1,3})?
text ::= "\"" ([^"\\\x00-\x1F] | "\\" ["\\/bfnrt])* "\""
space ::= [ \n\r\t]{0,10}
"""
"""Grammar of an answer, in llama.cpp's GBNF: a JSON list of boxes with labels, as Qwen-VL was trained
to write it, or a single such object; with or without a code fence."""

EXPECTED_START = '```json\n[\n\t{"bbox_2d": ['
"""Beginning of an answer with a box, as Qwen-VL writes it."""

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"

_BOX = re.compile(rf'"bbox_2d"\s*:\s*\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]')

_BOX_CLOSED = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]$")

_BOX_OPEN = re.compile(r'"bbox_2d"\s*:\s*\[[-\d., \t\r\n]*\d,$')

_FENCE = re.compile(r"^\s*```(?:json)?\s*|\s*```\s*$")


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Height and width in pixels."""

    height: int
    """Rows."""
    width: int
    """Columns."""

    def tokens(self, factor: int) -> int:
        """Return the number of tokens of an image of this size, each of `factor` x `factor` pixels.

        Its two markers are not counted.
        """
        return (self.height // factor) * (self.width // factor)


def smart_resize(height: int, width: int, min_pixels: int, max_pixels: int, factor: int) -> ImageSize:
    """Return the size to which Qwen-VL resizes an image of `height` x `width` pixels.

    Both sides are multiples of `factor`, the area is within `min_pixels` and `max_pixels`, and the aspect
    ratio is as close as that allows: the computation of Qwen's image processor (`smart_resize` in
    transformers' `image_processing_qwen2_vl.py`), halves rounded to even. The processor refuses an image
    with one side more than 200 times as long as the other; this function computes a size for it in the same
    way.
    """
    rows, columns = round(height / factor), round(width / factor)
    area = rows * columns * factor**2
    if area > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(1, math.floor(height / shrink / factor))
        columns = max(1, math.floor(width / shrink / factor))
    elif area < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor)
        columns = math.ceil(width * grow / factor)
    return ImageSize(rows * factor, columns * factor)


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """Contents of a grounding answer."""

    boxes: tuple[Box, ...]
    """Boxes in the order of the answer, without duplicates, in pixels of the original image."""
    readable: bool
    """True if the answer is JSON of the requested form, or was cut off after at least one whole box."""


def parse_answer(text: str, frame: ImageSize, image: ImageSize) -> ParsedAnswer:
    """Parse the boxes of the answer `text`, and map them from `frame` to pixels of `image`.

    `frame` is what the model's coordinates refer to: the resized image, or the grid over it.

    Swapped corners are put in order, and boxes are clipped to the image. A box without area after that (a
    line, or outside the image) is left out, since it does not locate the object.
    """
    scale_x, scale_y = image.width / frame.width, image.height / frame.height
    boxes: list[Box] = []
    matches = _BOX.findall(text)
    for numbers in matches:
        x0, y0, x1, y1 = (float(number) for number in numbers)
        box = Box(
            _clip(min(x0, x1) * scale_x, image.width),
            _clip(min(y0, y1) * scale_y, image.height),
            _clip(max(x0, x1) * scale_x, image.width),
            _clip(max(y0, y1) * scale_y, image.height),
        )
        if box.area > 0 and box not in boxes:
            boxes.append(box)
    return ParsedAnswer(tuple(boxes), bool(matches) or is_complete(text))


def is_complete(text: str) -> bool:
    """Return True if `text` is a whole JSON list or object, with its code fence open, closed or absent."""
    try:
        value = json.loads(_FENCE.sub("", text))
    except (ValueError, RecursionError):  # not JSON, or a number of thousands of digits; nested too deeply
        return False
    return isinstance(value, list | dict)


def expected_continuation(text: str, query: str) -> str:
    """Return the most likely continuation of the partial answer `text`; "" where none is likely.

    After a complete box: the label, which repeats the description `query`, and the end of the list. After
    a comma between numbers: a space.
    """
    closed = text.removesuffix(",")
    if _BOX_CLOSED.search(closed):
        comma = "" if closed != text else ","
        return f'{comma} "label": {json.dumps(query, ensure_ascii=False)}}}\n]'
    return " " if _BOX_OPEN.search(text) else ""


def _clip(value: float, limit: int) -> float:
    """Return `value` clipped to 0..limit."""
    return min(max(value, 0.0), float(limit))
