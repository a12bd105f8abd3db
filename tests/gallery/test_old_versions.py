"""Galleries of earlier schema versions: migrated as a whole or not at all, and read where they cannot be."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import apsw
import pytest

from matir_cli.errors import GalleryDamaged, GalleryReadOnly, GalleryTooNew
from matir_cli.gallery import schema
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import open_read_only
from matir_cli.maintenance.doctor.findings import FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.maintenance.merge import merge_gallery
from tests.support.crafted_gallery import craft, place, put, ranking
from tests.support.old_gallery import schema_text, write_old_gallery
from tests.support.planted_schemas import PLANTED

ANYWHERE = Path("gallery.db")

OLD = [*range(1, schema.VERSION)]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of today, of three photos."""
    path = tmp_path_factory.mktemp("content") / "gallery.db"
    craft(path, ["a", "b", "c"]).connection.close()
    return path


@pytest.fixture(params=OLD)
def old(request: pytest.FixtureRequest, tmp_path: Path, content: Path) -> Path:
    """A gallery of each earlier version, of three photos."""
    path = tmp_path / "gallery.db"
    write_old_gallery(path, request.param, content)
    return path


def state(path: Path) -> tuple[int, list[schema.SchemaObject]]:
    """Version and schema of a file, as any program reads them."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return schema.version_of(db), schema.schema_objects(db)
    finally:
        db.close()


def expected_state(version: int) -> tuple[int, list[schema.SchemaObject]]:
    """Version and schema of a new gallery of this version."""
    db = apsw.Connection(":memory:")
    try:
        db.execute(schema_text(version))
        return version, schema.schema_objects(db)
    finally:
        db.close()


def names_of(version: int) -> set[str]:
    """Names of the tables and indexes of this version."""
    return {name for name, *_ in expected_state(version)[1]}


@pytest.mark.parametrize("version", [*OLD, schema.VERSION])
def test_released_schemas_never_change(version: int) -> None:
    db = apsw.Connection(":memory:")
    for statements in schema.MIGRATIONS[:version]:
        for statement in statements:
            db.execute(statement)
    assert schema.schema_faults(schema.schema_objects(db), expected_state(version)[1]) == []
    db.close()


@pytest.mark.parametrize("version", OLD)
def test_later_versions_only_add_tables_and_indexes(version: int) -> None:
    before, after = expected_state(version)[1], expected_state(version + 1)[1]
    assert set(before) < set(after)
    assert {kind for _, kind, *_ in set(after) - set(before)} <= {"table", "index"}


def test_an_older_gallery_is_migrated_with_all_that_it_holds(old: Path, tmp_path: Path) -> None:
    version, _ = state(old)
    with GalleryFile.open(old) as gallery:
        assert schema.check_schema(gallery.connection, old) == schema.VERSION
        with gallery.atomic():
            put(gallery, "d")
        found = ranking(gallery)
    with craft(tmp_path / "new.db", ["a", "b", "c", "d"]) as new:
        if "residuals" not in names_of(version):
            new.connection.execute("delete from residuals where photo_id < 4")
        assert found == ranking(new)
    assert state(old) == state(tmp_path / "new.db")
    assert not [each for each in examine_gallery(old, deep=True) if each.state is FindingState.PROBLEM]


def test_an_older_gallery_is_read_without_a_change(old: Path, tmp_path: Path) -> None:
    version, _ = state(old)
    before = old.read_bytes()
    with GalleryFile._open(old, apsw.SQLITE_OPEN_READONLY) as gallery, craft(tmp_path / "n.db", "abc") as new:
        if "residuals" not in names_of(version):
            new.connection.execute("delete from residuals")
        assert ranking(gallery) == ranking(new)
        for name, kind, *_ in expected_state(schema.VERSION)[1]:
            if kind == "table":
                select = f"select * from {name} where true"
                rows, columns = ([*db.connection.execute(select)] for db in (gallery, new)), []
                for db in (gallery, new):
                    cursor = db.connection.execute(f"select * from pragma_table_info('{name}')")
                    columns.append([row[1] for row in cursor])
                assert columns[0] == columns[1]
                assert len({len(each) for each in rows}) == 1, name
    found = [*examine_gallery(old, deep=True)]
    assert not [each for each in found if each.state is FindingState.PROBLEM]
    assert "of an older version" in found[0].text
    assert old.read_bytes() == before
    assert [*old.parent.glob("gallery.db*")] == [old]


def test_nothing_is_written_to_an_older_gallery_that_is_only_read(old: Path) -> None:
    before = old.read_bytes()
    for opened in (open_read_only(old), GalleryFile._open(old, apsw.SQLITE_OPEN_READONLY)):
        with pytest.raises(GalleryReadOnly), opened as gallery, gallery.atomic():
            put(gallery, "d")
    assert old.read_bytes() == before


class NoJournals(apsw.VFS):
    """The file system of a folder in which no file can be made, so that SQLite cannot write a database."""

    def __init__(self) -> None:
        super().__init__("no-journals", "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """Open any file but a journal."""
        if flags[0] & apsw.SQLITE_OPEN_MAIN_JOURNAL:
            raise apsw.CantOpenError
        return super().xOpen(name, flags)


@contextmanager
def unwritable_folders() -> Iterator[None]:
    default, vfs = apsw.vfs_names()[0], NoJournals()
    apsw.set_default_vfs("no-journals")
    try:
        yield
    finally:
        apsw.set_default_vfs(default)
        vfs.unregister()


def test_an_older_gallery_in_a_folder_that_cannot_be_written(old: Path) -> None:
    before = old.read_bytes()
    with unwritable_folders():
        with GalleryFile.open(old) as gallery:
            assert gallery.photo(1).paths == (place("a"),)
            assert gallery.connection.readonly("main")
        with pytest.raises(GalleryReadOnly):
            GalleryFile.open(old, create=True)
    assert old.read_bytes() == before
    with GalleryFile.open(old) as gallery:
        assert not gallery.connection.readonly("main")
    assert state(old)[0] == schema.VERSION


def test_an_older_gallery_can_be_merged(old: Path, tmp_path: Path) -> None:
    before = old.read_bytes()
    with craft(tmp_path / "new.db", ["c", "d"]) as gallery, open_read_only(old) as source:
        assert len([*merge_gallery(gallery, source, dry_run=False)]) == 3
        assert gallery.count_photos() == 4
    assert old.read_bytes() == before


@pytest.mark.parametrize("statement", [each for each in PLANTED if "user_version = 0" not in each])
def test_an_older_schema_is_compared_with_its_own_version(
    tmp_path: Path, content: Path, statement: str
) -> None:
    for version in OLD:
        path = tmp_path / f"{version}.db"
        write_old_gallery(path, version, content)
        db = apsw.Connection(str(path))
        db.execute(statement)
        db.close()
        before = path.read_bytes()
        for opened in (GalleryFile.open, open_read_only):
            with pytest.raises(GalleryDamaged, match="schema"):
                opened(path)
        assert path.read_bytes() == before


@pytest.mark.parametrize("found", range(1, schema.VERSION + 1))
@pytest.mark.parametrize("stated", range(schema.VERSION + 2))
def test_a_version_that_is_stated_wrongly(tmp_path: Path, content: Path, found: int, stated: int) -> None:
    path = tmp_path / "gallery.db"
    write_old_gallery(path, found, content)
    db = apsw.Connection(str(path))
    db.pragma("user_version", stated)
    db.close()
    before = path.read_bytes()
    if stated == found:
        GalleryFile.open(path).connection.close()
        assert state(path) == expected_state(schema.VERSION)
    else:
        with pytest.raises(GalleryTooNew if stated > schema.VERSION else GalleryDamaged):
            GalleryFile.open(path)
        assert path.read_bytes() == before


def killed_before(statement: int, path: Path) -> bool:
    """Open a gallery in a process that is killed before one of the statements; False if it has less."""
    process = os.fork()
    if process == 0:
        seen = 0

        def trace(_cursor: apsw.Cursor, _statement: str, _bindings: apsw.Bindings | None) -> bool:
            nonlocal seen
            if seen == statement:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1
            return True

        def watch(connection: apsw.Connection) -> None:
            connection.pragma("cache_spill", 0)
            connection.pragma("cache_size", 1)  # so that changed pages reach the file before the commit
            connection.exec_trace = trace

        try:
            apsw.connection_hooks.append(watch)
            GalleryFile.open(path)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def test_a_migration_that_is_killed_leaves_one_version_or_the_other(tmp_path: Path, content: Path) -> None:
    path = tmp_path / "gallery.db"
    write_old_gallery(path, 1, content)
    original = path.read_bytes()
    versions = set()
    for statement in count():
        path.write_bytes(original)
        killed = killed_before(statement, path)
        db = apsw.Connection(str(path))  # a journal is rolled back by any program
        db.pragma("integrity_check")
        db.close()
        found = state(path)
        assert found in (expected_state(1), expected_state(schema.VERSION)), f"before statement {statement}"
        versions.add(found[0])
        with GalleryFile.open(path) as gallery:
            assert gallery.count_photos() == 3
        assert state(path) == expected_state(schema.VERSION)
        if not killed:
            break
    assert statement > 5
    assert versions == {1, schema.VERSION}


def test_a_gallery_that_another_process_migrates_meanwhile(old: Path) -> None:
    read = open_read_only(old)
    GalleryFile.open(old).connection.close()
    with read as gallery:
        assert gallery.photo(2).paths == (place("b"),)
        assert gallery.connection.execute("select count(*) from notes").get == 0
