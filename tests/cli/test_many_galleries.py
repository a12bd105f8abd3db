"""Several galleries in the real process: every output is that of the merged gallery, byte for byte."""

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from matir_cli.cli.group import matir as matir_group
from matir_cli.maintenance.many import open_galleries
from tests.manual.generate import walk_commands
from tests.support.process import PHOTOS, Indexed, matir


@dataclass(frozen=True)
class Shards:
    """Galleries, and the gallery that a merge makes of them."""

    folder: Path
    merged: Path

    @property
    def paths(self) -> list[Path]:
        return sorted(self.folder.iterdir())


@pytest.fixture(scope="module")
def shards(indexed: Indexed, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """Three parts of a gallery of drawn pictures, and a fourth with photos that are in the others, too."""
    root = tmp_path_factory.mktemp("shards")
    split = matir("split", root / "shards", "--into", 3, "--db", indexed.gallery)
    assert split.returncode == 0, split.stderr
    assert split.stdout.decode().splitlines() == [str(path) for path in sorted((root / "shards").iterdir())]
    more = root / "shards" / "z.db"
    shutil.copy(root / "shards" / "gallery-2.db", more)
    for path in (*sorted((root / "shards").iterdir()),):
        done = matir("merge", path, "--db", root / "merged.db")
        assert done.returncode == 0, done.stderr
    return Shards(root / "shards", root / "merged.db")


def written(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


FORMS: tuple[list[str], ...] = (
    ["--explain"],
    ["--json", "--rle", "--all-instances", "--explain"],
    ["--jsonl", "--stream"],
    ["-0"],
)


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_printed_forms(shards: Shards, form: list[str]) -> None:
    query = ("find", "red house", "--no-rerank", *form)
    several, one = matir(*query, "--db", shards.folder), matir(*query, "--db", shards.merged)
    assert several.returncode == one.returncode == 0, several.stderr
    assert several.stdout == one.stdout
    assert several.stderr == one.stderr


def test_written_forms(shards: Shards, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    forms: list[object] = [
        "--coco",
        folder / "coco.json",
        "--yolo",
        folder / "yolo",
        "--val",
        "0.4",
        "--jsonl",
    ]
    forms += ["--masks", folder / "masks", "--cutouts", folder / "cutouts"]
    forms += ["--overlays", folder / "overlays", "--html", folder / "page.html"]
    outputs = []
    for db in (shards.folder, shards.merged):
        done = matir("find", "blue ball", "--no-rerank", "-n", "6", "--db", db, *forms)
        assert done.returncode == 0, done.stderr
        outputs.append((done.stdout, done.stderr, written(folder)))
        shutil.rmtree(folder)
    assert outputs[0] == outputs[1]
    assert len(outputs[0][2]) > 10


def test_tasks_for_corrections_name_regions_as_the_gallery_of_the_photo_does(
    shards: Shards, indexed: Indexed, tmp_path: Path
) -> None:
    one, *_ = shards.paths
    tasks: list[dict[str, Any]] = []
    for db in (shards.folder, shards.merged, one):
        file = tmp_path / f"{len(tasks)}.json"
        words = ["--labelstudio", file, "--document-root", indexed.photos]
        done = matir("find", "blue ball", "--no-rerank", "-n", PHOTOS, "--db", db, *words)
        assert done.returncode == 0, done.stderr
        tasks.append({task["data"]["image"]: task for task in json.loads(file.read_text())})
    several, merged, alone = tasks
    assert [*several] == [*merged]
    assert all(several[image]["data"]["matir"] == alone[image]["data"]["matir"] for image in alone)

    def values(task: Any) -> list[object]:
        return [result["value"] for result in task["predictions"][0]["result"]]

    assert [*map(values, several.values())] == [*map(values, merged.values())]


QUERIES = b"red house\nblue ball\n\nred house\n"


@pytest.mark.parametrize(
    "words",
    [
        ["find", "-", "--no-rerank"],
        ["find", "ball", "--no-rerank", "--unique", "--json"],
        ["find", "a house left of a tree", "--not", "red", "--no-rerank", "--json", "--max-size", "0.9"],
        ["find", "ball", "--camera", "nobody", "--no-rerank"],
        ["tag", "red house", "--no-rerank", "-n", "5", "--dry-run"],
        ["ls", "--long"],
        ["ls", "--json"],
    ],
    ids=" ".join,
)
def test_other_searches_and_lists(shards: Shards, words: list[str]) -> None:
    several, one = (matir(*words, "--db", db, given=QUERIES) for db in (shards.folder, shards.merged))
    assert several.returncode == one.returncode in (0, 1), several.stderr
    assert several.stdout == one.stdout
    assert re.sub(rb" --db \S+", b"", several.stderr) == re.sub(rb" --db \S+", b"", one.stderr)


def test_examples(shards: Shards) -> None:
    known = json.loads(matir("ls", "--jsonl", "--db", shards.merged).stdout.splitlines()[3])["path"]
    for words in (["--image", known], ["--unlike", known, "ball"]):
        query = ("find", *words, "--no-rerank", "--json")
        several, one = matir(*query, "--db", shards.folder), matir(*query, "--db", shards.merged)
        assert several.returncode == one.returncode == 0, several.stderr
        assert (several.stdout, several.stderr) == (one.stdout, one.stderr)


def test_galleries_are_named_by_options_a_pattern_a_folder_or_the_variable(shards: Shards) -> None:
    query = ("find", "red house", "--no-rerank", "--paths")
    expected = matir(*query, "--db", shards.merged).stdout
    repeated = [word for path in shards.paths for word in ("--db", path)]
    assert matir(*query, *repeated).stdout == expected
    assert matir(*query, "--db", shards.folder / "*.db").stdout == expected
    assert matir(*query, MATIR_DB=os.pathsep.join(map(str, shards.paths))).stdout == expected
    assert matir(*query, MATIR_DB=str(shards.folder)).stdout == expected
    assert matir(*query, "--db", shards.paths[0]).stdout != expected


def test_info_tells_of_each_and_of_all(shards: Shards) -> None:
    told = json.loads(matir("info", "--json", "--db", shards.folder).stdout)
    assert told["photos"] == PHOTOS
    assert [Path(each["path"]) for each in told["galleries"]] == shards.paths
    assert sum(each["photos"] for each in told["galleries"]) == PHOTOS + 4
    text = matir("info", "--db", shards.folder).stdout.decode()
    assert text.count("files hold them") == 4
    assert text.splitlines()[-1].strip() == f"{PHOTOS}  photos in 4 galleries together; 4 copies not counted"


def overwrite_table(gallery: Path, name: str) -> None:
    """Overwrite the first page of a table."""
    with closing(sqlite3.connect(gallery)) as database:
        rows = database.execute("select rootpage from sqlite_schema where name = ?", (name,))
        (root,) = rows.fetchone()
        (size,) = database.execute("pragma page_size").fetchone()
    with gallery.open("rb+") as stream:
        stream.seek((root - 1) * size)
        stream.write(b"\xff" * size)


def test_missing_and_damaged_galleries(shards: Shards, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards.folder, tmp_path / "copy"))
    broken = folder / "gallery-1.db"
    broken.write_bytes(broken.read_bytes()[:5000])
    query = ("find", "red house", "--no-rerank", "--paths", "--db", folder)
    done = matir(*query)
    assert done.returncode == 2
    assert str(broken).encode() in done.stderr
    assert len(done.stderr.splitlines()) == 1
    found = matir(*query, "--skip-missing", "--db", tmp_path / "none.db")
    assert found.returncode == 0, found.stderr
    assert str(broken).encode() in found.stderr
    assert b"there is no gallery at" in found.stderr
    second = folder / "gallery-2.db"
    overwrite_table(second, "vectors")
    later = matir(*query, "--skip-missing")
    assert later.returncode == 0, later.stderr
    assert str(second).encode() in later.stderr
    second.unlink()
    broken.unlink()
    assert matir(*query).stdout == later.stdout
    nothing = matir(*query[:-2], "--db", tmp_path / "no*.db", "--skip-missing")
    assert nothing.returncode == 2
    left_out, last = nothing.stderr.decode().splitlines()
    assert left_out.startswith("matir: left out (--skip-missing): there is no gallery at ")
    assert last == (
        "matir: no gallery is left to read: all that were named are left out. "
        "Mend or restore one of them, as said above, or name others with --db."
    )


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file_metadata", ["ls", "--long"]),
        ("notes", ["ls", "--missing", "--absent", "--json"]),
        ("skipped", ["ls", "--skipped"]),
        ("notes", ["info", "--json"]),
        ("file_metadata", ["tag", "--remove", "--label", "dog", "--rating", "2", "--dry-run"]),
        ("file_metadata", ["find", "red house", "--no-rerank", "--rating", "2"]),
    ],
)
def test_damage_that_shows_only_while_reading(
    shards: Shards, tmp_path: Path, table: str, words: list[str]
) -> None:
    galleries = [Path(shutil.copy(path, tmp_path)) for path in shards.paths[:3]]
    damaged = galleries[1]
    overwrite_table(damaged, table)
    with open_galleries(galleries) as opened:
        assert opened.count_photos() == PHOTOS
    failed = matir(*words, "--db", tmp_path)
    assert failed.returncode == 2
    assert f"{damaged} is damaged" in failed.stderr.decode()
    done = matir(*words, "--skip-missing", "--db", tmp_path)
    damaged.unlink()
    others = matir(*words, "--db", tmp_path)
    assert (done.returncode, done.stdout) == (others.returncode, others.stdout)
    left_out, *rest = done.stderr.decode().splitlines()
    assert left_out.startswith(f"matir: left out (--skip-missing): {damaged} is damaged: ")
    assert rest == others.stderr.decode().splitlines()


