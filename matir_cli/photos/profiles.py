"""Embedded colour profiles (ICC): pixels converted to sRGB, which models, previews and pages expect.

A profile that cannot be read, or that is not one of the picture's kind of colours, is left out.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from matir_cli.photos.colour import to_rgb
from matir_cli.photos.formats import DECODE_ERRORS

PROFILE = "colour profile"
"""Name of this kind of metadata in notes on what could not be read."""

_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Colour space of a profile to the mode of the pixels that it describes."""

_SAME = 1
"""Levels by which colours may differ under a profile that counts as sRGB itself."""

_KEPT = 8
"""Profiles of which the conversion is kept: the photos of one camera all embed the same."""


class ProfileBroken(Exception):
    """A colour profile cannot be read, or does not fit its picture. It does not leave `photos`."""


@dataclass(frozen=True, slots=True)
class ColourProfile:
    """A colour profile that can be applied to its picture."""

    content: bytes
    """The profile, as it is embedded in the file."""
    mode: str
    """Mode of the pixels that it describes: RGB, L or CMYK."""
    transform: ImageCms.ImageCmsTransform | None
    """Conversion to sRGB; None if it is sRGB."""

    def to_srgb(self, picture: Image.Image) -> Image.Image:
        """Convert a picture, or any part of it, to sRGB (mode RGB); transparency lies over white."""
        if self.transform is None:
            return to_rgb(picture)
        if picture.mode != self.mode or picture.has_transparency_data:
            picture = to_rgb(picture).convert(self.mode)
        converted = ImageCms.applyTransform(picture, self.transform)
        assert converted is not None  # it is not converted in place
        return converted


def read_profile(picture: Image.Image) -> ColourProfile | None:
    """Return the colour profile of a picture; None if it has none, or one of pixels that are not converted.

    Greys of more than 8 bits and LAB are not.

    Raises:
        ProfileBroken: it cannot be read, or does not fit the picture.
    """
    content = picture.info.get("icc_profile")
    if not isinstance(content, bytes) or not content or picture.mode[0] in "IF" or picture.mode == "LAB":
        return None
    profile = _profile(content)
    if profile is None or (profile.mode == "CMYK") != (picture.mode == "CMYK"):
        raise ProfileBroken
    if profile.mode == "L" and picture.mode not in ("1", "L", "LA", "La"):
        raise ProfileBroken
    return profile


@lru_cache(_KEPT)
def _profile(content: bytes) -> ColourProfile | None:
    """Return the profile in `content`, None if it cannot be read.

    The conversion is relative colorimetric with compensation of the black point, as in browsers.
    """
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        mode = _MODES[profile.profile.xcolor_space.strip()]
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return ColourProfile(content, mode, None if _is_srgb(transform, mode) else transform)
    except (ImageCms.PyCMSError, ImportError, *DECODE_ERRORS):
        return None


def _is_srgb(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return True if colours all over the range stay as they are."""
    if mode == "CMYK":
        return False
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    if mode == "RGB":
        colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    else:
        colours = np.arange(256, dtype=np.uint8)[np.newaxis]
    picture = Image.fromarray(colours)
    converted = ImageCms.applyTransform(picture, transform)
    assert converted is not None
    difference = np.asarray(converted, np.int16) - np.asarray(picture.convert("RGB"), np.int16)
    return bool(np.abs(difference).max() <= _SAME)
