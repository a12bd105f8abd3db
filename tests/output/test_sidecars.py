"""Sidecars, laid out as the guidelines say, whoever wrote them."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from matir_cli.errors import OutputError, SidecarElsewhere, SidecarUnusable
from matir_cli.output.sidecars import MAX_BYTES, Sidecar
from matir_cli.output.xmp import (
    XmpArea,
    XmpTag,
    is_label,
    stored_area,
)
from matir_cli.records import Box, PhotoRecord
from tests.output.sidecar_files import (
    DOG,
    FOREIGN,
    PHOTO,
    SPACES,
    canonical,
    keywords,
    parsed,
    regions,
    tagged,
    untagged,
)


def test_a_link_to_nothing_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg.xmp"
    path.symlink_to(tmp_path / "elsewhere" / "new.conf")
    with pytest.raises(SidecarElsewhere, match=r"a link to .*new\.conf, in another folder"):
        tagged(path)
    with pytest.raises(SidecarUnusable, match="a link to nothing"):
        Sidecar(path, follow_links=True)
    assert not (tmp_path / "elsewhere").exists()


def test_a_link_is_followed_in_its_folder_or_if_permitted(tmp_path: Path) -> None:
    photos, store = tmp_path / "photos", tmp_path / "store"
    photos.mkdir()
    store.mkdir()
    for folder in (photos, store):
        target = folder / "real.xmp"
        target.write_text(FOREIGN, "utf-8")
        link = photos / f"{folder.name}.jpg.xmp"
        link.symlink_to(target)
        if folder == store:
            with pytest.raises(SidecarElsewhere):
                Sidecar(link)
            assert target.read_text("utf-8") == FOREIGN
        sidecar = Sidecar(link, follow_links=folder == store)
        assert sidecar.add(DOG, PHOTO)
        sidecar.write()
        assert link.is_symlink()
        assert keywords(target) == ["holiday", "dog on a lead"]
    # The folder of photos may itself be reached by a link.
    (tmp_path / "also").symlink_to(photos)
    assert Sidecar(tmp_path / "also/photos.jpg.xmp").remove("holiday")


def test_a_sidecar_that_something_links_to_is_emptied_not_deleted(tmp_path: Path) -> None:
    real, link, other = tmp_path / "a.xmp", tmp_path / "a.jpg.xmp", tmp_path / "other.xmp"
    tagged(real)
    link.symlink_to(real)
    assert untagged(link)
    assert link.is_symlink()
    assert keywords(real) == []
    tagged(real)
    os.link(real, other)
    assert untagged(real)
    assert keywords(other) == keywords(real) == []
    assert real.samefile(other)


def test_a_new_sidecar_is_what_the_guidelines_say(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg.xmp"
    assert tagged(path)
    assert keywords(path) == ["dog on a lead"]
    (region,) = regions(path)
    assert region.get(f"{{{SPACES['rdf']}}}parseType") == "Resource"
    assert region.findtext("mwg-rs:Name", None, SPACES) == "dog on a lead"
    assert region.find("mwg-rs:Type", SPACES) is None
    area = region.find("mwg-rs:Area", SPACES)
    assert area is not None
    read = {name: area.findtext(f"stArea:{name}", "", SPACES) for name in ("x", "y", "w", "h", "unit")}
    assert read.pop("unit") == "normalized"
    assert {name: float(value) for name, value in read.items()} == {"x": 0.5, "y": 0.2, "w": 0.5, "h": 0.2}
    size = parsed(path).find(".//mwg-rs:AppliedToDimensions", SPACES)
    assert size is not None
    assert [size.findtext(f"stDim:{name}", "", SPACES) for name in ("w", "h", "unit")] == [
        "400",
        "300",
        "pixel",
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_regions_are_those_of_the_image_as_stored(tmp_path: Path, orientation: int) -> None:
    stored = np.zeros((60, 100), dtype=np.uint8)
    stored[6:18, 50:80] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as picture:
        upright = np.asarray(ImageOps.exif_transpose(picture))
    rows, columns = np.nonzero(upright)
    box = Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    height, width = upright.shape
    photo = PhotoRecord(bytes(32), width, height, width, height, orientation)
    area = stored_area(box, photo)
    assert (area.x, area.y, area.w, area.h) == pytest.approx((0.65, 0.2, 0.3, 0.2))
    tagged(tmp_path / "a.png.xmp", XmpTag("x", (box,)), photo)
    assert "<stDim:w>100</stDim:w>" in (tmp_path / "a.png.xmp").read_text()


def test_boxes_are_clipped_and_empty_ones_left_out(tmp_path: Path) -> None:
    assert stored_area(Box(-50, -1, 200, 600), PHOTO) == XmpArea(0.25, 0.5, 0.5, 1.0)
    tagged(tmp_path / "a.xmp", XmpTag("x", (Box(10, 10, 10, 20), Box(500, 0, 600, 10)), "Pet"))
    assert regions(tmp_path / "a.xmp") == []
    assert keywords(tmp_path / "a.xmp") == ["x"]


def test_what_others_wrote_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg.xmp"
    path.write_text(FOREIGN, "utf-8")
    path.chmod(0o640)
    before = canonical(path)
    assert tagged(path)
    assert keywords(path) == ["holiday", "dog on a lead"]
    assert len(regions(path)) == 2
    text = path.read_text("utf-8")
    assert 'xap:Rating="3"' in text  # with the prefix it had
    assert "<d:subject" in text
    assert text.startswith("<?xpacket begin=")
    assert text.rstrip().endswith('<?xpacket end="w"?>')
    assert path.stat().st_mode & 0o777 == 0o640
    assert untagged(path)
    assert canonical(path) == before


def test_nothing_is_doubled(tmp_path: Path) -> None:
    path = tmp_path / "a.xmp"
    assert tagged(path)
    written = path.stat()
    assert not tagged(path)
    assert not tagged(path, XmpTag(DOG.label, (Box(102, 30, 303, 91),)))  # another run of the judge
    assert path.stat() == written
    assert tagged(path, XmpTag(DOG.label, (Box(0, 200, 50, 300),)))  # another dog
    assert len(regions(path)) == 2
    assert keywords(path) == [DOG.label]


def test_a_region_in_another_spelling_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "a.xmp"
    path.write_text(FOREIGN, "utf-8")
    assert tagged(path, XmpTag("Ada", DOG.boxes))
    assert len(regions(path)) == 1
    assert keywords(path) == ["holiday", "Ada"]


def test_a_sidecar_made_here_goes_with_its_last_label(tmp_path: Path) -> None:
    path = tmp_path / "a.xmp"
    tagged(path)
    tagged(path, XmpTag("cat"))
    assert untagged(path)
    assert keywords(path) == ["cat"]
    assert regions(path) == []
    assert not untagged(path)
    assert untagged(path, "cat")
    assert not path.exists()


def test_regions_of_another_picture_are_not_mixed_with(tmp_path: Path) -> None:
    path = tmp_path / "a.xmp"
    path.write_text(FOREIGN.replace('stDim:h="300"', 'stDim:h="500"'), "utf-8")
    before = path.read_bytes()
    with pytest.raises(SidecarUnusable, match="400 x 500 pixels, not 400 x 300"):
        tagged(path)
    assert path.read_bytes() == before
    path.write_text(FOREIGN.replace('w="400" stDim:h="300"', 'w="800" stDim:h="600"'), "utf-8")
    assert tagged(path)  # the same picture at another size


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


BODY = FOREIGN.split("?>", 1)[1]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\xfa",
        b"GIF89a",
        b"<a/>",
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>",
        BODY[: len(BODY) // 2].encode(),
        f'<!DOCTYPE x [<!ENTITY l0 "lol">{LAUGHS}]>{BODY.replace("holiday", "&l9;")}'.encode(),
        f'<!DOCTYPE x [<!ENTITY l0 "lol">{LAUGHS}]>{BODY.replace("Ada", "&l9;")}'.encode(),
        f'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>{BODY.replace("holiday", "&e;")}'.encode(),
        b"<a>" * 5000,
        b" " * (MAX_BYTES + 1),
        FOREIGN.replace("<rdf:Bag><rdf:li>holiday</rdf:li></rdf:Bag>", "holiday").encode(),
        FOREIGN.replace("<rdf:Bag><rdf:li>holiday</rdf:li></rdf:Bag>", "<rdf:li/>").encode(),
        FOREIGN.replace('stDim:w="400"', 'stDim:w="wide"').encode(),
    ],
    ids=lambda content: content[:12].decode("latin-1"),
)
def test_what_cannot_be_merged_into_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.xmp"
    path.write_bytes(content)
    begun = time.process_time()
    with pytest.raises(SidecarUnusable) as caught:
        tagged(path)
    assert time.process_time() - begun < 1  # no laugh was told
    assert caught.value.path == path
    assert path.read_bytes() == content
    assert [*tmp_path.iterdir()] == [path]


def test_utf_16_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.xmp"
    path.write_bytes(FOREIGN.replace("holiday", "Fête").encode("utf-16"))
    assert tagged(path)
    assert keywords(path) == ["Fête", "dog on a lead"]


def test_a_pipe_or_folder_is_no_sidecar(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.xmp")
    (tmp_path / "folder.xmp").mkdir()
    for name in ("pipe.xmp", "folder.xmp"):
        with pytest.raises(SidecarUnusable, match="not a plain file"):
            Sidecar(tmp_path / name)
    with pytest.raises(OutputError, match="File name too long"):
        Sidecar(tmp_path / ("x" * 300))


@given(st.text(max_size=20))
def test_a_label_survives_or_is_refused(tmp_path_factory: pytest.TempPathFactory, label: str) -> None:
    if not is_label(label):
        assert label != label.strip() or not label or not label.isprintable()
        return
    path = tmp_path_factory.getbasetemp() / "label.xmp"
    path.unlink(missing_ok=True)
    tagged(path, XmpTag(label, DOG.boxes))
    assert keywords(path) == [label]
    assert regions(path)[0].findtext("mwg-rs:Name", None, SPACES) == label
    assert untagged(path, label)