def test_galleries_of_other_models_are_refused(shards: Shards, tmp_path: Path) -> None:
    other = Path(shutil.copy(shards.paths[1], tmp_path / "other.db"))
    with closing(sqlite3.connect(other)) as database, database:
        database.execute("update models set weight_hash = ? where role = 'encoder'", ("0" * 64,))
    done = matir("find", "red house", "--no-rerank", "--db", shards.paths[0], "--db", other, "--skip-missing")
    assert done.returncode == 2
    assert str(other).encode() in done.stderr
    assert b"encoder" in done.stderr


def commands_of_one_gallery() -> Iterator[tuple[str, click.Command]]:
    for name, command in walk_commands(matir_group, "matir"):
        if any(each.name == "gallery_path" for each in command.params):
            yield name, command


@pytest.mark.parametrize(("name", "command"), [*commands_of_one_gallery()])
def test_other_commands_take_one_gallery(name: str, command: click.Command, tmp_path: Path) -> None:
    words = ["--into", "2"] if name == "matir split" else []
    words += ["x" for each in command.params if isinstance(each, click.Argument) and each.required]
    for given in (["--db", "a.db", "--db", "b.db"], ["--db", str(tmp_path / "*.db")]):
        with pytest.raises(click.BadParameter, match="takes one gallery, and"):
            command.make_context(name, [*words, *given])


def test_several_galleries_are_not_written_to(shards: Shards) -> None:
    several = os.pathsep.join(map(str, shards.paths))
    done = matir("compact", MATIR_DB=several)
    assert done.returncode == 2
    assert b"takes one gallery, and several are given: choose one with --db FILE" in done.stderr
    assert {name for name, _ in commands_of_one_gallery()} >= {f"matir {name}" for name in WRITING}


WRITING = ("add", "sync", "rm", "compact", "merge", "split", "serve", "reencode", "saved run")
