"""Bench of stage 2 in an evaluation: photo by photo beside query by query.

    python -m tests.bench.bench_eval [--quick] [--photos 16] [--clock wall|cpu]

Every query has every photo as a candidate and is grounded in the better half, as N_C and N_K have it.
Query by query is what `find` does for one query after the other. A photo has 2 or 4 questions: COCO
asks 8,000 pairs over 5,000 images, of which stage 1 picks many several times and others never; D3 asks
42,200 over 10,578. The judge keeps few encoded photos compared with a data set (7B: 90 photos in its
2 GiB), so the ratio that counts is the one with nothing kept; the one with all photos kept is printed
as well.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli.engines.protocols import Judge
from matir_cli.engines.qwen_vl.judge import load_qwen_vl_judge
from matir_cli.evaluation.judging import ground_by_photo, judge_by_photo
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.records import Candidate
from matir_cli.search.grounding import ground_photos
from matir_cli.search.rerank import JudgeSession, order_by_verdict, rerank_candidates
from tests.bench.measuring import (
    CLOCKS,
    BenchParser,
    format_seconds,
    print_columns,
    print_heading,
    print_row,
    time_once,
)
from tests.support.fakes import ColourEncoder, ColourProposer
from tests.support.small_qwen import SmallQwen, make_model, photo

GOAL = 1.5
"""Times faster than query by query, with nothing kept."""

HEIGHT, WIDTH = 336, 448

KEPT_MIB = {"none": 0, "all": 2048}
"""Memory for encoded photos: none is kept, or all of them."""

Sessions = Mapping[str, JudgeSession]
"""Query text to its session of the judge."""

Way = Callable[[Sessions, list[Candidate], int], None]
"""Reranks the candidates for every query and grounds the given number of the best."""


def query_by_query(sessions: Sessions, candidates: list[Candidate], keep: int) -> None:
    """As `find` does it, one query after the other."""
    for session in sessions.values():
        ranking = order_by_verdict(list(rerank_candidates(session, candidates)))
        for _ in ground_photos(session, [item.candidate.photo_id for item in ranking[:keep]]):
            pass


def photo_by_photo(sessions: Sessions, candidates: list[Candidate], keep: int) -> None:
    """As `eval` does it: all questions about one photo, then the next photo."""
    judge_by_photo(sessions, {item.photo_id: list(sessions) for item in candidates})
    to_ground: dict[int, list[str]] = {}
    for query, session in sessions.items():
        for item in order_by_verdict(list(rerank_candidates(session, candidates)))[:keep]:
            to_ground.setdefault(item.candidate.photo_id, []).append(query)
    ground_by_photo(sessions, to_ground)


def make_gallery(folder: Path, photos: int) -> GalleryFile:
    """A gallery of seeded pictures."""
    for number in range(photos):
        Image.fromarray(photo(number, HEIGHT, WIDTH)).save(folder / f"{number}.png")
    gallery = GalleryFile.open(folder / "gallery.db", create=True)
    list(add_photos(gallery, [folder], IndexingModels(ColourProposer, ColourEncoder), previews=True))
    return gallery


@dataclass(frozen=True, slots=True)
class Setup:
    """What both ways work on."""

    gallery: GalleryFile
    model: SmallQwen
    clock: Callable[[], float]

    def measure(self, way: Way, questions: int, keep: int, kept_mib: int) -> tuple[float, list[float]]:
        """Time of one way with a judge and a verdict cache of its own, and all margins in order."""
        queries = [f"the small green car behind tree {number}" for number in range(questions)]
        cache_key = f"{way.__name__} {kept_mib} {questions}"
        config = self.model.config(prefix_cache_mib=kept_mib, threads=1, max_answer_tokens=48)
        with load_qwen_vl_judge(config, "cpu") as loaded:
            judge: Judge = loaded
            sessions = {
                query: JudgeSession(
                    self.gallery, lambda: judge, VerdictCache(self.gallery, cache_key, query), query
                )
                for query in queries
            }
            rows = self.gallery.connection.execute("select id from photos order by id")
            photo_ids = [photo_id for (photo_id,) in rows]
            candidates = [Candidate(photo_id, 1, 0.0) for photo_id in photo_ids]
            taken, _ = time_once(partial(way, sessions, candidates, keep), self.clock)
        caches = [VerdictCache(self.gallery, cache_key, query) for query in queries]
        verdicts = [cache.verdict(photo_id) for cache in caches for photo_id in photo_ids]
        return taken, [verdict.margin for verdict in verdicts if verdict is not None]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both ways and print the table."""
    parser = BenchParser(__doc__, arguments)
    parser.add_size("--photos", 16, 4, "photos in the gallery")
    parser.add_clock()
    options = parser.options()
    photos, keep = options.photos, options.photos // 2
    print_heading(
        f"{photos} random pictures of {WIDTH} x {HEIGHT}, {keep} boxes per query; a small Qwen2.5-VL with "
        "random weights",
        "In the number of questions per photo. A real judge spends a larger share of its time on encoding "
        "the photo, so that going photo by photo saves more.",
        "1 thread",
    )
    print_columns("questions per photo", "encoded photos kept", "query by query", "photo by photo", "faster")
    below_goal = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder, seed=1)
        with make_gallery(folder, photos) as gallery:
            setup = Setup(gallery, model, CLOCKS[options.clock])
            for questions, kept in ((2, "none"), (4, "none"), (4, "all")):
                plain, expected = setup.measure(query_by_query, questions, keep, KEPT_MIB[kept])
                ours, margins = setup.measure(photo_by_photo, questions, keep, KEPT_MIB[kept])
                if len(margins) != photos * questions or not np.allclose(margins, expected, atol=0.05):
                    raise SystemExit("the two ways do not agree")
                ratio = f"{plain / ours:.2f}x"
                print_row(questions, kept, format_seconds(plain), format_seconds(ours), ratio)
                below_goal |= kept == "none" and plain / ours < GOAL
    if below_goal:
        print(f"\nBelow the goal: {GOAL}x with no photo kept.")


if __name__ == "__main__":
    main()
