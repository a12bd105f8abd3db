"""Many processes on one gallery: none of them fails, and none says anything false."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from matir_cli.errors import GalleryEmpty, PhotoUnknown
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import forget_files
from matir_cli.gallery.read_only import open_read_only
from matir_cli.indexing.outcomes import Skipped
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.indexing.sync import folder_roots, sync_folders
from matir_cli.maintenance.compact import compact_gallery
from matir_cli.maintenance.doctor.findings import FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.maintenance.export import ExportOptions, export_coco, export_vectors
from matir_cli.maintenance.info import gallery_info
from matir_cli.maintenance.merge import merge_gallery
from matir_cli.maintenance.show import photo_details
from matir_cli.records import ModelIdentity
from matir_cli.search.index import seal_index
from matir_cli.search.pipeline import SearchOptions, run_search
from matir_cli.search.query import Query
from tests.fuzz.campaign import main_of
from tests.search.fake_models import ColourModels
from tests.support.fakes import COLOURS, ColourEncoder, ColourProposer
from tests.support.pictures import scene

SECONDS = 30.0
"""Duration of a trial of the full campaign."""

GRACE = 120
"""Seconds after the end of a trial in which a process must have ended."""

PHOTOS = 24

BLOCK = 32
"""Regions per block of the index: small, so that blocks come and go."""

HONEST = "other commands keep removing its photo"
"""Reason to skip a file that is true here."""

Act = Callable[[random.Random, GalleryFile, "Places"], Iterable[str]]
"""Use the gallery once; yields what was wrong."""


class Places:
    """The files of a trial."""

    def __init__(self, folder: Path) -> None:
        self.gallery = folder / "gallery.db"
        self.stable = folder / "stable"
        """Photos that stay as they are; two copies of each."""
        self.moving = folder / "moving"
        """Photos that `sync` finds changed, and that only the process that syncs touches."""
        self.source = folder / "source.db"
        """A gallery to merge: it holds half of the photos."""
        self.reports = folder / "reports"


def trial(rng: random.Random, folder: Path) -> str | None:
    """Let the processes of the full campaign work for `SECONDS`."""
    return run_processes(rng, folder, SECONDS)


def run_processes(rng: random.Random, folder: Path, seconds: float) -> str | None:
    """Let processes add, search, remove, compact, check, sync, merge and read for `seconds`."""
    places = _prepare(folder)
    actors: list[Act] = [*[add] * 4, *[find] * 2, remove, maintain, sync, merge, read]
    end = time.monotonic() + seconds
    children = [
        _start(act, random.Random(rng.random()), places, places.reports / f"{number} {act.__name__}", end)
        for number, act in enumerate(actors)
    ]
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    findings = [f"{report.name}: {report.read_text()}" for report in sorted(places.reports.iterdir())]
    findings += [f"ended with {status}" for status in statuses if status != 0]
    findings += [f"afterwards: {finding}" for finding in _problems(places.gallery, deep=True)]
    return "\n".join(findings) or None


def _prepare(folder: Path) -> Places:
    places = Places(folder)
    for made in (places.stable, places.moving, places.reports):
        made.mkdir()
    for number in range(PHOTOS):
        colours = random.Random(number).sample(sorted(COLOURS), 2)
        for name in ("a", "b"):
            scene(*colours, seed=number).save(places.stable / f"{number}{name}.png")
    for gallery_path in (places.gallery, places.source):
        with GalleryFile.open(gallery_path, create=True) as gallery:
            for role in ("proposer", "encoder"):
                gallery.bind_model(role, ModelIdentity(role, "0" * 64), "tiny")
            photos = sorted(places.stable.iterdir())[::4]
            for _ in add_photos(gallery, photos, _models(), previews=True):
                pass
    return places


def _models() -> IndexingModels:
    return IndexingModels(ColourProposer, ColourEncoder)


def _start(act: Act, rng: random.Random, places: Places, report: Path, end: float) -> int:
    """Start a process that acts until `end`, and leaves what was wrong in `report`; return its id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(end - time.monotonic()) + GRACE)
        while time.monotonic() < end and not report.exists():
            try:
                with GalleryFile.open(places.gallery) as gallery:
                    found = list(act(rng, gallery, places))
            except Exception:
                found = [traceback.format_exc()]
            if found:
                report.write_text("\n".join(found))
        code = 0
    finally:
        os._exit(code)


