"""What results become in files, from photos on disk and answers made by hand."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageCms
from pycocotools.coco import COCO

from matir_cli import masks
from matir_cli.cli.options.output import ANSWER, OutputOptions
from matir_cli.cli.results import open_output
from matir_cli.errors import OutputError, OutputExists
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.rows import StoredRegion
from matir_cli.output.cutouts import Cutouts
from matir_cli.output.mask_files import write_masks
from matir_cli.output.overlays import MARK, overlay, write_overlay
from matir_cli.output.picture_folder import PictureFolder
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.photos.decode import decode_photo
from matir_cli.photos.discover import stat_file
from matir_cli.photos.preview import encode_preview
from matir_cli.records import Box, Candidate, Region
from matir_cli.search.results import GroundedObject, SearchResult

RED, GREEN = (220, 30, 30), (30, 160, 60)
NOTHING = OutputOptions(None, False, False, False, None, None, None, None, None, None, False)


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as opened:
        yield opened


def picture(width: int = 1600, height: int = 1200) -> Image.Image:
    """Green, with a red block from a quarter to a half of each side."""
    made = Image.new("RGB", (width, height), GREEN)
    made.paste(RED, (width // 4, height // 4, width // 2, height // 2))
    return made


def block(height: int, width: int) -> Region:
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[height // 4 : height // 2, width // 4 : width // 2] = True
    rle = masks.encode(mask)
    return Region(rle, masks.box(rle), masks.area(rle), 0.9, 0.9)


def put(gallery: GalleryFile, path: Path, *, preview: bool = True) -> int:
    """Store the photo at `path` as `matir add` does, with the block as its one region."""
    file = stat_file(path)
    decoded = decode_photo(file, hashlib.sha256(path.read_bytes()).digest())
    jpeg = encode_preview(decoded.image) if preview else None
    region = block(*decoded.image.shape[:2])
    with gallery.atomic():
        return gallery.add_photo(decoded.file, decoded.record, [region], jpeg)[0]


def found(
    gallery: GalleryFile, photo_id: int, *, rank: int = 1, others: int = 0, masked: bool = True
) -> SearchResult:
    """A result whose first answer is the block, followed by `others` without a mask."""
    (stored,) = gallery.regions(photo_id)
    region = StoredRegion(stored.id, photo_id, 1, stored.box, stored.region)
    answer = GroundedObject(region.box, region, None, region.region.rle if masked else None)
    nothing = GroundedObject(Box(0, 0, 9, 9), None, None, None)
    return SearchResult(
        rank, gallery.photo(photo_id), Candidate(photo_id, stored.id, 0.5), (answer, *[nothing] * others)
    )


def subject(gallery: GalleryFile, path: Path, *, preview: bool = True) -> ResultPixels:
    return ResultPixels(gallery, found(gallery, put(gallery, path, preview=preview)), all_instances=False)


def cut(folder: Path, result: ResultPixels) -> tuple[Cutouts, Path | None]:
    cutouts = Cutouts(PictureFolder(folder, force=False))
    (path,) = cutouts.write(result)
    return cutouts, path


def show(gallery: GalleryFile, query: str, items: list[SearchResult], form: OutputOptions) -> None:
    with open_output(gallery, form) as shown:
        shown(query, items)


def test_a_cut_out_has_the_pixels_of_the_original(gallery: GalleryFile, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture().save(tmp_path / "photo.png", icc_profile=profile)
    cutouts, path = cut(tmp_path / "out", subject(gallery, tmp_path / "photo.png"))
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
    _, path = cut(tmp_path / "out", subject(gallery, tmp_path / "turned.png"))
    assert path is not None
    with Image.open(path) as made:
        assert made.size == (400, 300)
        assert made.getpixel((200, 150)) == (*RED, 255)


@pytest.mark.parametrize("happened", ["deleted", "changed"])
def test_without_the_original_the_preview_is_cut(gallery: GalleryFile, tmp_path: Path, happened: str) -> None:
    path = tmp_path / "photo.png"
    picture().save(path)
    result = subject(gallery, path)
    path.unlink()
    if happened == "changed":
        Image.new("RGB", (1600, 1200)).save(path)
    cutouts, made = cut(tmp_path / "out", result)
    assert made is not None
    assert cutouts.from_preview == 1
    with Image.open(made) as image:
        assert image.size == (256, 192)  # of 1024 x 768
        assert np.abs(np.subtract(image.convert("RGB").getpixel((128, 96)), RED)).max() < 10


def test_without_any_pixels_there_is_no_picture(gallery: GalleryFile, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    picture().save(path)
    result = subject(gallery, path, preview=False)
    path.unlink()
    assert cut(tmp_path / "out", result)[1] is None
    assert write_overlay(PictureFolder(tmp_path / "out", force=False), result) is None
    assert result.jpeg() is None
    assert not (tmp_path / "out").exists()


def test_an_overlay_is_tinted_boxed_and_as_large_as_the_preview(gallery: GalleryFile, tmp_path: Path) -> None:
    picture().save(tmp_path / "photo.png")
    result = subject(gallery, tmp_path / "photo.png")
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


def test_a_file_is_kept_unless_forced(gallery: GalleryFile, tmp_path: Path) -> None:
    picture().save(tmp_path / "photo.png")
    result = subject(gallery, tmp_path / "photo.png")
    first = PictureFolder(tmp_path / "out", force=False)
    (path,) = write_masks(first, result)
    assert (first.written, first.kept) == (1, 0)
    assert path is not None
    path.write_bytes(b"mine")
    second = PictureFolder(tmp_path / "out", force=False)
    assert write_masks(second, result) == (path,)
    assert (second.written, second.kept, path.read_bytes()) == (0, 1, b"mine")
    third = PictureFolder(tmp_path / "out", force=True)
    assert write_masks(third, result) == (path,)
    assert (third.written, third.kept) == (1, 0)
    with Image.open(path) as mask:
        assert mask.size == (1600, 1200)
    assert [*path.parent.iterdir()] == [path]


def test_a_picture_that_cannot_be_written_is_an_error_of_ours(gallery: GalleryFile, tmp_path: Path) -> None:
    picture().save(tmp_path / "photo.png")
    with pytest.raises(OutputError):
        write_masks(
            PictureFolder(tmp_path / "photo.png", force=False), subject(gallery, tmp_path / "photo.png")
        )


def test_photos_of_one_name_do_not_share_a_file(gallery: GalleryFile, tmp_path: Path) -> None:
    stems = set()
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        picture(1600 + number).save(tmp_path / folder / "photo.png")
        stems.add(subject(gallery, tmp_path / folder / "photo.png").file_stem("same"))
    assert len(stems) == 2


def test_what_has_no_mask_is_left_out(
    gallery: GalleryFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = []
    for number, masked in enumerate([True, False, True], start=1):
        path = tmp_path / f"{number}.png"
        picture(400 + number, 300).save(path)
        items.append(found(gallery, put(gallery, path), rank=number, others=1, masked=masked))
    out = tmp_path / "out"
    form = OutputOptions(
        "jsonl", False, False, True, *(out / n for n in ("m", "c", "o", "coco.json", "y", "p.html")), False
    )
    show(gallery, "a block", items, form)
    printed = capsys.readouterr()
    assert "2 masks written" in printed.err
    records = [json.loads(line) for line in printed.out.splitlines()]
    assert ["mask_file" in record for record in records] == [True, False, True]
    assert ["cutout_file" in record for record in records] == [True, False, True]
    assert all("overlay_file" in record for record in records)  # boxes are there
    assert [len(record["instances"]) for record in records] == [2, 2, 2]
    assert len([*(out / "m").iterdir()]) == len([*(out / "c").iterdir()]) == 2
    coco = json.loads((out / "coco.json").read_text())
    assert [item["image_id"] for item in coco["annotations"]] == [i.photo.id for i in (items[0], items[2])]
    assert len((out / "y/train.txt").read_text().splitlines()) == 2
    html = (out / "p.html").read_text()
    assert html.count("<figure") == 3
    assert html.count('class="mask"') == 2
    assert html.count("· no mask") == 1


def test_each_query_is_a_class_of_its_own(gallery: GalleryFile, tmp_path: Path) -> None:
    items = []
    for number in (1, 2):
        path = tmp_path / f"{number}.png"
        picture(400 + number, 300).save(path)
        items.append(found(gallery, put(gallery, path), rank=number))
    out = tmp_path / "out"
    paths = [None] * 3 + [out / "coco.json", out / "y", None]
    with open_output(gallery, OutputOptions(ANSWER, False, False, True, *paths, False)) as both:
        both("a block", items)
        both("a cloud", [])
        both("a brick: red", items[1:])
    coco = COCO(str(out / "coco.json"))
    assert [(c["id"], c["name"]) for c in coco.loadCats([1, 2, 3])] == [
        (1, "a block"),
        (2, "a cloud"),
        (3, "a brick: red"),
    ]
    assert len(coco.imgs) == 2
    assert [len(coco.getImgIds(catIds=[number])) for number in (1, 2, 3)] == [2, 0, 1]
    config = yaml.safe_load((out / "y/data.yaml").read_text())
    assert config["names"] == {0: "a block", 1: "a cloud", 2: "a brick: red"}
    assert len((out / "y/train.txt").read_text().splitlines()) == 2
    classes = [
        [line.split()[0] for line in path.read_text().splitlines()] for path in (out / "y/labels").iterdir()
    ]
    assert sorted(classes) == [["0"], ["0", "2"]]


def test_every_instance_is_in_every_output(gallery: GalleryFile, tmp_path: Path) -> None:
    picture(400, 300).save(tmp_path / "photo.png")
    one = found(gallery, put(gallery, tmp_path / "photo.png"))
    corner = np.zeros((300, 400), dtype=np.bool_)
    corner[200:250, 300:390] = True
    second = GroundedObject(Box(300, 200, 390, 250), None, None, masks.encode(corner))
    both = SearchResult(1, one.photo, one.candidate, (*one.answers, second))
    out = tmp_path / "out"
    paths = [out / n for n in ("m", "c", "o", "coco.json", "y", "p.html")]
    show(gallery, "a block", [both], OutputOptions("json", False, False, True, *paths, False))
    assert len([*(out / "m").iterdir()]) == len([*(out / "c").iterdir()]) == 2
    coco = json.loads((out / "coco.json").read_text())
    assert [item["bbox"] for item in coco["annotations"]] == [[100, 75, 100, 75], [300, 200, 90, 50]]
    (label,) = (out / "y/labels").iterdir()
    assert len(label.read_text().splitlines()) == 2
    assert (out / "p.html").read_text().count('class="mask"') == 2
    # And the first alone, unless asked for.
    show(
        gallery, "a block", [both], OutputOptions("json", False, False, False, *paths[:3], *[None] * 3, True)
    )
    assert len([*(out / "o").iterdir()]) == 2  # another picture, another name


@pytest.mark.parametrize("option", ["coco", "html", "yolo"])
def test_a_file_in_the_way_is_told_before_the_search(tmp_path: Path, option: str) -> None:
    path = tmp_path / "data.yaml"
    path.write_bytes(b"mine")
    values = {name: getattr(NOTHING, name) for name in OutputOptions.__dataclass_fields__}
    values[option] = tmp_path if option == "yolo" else path
    with pytest.raises(OutputExists):
        OutputOptions(**values).check()
    OutputOptions(**{**values, "force": True}).check()
    assert path.read_bytes() == b"mine"


def test_photos_are_let_go_one_by_one(gallery: GalleryFile, tmp_path: Path) -> None:
    count = 6
    for number in range(count):
        path = tmp_path / f"{number}.jpg"
        picture(3000, 2000 + number).save(path)
        put(gallery, path)
    script = f"""
import resource, sys
from pathlib import Path
from matir_cli.gallery.database import GalleryFile
from tests.output.test_files import OutputOptions, found, show
out = Path({os.fspath(tmp_path / "out")!r})
with GalleryFile.open(Path({os.fspath(gallery.path)!r})) as gallery:
    def peak(ids, name):
        paths = [out / name / n for n in ("m", "c", "o", "coco.json", "y", "p.html")]
        items = [found(gallery, photo_id) for photo_id in ids]
        show(gallery, "block", items, OutputOptions("paths", False, False, False, *paths, False))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak([1, 2], "few"), peak(range(1, {count + 1}), "many"), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    few, many = map(int, done.stderr.decode().splitlines()[-1].split())
    unit = 1024 if sys.platform == "linux" else 1
    one_photo = 3000 * 2000 * 3
    assert (many - few) * unit < one_photo  # all of them held would be four times that
