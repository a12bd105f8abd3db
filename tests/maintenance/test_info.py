"""A gallery in numbers."""

from pathlib import Path

from matir_cli.gallery import schema
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.maintenance.info import FREE, PREVIEWS, JudgeInfo, ModelInfo, gallery_info
from matir_cli.records import FileRecord, Grounding, Verdict
from tests.support.crafted_gallery import MODELS, REGIONS, craft

JUDGE = "a" * 64


def test_everything_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "gallery.db"
    with craft(path, ["a", "b", "c"]) as gallery:
        gallery.remember_skipped(FileRecord(Path("/photos/bad"), 1, 1), "zero bytes")
        gallery.link_file(FileRecord(Path("/photos/copy"), 10, 20), gallery.photo(1).record.sha256)
        gallery.connection.execute("delete from previews where photo_id = 3")
        for query in ("a dog", "a cat"):
            VerdictCache(gallery, JUDGE, query).remember(1, Verdict(1.0, 2.0))
        VerdictCache(gallery, JUDGE, "a cat").remember_grounding(1, Grounding((), "[]", readable=True))
        info = gallery_info(gallery)
    assert (info.path, info.bytes, info.schema) == (path, path.stat().st_size, schema.VERSION)
    # Files that no longer exist are forgotten when a copy is linked.
    assert (info.photos, info.files, info.skipped, info.previews) == (3, 3, 1, 2)
    assert info.regions == 3 * (REGIONS - 1)
    assert info.models == tuple(
        ModelInfo(role, MODELS[role].name, MODELS[role].weight_hash, "crafted")
        for role in ("encoder", "proposer")
    )
    assert info.judges == (JudgeInfo(JUDGE, queries=2, verdicts=2, groundings=1),)


def test_the_space_of_all_uses_is_the_file(tmp_path: Path) -> None:
    path = tmp_path / "gallery.db"
    with craft(path, [f"{number}" for number in range(100)]) as gallery:
        full = gallery_info(gallery).space
        gallery.connection.execute("delete from previews")
        emptied = gallery_info(gallery).space
    assert sum(full.values()) == sum(emptied.values()) == path.stat().st_size
    assert list(full.values()) == sorted(full.values(), reverse=True)
    assert full[PREVIEWS] > emptied[PREVIEWS]
    assert full[FREE] < emptied[FREE]
    assert min(full.values()) >= 0


def test_an_empty_gallery_has_no_models(tmp_path: Path) -> None:
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        info = gallery_info(gallery)
    assert (info.photos, info.models, info.judges) == (0, (), ())
