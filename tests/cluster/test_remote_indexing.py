"""Tests of indexing through workers, in this process: the gallery is that of `add_photos` alone."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Never

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from matir_cli import Gallery
from matir_cli.cluster.dispatch import Answer, Dispatcher
from matir_cli.cluster.worker import Fault, PhotoWorker, installed_version
from matir_cli.cluster.worker_models import ShippedFile, WorkerModels, store_shipped
from matir_cli.engines.device import choose_dtype
from matir_cli.engines.options import PRECISION_VARIABLE
from matir_cli.errors import CheckpointInvalid, PackageMissing
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.in_progress import NewFile
from matir_cli.indexing.outcomes import Added, Linked, Skipped, Unchanged
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import INDEXING_PARTS, locate_part
from matir_cli.model_sets.weights import sha256_of
from matir_cli.progress import no_progress
from tests.cluster.content import content_of
from tests.support.fakes import BrokenEncoder, ColourEncoder, ColourProposer
from tests.support.pictures import scene

MODELS = IndexingModels(ColourProposer, ColourEncoder)


@dataclass
class HereWorkers:
    """Workers in this process; the newest task ends first."""

    models: IndexingModels = MODELS
    tasks: dict[int, tuple[NewFile, bytes | None, bool] | None] = field(default_factory=dict)
    sent: int = 0
    """Files whose bytes were sent."""
    _next: int = 0

    def _task(self, task: tuple[NewFile, bytes | None, bool] | None) -> int:
        self._next += 1
        self.tasks[self._next] = task
        return self._next

    def start(self) -> tuple[PhotoWorker, int]:
        return PhotoWorker(installed_version(), lambda: self.models, 60, None), self._task(None)

    def send(self, worker: PhotoWorker, file: NewFile, content: bytes | None, *, previews: bool) -> int:
        self.sent += content is not None
        return self._task((file, content, previews))

    def wait(self, tasks: Sequence[int], seconds: float) -> Sequence[int]:
        return [max(tasks)]

    def result(self, worker: PhotoWorker, task: int) -> Answer | None:
        arguments = self.tasks.pop(task)
        answer = worker.start() if arguments is None else worker.index(*arguments)
        assert not isinstance(answer, Fault), answer
        return answer

    def end(self, worker: PhotoWorker) -> None:
        pass


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos, copies of them, junk with a copy, a sidecar, and a raw file's name."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, colour in enumerate(["red", "green", "blue", "red", "green"]):
        scene(colour, seed=number).save(folder / f"{number}.png")
    shutil.copy(folder / "0.png", folder / "0 copy.png")
    shutil.copy(folder / "4.png", folder / "z.png")
    for name in ("junk 1.jpg", "junk 2.jpg", "junk 3.png", "zero.jpg"):
        (folder / name).write_bytes(b"" if name == "zero.jpg" else b"junk")
    (folder / "2.png.xmp").write_text(
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/></rdf:RDF></x:xmpmeta>'
    )
    (folder / "3.xmp").write_text("not a sidecar")
    return folder


def add(path: Path, photos: Path, models: IndexingModels) -> dict[str, object]:
    """Index the photos; name to outcome."""
    with GalleryFile.open(path, create=True) as gallery:
        return {
            outcome.path.name: outcome for outcome in add_photos(gallery, [photos], models, previews=True)
        }


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_the_gallery_is_the_same(photos: Path, tmp_path: Path, shared: bool, count: int) -> None:
    plain, remote = tmp_path / "plain.db", tmp_path / "remote.db"
    expected = add(plain, photos, MODELS)
    workers = HereWorkers()
    stages = Dispatcher(workers, count, shared_files=shared)
    unused = IndexingModels(_never, _never, remote=stages)
    outcomes = add(remote, photos, unused)
    # Which of two equal files comes first, and so is the photo, is that of the walk: also here.
    assert outcomes == expected
    assert sum(isinstance(outcome, Added) for outcome in outcomes.values()) == 5
    assert sum(isinstance(outcome, Linked) for outcome in outcomes.values()) == 2
    assert sum(isinstance(outcome, Skipped) for outcome in outcomes.values()) == 4
    assert content_of(remote) == content_of(plain)
    assert workers.sent == (0 if shared else 8)
    again = add(remote, photos, unused)
    assert sum(isinstance(outcome, Unchanged) for outcome in again.values()) == 7


def _never() -> Never:
    raise AssertionError("a model is loaded in this process")


def test_vectors_that_are_no_numbers_are_refused_with_their_copies(photos: Path, tmp_path: Path) -> None:
    broken = IndexingModels(ColourProposer, BrokenEncoder)
    expected = add(tmp_path / "plain.db", photos, broken)
    stages = Dispatcher(HereWorkers(broken), 2)
    outcomes = add(tmp_path / "remote.db", photos, IndexingModels(_never, _never, remote=stages))
    assert outcomes == expected
    assert content_of(tmp_path / "remote.db") == content_of(tmp_path / "plain.db")


def test_ray_that_is_not_installed_is_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as `importlib` finds what cannot be imported
    with (
        Gallery(tmp_path / "gallery.db", models="tiny", device="cpu") as gallery,
        pytest.raises(PackageMissing, match="ray needs a package"),
    ):
        gallery.add(photos, ray="auto")


def test_a_worker_of_another_version_is_refused() -> None:
    fault = PhotoWorker("0.0.1", lambda: MODELS, 60, None).start()
    assert fault == Fault(f"it has matir-cli {installed_version()}, not 0.0.1")


def test_a_worker_with_other_models_is_refused() -> None:
    tiny = load_model_set("tiny")
    configs = {part: locate_part(tiny, part) for part in INDEXING_PARTS}
    assert (
        PhotoWorker(installed_version(), WorkerModels(tiny, configs, "cpu", None), 60, None).start() is None
    )
    other = {**configs, "encoder": configs["proposer"]}
    fault = PhotoWorker(installed_version(), WorkerModels(tiny, other, "cpu", None), 60, None).start()
    assert fault is not None
    assert fault.reason.endswith("is another one than here")


@pytest.mark.parametrize("there", [None, "auto", "float32"])
@pytest.mark.parametrize("here", [None, "", "float32"])
def test_the_precision_of_the_command_counts_on_workers(
    monkeypatch: pytest.MonkeyPatch, here: str | None, there: str | None
) -> None:
    monkeypatch.setenv(PRECISION_VARIABLE, there or "")  # the worker changes it, and it is put back
    if there is None:
        monkeypatch.delenv(PRECISION_VARIABLE)
    chosen = []

    def load_models() -> IndexingModels:
        chosen.append(choose_dtype("auto", "cuda", 1024))
        return MODELS

    assert PhotoWorker(installed_version(), load_models, 60, here).start() is None
    assert chosen == [torch.float32 if here == "float32" else torch.float16]


def test_shipped_files_are_stored_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "weights.pt"
    source.write_bytes(b"weights")
    content = np.fromfile(source, np.uint8)
    fetched: list[int] = []

    def fetch() -> NDArray[np.uint8]:
        fetched.append(1)
        return content

    sha256 = sha256_of(source, "weights.pt", no_progress)
    path = store_shipped(ShippedFile("weights.pt", sha256, fetch))
    assert (path.read_bytes(), path.is_relative_to(tmp_path / "cache")) == (b"weights", True)
    assert store_shipped(ShippedFile("weights.pt", sha256, fetch)) == path
    assert len(fetched) == 1
    path.write_bytes(b"changed by somebody")
    assert store_shipped(ShippedFile("weights.pt", sha256, fetch)).read_bytes() == b"weights"
    with pytest.raises(CheckpointInvalid, match="damaged on its way"):
        store_shipped(ShippedFile("weights.pt", "0" * 64, fetch))
