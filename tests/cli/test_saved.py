"""Saved searches in the real process: saved, run, run for new photos, listed, merged, removed."""

import json
import shutil
from pathlib import Path

import pytest

from matir_cli.cli.commands.demo import draw
from matir_cli.cli.commands.saved import remember_outcome
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import open_read_only
from matir_cli.gallery.saved_searches import find_saved_search
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import ModelSession
from matir_cli.search.pipeline import run_search
from matir_cli.search.saved_query import read_saved_query
from tests.support.process import Indexed, matir, records


@pytest.fixture
def gallery(indexed: Indexed, tmp_path: Path) -> Path:
    return Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))


def test_a_saved_search_runs_as_find_does_and_then_returns_what_is_new(
    gallery: Path, indexed: Indexed, tmp_path: Path
) -> None:
    query = ("red house", "--no-rerank", "-n", 40, "--in", indexed.photos, "--in", tmp_path)
    on = ("--db", gallery)
    assert matir("saved", "add", "houses", *query, *on).returncode == 0
    found = matir("find", *query, "--jsonl", *on)
    first = matir("saved", "run", "houses", "--jsonl", *on)
    assert first.returncode == 0
    assert first.stdout == found.stdout
    again = matir("saved", "run", "houses", "--new", "--jsonl", *on)
    assert (again.returncode, again.stdout) == (1, b"")
    assert b"0 of 12 results new" in again.stderr
    draw(tmp_path / "more", 14)
    assert matir("add", tmp_path / "more", *on).returncode == 0
    masks = tmp_path / "masks"
    new = records(matir("saved", "run", "houses", "--new", "--jsonl", "--masks", masks, *on))
    assert len(new) == 2  # the others have the bytes of photos that are known
    assert {Path(record["path"]).parent for record in new} == {tmp_path / "more"}
    assert len([*masks.iterdir()]) == 2
    every = records(matir("saved", "run", "houses", "--jsonl", *on))
    assert [(r["rank"], r["path"]) for r in every if r["path"] in {n["path"] for n in new}] == [
        (r["rank"], r["path"]) for r in new
    ]
    listed = matir("saved", "list", *on).stdout.decode().split("\t")
    assert listed[:2] == ["houses", "14"]
    assert listed[3] == "red house\n"


def test_an_example_is_a_photo_of_the_gallery(gallery: Path, indexed: Indexed, tmp_path: Path) -> None:
    photo, on = min(indexed.photos.glob("*.png")), ("--db", gallery)
    found = records(matir("find", "red house", "--no-rerank", "--in", photo, "--jsonl", *on))
    box = ",".join(map(str, found[0]["box"]))
    words = ("--image", photo, "--box", box, "-n", 3)
    assert matir("saved", "add", "alike", *words, *on).returncode == 0
    (saved,) = json.loads(matir("saved", "list", "--json", *on).stdout)
    assert str(indexed.photos) not in json.dumps(saved["search"])
    assert "run_at" not in saved
    alike = matir("saved", "run", "alike", "--paths", *on)
    assert alike.returncode == 0
    assert alike.stdout == matir("find", *words, "--paths", *on).stdout
    _, other, third, *_ = sorted(indexed.photos.glob("*.png"))
    good = ("--image", photo, "--box", box, "--image", other, "--examples", "mean")
    bad = ("--unlike", third)
    assert matir("saved", "add", "several", *good, *bad, *on).returncode == 0
    several = matir("saved", "run", "several", "--jsonl", *on)
    assert several.returncode == 0
    assert records(several) == records(matir("find", *good, *bad, "--jsonl", *on))
    (tmp_path / "strange.png").write_bytes(photo.read_bytes() + b"\0")
    refused = matir("saved", "add", "other", "--image", tmp_path / "strange.png", *on)
    assert refused.returncode == 2
    assert b"add it first: matir add" in refused.stderr


def test_results_in_a_gallery_that_cannot_be_written_are_not_remembered(
    gallery: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    on = ("--db", gallery)
    assert matir("saved", "add", "houses", "red house", "--no-rerank", "-n", 2, *on).returncode == 0
    with GalleryFile.open(gallery) as opened:
        stored = find_saved_search(opened, "houses")
        asked = read_saved_query(stored.search)
        assert asked.text is not None
        models = ModelSession(opened, load_model_set("tiny"), "cpu")
        outcome = run_search(opened, models, asked.text, asked.options)
    assert len(outcome.results) == 2
    with open_read_only(gallery) as opened:
        remember_outcome(opened, stored, outcome)
    assert "not remembered" in capfd.readouterr().err
    assert matir("saved", "list", *on).stdout.startswith(b"houses\t0\tnever\t")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-",), "is no stream here"),
        ((), "Describe an object"),
        (("dog", "--no-rerank", "--min-p", "0.5"), "--min-p needs the judge"),
        (("dog", "--masks", "out"), "No such option"),
        ((" ",), "query"),
    ],
)
def test_what_cannot_be_saved_is_refused(gallery: Path, words: tuple[str, ...], said: str) -> None:
    done = matir("saved", "add", "name", *words, "--db", gallery)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.decode().split())
    assert matir("saved", "list", "--json", "--db", gallery).stdout == b"[]\n"


def test_a_merge_says_which_searches_clash(gallery: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(gallery, tmp_path / "other.db"))
    for target, name, text in ((gallery, "a", "dog"), (other, "a", "cat"), (other, "b", "cat")):
        assert matir("saved", "add", name, text, "--db", target).returncode == 0
    done = matir("merge", other, "--db", gallery)
    assert done.returncode == 0
    assert b"the saved search a is another one here" in done.stderr
    assert matir("saved", "rm", "a", "b", "--db", gallery).returncode == 0
