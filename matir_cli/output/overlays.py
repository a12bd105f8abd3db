"""Overlays: photos with the object tinted, its box and the score, as JPEG files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from matir_cli import masks
from matir_cli.output import drawing
from matir_cli.output.picture_folder import PictureFolder
from matir_cli.output.result_pixels import ResultPixels

QUALITY = 90
"""JPEG quality. Chroma is not subsampled, which would turn thin coloured lines grey."""

MARK = (255, 45, 135)
"""RGB of *the* object, a colour that few things have. Further objects get the colours of `drawing`."""


def write_overlay(folder: PictureFolder, pixels: ResultPixels) -> Path | None:
    """Write the photo with all objects drawn onto it.

    Returns:
        The path of the file; None if the photo has no objects or its pixels are unavailable.

    Raises:
        OutputError: the file cannot be written.
    """
    if not pixels.objects:
        return None
    drawn = (f"{each.box}{each.mask}" for each in pixels.objects)
    stem = pixels.file_stem(pixels.label, *drawn)
    return folder.save(f"{stem}.jpg", lambda: overlay(pixels), quality=QUALITY, subsampling=0)


def overlay(pixels: ResultPixels) -> Image.Image | None:
    """Draw masks, boxes and the score onto the photo at working size, enlarged if small.

    Returns:
        RGB; None if the photo's pixels are unavailable.
    """
    if pixels.working is None:
        return None
    picture = drawing.canvas(pixels.working)
    size = pixels.result.photo.record
    colours = [MARK, *map(drawing.colour, range(1, len(pixels.objects)))]
    for each, colour in zip(pixels.objects, colours, strict=False):
        if each.mask is not None:
            mask = masks.resize(masks.decode(each.mask), picture.height, picture.width)
            drawing.tint(picture, mask, colour)
    boxes = [size.scaled_to(each.box, *picture.size) for each in pixels.objects]
    for box, colour in zip(boxes, colours, strict=False):
        drawing.outline(picture, box, colour)
    if boxes:
        drawing.Labels(picture, max(picture.size) // 40).label(boxes[0], pixels.label, MARK)
    return picture
