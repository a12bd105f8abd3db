"""Connections that a hostile schema cannot use, and that no statement holds up."""

import os
import signal
import threading
from pathlib import Path

import apsw
import pytest

from matir_cli.gallery import connection
from matir_cli.gallery.connection import LONGEST_VALUE, open_defensively

ENDLESS = "(with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n)"


def test_a_connection_is_defensive(tmp_path: Path) -> None:
    db = open_defensively(str(tmp_path / "a.db"))
    assert db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, -1) == 1
    assert db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, -1) == 0
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


def test_planted_views_and_triggers_do_nothing(tmp_path: Path) -> None:
    db = open_defensively(str(tmp_path / "a.db"))
    db.execute("create table t (x); create table u (x); create view v as select * from t")
    db.execute("create trigger g after insert on t begin insert into u values (1); end")
    db.execute("insert into t values (1)")
    assert db.execute("select count(*) from u").get == 0
    with pytest.raises(apsw.SQLError, match="access to view"):
        db.execute("select * from v")
    db.close()


def test_foreign_keys_work_without_triggers(tmp_path: Path) -> None:
    db = open_defensively(str(tmp_path / "a.db"))
    db.pragma("foreign_keys", True)
    db.execute("create table t (x primary key); create table u (x references t on delete cascade)")
    db.execute("insert into t values (1); insert into u values (1); delete from t")
    assert db.execute("select count(*) from u").get == 0
    db.close()


def test_a_huge_value_is_refused(tmp_path: Path) -> None:
    db = open_defensively(str(tmp_path / "a.db"))
    with pytest.raises(apsw.TooBigError):
        db.execute("select length(zeroblob(?))", (LONGEST_VALUE + 1,)).fetchall()
    db.close()


def test_ctrl_c_ends_a_statement_which_is_rolled_back(tmp_path: Path) -> None:
    db = open_defensively(str(tmp_path / "a.db"))
    db.execute("create table t (x); insert into t values (1)")
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        db.execute(f"update t set x = {ENDLESS}")
    timer.join()
    assert db.execute("select x from t").get == 1
    db.close()


def test_a_statement_of_too_many_steps_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STEPS", 1_000_000)
    db = open_defensively(str(tmp_path / "a.db"))
    with pytest.raises(apsw.InterruptError):
        db.execute(f"select {ENDLESS}").fetchall()
    counting = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 50000) "
    for _ in range(10):  # each within the limit, and all together beyond it
        assert db.execute(f"{counting} select max(i) from n").get == 50000
    db.close()


def test_a_lock_is_waited_for_until_the_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (open_defensively(str(tmp_path / "a.db")) for _ in range(2))
    first.execute("create table t (x); begin exclusive")
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.1)
    with pytest.raises(apsw.BusyError):
        second.execute("select * from t").fetchall()
    monkeypatch.setattr(connection, "BUSY_SECONDS", 60)
    timer = threading.Timer(0.2, first.execute, ("commit",))
    timer.start()
    assert second.execute("select * from t").fetchall() == []
    timer.join()
    first.close()
    second.close()


def test_ctrl_c_ends_the_wait_for_a_lock(tmp_path: Path) -> None:
    first, second = (open_defensively(str(tmp_path / "a.db")) for _ in range(2))
    first.execute("create table t (x); begin exclusive")
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        second.execute("select * from t").fetchall()
    timer.join()
    first.close()
    second.close()
