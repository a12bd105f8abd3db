"""Photos with the object tinted, its box and the score, as JPEG files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from matir_cli import masks
from matir_cli.output import drawing
from matir_cli.output.picture_folder import PictureFolder
from matir_cli.output.result_pixels import ResultPixels

QUALITY = 90
"""JPEG's; with colours at full resolution, or thin coloured lines turn grey."""

MARK = (255, 45, 135)
"""RGB of *the* object: a colour that few things have. Further ones have `drawing`'s colours."""


def write_overlay(folder: PictureFolder, subject: ResultPixels) -> Path | None:
    """Write the photo with all answers drawn onto it.

    Returns:
        Where it lies; None for a photo with nothing to draw, or without pixels.

    Raises:
        OutputError: it cannot be written.
    """
    if not subject.answers:
        return None
    drawn = (f"{answer.box}{answer.mask}" for answer in subject.answers)
    stem = subject.file_stem(subject.label, *drawn)
    return folder.save(f"{stem}.jpg", lambda: overlay(subject), quality=QUALITY, subsampling=0)


def overlay(subject: ResultPixels) -> Image.Image | None:
    """The photo at working size, enlarged if small, with masks tinted, boxes and the score."""
    if subject.working is None:
        return None
    picture = drawing.canvas(subject.working)
    size = subject.found.photo.record
    colours = [MARK, *map(drawing.colour, range(1, len(subject.answers)))]
    for answer, colour in zip(subject.answers, colours, strict=False):
        if answer.mask is not None:
            mask = masks.resize(masks.decode(answer.mask), picture.height, picture.width)
            drawing.tint(picture, mask, colour)
    boxes = [size.scaled_to(a.box, *picture.size) for a in subject.answers]
    for box, colour in zip(boxes, colours, strict=False):
        drawing.outline(picture, box, colour)
    if boxes:
        drawing.Labels(picture, max(picture.size) // 40).label(boxes[0], subject.label, MARK)
    return picture
