"""Near-copies in the real process: searches that show them once, and lists of them."""

from pathlib import Path

import pytest
from PIL import Image

from matir_cli.cli.commands.demo import draw
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
