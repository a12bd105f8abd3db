"""Connections that a hostile schema cannot use."""

from pathlib import Path

import apsw
import pytest

from matir_cli.gallery.connection import BUSY_TIMEOUT_MS, open_defensively


def test_a_connection_is_defensive(tmp_path: Path) -> None:
    db = open_defensively(str(tmp_path / "a.db"))
    assert db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, -1) == 1
    assert db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, -1) == 0
    assert db.pragma("busy_timeout") == BUSY_TIMEOUT_MS
    db.execute("create table t (x)")
    db.execute("pragma writable_schema = on")
    with pytest.raises(apsw.SQLError, match="may not be modified"):
        db.execute("update sqlite_schema set sql = 'create table t (y)'")
    db.close()


def test_flags_decide_about_writing_and_creating(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with pytest.raises(apsw.CantOpenError):
        open_defensively(str(path), apsw.SQLITE_OPEN_READONLY)
    open_defensively(str(path)).close()
    db = open_defensively(f"file:{path}?mode=ro", apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    with pytest.raises(apsw.ReadOnlyError):
        db.execute("create table t (x)")
    db.close()
