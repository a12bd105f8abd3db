"""A gallery of coloured scenes, and sessions of judges that see colours."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matir_cli.engines.protocols import Judge
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.records import Candidate
from matir_cli.search.rank import rank_photos
from matir_cli.search.rerank import JudgeSession
from matir_cli.search.results import SearchResult
from tests.support.fakes import ColourEncoder, ColourJudge, ColourProposer, ColourText
from tests.support.pictures import save_scenes


@contextmanager
def open_scenes(folder: Path) -> Iterator[GalleryFile]:
    """A gallery of five scenes with red, green or blue squares, in `folder`."""
    save_scenes(folder / "photos", a="green", b="red", c="red red", d="blue", e="red red red")
    models = IndexingModels(ColourProposer, ColourEncoder)
    with GalleryFile.open(folder / "gallery.db", create=True) as opened:
        list(add_photos(opened, [folder / "photos"], models, previews=True))
        yield opened


def refuse() -> Judge:
    """Stands for a judge that must not be loaded."""
    raise AssertionError("the judge was loaded without need")


def open_session(
    gallery: GalleryFile, judge: ColourJudge | None, query: str = "red", *, fresh: bool = False
) -> JudgeSession:
    """A session of the judge, under one key for all; without a judge everything must be cached."""
    cache = VerdictCache(gallery, "k" * 64, query, fresh=fresh)
    return JudgeSession(gallery, refuse if judge is None else lambda: judge, cache, query)


def candidates(gallery: GalleryFile, query: str = "red") -> list[Candidate]:
    """All photos, ranked by stage 1."""
    return rank_photos(gallery, ColourText().encode(query).vector, 10)


def names(results: list[SearchResult]) -> list[str]:
    """The names of the scenes, in order."""
    return [result.path.stem for result in results]
