"""Cut-outs, from the original and from the preview."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from matir_cli.gallery.database import GalleryFile
from matir_cli.output.cutouts import CutoutLook, Cutouts, cut_out
from matir_cli.output.picture_folder import PictureFolder
from matir_cli.output.result_pixels import ResultPixels
from tests.output.blocks import RED, make_pixels, picture


def cut(folder: Path, result: ResultPixels) -> tuple[Cutouts, Path | None]:
    cutouts = Cutouts(PictureFolder(folder, force=False))
    (path,) = cutouts.write(result)
    return cutouts, path


def test_a_cut_out_has_the_pixels_of_the_original(gallery: GalleryFile, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture().save(tmp_path / "photo.png", icc_profile=profile)
    cutouts, path = cut(tmp_path / "out", make_pixels(gallery, tmp_path / "photo.png"))
    assert path is not None
    assert cutouts.from_preview == 0
    with Image.open(path) as made:
        assert (made.mode, made.size) == ("RGBA", (400, 300))
        assert made.info["icc_profile"] == profile
        pixels = np.asarray(made)
    inside = pixels[..., 3] == 255
    assert inside.mean() > 0.99  # but for the corners, which the scaling rounds
    assert (pixels[inside] == (*RED, 255)).all()
    assert (pixels[~inside] == 0).all()  # nothing of what lies outside is in the file


def test_a_turned_photo_is_cut_upright(gallery: GalleryFile, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    _, path = cut(tmp_path / "out", make_pixels(gallery, tmp_path / "turned.png"))
    assert path is not None
    with Image.open(path) as made:
        assert made.size == (400, 300)
        assert made.getpixel((200, 150)) == (*RED, 255)


@pytest.mark.parametrize("happened", ["deleted", "changed"])
def test_without_the_original_the_preview_is_cut(gallery: GalleryFile, tmp_path: Path, happened: str) -> None:
    path = tmp_path / "photo.png"
    picture().save(path)
    result = make_pixels(gallery, path)
    path.unlink()
    if happened == "changed":
        Image.new("RGB", (1600, 1200)).save(path)
    cutouts, made = cut(tmp_path / "out", result)
    assert made is not None
    assert cutouts.from_preview == 1
    with Image.open(made) as image:
        assert image.size == (256, 192)  # of 1024 x 768
        assert np.abs(np.asarray(image.convert("RGB"), np.int32)[96, 128] - RED).max() < 10


def test_a_soft_edge_fades_on_both_sides() -> None:
    mask = np.zeros((60, 80), bool)
    mask[20:40, 20:60] = True
    photo = Image.new("RGB", (80, 60), RED)
    soft = cut_out(photo, mask, CutoutLook(feather=8))
    assert soft is not None
    assert (soft.mode, soft.size) == ("RGBA", (56, 36))
    alpha = np.asarray(soft)[..., 3].astype(int)
    across = alpha[18]
    assert across[0] <= 2
    assert across[28] == 255
    assert 100 < across[8] < 156  # the mask's own edge
    assert (np.diff(across[:28]) >= 0).all()
    assert (np.asarray(soft)[alpha > 0][:, :3] == RED).all()
    assert (np.asarray(soft)[alpha == 0] == 0).all()


@pytest.mark.parametrize("feather", [0, 5])
def test_backgrounds(feather: int) -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:50, 10:40] = True
    mask[20:30, 40:70] = True
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[:, ::2] = 200
    photo = Image.fromarray(pixels)
    photo.info["icc_profile"] = b"a profile"
    for background in ("white", "blur"):
        made = cut_out(photo, mask, CutoutLook(feather, background))
        assert made is not None
        assert made.mode == "RGB"
        assert made.info["icc_profile"] == b"a profile"
        values = np.asarray(made)
        inside = values[20 + feather, 15 + feather], values[20 + feather, 16 + feather]
        assert {int(value[0]) for value in inside} == {0, 200}
        outside = values[-8 - feather, -16:-8].astype(int)
        assert (outside == 255).all() if background == "white" else abs(outside - 100).max() < 30


def test_cut_outs_of_different_looks_are_different_files(gallery: GalleryFile, tmp_path: Path) -> None:
    picture().save(tmp_path / "photo.png")
    pixels = make_pixels(gallery, tmp_path / "photo.png")
    made = set[Path | None]()
    for look in (CutoutLook(), CutoutLook(3), CutoutLook(3, "white"), CutoutLook(0, "blur")):
        cutouts = Cutouts(PictureFolder(tmp_path / "out", force=False), look)
        made |= {*cutouts.write(pixels)}
    assert len(made - {None}) == 4
