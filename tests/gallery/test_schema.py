"""Versions of a gallery file, and migrations."""

import apsw

from matir_cli.gallery import schema


def test_an_empty_file_is_migrated_to_this_version() -> None:
    db = apsw.Connection(":memory:")
    assert schema.is_empty(db)
    assert not schema.is_gallery(db)
    assert schema.version_of(db) == 0
    schema.migrate(db)
    assert not schema.is_empty(db)
    assert schema.is_gallery(db)
    assert schema.version_of(db) == schema.VERSION
    before = db.execute("select name, sql from sqlite_schema order by name").fetchall()
    schema.migrate(db)  # nothing is missing
    assert db.execute("select name, sql from sqlite_schema order by name").fetchall() == before
    db.close()


def test_a_photo_takes_its_rows_along() -> None:
    db = apsw.Connection(":memory:")
    schema.migrate(db)
    db.pragma("foreign_keys", True)
    tables = ("files", "previews", "regions", "vectors", "loose", "verdicts", "groundings")
    db.execute(
        "insert into photos values (1, x'00', 8, 8, 8, 8, 1, null, null, null, null, '');"
        "insert into files values ('/a', 1, 1, 1); insert into previews values (1, x'00');"
        "insert into regions values (1, 1, 0, 0, 0, 8, 8, 64, 1, 1, x'00');"
        "insert into vectors values (1, 1, x'00'); insert into loose values (1);"
        "insert into questions values (1, 'judge', 'query');"
        "insert into verdicts values (1, 1, 0, 0); insert into groundings values (1, 1, '[]', '', 1)"
    )
    assert [db.execute(f"select count(*) from {table}").get for table in tables] == [1] * len(tables)
    db.execute("delete from photos")
    assert [db.execute(f"select count(*) from {table}").get for table in tables] == [0] * len(tables)
    assert db.execute("select count(*) from questions").get == 1
    db.close()
