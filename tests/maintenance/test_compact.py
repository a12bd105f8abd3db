"""Compacting: the file shrinks and nothing else changes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from matir_cli import errors
from matir_cli.gallery import schema
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.maintenance.compact import check_room, compact_gallery
from matir_cli.maintenance.doctor.findings import FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.records import Verdict
from matir_cli.search.index import rebuild_index, seal_index
from tests.support.crafted_gallery import REGIONS, craft, place, ranking
from tests.support.process import Indexed, matir

NAMES = [f"{number}.jpg" for number in range(300)]
BLOCK_REGIONS = 128


@pytest.fixture(scope="module")
def crafted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery with blocks, half of whose photos were deleted."""
    path = tmp_path_factory.mktemp("crafted") / "gallery.db"
    with craft(path, NAMES) as made:
        seal_index(made, BLOCK_REGIONS)
        with made.atomic():
            for name in NAMES[::2]:
                made.unlink(place(name))
    return path


@pytest.fixture
def gallery(crafted: Path, tmp_path: Path) -> Iterator[GalleryFile]:
    with GalleryFile.open(Path(shutil.copy(crafted, tmp_path))) as opened:
        yield opened


def count(gallery: GalleryFile, table: str) -> int:
    return int(gallery.connection.execute(f"select count(*) from {table}").get)


def test_a_rebuilt_index_gives_the_same_results(gallery: GalleryFile) -> None:
    before = ranking(gallery)
    assert len(before[0]) == 15
    blocks = count(gallery, "codes")
    gallery.connection.execute("delete from codes where id = 2")  # its regions cannot be found any more
    rebuild_index(gallery, BLOCK_REGIONS)
    assert ranking(gallery) == before
    assert count(gallery, "loose") == 0
    full = BLOCK_REGIONS // REGIONS
    assert count(gallery, "codes") == -(-150 // full) < blocks
    rebuild_index(gallery)  # the gallery is smaller than one block: none is made
    assert (count(gallery, "codes"), count(gallery, "loose")) == (0, 150)
    assert ranking(gallery) == before


def test_unused_space_is_returned_and_nothing_else_changes(gallery: GalleryFile) -> None:
    before, size = ranking(gallery), gallery.path.stat().st_size
    VerdictCache(gallery, "f" * 64, "a dog").remember(2, Verdict(1.0, 2.0))
    done = compact_gallery(gallery, drop_previews=False, forget_verdicts=False)
    assert done.before == size > done.after == gallery.path.stat().st_size
    assert gallery.connection.pragma("page_size") == schema.PAGE_SIZE
    assert gallery.connection.pragma("freelist_count") == 0
    assert ranking(gallery) == before
    assert (count(gallery, "previews"), count(gallery, "verdicts")) == (150, 1)
    assert [*gallery.path.parent.iterdir()] == [gallery.path]
    states = {found.name: found.state for found in examine_gallery(gallery.path, deep=True)}
    assert {name for name, state in states.items() if state is not FindingState.OK} == {"gallery files"}
    compact_gallery(gallery, drop_previews=True, forget_verdicts=True)
    assert (count(gallery, "previews"), count(gallery, "verdicts"), count(gallery, "questions")) == (0, 0, 0)
    assert ranking(gallery) == before


def test_nothing_is_started_without_enough_room(gallery: GalleryFile) -> None:
    free = shutil.disk_usage(gallery.path.parent).free
    check_room(gallery, free)
    with pytest.raises(errors.RoomTooSmall) as caught:
        check_room(gallery, gallery.path.stat().st_size)
    assert gallery.path.stat().st_size < caught.value.needed < 2 * gallery.path.stat().st_size


@pytest.mark.parametrize("vector", ["x'0102'", "zeroblob(64)", "'text'"])
def test_an_impossible_vector_ends_it_before_anything_is_lost(gallery: GalleryFile, vector: str) -> None:
    blocks = count(gallery, "codes")
    gallery.connection.execute(f"update vectors set vector = {vector} where region_id = 7")
    with pytest.raises(errors.GalleryDamaged, match=str(gallery.path)):
        compact_gallery(gallery, drop_previews=False, forget_verdicts=False)
    assert count(gallery, "codes") == blocks > 0


def test_the_command_reports_the_space_gained(indexed: Indexed, tmp_path: Path) -> None:
    path = Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))
    before = matir("find", "--no-rerank", "red house", "--db", path, "--jsonl")
    done = matir("compact", "--drop-previews", "--db", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b""
    assert b" before, " in done.stderr
    assert path.stat().st_size < indexed.gallery.stat().st_size
    assert matir("find", "--no-rerank", "red house", "--db", path, "--jsonl").stdout == before.stdout != b""
    missing = matir("compact", "--db", tmp_path / "none.db")
    assert missing.returncode == 2
    assert b"there is no gallery at" in missing.stderr
