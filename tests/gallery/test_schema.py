"""Versions of a gallery file, and migrations."""

from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.errors import GalleryDamaged, GalleryTooNew, NotAGallery
from matir_cli.gallery import schema
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import open_read_only
from tests.support.crafted_gallery import craft
from tests.support.planted_schemas import PLANTED

ANYWHERE = Path("gallery.db")


def test_an_empty_file_is_migrated_to_this_version() -> None:
    db = apsw.Connection(":memory:")
    assert schema.is_empty(db)
    assert schema.check_schema(db, ANYWHERE) == 0
    assert schema.version_of(db) == 0
    schema.migrate(db)
    assert not schema.is_empty(db)
    assert schema.check_schema(db, ANYWHERE) == schema.VERSION
    assert schema.version_of(db) == schema.VERSION
    before = db.execute("select name, sql from sqlite_schema order by name").fetchall()
    schema.migrate(db)  # nothing is missing
    assert db.execute("select name, sql from sqlite_schema order by name").fetchall() == before
    db.close()


def test_a_photo_takes_its_rows_along() -> None:
    db = apsw.Connection(":memory:")
    schema.migrate(db)
    db.pragma("foreign_keys", True)
    tables = ["files", "previews", "regions", "vectors", "residuals", "loose", "verdicts", "groundings"]
    tables += ["notes"]
    db.execute(
        "insert into photos values (1, x'00', 8, 8, 8, 8, 1, null, null, null, null, '');"
        "insert into files values ('/a', 1, 1, 1); insert into previews values (1, x'00');"
        "insert into regions values (1, 1, 0, 0, 0, 8, 8, 64, 1, 1, x'00');"
        "insert into vectors values (1, 1, x'00'); insert into residuals values (1, x'00');"
        "insert into loose values (1);"
        "insert into questions values (1, 'judge', 'query');"
        "insert into verdicts values (1, 1, 0, 0); insert into groundings values (1, 1, '[]', '', 1);"
        "insert into notes values (1, 'picture', 'cut')"
    )
    assert [db.execute(f"select count(*) from {table}").get for table in tables] == [1] * len(tables)
    db.execute("delete from photos")
    assert [db.execute(f"select count(*) from {table}").get for table in tables] == [0] * len(tables)
    assert db.execute("select count(*) from questions").get == 1
    db.close()


@pytest.mark.parametrize("statement", PLANTED)
def test_a_schema_that_differs_is_refused_by_every_opening(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "gallery.db"
    craft(path, ["a"]).connection.close()
    plain = apsw.Connection(str(path))
    plain.execute(statement)
    plain.close()
    before = path.read_bytes()
    with pytest.raises(GalleryDamaged, match="schema"):
        GalleryFile.open(path)
    with pytest.raises(GalleryDamaged, match="schema"):
        GalleryFile.open(path, create=True)
    with pytest.raises(GalleryDamaged, match="schema"):
        open_read_only(path)
    assert path.read_bytes() == before


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(0, 18), st.integers(0, 2000), st.characters(codec="ascii", exclude_characters="\0"))
def test_any_other_letter_in_the_schema_is_noticed(row: int, at: int, letter: str) -> None:
    db = apsw.Connection(":memory:")
    schema.migrate(db)
    objects = db.execute("select name, sql from sqlite_schema where sql is not null").fetchall()
    name, sql = (str(value) for value in objects[row % len(objects)])
    at %= len(sql)
    changed = sql[:at] + letter + sql[at + 1 :]
    db.pragma("writable_schema", True)
    db.execute("update sqlite_schema set sql = ? where name = ?", (changed, name))
    if changed == sql:
        assert schema.check_schema(db, ANYWHERE) == schema.VERSION
    else:
        with pytest.raises(GalleryDamaged, match=name):
            schema.check_schema(db, ANYWHERE)
    db.close()


def test_statistics_of_sqlite_are_no_change() -> None:
    db = apsw.Connection(":memory:")
    schema.migrate(db)
    db.execute("insert into questions values (1, 'judge', 'query'); analyze")
    assert db.execute("select count(*) from sqlite_schema where name = 'sqlite_stat1'").get == 1
    assert schema.check_schema(db, ANYWHERE) == schema.VERSION
    db.close()


def test_other_files_are_told_apart() -> None:
    db = apsw.Connection(":memory:")
    db.execute("create table t (x)")
    with pytest.raises(NotAGallery):
        schema.check_schema(db, ANYWHERE)
    db.pragma("application_id", schema.APPLICATION_ID)
    db.pragma("user_version", schema.VERSION + 1)
    with pytest.raises(GalleryTooNew):
        schema.check_schema(db, ANYWHERE)
    db.close()
