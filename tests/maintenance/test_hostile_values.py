"""Galleries with impossible values: every reader says that the file is damaged, and none fails otherwise."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import known_files
from matir_cli.maintenance.export import ExportOptions, export_vectors
from matir_cli.maintenance.info import gallery_info
from matir_cli.maintenance.merge_source import source_models
from matir_cli.maintenance.show import photo_details
from matir_cli.search.filters import Filters
from matir_cli.search.index import rebuild_index, seal_index
from matir_cli.search.rank import rank_photos
from matir_cli.search.vectors import region_vector, stored_vectors
from tests.support.crafted_gallery import DIMENSIONS, craft, query

Read = Callable[[GalleryFile], object]


def vectors(gallery: GalleryFile) -> object:
    return list(export_vectors(gallery, io.BytesIO(), io.StringIO(), ExportOptions()))


def vector(gallery: GalleryFile) -> object:
    return region_vector(gallery, 5)


def some_vectors(gallery: GalleryFile) -> object:
    return stored_vectors(gallery, np.array([1, 5]), DIMENSIONS)


def rank(gallery: GalleryFile) -> object:
    return rank_photos(gallery, query(0), 3)


def rank_below(gallery: GalleryFile) -> object:
    return rank_photos(gallery, query(0), 3, Filters((Path("/photos"),)))


def seal(gallery: GalleryFile) -> object:
    gallery.connection.execute("insert or ignore into loose select id from photos")
    seal_index(gallery, 8)
    return None


def rebuild(gallery: GalleryFile) -> object:
    rebuild_index(gallery, 8)
    return None


def files(gallery: GalleryFile) -> object:
    return list(known_files(gallery))


def show(gallery: GalleryFile) -> object:
    return photo_details(gallery, 2)


@pytest.mark.parametrize(
    "value", ["'text'", "zeroblob(64)", "x''", "x'01'", "zeroblob(3000000)", "1e9", "''"]
)
@pytest.mark.parametrize("read", [vectors, vector, some_vectors, rank, seal, rebuild])
def test_a_vector_of_another_kind_is_damage(tmp_path: Path, value: str, read: Read) -> None:
    with craft(tmp_path / "gallery.db", ["a", "b", "c"]) as gallery:
        gallery.connection.execute(f"update vectors set vector = {value} where region_id = 5")
    with pytest.raises(GalleryDamaged), GalleryFile.open(tmp_path / "gallery.db") as gallery:
        read(gallery)


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("codes set centre = zeroblob(3)", rank),
        ("codes set centre = x'7f800000' || zeroblob(252)", rank),
        ("codes set codes = x'01'", rank),
        ("codes set codes = cast(replace(hex(zeroblob(64)), '00', char(255)) as blob)", rank),
        ("codes set runs = 'x'", rank),
        ("vectors set photo_id = 'x'", rank),
        ("vectors set photo_id = 9e999", rank),
        ("files set photo_id = 'x'", rank_below),
        ("files set photo_id = x'00'", files),
        ("files set path = 'relative' || photo_id", files),
        ("files set path = '/a' || char(0) || photo_id", files),
        ("files set path = '/nul' || char(0) where photo_id = 2", show),
        ("photos set added_at = x'00'", show),
        ("photos set width = 'wide'", show),
        ("regions set x0 = 'left'", show),
        ("regions set rle = zeroblob(10)", show),
        ("models set model_set = x'00'", show),
        ("models set name = x'00'", gallery_info),
        ("models set weight_hash = hex(zeroblob(60000))", gallery_info),
        ("models set weight_hash = 'no hash'", source_models),
        ("models set role = 'judge' where role = 'encoder'", source_models),
    ],
)
def test_an_impossible_value_is_damage(tmp_path: Path, change: str, read: Read) -> None:
    with craft(tmp_path / "gallery.db", ["a", "b", "c"]) as gallery:
        seal_index(gallery, 8)
        gallery.connection.pragma("foreign_keys", False)
        gallery.connection.execute(f"update {change}")
        assert gallery.connection.changes() > 0
    with pytest.raises(GalleryDamaged), GalleryFile.open(tmp_path / "gallery.db") as gallery:
        read(gallery)