# Actors


def add(rng: random.Random, gallery: GalleryFile, places: Places) -> Iterable[str]:
    """Index some of the stable photos."""
    photos = sorted(places.stable.iterdir())
    chosen = rng.sample(photos, rng.randrange(1, len(photos)))
    for outcome in add_photos(gallery, chosen, _models(), previews=rng.random() < 0.5):
        if isinstance(outcome, Skipped) and outcome.reason != HONEST:
            yield f"skipped {outcome.path.name}: {outcome.reason}"
    seal_index(gallery, BLOCK)


def find(rng: random.Random, gallery: GalleryFile, _places: Places) -> Iterable[str]:
    """Search with both stages."""
    with suppress(GalleryEmpty):
        options = SearchOptions(limit=5, fresh=rng.random() < 0.2, refine=rng.random() < 0.2)
        run_search(
            gallery,
            ColourModels(judge_key="a" * 64),
            Query(rng.choice(sorted(COLOURS))),
            options,
        )
    return ()


def remove(rng: random.Random, gallery: GalleryFile, places: Places) -> Iterable[str]:
    """Forget some of the stable photos."""
    photos = sorted(places.stable.iterdir())
    for _ in forget_files(gallery, rng.sample(photos, rng.randrange(1, 12))):
        pass
    seal_index(gallery, BLOCK)
    return ()


def maintain(rng: random.Random, gallery: GalleryFile, places: Places) -> Iterable[str]:
    """Rewrite the file, or more often look for damage."""
    if rng.random() < 0.8:
        return _problems(places.gallery, deep=rng.random() < 0.5)
    compact_gallery(gallery, drop_previews=rng.random() < 0.2, forget_verdicts=rng.random() < 0.2)
    return ()


def sync(rng: random.Random, gallery: GalleryFile, places: Places) -> Iterable[str]:
    """Change a folder, and follow it."""
    path = places.moving / f"{rng.randrange(6)}.png"
    if path.exists() and rng.random() < 0.5:
        path.unlink()
    else:
        shutil.copy(rng.choice(sorted(places.stable.iterdir())), path)
    for outcome in sync_folders(gallery, folder_roots([places.moving]), _models(), previews=True):
        if isinstance(outcome, Skipped) and outcome.reason != HONEST:
            yield f"skipped {outcome.path.name}: {outcome.reason}"


def merge(_rng: random.Random, gallery: GalleryFile, places: Places) -> Iterable[str]:
    """Merge another gallery."""
    with open_read_only(places.source) as source:
        for _ in merge_gallery(gallery, source, dry_run=False):
            pass
    return ()


def read(rng: random.Random, gallery: GalleryFile, places: Places) -> Iterable[str]:
    """Read everything, in every way."""
    info = gallery_info(gallery)
    if sum(info.space.values()) != info.bytes:
        yield f"{info.space} of {info.bytes} bytes"
    with suppress(GalleryEmpty):
        list(export_coco(gallery, io.StringIO(), ExportOptions(working_size=True)))
    with suppress(GalleryEmpty):
        list(export_vectors(gallery, io.BytesIO(), io.StringIO(), ExportOptions()))
    with suppress(PhotoUnknown):
        newest = gallery.connection.execute("select max(id) from photos").get
        photo_details(gallery, rng.randrange(1, (newest or 0) + 2))
    with open_read_only(places.gallery) as source, GalleryFile.open(places.source) as target:
        list(merge_gallery(target, source, dry_run=True))


def _problems(path: Path, *, deep: bool) -> list[str]:
    return [
        f"{found.name}: {found.text or found.fault}"
        for found in examine_gallery(path, deep=deep)
        if found.state is FindingState.PROBLEM
    ]


if __name__ == "__main__":
    main_of("processes", trial, count=10)
