"""Galleries of earlier schema versions, made from the texts of these schemas in tests/data."""

from __future__ import annotations

from pathlib import Path

import apsw

from matir_cli.gallery import schema

DATA = Path(__file__).parents[1] / "data"


def schema_text(version: int) -> str:
    """Return the statements that make the tables of a gallery of this version."""
    return (DATA / f"gallery_schema_{version}.sql").read_text()


def write_old_gallery(path: Path, version: int, content: Path) -> None:
    """Make a gallery of an earlier version that holds what the gallery `content` does.

    Tables that the version lacks are left out.
    """
    db = apsw.Connection(str(path))
    db.pragma("page_size", schema.PAGE_SIZE)
    db.execute("begin")
    db.execute(schema_text(version))
    db.pragma("application_id", schema.APPLICATION_ID)
    db.pragma("user_version", version)
    db.execute("commit")
    db.execute("attach ? as content", (str(content),))
    tables = "select name from main.sqlite_schema where type = 'table' and name not like 'sqlite_%'"
    for (name,) in db.execute(tables).fetchall():
        db.execute(f"insert into main.{name} select * from content.{name}")
    db.close()
