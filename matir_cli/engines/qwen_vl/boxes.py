"""Qwen2.5-VL's sizes and boxes: which size an image is looked at in, and what its answer says.

Pure Python, no model. The boxes of an answer are absolute pixels of the *resized* image;
`read_answer` maps them back to the image that was asked about.
"""

import json
import math
import re
from dataclasses import dataclass

from matir_cli.records import Box

FACTOR = 28
"""Sides are multiples of it: patches of 14 pixels, merged 2 x 2 into one token."""

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
"""What an answer may be, in llama.cpp's GBNF: a JSON list of boxes with labels, as Qwen2.5-VL
was trained to write it, or a single one; with or without a code fence."""

EXPECTED_START = '```json\n[\n\t{"bbox_2d": ['
"""How Qwen2.5-VL begins an answer that holds a box."""

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"

_BOX = re.compile(rf'"bbox_2d"\s*:\s*\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]')

_BOX_CLOSED = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]$")

_BOX_OPEN = re.compile(r'"bbox_2d"\s*:\s*\[[-\d., \t\r\n]*\d,$')

_FENCE = re.compile(r"^\s*```(?:json)?\s*|\s*```\s*$")


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Height and width in pixels."""

    height: int
    width: int

    @property
    def tokens(self) -> int:
        """Tokens that an image of this size becomes, its two markers not counted."""
        return (self.height // FACTOR) * (self.width // FACTOR)


def smart_resize(height: int, width: int, min_pixels: int, max_pixels: int) -> ImageSize:
    """The size that Qwen2.5-VL looks at an image of `height` x `width` pixels in.

    Both sides multiples of 28, area within the budget, aspect ratio as near as that allows:
    the computation of Qwen's image processor (`smart_resize` in transformers'
    `image_processing_qwen2_vl.py`), half-way cases to even. Sides more than 200 times as
    long as the other, which the processor refuses, are computed alike here.
    """
    rows, columns = round(height / FACTOR), round(width / FACTOR)
    area = rows * columns * FACTOR**2
    if area > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(1, math.floor(height / shrink / FACTOR))
        columns = max(1, math.floor(width / shrink / FACTOR))
    elif area < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / FACTOR)
        columns = math.ceil(width * grow / FACTOR)
    return ImageSize(rows * FACTOR, columns * FACTOR)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a grounding answer says."""

    boxes: tuple[Box, ...]
    """In the order of the answer, pixels of the image asked about; each named once."""
    readable: bool
    """It is the JSON asked for, or was cut off after at least one whole box."""


def read_answer(text: str, resized: ImageSize, image: ImageSize) -> Answer:
    """The boxes of the answer `text`, mapped from `resized` to `image` pixels.

    Corners are put in order and clipped to the image. A box that has no area then (a line,
    or outside the image) says nothing of where the object is and is left out.
    """
    right, down = image.width / resized.width, image.height / resized.height
    boxes: list[Box] = []
    found = _BOX.findall(text)
    for numbers in found:
        x0, y0, x1, y1 = (float(number) for number in numbers)
        box = Box(
            _within(min(x0, x1) * right, image.width),
            _within(min(y0, y1) * down, image.height),
            _within(max(x0, x1) * right, image.width),
            _within(max(y0, y1) * down, image.height),
        )
        if box.area > 0 and box not in boxes:
            boxes.append(box)
    return Answer(tuple(boxes), bool(found) or is_complete(text))


def is_complete(text: str) -> bool:
    """Whether `text` is a whole JSON list or object, its code fence open, closed or absent."""
    try:
        value = json.loads(_FENCE.sub("", text))
    except json.JSONDecodeError:
        return False
    return isinstance(value, list | dict)


def expected_rest(text: str, query: str) -> str:
    """How an answer that stands at `text` most likely goes on; "" where anything may follow.

    Behind the last number of a box: the label, which is the description asked for, and the
    end of the list. Behind a comma between numbers: a space.
    """
    closed = text.removesuffix(",")
    if _BOX_CLOSED.search(closed):
        comma = "" if closed != text else ","
        return f'{comma} "label": {json.dumps(query, ensure_ascii=False)}}}\n]'
    return " " if _BOX_OPEN.search(text) else ""


def _within(value: float, limit: int) -> float:
    """`value` clipped to 0..limit."""
    return min(max(value, 0.0), float(limit))
