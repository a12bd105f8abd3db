"""Near-copies in the real process: searches that show them once, and lists of them."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from matir_cli.cli.commands.demo import draw
from matir_cli.cli.text import readable_size
from tests.support.process import matir, records

QUERY = ("find", "red house", "--no-rerank", "-n", 20)


@pytest.fixture(scope="module")
def doubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of four drawn pictures; of two of them there are further copies."""
    folder = tmp_path_factory.mktemp("doubled")
    photos = folder / "photos"
    draw(photos, 4)
    first, second, *_ = sorted(photos.glob("*.png"))
    with Image.open(first) as opened:
        picture = opened.convert("RGB")
    picture.save(photos / "saved.jpg", quality=60)
    picture.resize((picture.width * 3, picture.height * 3)).save(photos / "large.png")
    with Image.open(second) as opened:
        opened.convert("RGB").save(photos / "other.jpg", quality=80)
    (photos / "same bytes.png").write_bytes(second.read_bytes())
    added = matir("add", photos, "--db", folder / "gallery.db", "--models", "tiny")
    assert added.returncode == 0, added.stderr
    return folder / "gallery.db"


def test_a_search_shows_near_copies_once(doubled: Path) -> None:
    every = records(matir(*QUERY, "--jsonl", "--db", doubled))
    once = records(matir(*QUERY, "--jsonl", "--unique", "--db", doubled))
    assert len(every) == 7
    assert all("near_copies" not in record for record in every)
    assert [record["rank"] for record in once] == [1, 2, 3, 4]
    assert sorted(record["near_copies"] for record in once) == [0, 0, 1, 2]
    # Each that is shown is the best of its copies.
    kept = [record["path"] for record in once]
    assert kept == [record["path"] for record in every if record["path"] in kept]
    assert kept[0] == every[0]["path"]


def test_what_is_left_out_makes_room_for_others(doubled: Path) -> None:
    every = records(matir(*QUERY, "--jsonl", "--unique", "--db", doubled))
    for limit in (1, 2, 3):
        words = ("find", "red house", "--no-rerank", "-n", limit, "--jsonl", "--unique", "--db", doubled)
        assert [record["path"] for record in records(matir(*words))] == [
            record["path"] for record in every[:limit]
        ]


def test_the_table_counts_what_is_left_out(doubled: Path) -> None:
    table = matir(*QUERY, "--unique", "--db", doubled).stdout.decode()
    assert table.count("(+2 alike)") == table.count("(+1 alike)") == 1
    assert table.count("alike") == 2
    assert b"alike" not in matir(*QUERY, "--db", doubled).stdout


def relations(gallery: Path, *words: object) -> list[dict[str, str]]:
    """By name of each file, its relation; one dictionary per group."""
    groups = records(matir("duplicates", "--jsonl", "--db", gallery, *words))
    return [{Path(file["path"]).name: file["relation"] for file in group["files"]} for group in groups]


def test_duplicates_are_listed_originals_first(doubled: Path) -> None:
    first, second, *_ = sorted(path.name for path in (doubled.parent / "photos").glob("*.png"))[0:2]
    groups = relations(doubled)
    wanted = [
        {"large.png": "original", first: "copy", "saved.jpg": "copy"},
        {second: "original", "same bytes.png": "same bytes", "other.jpg": "copy"},
    ]
    assert len(groups) == len(wanted)
    assert all(group in groups for group in wanted)
    originals = [next(iter(group)) for group in groups]
    assert originals == sorted(originals)


def test_paths_are_those_beside_the_originals(doubled: Path) -> None:
    done = matir("duplicates", "-0", "--db", doubled)
    names = [Path(path).name for path in done.stdout.decode().split("\0")[:-1]]
    assert sorted(names) == sorted(
        name for group in relations(doubled) for name, relation in group.items() if relation != "original"
    )
    assert matir("duplicates", "--paths", "--db", doubled).stdout.decode() == done.stdout.decode().replace(
        "\0", "\n"
    )
    size = sum((doubled.parent / "photos" / name).stat().st_size for name in names)
    assert f"2 groups: 4 files beside the originals, {readable_size(size)}" in done.stderr.decode()


def test_json_and_the_table_hold_the_same_groups(doubled: Path) -> None:
    done = matir("duplicates", "--json", "--db", doubled)
    groups = json.loads(done.stdout)
    assert groups == records(matir("duplicates", "--jsonl", "--db", doubled))
    table = matir("duplicates", "--db", doubled).stdout.decode().split("\n\n")
    assert [len(part.splitlines()) for part in table] == [len(group["files"]) for group in groups]
    for part, group in zip(table, groups, strict=True):
        for line, file in zip(part.splitlines(), group["files"], strict=True):
            assert line.startswith(file["relation"])
            assert line.endswith(file["path"])
            assert f"{file['width']}x{file['height']}" in line


def test_files_that_are_missing_or_changed_are_no_originals(doubled: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(doubled.parent / "photos", photos)
    gallery = tmp_path / "gallery.db"
    assert matir("add", photos, "--db", gallery, "--models", "tiny").returncode == 0
    (photos / "large.png").unlink()
    (photos / "other.jpg").write_bytes(b"something else")
    groups = relations(gallery)
    assert sorted(len(group) for group in groups) == [2, 2]
    assert "large.png" not in str(groups)
    assert "other.jpg" not in str(groups)
    assert relations(gallery, "--in", tmp_path / "elsewhere") == []
    assert len(relations(gallery, "--in", photos)) == 2
    assert relations(gallery, "--in", photos / "saved.jpg") == []
