import signal
from pathlib import Path

import pytest

from matir_cli.cli.commands.demo import draw
from tests.support.process import PHOTOS, Indexed, matir

# A shell starts what runs in the background deaf to Ctrl-C; the processes that tests interrupt must hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    folder = tmp_path_factory.mktemp("indexed")
    photos, gallery = folder / "photos", folder / "gallery.db"
    draw(photos, PHOTOS)
    (photos / "zero.jpg").write_bytes(b"")
    (photos / "a\x1b[31mred\nname.jpg").write_bytes(b"junk")
    (photos / "notes.txt").write_bytes(b"not a photo")
    added = matir("add", photos, "--db", gallery, "--models", "tiny")
    return Indexed(photos, gallery, added)


@pytest.fixture(scope="session")
def model_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny set with a random judge beside it."""
    # Here: it imports transformers, which most tests do without.
    from tests.support.judged_set import make_set

    return make_set(tmp_path_factory.mktemp("set"))
