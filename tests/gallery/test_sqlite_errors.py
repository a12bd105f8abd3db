"""Each error of SQLite is one of ours, with one line and a remedy; damage is said after a second look."""

import sys
from functools import partial
from pathlib import Path

import apsw
import pytest

from matir_cli import errors
from matir_cli.cli.boundary import explain
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import open_read_only
from matir_cli.gallery.score_store import ScoreStore
from matir_cli.gallery.sqlite_errors import gallery_error, translated
from tests.support.crafted_gallery import craft

ALL = [kind for kind in vars(apsw).values() if isinstance(kind, type) and issubclass(kind, apsw.Error)]

EXPECTED: dict[type[apsw.Error], type[errors.MatirError]] = {
    apsw.BusyError: errors.GalleryBusy,
    apsw.LockedError: errors.GalleryBusy,
    apsw.SchemaChangeError: errors.GalleryBusy,
    apsw.FullError: errors.DiskFull,
    apsw.ReadOnlyError: errors.GalleryReadOnly,
    apsw.CantOpenError: errors.GalleryReadOnly,
    apsw.PermissionsError: errors.GalleryReadOnly,
    apsw.AuthError: errors.GalleryReadOnly,
    apsw.NotADBError: errors.NotAGallery,
    apsw.FormatError: errors.NotAGallery,
    apsw.IOError: errors.GalleryIOFailed,
    apsw.NoMemError: errors.GalleryIOFailed,
    apsw.NoLFSError: errors.GalleryIOFailed,
    apsw.CorruptError: errors.GalleryDamaged,
    apsw.SQLError: errors.GalleryDamaged,
    apsw.TooBigError: errors.GalleryDamaged,
    apsw.InterruptError: errors.GalleryDamaged,
    apsw.ExtensionLoadingError: errors.ExtensionUnusable,
    apsw.InternalError: errors.GalleryFailed,
    apsw.MisuseError: errors.GalleryFailed,
    apsw.AbortError: errors.GalleryFailed,
    apsw.BindingsError: errors.GalleryFailed,
}


@pytest.mark.parametrize("kind", ALL)
def test_each_error_of_sqlite_becomes_one_line_with_a_remedy(tmp_path: Path, kind: type[apsw.Error]) -> None:
    path = tmp_path / "gallery.db"
    GalleryFile.open(path, create=True).connection.close()
    error = gallery_error(path, kind("what SQLite says"))
    assert isinstance(error, EXPECTED.get(kind, errors.GalleryError))
    text, remedy = explain(error)
    assert text.endswith(".")
    assert "\n" not in text
    assert remedy


def test_a_broken_constraint_is_damage_only_if_the_file_has_one(tmp_path: Path) -> None:
    craft(tmp_path / "gallery.db", ["a"]).connection.close()
    repeat = "insert into photos select * from photos"
    with (
        pytest.raises(errors.GalleryChanged),
        GalleryFile.open(tmp_path / "gallery.db") as gallery,
    ):
        gallery.connection.execute(repeat)
    plain = apsw.Connection(str(tmp_path / "gallery.db"))
    plain.execute("delete from photos")
    plain.execute("insert into files values ('/b', 99, 1, 1)")
    plain.close()
    with (
        pytest.raises(errors.GalleryDamaged, match="FOREIGN KEY"),
        GalleryFile.open(tmp_path / "gallery.db") as gallery,
    ):
        gallery.connection.execute("insert into files values ('/c', 100, 1, 1)")


def test_a_constraint_error_about_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(errors.GalleryReadOnly), translated(tmp_path / "gone.db"):
        raise apsw.ConstraintError("of a file that was deleted meanwhile")


@pytest.mark.skipif(sys.platform != "linux", reason="files that fail to be read are Linux's")
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("/proc/self/mem", {errors.GalleryIOFailed}),
        ("/proc/self/pagemap", {errors.GalleryIOFailed}),
        ("/proc/version", {errors.GalleryReadOnly, errors.NotAGallery}),
        ("/sys/kernel/mm/transparent_hugepage/enabled", {errors.NotAGallery}),
    ],
)
def test_an_error_of_the_system_at_opening_is_one_line(
    name: str, kinds: set[type[errors.GalleryError]]
) -> None:
    opened = set()
    for attempt in (GalleryFile.open, partial(GalleryFile.open, create=True), open_read_only):
        with pytest.raises(errors.GalleryError) as caught:
            attempt(Path(name))
        opened.add(type(caught.value))
        assert "\n" not in str(caught.value)
    assert opened == (kinds if Path(name).exists() else {errors.GalleryMissing, errors.GalleryReadOnly})
    with pytest.raises(errors.OutputError):
        ScoreStore.open(Path(name))
