"""Everything that a gallery stores about one photo."""

from pathlib import Path

import pytest

from matir_cli.errors import PhotoUnknown
from matir_cli.gallery.region_rows import store_origin
from matir_cli.maintenance.show import CHANGED, HERE, NOT_READABLE, FileDetails, photo_details
from matir_cli.photos.discover import stat_file
from matir_cli.records import OriginKind, RegionOrigin
from tests.support.crafted_gallery import HEIGHT, REGIONS, WIDTH, craft, digest, place


def test_a_photo_is_shown_with_its_files_and_regions(tmp_path: Path) -> None:
    here, changed = tmp_path / "here.jpg", tmp_path / "changed.jpg"
    for path in (here, changed):
        path.write_bytes(b"content")
    with craft(tmp_path / "gallery.db", ["a"]) as gallery:
        with gallery.atomic():
            gallery.link(stat_file(here), 1)
            gallery.link(stat_file(changed), 1)
        changed.write_bytes(b"other content")
        details = photo_details(gallery, 1)
        preview = gallery.preview(1)
        assert preview is not None
        areas = [stored.region.area for stored in gallery.regions(1)]
        store_origin(gallery.connection, 2, RegionOrigin(OriginKind.HUMAN, "a dog"))
        origins = [(region.origin, region.label) for region in photo_details(gallery, 1).regions]
        assert origins == [(None, None), ("human", "a dog"), (None, None), (None, None)]
        with pytest.raises(PhotoUnknown):
            photo_details(gallery, 2)
    states = {HERE: here, CHANGED: changed, NOT_READABLE: place("a")}
    assert set(details.files) == {FileDetails(path, state) for state, path in states.items()}
    assert [file.path for file in details.files] == sorted(states.values())
    assert (details.id, details.sha256, details.model_set) == (1, digest("a").hex(), "crafted")
    assert (details.width, details.height) == (2 * WIDTH, 2 * HEIGHT)
    assert (details.mask_width, details.mask_height, details.orientation) == (WIDTH, HEIGHT, 1)
    assert (details.taken_at, details.camera, details.latitude) == ("2024-05-06T07:08:09", "ACME", None)
    assert details.preview_bytes == len(preview)
    assert details.added_at.endswith("+00:00")
    assert [region.ordinal for region in details.regions] == list(range(REGIONS))
    assert details.regions[0].box == (0, 0, 2 * WIDTH, 2 * HEIGHT)
    shares = [round(area / (WIDTH * HEIGHT), 6) for area in areas]
    assert [region.area_share for region in details.regions] == shares


def test_a_photo_without_a_preview(tmp_path: Path) -> None:
    with craft(tmp_path / "gallery.db", ["a"], previews=False) as gallery:
        assert photo_details(gallery, 1).preview_bytes is None
