"""The user's defaults file: which one is read, what it may hold, and what comes before it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from matir_cli.cli.defaults import SHARED_OPTIONS, settable_options
from matir_cli.cli.group import COMMANDS
from matir_cli.cli.group import matir as group
from tests.manual.generate import walk_commands
from tests.support.process import MATIR, Indexed, matir, records


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


def settings(file: Path, *words: object, db: str = "") -> dict[tuple[str, str], tuple[str, str]]:
    """Value and source by command and option, as `matir config` prints them."""
    done = matir("config", "--json", *words, MATIR_CONFIG=str(file), MATIR_DB=db)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return {(row["command"], row["option"]): (row["value"], row["source"]) for row in rows}


def test_each_place_comes_before_the_next(file: Path) -> None:
    file.write_text('[all]\ndb = "all.db"\ndevice = "cpu"\n[find]\nlimit = 50\n[show]\ndb = "show.db"\n')
    set_here = settings(file)
    assert set_here["find", "limit"] == ("50", "file")
    assert set_here["find", "db"] == (str(file.parent / "all.db"), "file")
    assert set_here["show", "db"] == (str(file.parent / "show.db"), "file")
    assert ("find", "min-p") not in set_here
    assert settings(file, "find")["find", "min-p"] == ("", "default")
    assert settings(file, "find", db="/x.db")["find", "db"] == ("/x.db", "environment")
    given = settings(file, "--", "find", "--limit", "3")
    assert given["find", "limit"] == ("3", "command line")
    assert settings(file, "models", "try")["models try", "device"] == ("cpu", "file")


def test_defaults_take_effect_and_can_be_overridden(indexed: Indexed, file: Path) -> None:
    lines = [f'[all]\ndb = "{indexed.gallery}"', "[find]", "limit = 2", "no-rerank = true", "json = true"]
    file.write_text("\n".join([*lines, "rle = true"]))
    found = json.loads(matir("find", "red house", MATIR_CONFIG=str(file)).stdout)
    assert len(found) == 2
    assert "mask" in found[0]
    assert not found[0]["judged"]
    plain = matir("find", "red house", "--jsonl", "-n", 4, "--no-rle", MATIR_CONFIG=str(file))
    assert [sorted({"mask"} & {*record}) for record in records(plain)] == [[]] * 4
    assert matir("find", "red house", "--paths", MATIR_CONFIG=str(file)).stdout.count(b"\n") == 2
    assert matir("find", "red house", "--db", "/nowhere.db", MATIR_CONFIG=str(file)).returncode == 2
    assert b"0000.png" in matir("ls", MATIR_CONFIG=str(file)).stdout


def test_options_that_go_with_others_wait_for_these(indexed: Indexed, file: Path, tmp_path: Path) -> None:
    waiting = ['mask-form = "npz"', "feather = 3", 'background = "white"', "val = 0.2", 'within = "5km"']
    waiting += [
        "weight = 0.7",
        "background-photos = 0.1",
        "preview = true",
        "explain = true",
        "stream = true",
    ]
    file.write_text("\n".join([f'[all]\ndb = "{indexed.gallery}"', "[find]", *waiting]))
    plain = matir("find", "red house", "--no-rerank", "--paths", "-n", 2, MATIR_CONFIG=str(file))
    assert (plain.returncode, plain.stdout.count(b"\n")) == (0, 2), plain.stderr
    words = ("find", "red house", "--no-rerank", "-n", 1, "--json", "--masks", tmp_path / "masks")
    (found,) = json.loads(matir(*words, MATIR_CONFIG=str(file)).stdout)
    assert found["mask_file"].endswith(".npz")
    assert "explanation" in found
    refused = matir("find", "red house", "--no-rerank", "--mask-form", "npz", MATIR_CONFIG=str(file))
    assert (refused.returncode, b"--mask-form goes with --masks" in refused.stderr) == (2, True)


def test_an_option_from_the_file_is_named_when_it_contradicts(indexed: Indexed, file: Path) -> None:
    file.write_text(f'[find]\nmin-p = 0.5\ndb = "{indexed.gallery}"\n')
    done = matir("find", "red house", "--no-rerank", MATIR_CONFIG=str(file))
    assert done.returncode == 2
    assert b"set in the defaults file: --db, --min-p; to run without it: MATIR_CONFIG=" in done.stderr


WRONG = [
    ("[fnid]\nlimit = 1", "fnid: there is no such command"),
    (
        "[find]\nlimt = 1",
        "option that a file may set; the nearest is limit.",
    ),
    ("[find]\nimage = ['a.jpg']", "find.image: the command has no such option that a file may set"),
    ("[find]\nbox = ['1,1,9,9']", "find.box: the command has no such option"),
    ("[find]\nlimit = 0", "find.limit: 0 is not in the range"),
    ("[find]\nlimit = 'ten'", "find.limit: 'ten' is not a valid integer"),
    ("[find]\nlimit = true", "find.limit: must be a text, a number or a date"),
    ("[find]\nlimit = [1]", "find.limit: must be one value"),
    ("[find]\nwhole = 1", "find.whole: must be true or false"),
    ("[find]\nnot = 'x'", "find.not: must be a list"),
    ("[find]\nrating = '9'", "find.rating: '9' is no rating"),
    ("[find]\nnear = '91,0'", "find.near: '91,0' is no latitude and longitude"),
    ("[find]\nkeyword = [' ']", "find.keyword: it is empty"),
    ("[find]\ndevice = 'gpu'", "find.device: 'gpu' is not one of"),
    ("[find]\nlimit = {a = 1}", "find.limit: must be a text"),
    ("limit = 1", "limit: there is no such command"),
    ("find = 1", "find: is no table of options"),
    ("[all]\nlimit = 1", "all.limit: may only be one of db, "),
    ("[find\nlimit = 1", ": Expected"),
    ("[config]\njson = true", "config: there is no such command"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_what_is_wrong_is_said_in_one_line(text: str, said: str, file: Path) -> None:
    file.write_text(text)
    done = matir("find", "dog", MATIR_CONFIG=str(file))
    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == 2
    assert line.startswith(f"matir: the defaults file {file}")
    assert said in line
    assert "MATIR_CONFIG= matir" in line
    checked = matir("config", MATIR_CONFIG=str(file))
    assert checked.returncode == 2
    assert said in checked.stderr.decode()
    assert matir("help", MATIR_CONFIG=str(file)).returncode == 0


def test_nested_tables_are_those_of_subcommands(file: Path) -> None:
    file.write_text("[models.pul]\nx = 1\n")
    wrong = matir("models", "list", MATIR_CONFIG=str(file))
    assert b"models.pul: there is no such command" in wrong.stderr
    file.write_text("[models]\nlist = 1\n")
    assert b"models.list: is no table" in matir("models", "list", MATIR_CONFIG=str(file)).stderr
    file.write_text("[models.list]\njson = true\n")
    assert json.loads(matir("models", "list", MATIR_CONFIG=str(file)).stdout)
    assert b"\t" in matir("models", "list", "--no-json", MATIR_CONFIG=str(file)).stdout


def test_only_the_users_own_file_is_read(indexed: Indexed, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "matir").mkdir(parents=True)
    (home / "matir" / "config.toml").write_text("[ls]\nlong = true\n")
    shown = ("ls", "--db", indexed.gallery)
    environment = {**os.environ, "XDG_CONFIG_HOME": str(home), "HOME": str(home)}
    del environment["MATIR_CONFIG"]
    for folder in (tmp_path, indexed.gallery.parent):
        (folder / "config.toml").write_text("[ls]\nnonsense = 1\n")
    done = subprocess.run(
        [*MATIR, *map(str, shown)], cwd=tmp_path, env=environment, capture_output=True, check=True
    )
    (indexed.gallery.parent / "config.toml").unlink()
    assert done.stdout.startswith(b"     id ")
    assert not matir(*shown).stdout.startswith(b"     id ")  # empty: none
    missing = matir(*shown, MATIR_CONFIG=str(tmp_path / "gone.toml"))
    assert b"gone.toml: No such file" in missing.stderr


def test_the_editor_gets_the_file(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "new.toml"
    editor = tmp_path / "editor.sh"
    editor.write_text("#!/bin/sh\nprintf '[find]\\nlimit = 7\\n' >> \"$1\"\n")
    editor.chmod(0o755)
    done = matir("config", "--edit", MATIR_CONFIG=str(file), EDITOR=str(editor), VISUAL=str(editor))
    assert done.stdout == b"find\tlimit\t7\tfile\n"
    assert b"folder/new.toml" in done.stderr
    assert matir("config", "--edit", MATIR_CONFIG="").returncode == 2


def test_every_option_can_be_set_and_shared_ones_exist() -> None:
    names = set[str]()
    for _, command in walk_commands(group, "matir"):
        for key, option in settable_options(command).items():
            names.add(key)
            assert isinstance(option, click.Option)
            assert f"--{key}" in option.opts
    assert {*SHARED_OPTIONS} <= names
    assert "config" in COMMANDS
