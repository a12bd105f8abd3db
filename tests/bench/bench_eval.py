"""Stage 2 of an evaluation, photo by photo, beside the same questions asked query by query.

    python -m tests.bench.bench_eval [--photos 16] [--clock wall|cpu]

A small Qwen2.5-VL with random weights; every query has every photo as candidate and is grounded in
the better half, as N_C and N_K have it. Query by query is what `find` does for one query after the
other. A photo has 2 or 4 questions: COCO asks 8,000 pairs over 5,000 images, of which stage 1 picks
many several times and others never, D3 42,200 over 10,578. What the judge keeps of encoded photos
is little beside a data set (7B: 90 photos in its 2 GiB), so the ratio that counts is the one with
nothing kept; with all photos kept it is printed as well.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli.engines.protocols import Judge
from matir_cli.engines.qwen_vl.judge import load_qwen_vl_judge
from matir_cli.evaluation.judging import ground_photos_by_photo, judge_photos
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.records import Candidate
from matir_cli.search.grounding import ground_photos
from matir_cli.search.rerank import JudgeSession, order_by_verdict, rerank_candidates
from tests.support.fakes import ColourEncoder, ColourProposer
from tests.support.small_qwen import SmallQwen, make_model, photo

WANTED = 1.5
"""Times faster than query by query, with nothing kept."""

HEIGHT, WIDTH = 336, 448

Rooms = Mapping[str, JudgeSession]
Way = Callable[[Rooms, list[Candidate], int], None]


def by_query(rooms: Rooms, candidates: list[Candidate], keep: int) -> None:
    """As `find` does it, one query after the other."""
    for room in rooms.values():
        ranking = order_by_verdict(list(rerank_candidates(room, candidates)))
        for _ in ground_photos(room, [item.candidate.photo_id for item in ranking[:keep]]):
            pass


def by_photo(rooms: Rooms, candidates: list[Candidate], keep: int) -> None:
    """As `eval` does it."""
    judge_photos(rooms, {item.photo_id: list(rooms) for item in candidates})
    wanted: dict[int, list[str]] = {}
    for text, room in rooms.items():
        for item in order_by_verdict(list(rerank_candidates(room, candidates)))[:keep]:
            wanted.setdefault(item.candidate.photo_id, []).append(text)
    ground_photos_by_photo(rooms, wanted)


def prepare(folder: Path, photos: int) -> GalleryFile:
    """A gallery of seeded pictures."""
    for number in range(photos):
        Image.fromarray(photo(number, HEIGHT, WIDTH)).save(folder / f"{number}.png")
    gallery = GalleryFile.open(folder / "gallery.db", create=True)
    list(add_photos(gallery, [folder], IndexingModels(ColourProposer, ColourEncoder), previews=True))
    return gallery


def seconds(
    way: Way,
    gallery: GalleryFile,
    small: SmallQwen,
    queries: list[str],
    keep: int,
    kept_mib: int,
    clock: Callable[[], float],
) -> tuple[float, list[float]]:
    """Time of one way with a judge and a memory of its own, and all margins in order."""
    name = f"{way.__name__} {kept_mib} {len(queries)}"
    with load_qwen_vl_judge(
        small.config(prefix_cache_mib=kept_mib, threads=1, max_answer_tokens=48), "cpu"
    ) as judge:
        asked: Judge = judge
        rooms = {
            query: JudgeSession(gallery, lambda: asked, VerdictCache(gallery, name, query), query)
            for query in queries
        }
        photo_ids = [row[0] for row in gallery.connection.execute("select id from photos order by id")]
        candidates = [Candidate(photo_id, 1, 0.0) for photo_id in photo_ids]
        started = clock()
        way(rooms, candidates, keep)
        taken = clock() - started
        found = [rooms[query].cache.verdict(photo_id) for query in queries for photo_id in photo_ids]
    return taken, [verdict.margin for verdict in found if verdict is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu where others compute, too"
    )
    given = parser.parse_args()
    photos, clock = given.photos, {"wall": time.perf_counter, "cpu": time.process_time}[given.clock]
    print(f"{photos} photos of {WIDTH} x {HEIGHT}, {photos // 2} boxes a query, 1 thread\n")
    print("| questions a photo | encoded photos kept | query by query | photo by photo | ratio |")
    print("| --: | :-- | --: | --: | --: |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = make_model(folder, seed=1)
        with prepare(folder, photos) as gallery:
            for count, label, kept_mib in ((2, "none", 0), (4, "none", 0), (4, "all", 2048)):
                queries = [f"the small green car behind tree {number}" for number in range(count)]
                plain, expected = seconds(by_query, gallery, small, queries, photos // 2, kept_mib, clock)
                ours, margins = seconds(by_photo, gallery, small, queries, photos // 2, kept_mib, clock)
                if len(margins) != photos * count or not np.allclose(margins, expected, atol=0.05):
                    raise SystemExit("the two ways do not agree")
                print(
                    f"| {count} | {label} | {plain:.1f} s | {ours:.1f} s | {plain / ours:.2f} |", flush=True
                )
                if not kept_mib and plain / ours < WANTED:
                    print(f"\nbelow the {WANTED} wanted")


if __name__ == "__main__":
    main()
