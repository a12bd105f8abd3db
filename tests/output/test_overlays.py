"""Overlays of results."""

from pathlib import Path

import numpy as np

from matir_cli.gallery.database import GalleryFile
from matir_cli.output.overlays import MARK, overlay
from tests.output.blocks import make_pixels, picture


def test_an_overlay_is_tinted_boxed_and_as_large_as_the_preview(gallery: GalleryFile, tmp_path: Path) -> None:
    picture().save(tmp_path / "photo.png")
    result = make_pixels(gallery, tmp_path / "photo.png")
    drawn = overlay(result)
    assert drawn is not None
    assert result.working is not None
    assert drawn.size == result.working.size == (1024, 768)
    before, after = np.asarray(result.working, dtype=int), np.asarray(drawn, dtype=int)
    changed = np.abs(before - after).sum(axis=2) > 30
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (191, 384, 255, 512)
    inside = after[300, 400]
    assert np.abs(inside - (0.6 * before[300, 400] + 0.4 * np.array(MARK))).max() < 2
