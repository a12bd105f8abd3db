"""Embedded colour profiles: the same look gives the same working pixels; originals keep theirs."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from matir_cli.photos.decode import decode_full_size
from matir_cli.photos.profiles import ColourProfile, ProfileBroken, read_profile
from matir_cli.records import ImageArray, Note, NoteKind
from tests.photos.crafted import encoded
from tests.photos.decoding import read
from tests.photos.icc import ADOBE_RGB, DISPLAY_P3, cmyk_profile, grey_profile
from tests.support.pictures import scene

LEFT_OUT = (Note(NoteKind.METADATA, "its colour profile cannot be read and was left out"),)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.new("RGB", size, colour)


def working(path: Path) -> ImageArray:
    photo = read(path)
    assert photo.notes == ()
    return photo.image


def differs(first: ImageArray, second: ImageArray | tuple[int, int, int]) -> int:
    """Return the largest difference of two images, or of an image and a colour."""
    return int(np.abs(first.astype(int) - np.asarray(second, int)).max())


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "webp", "avif", "heic"])
def test_a_red_of_display_p3_looks_like_the_same_red_of_srgb(tmp_path: Path, suffix: str) -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    options: dict[str, dict[str, object]] = {
        "webp": {"lossless": True},
        "jpg": {"quality": 100, "subsampling": 0},
        "avif": {"quality": 100, "subsampling": "4:4:4"},
        "heic": {"quality": -1, "chroma": 444},
    }
    plain((234, 51, 35)).save(
        tmp_path / f"p3.{suffix}", None, icc_profile=DISPLAY_P3, **options.get(suffix, {})
    )
    plain((255, 0, 0)).save(tmp_path / "srgb.png")
    assert differs(working(tmp_path / f"p3.{suffix}"), working(tmp_path / "srgb.png")) <= 2


def test_adobe_rgb_is_converted_whatever_the_size(tmp_path: Path) -> None:
    # sRGB's green is (144, 255, 60) in Adobe RGB.
    for name, size in (("small.jpg", (64, 48)), ("large.jpg", (3000, 2000))):
        plain((144, 255, 60), size).save(tmp_path / name, icc_profile=ADOBE_RGB, quality=95)
        assert differs(working(tmp_path / name), (0, 255, 0)) <= 3


def test_a_profile_of_greys(tmp_path: Path) -> None:
    Image.new("L", (64, 48), 128).save(tmp_path / "grey.png", icc_profile=grey_profile(1.0))
    assert differs(working(tmp_path / "grey.png"), (188, 188, 188)) <= 1  # half the light
    assert differs(np.asarray(decode_full_size(tmp_path / "grey.png")), (188, 188, 188)) <= 1
    assert "icc_profile" not in decode_full_size(tmp_path / "grey.png").info


def test_a_profile_of_cmyk_says_how_inks_look(tmp_path: Path) -> None:
    picture = Image.new("CMYK", (64, 48), (255, 0, 0, 0))
    picture.save(tmp_path / "photo.jpg", icc_profile=cmyk_profile((54, 81, 70)), quality=100)
    assert differs(working(tmp_path / "photo.jpg"), (255, 0, 0)) <= 8  # 8 bits of Lab are coarse
    assert differs(np.asarray(decode_full_size(tmp_path / "photo.jpg")), (255, 0, 0)) <= 8
    picture.save(tmp_path / "bare.jpg", quality=100)
    assert differs(working(tmp_path / "bare.jpg"), (0, 255, 255)) <= 2


def test_transparency_lies_over_white_in_any_profile(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32), (9, 99, 0, 0)).save(tmp_path / "photo.png", icc_profile=DISPLAY_P3)
    assert (working(tmp_path / "photo.png") == 255).all()
    palette = plain((234, 51, 35)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "palette.png", icc_profile=DISPLAY_P3)
    assert differs(working(tmp_path / "palette.png"), (255, 0, 0)) <= 2


def test_the_original_keeps_pixels_and_profile(tmp_path: Path) -> None:
    for mode in ("RGB", "RGBA"):
        picture = plain((234, 51, 35)).convert(mode)
        picture.save(tmp_path / "photo.png", icc_profile=DISPLAY_P3)
        original = decode_full_size(tmp_path / "photo.png")
        assert original.info["icc_profile"] == DISPLAY_P3
        assert (np.asarray(original) == (234, 51, 35)).all()


def test_srgb_is_recognised_and_left_alone() -> None:
    picture = plain((1, 2, 3))
    picture.info["icc_profile"] = SRGB
    profile = read_profile(picture)
    assert isinstance(profile, ColourProfile)
    assert profile.transform is None
    assert profile.to_srgb(picture) is picture


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        *(("RGB", content) for content in (b"\0", bytes(200), DISPLAY_P3[:300], grey_profile(1.0))),
        ("RGB", cmyk_profile((50, 0, 0))),
        ("CMYK", DISPLAY_P3),
        ("L", cmyk_profile((50, 0, 0))),
    ],
)
def test_a_profile_that_cannot_be_applied_is_left_out_and_named(
    tmp_path: Path, mode: str, profile: bytes
) -> None:
    scene("red").convert(mode).save(tmp_path / "photo.tiff", icc_profile=profile)
    scene("red").convert(mode).save(tmp_path / "bare.tiff")
    photo = read(tmp_path / "photo.tiff")
    assert photo.notes == LEFT_OUT
    assert np.array_equal(photo.image, working(tmp_path / "bare.tiff"))
    assert "icc_profile" not in decode_full_size(tmp_path / "photo.tiff").info


def test_a_grey_photo_may_have_a_profile_of_rgb(tmp_path: Path) -> None:
    Image.new("L", (64, 48), 77).save(tmp_path / "grey.jpg", icc_profile=SRGB, quality=100)
    assert differs(working(tmp_path / "grey.jpg"), (77, 77, 77)) <= 1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    which=st.sampled_from(["rgb", "grey", "cmyk"]),
    place=st.integers(0, 600),
    content=st.binary(min_size=1, max_size=12),
    end=st.integers(0, 600),
)
def test_a_damaged_profile_never_costs_the_photo(which: str, place: int, content: bytes, end: int) -> None:
    mode, sound = {
        "rgb": ("RGB", DISPLAY_P3),
        "grey": ("L", grey_profile(1.8)),
        "cmyk": ("CMYK", cmyk_profile((54, 81, 70))),
    }[which]
    damaged = (sound[:place] + content + sound[place + len(content) :])[: len(sound) - end]
    picture = Image.open(io.BytesIO(encoded(scene("red").convert(mode), "TIFF", icc_profile=damaged)))
    try:
        profile = read_profile(picture)
    except ProfileBroken:
        return
    assert profile is None or profile.to_srgb(picture).mode == "RGB"
