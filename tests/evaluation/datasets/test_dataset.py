"""Common checks of data sets: file names, files, digests."""

import hashlib
from pathlib import Path

import pytest

from matir_cli.errors import AnnotationsInvalid
from matir_cli.evaluation.datasets.dataset import (
    Dataset,
    EvalQuery,
    check_image_files,
    content_digest,
    locate_image,
    read_annotation_file,
)
from matir_cli.records import Rle


def test_an_image_is_located_below_its_folder(tmp_path: Path) -> None:
    relative = locate_image(tmp_path, 1, "sub/a.png", 20, 12)
    absolute = locate_image(tmp_path, 1, str(tmp_path / "sub" / "a.png"), 20, 12)
    assert relative.path == absolute.path == tmp_path / "sub" / "a.png"
    assert relative.name == "sub/a.png"


@pytest.mark.parametrize("name", ["", "../a.png", "sub/../../a.png", "C:a.png", "a\0.png"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"image 1: .*leads out of the image folder"):
        locate_image(tmp_path, 1, name, 20, 12)


def test_every_image_needs_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    first, again = (locate_image(tmp_path, number, "a.png", 20, 12) for number in (1, 2))
    missing = locate_image(tmp_path, 3, "b.png", 20, 12)
    check_image_files([first], tmp_path)
    with pytest.raises(AnnotationsInvalid, match=r"images 1 and 2 have the same file, a\.png"):
        check_image_files([first, again], tmp_path)
    with pytest.raises(AnnotationsInvalid, match=r"image 3: .*b\.png: no such file"):
        check_image_files([first, missing], tmp_path)


def test_annotation_files_are_read_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    path.write_bytes(b"12345")
    assert read_annotation_file(path, 5) == b"12345"
    with pytest.raises(AnnotationsInvalid, match="5 bytes, more than 4"):
        read_annotation_file(path, 4)


def test_the_digest_of_several_files_is_over_their_digests() -> None:
    one, two = hashlib.sha256(b"one"), hashlib.sha256(b"two")
    assert content_digest(b"one") == one.hexdigest()
    assert content_digest(b"one", b"two") == hashlib.sha256(one.digest() + two.digest()).hexdigest()


def test_images_without_an_instance_are_not_relevant() -> None:
    mask = Rle(12, 20, b"`7")
    dataset = Dataset("made", (), (EvalQuery(1, "dog"), EvalQuery(2, "cat")), {1: {5: (mask,)}}, "00")
    assert (dataset.relevant_images(1), dataset.relevant_images(2)) == (frozenset({5}), frozenset())
    assert (dataset.instances(1, 5), dataset.instances(1, 6), dataset.instances(2, 5)) == ((mask,), (), ())
