"""What commands print as JSON is what the manual's schemas say, field by field."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from matir_cli.cli.group import matir as matir_group
from matir_cli.cli.progress import ProgressForm, progress_bar, set_progress_form
from matir_cli.manual import read_schema, schema_names
from tests.manual.generate import walk_commands
from tests.manual.json_schemas import CONTRACTS
from tests.support.process import PHOTOS, Indexed, matir, records
from tests.support.server import run_server


def strict_schema(name: str) -> dict[str, Any]:
    """The schema with no other field allowed: one that is not in the manual must fail here."""
    schema: dict[str, Any] = json.loads(read_schema(name))
    for record in schema["$defs"].values():
        if "properties" in record:
            record["additionalProperties"] = False
    return schema


def check(name: str, values: list[Any]) -> None:
    """Every value is one of these records, and there is one."""
    assert values
    validator = jsonschema.Draft202012Validator(strict_schema(name))
    for value in values:
        validator.validate(value)
        assert not has_null_field(value)


def has_null_field(value: Any) -> bool:
    """True if a field is null at any depth."""
    if isinstance(value, dict):
        return any(each is None or has_null_field(each) for each in value.values())
    return isinstance(value, list) and any(map(has_null_field, value))


def printed(*words: object, given: bytes = b"") -> Any:
    """The JSON that a command prints as one text."""
    return json.loads(matir(*words, given=given).stdout)


def progress_lines(done: subprocess.CompletedProcess[bytes]) -> list[Any]:
    return [json.loads(line) for line in done.stderr.splitlines() if line.startswith(b"{")]


def test_every_schema_is_one_and_is_shown() -> None:
    assert schema_names() == sorted(contract.name for contract in CONTRACTS)
    for name in schema_names():
        shown = matir("help", "json", name)
        assert (shown.returncode, shown.stderr) == (0, b"")
        assert shown.stdout.decode() == read_schema(name)
        jsonschema.Draft202012Validator.check_schema(json.loads(shown.stdout))
    wrong = matir("help", "json", "fnid")
    assert wrong.returncode == 2
    assert b"No such schema 'json fnid'. Did you mean json find?" in wrong.stderr


def test_a_field_too_many_too_few_or_null_is_noticed() -> None:
    record = {"region": 1, "photo": 2, "path": "a.jpg", "ordinal": 0}
    check("export-ids", [record])
    for wrong in ({**record, "new": 1}, {**record, "ordinal": None}, {"region": 1, "photo": 2, "path": "a"}):
        with pytest.raises(jsonschema.ValidationError):
            check("export-ids", [wrong])


def test_every_command_that_prints_json_has_a_schema() -> None:
    printing = {
        name.removeprefix("matir ").replace(" ", "-")
        for name, command in walk_commands(matir_group, "matir")
        if any({"--json", "--jsonl"} & {*option.opts} for option in command.params)
    }
    assert {"find", "ls", "models-try"} <= printing
    assert printing <= {*schema_names()}


def test_results_events_and_answers(indexed: Indexed, model_set: Path, tmp_path: Path) -> None:
    gallery = Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))
    words = (
        "--db",
        gallery,
        "-n",
        4,
        "--certainty",
        1,
        "--models",
        model_set,
        "--all-instances",
        "--rle",
        "--min-iou",
        0,
    )
    out = ("--masks", tmp_path / "m", "--cutouts", tmp_path / "c", "--overlays", tmp_path / "o")
    judged = printed("find", "red house", "--json", *words, *out)
    check("find", judged)
    assert any("instances" in each and "mask" in each for each in judged)
    assert all("overlay_file" in each for each in judged)
    check("find", records(matir("find", "red house", "--jsonl", "--no-rerank", *words[:4])))
    events = records(matir("find", "red house", "--jsonl", "--stream", *words))
    check("find-stream", events)
    assert {event["event"] for event in events} == {"stage1", "verdict", "grounded", "final"}
    check("find-answers", records(matir("find", "-", "--db", gallery, "--no-rerank", given=b"house\ntree\n")))


def test_listings_and_reports(indexed: Indexed) -> None:
    db = ("--db", indexed.gallery)
    check("ls", printed("ls", "--json", *db))
    check("ls", records(matir("ls", "--jsonl", *db)))
    skipped = printed("ls", "--skipped", "--json", *db)
    check("ls-skipped", skipped)
    check("ls-skipped", records(matir("ls", "--skipped", "--jsonl", *db)))
    check("show", [printed("show", "1", "--json", *db)])
    check("info", [printed("info", "--json", *db)])
    check("config", printed("config", "find", "--json"))
    check("doctor", printed("doctor", "--json", *db))
    check("models-list", printed("models", "list", "--json"))
    check("models-try", printed("models", "try", "tiny", "--part", "encoder", "--json"))


def test_numbers_of_indexing(indexed: Indexed, tmp_path: Path) -> None:
    words = ("add", indexed.photos, "--db", tmp_path / "gallery.db", "--models", "tiny", "--json")
    first, second = printed(*words), printed(*words)
    check("add", [first, second])
    assert first["prompts"] == 12**2 * first["added"] > 0
    assert first["regions"] == printed("info", "--json", *words[2:4])["gallery"]["regions"] > 0
    nothing = {"added": 0, "regions": 0, "prompts": 0, "unchanged": first["added"] + first["recognised"]}
    assert second == {**first, **nothing, "recognised": 0}
    refused = matir(*words, "--dry-run")
    assert refused.returncode == 2
    assert b"--json and --dry-run contradict each other" in refused.stderr


def test_saved_searches_and_duplicates(indexed: Indexed, tmp_path: Path) -> None:
    folder, gallery = tmp_path / "photos", tmp_path / "gallery.db"
    folder.mkdir()
    first = min(indexed.photos.glob("*.png"))
    for name in ("a.png", "b.png"):
        shutil.copy(first, folder / name)
    db = ("--db", gallery)
    assert matir("add", folder, *db, "--models", "tiny").returncode == 0
    check("duplicates", printed("duplicates", "--json", *db))
    check("duplicates", records(matir("duplicates", "--jsonl", *db)))
    assert matir("saved", "add", "houses", "red house", "--no-rerank", "--rating", "1+", *db).returncode == 0
    check("saved-list", printed("saved", "list", "--json", *db))
    assert matir("saved", "run", "houses", *db).returncode == 1
    assert matir("saved", "add", "all", "red house", "--no-rerank", *db).returncode == 0
    assert matir("saved", "add", "like", "--image", first, *db).returncode == 0
    check("saved-run", printed("saved", "run", "all", "--json", "--sort", "path", *db))
    check("saved-list", printed("saved", "list", "--json", *db))


@pytest.mark.parametrize("text", ["dog", "two red houses without a door, left of a tree, and a cat"])
def test_descriptions(text: str) -> None:
    check("parse", [printed("parse", text, "--json")])


def test_ids_of_vectors(indexed: Indexed, tmp_path: Path) -> None:
    done = matir("export", "--vectors", tmp_path / "v.npy", "--db", indexed.gallery)
    assert done.returncode == 0
    check("export-ids", [json.loads(line) for line in (tmp_path / "v.ids.jsonl").read_text().splitlines()])


# Progress


def test_progress_of_indexing_in_lines_of_json(indexed: Indexed, tmp_path: Path) -> None:
    words = ("--db", tmp_path / "gallery.db", "--models", "tiny")
    done = matir("add", indexed.photos, *words, "--progress", "json")
    lines = progress_lines(done)
    check("progress", lines)
    first, last = lines[0], lines[-1]
    assert (first["step"], first["done"], first["ended"]) == ("add", 0, False)
    assert "total" not in first  # the files have not been found yet
    assert last["done"] == last["total"] == PHOTOS + 2
    assert last["ended"]
    assert [line["done"] for line in lines] == sorted(line["done"] for line in lines)
    assert b"matir: 12 added" in done.stderr.splitlines()[-1]
    last = progress_lines(matir("sync", indexed.photos, *words, "--progress", "json"))[-1]
    assert last["done"] == last["total"] == PHOTOS + 2
    none = matir("sync", indexed.photos, *words, "--progress", "none")
    assert not progress_lines(none)


@pytest.mark.parametrize("through_server", [False, True])
def test_progress_of_a_search(
    indexed: Indexed, model_set: Path, tmp_path: Path, through_server: bool
) -> None:
    gallery = Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))
    words = ("find", "red house", "--db", gallery, "--models", model_set, "--progress", "json")
    if through_server:
        with run_server(gallery, model_set):
            done = matir(*words)
    else:
        done = matir(*words)
    lines = progress_lines(done)
    check("progress", lines)
    steps = {line["step"] for line in lines}
    assert "judging" in steps
    for step in steps:
        assert [line["ended"] for line in lines if line["step"] == step][-1]


def test_every_command_that_takes_long_takes_the_option() -> None:
    takes = {
        name
        for name, command in walk_commands(matir_group, "matir")
        if any("--progress" in option.opts for option in command.params)
    }
    long = {"add", "sync", "find", "tag", "export", "merge", "compact", "doctor", "demo"}
    long |= {"models pull", "models verify", "models try", "eval coco", "eval d3", "eval world"}
    assert {f"matir {name}" for name in long} <= takes


def test_bytes_are_counted_as_well() -> None:
    lines = progress_lines(matir("models", "verify", "tiny", "--progress", "json"))
    check("progress", lines)
    assert {line["unit"] for line in lines} == {"B"}


def test_a_step_that_fails_ends(capfd: pytest.CaptureFixture[str]) -> None:
    set_progress_form(ProgressForm.JSON)
    try:
        with pytest.raises(KeyError), progress_bar(5, "reading") as bar:
            bar.advance(2)
            raise KeyError
    finally:
        set_progress_form(ProgressForm.AUTO)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(line["done"], line["ended"]) for line in lines] == [(0, False), (2, True)]
