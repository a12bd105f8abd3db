"""`matir eval` as a real process: the drawn world, and small data sets in COCO's and D3's formats."""

import csv
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.verdict_cache import count_groundings, count_verdicts
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.weights import locate_files
from matir_cli.models.tiny import benchmark
from matir_cli.models.tiny.grammar import parse
from matir_cli.models.tiny.world import SPLITS, picture
from tests.cli.test_json_contract import check
from tests.support.process import BEGUN, MATIR, matir, open_terminal

IMAGES, QUERIES = 5, 12


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of a few pictures of the drawn world, with a random judge."""

    out: Path
    words: tuple[object, ...]
    done: subprocess.CompletedProcess[bytes]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, model_set: Path) -> Evaluated:
    folder = tmp_path_factory.mktemp("world")
    words: tuple[object, ...] = ("eval", "world", "--limit-images", IMAGES, "--limit-queries", QUERIES)
    words += ("--models", model_set, "--out", folder / "out")
    exported = ("--export-ranking", folder / "ranking.jsonl", "--export-masks", folder / "masks.json")
    return Evaluated(folder / "out", words, matir(*words, *exported, "--baselines", "whole,cropping"))


def stored_answers(out: Path) -> tuple[int, int]:
    """Numbers of stored verdicts and groundings."""
    with GalleryFile.open(out / "gallery.db") as gallery:
        return count_verdicts(gallery), count_groundings(gallery)


def rows(out: Path, number: int) -> dict[str, dict[str, object]]:
    """The rows of a table by method."""
    tables = json.loads((out / "results.json").read_text())["tables"]
    return {row["method"]: row for row in tables[number - 1]["rows"]}


def test_the_four_tables_are_printed_and_written(world: Evaluated) -> None:
    assert world.done.returncode == 0, world.done.stderr.decode()
    text = world.done.stdout.decode()
    assert text == (world.out / "tables.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert [heading.split(":")[0] for heading in headings[:4]] == [f"## Table {n}" for n in (1, 2, 3, 4)]
    assert "paper, COCO | paper, D3" in text
    assert f"a part of the drawn world: {IMAGES} of 400 pictures" in text
    assert f"{QUERIES} of 64 queries" in text
    assert "an IoU of at least 0.75" in text
    methods = rows(world.out, 1)
    assert methods["MaTIR"]["paper"] == {"coco": 92.97, "d3": 61.0}
    for method in ("MaTIR without reranking (stage 1)", "MaTIR", "whole image (alpha_clip_tiny_drawn_world)"):
        summary = methods[method]["summary"]
        assert isinstance(summary, dict)
        assert 0 < summary["interval"]["low"] <= summary["mean_by_relevant"] <= summary["interval"]["high"]
    assert "summary" not in methods["Dense-CLIP"]
    assert "Dense-CLIP | – | – | 77.59 | 25.31 | not among the baselines asked for" in text
    assert rows(world.out, 4).keys() == {
        "stage 1's best region, stage 1's order",
        "stage 1's best region, reranked order",
        "judge's box + mask matching (MaTIR)",
    }


def test_the_figures_of_each_query_and_their_provenance_are_written(world: Evaluated) -> None:
    result = json.loads((world.out / "results.json").read_text())
    check("eval", [result])
    asked = result["dataset"]["queries_with_a_relevant_image"]
    with (world.out / "per_query.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    stage_1 = [line for line in lines if line["method"] == "MaTIR without reranking (stage 1)"]
    assert len(stage_1) == asked > 0
    mean = sum(float(line["ap"]) for line in stage_1) / asked
    row = rows(world.out, 1)["MaTIR without reranking (stage 1)"]
    assert isinstance(row["summary"], dict)
    assert row["summary"]["mean_by_relevant"] == pytest.approx(mean)
    assert set(result["models"]) == {"proposer", "encoder", "judge"}
    assert all("SHA-256" in model for model in result["models"].values())
    assert {"matir-cli", "torch", "llama-cpp-python"} <= set(result["versions"])
    assert (result["settings"]["N_C"], result["settings"]["N_K"]) == ("100", "50")
    assert len(result["dataset"]["annotations_sha256"]) == 64


ABLATIONS = ("prompts", "transform", "whole-photo", "fusion", "keep", "match")


@pytest.fixture(scope="module")
def again(world: Evaluated, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """The same evaluation again, with options that need no new answers."""
    out = tmp_path_factory.mktemp("again") / "out"
    shutil.copytree(world.out, out)
    masks = world.out.parent / "masks.json"
    words = (*world.words[:-1], out, "--baselines", "whole,cropping", "--refine")
    words += ("--import-masks", f"ours={masks}", "--import-masks", f"ape={masks}")
    return Evaluated(out, words, matir(*words, *(word for name in ABLATIONS for word in ("--ablate", name))))


def test_running_again_asks_nothing_and_imported_masks_score_the_same(
    world: Evaluated, again: Evaluated
) -> None:
    assert again.done.returncode == 0, again.done.stderr.decode()
    messages = again.done.stderr.decode()
    assert "searching" in messages
    for step in ("judging", "grounding", "whole image", "added"):
        assert step not in messages
    verdicts, groundings = stored_answers(world.out)
    assert verdicts == groundings > 0  # --export-masks asks for a mask everywhere
    assert stored_answers(again.out) == (verdicts, groundings)
    second = rows(again.out, 2)
    assert second["ours"]["summary"] == second["MaTIR"]["summary"] == second["APE"]["summary"]
    assert second["APE"]["paper"] == {"coco": 71.27, "d3": 41.56}
    assert "summary" in second["MaTIR with --refine"]
    ranking = (world.out.parent / "ranking.jsonl").read_text().splitlines()
    assert f"of {len(ranking)} ranked images" in str(second["ours"]["note"])
    assert set(json.loads(ranking[0])) == {"query_id", "query", "rank", "image_id", "image"}


def test_each_ablation_is_a_table_that_starts_with_the_base_setting(again: Evaluated) -> None:
    results = json.loads((again.out / "results.json").read_text())
    check("eval", [results])
    found = results["ablations"]
    assert [each["ablation"] for each in found] == list(ABLATIONS)
    settings = {each["ablation"]: [row["setting"] for row in each["rows"]] for each in found}
    assert settings["prompts"] == ["the query alone", "a photo of a {}.", "CLIP's seven"]
    assert settings["transform"] == ["squash", "letterbox", "crop"]
    assert settings["whole-photo"] == ["on", "off"]
    first = {each["ablation"]: [row["stage_1"]["mean_by_relevant"] for row in each["rows"]] for each in found}
    assert len(set(first["prompts"])) > 1
    assert len(set(first["transform"])) > 1
    assert len(set(first["fusion"])) == 1
    assert {values[0] for values in first.values()} == {first["fusion"][0]}


def test_ctrl_c_keeps_verdicts_and_the_next_run_resumes(
    world: Evaluated, model_set: Path, tmp_path: Path
) -> None:
    # The judge sees the pictures at a much larger size, so that there is time for Ctrl-C.
    slow = model_set.with_name("slow-eval.toml")
    slow.write_text(
        model_set.read_text().replace("max_pixels = 50176", "min_pixels = 401408\nmax_pixels = 802816")
    )
    out = shutil.copytree(world.out, tmp_path / "out")
    words = ["eval", "world", "--limit-images", IMAGES, "--limit-queries", 4, "--baselines", "none"]
    words += ["--models", slow, "--out", out]
    before = stored_answers(out)[0]
    screen, terminal = open_terminal()
    process = subprocess.Popen([*MATIR, *map(str, words)], stderr=terminal, stdout=subprocess.PIPE)
    os.close(terminal)
    output = b""
    while not BEGUN.search(output[output.find(b"judging") :] if b"judging" in output else b""):
        output += os.read(screen, 4096)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[0] == b""
    output += b"".join(_rest(screen))
    assert process.returncode == 130
    assert b"are kept in " in output
    assert b"run the same command again to go on" in output
    kept = stored_answers(out)[0] - before
    assert 0 < kept < 4 * IMAGES
    done = matir(*words)
    assert done.returncode == 0, done.stderr.decode()
    queries = json.loads((out / "results.json").read_text())["dataset"]["queries_with_a_relevant_image"]
    assert stored_answers(out)[0] - before == queries * IMAGES
    assert f"judging: {IMAGES - kept // queries} photos" in done.stderr.decode()


def _rest(screen: int) -> Iterator[bytes]:
    try:
        while chunk := os.read(screen, 4096):
            yield chunk
    except OSError:  # the terminal's other end is closed
        os.close(screen)


# Data in the published formats


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pictures both as COCO and as D3, and a folder for the gallery that they share."""
    folder = tmp_path_factory.mktemp("drawn")
    start = SPLITS["test"].start
    pictures = [picture(seed) for seed in range(start, start + 4)]
    texts = ("person", "ring", "house without a door", "star", "dog without a rope")
    queries = [parse(text) for text in texts]
    benchmark.write_coco(folder / "coco", pictures, [])
    benchmark.write_d3(folder / "d3", pictures, queries)
    return folder


def write_encoder_set(folder: Path) -> Path:
    """A model set with only an encoder: the tiny one under another name."""
    config = locate_files(load_model_set("tiny"), "encoder")
    lines = ['name = "other"', 'description = "an encoder"', "[encoder]", 'name = "another"']
    lines += [f'engine = "{config.engine}"', 'licence = "none"']
    lines += ["options = { heads = 4, text_heads = 4 }"]
    for role, path in config.files.items():
        shutil.copy(path, folder / path.name)
        lines += [f'files.{role}.path = "{path.name}"']
    (folder / "other.toml").write_text("\n".join(lines))
    return folder / "other.toml"


def on_coco(
    folder: Path, *words: object, annotations: str = "instances.json"
) -> subprocess.CompletedProcess[bytes]:
    images = folder / "coco" / "images"
    given = ("--images", images, "--annotations", folder / "coco" / annotations, "--models", "tiny")
    return matir("eval", "coco", *given, "--out", folder / "out", *words)


def on_d3(folder: Path, *words: object) -> subprocess.CompletedProcess[bytes]:
    given = ("--images", folder / "d3" / "d3_images", "--annotations", folder / "d3", "--models", "tiny")
    return matir("eval", "d3", *given, "--out", folder / "out", "--baselines", "none", "--no-rerank", *words)


def test_coco_then_d3(drawn: Path) -> None:
    other = write_encoder_set(drawn)
    done = on_coco(drawn, "--clip", other, "--baselines", "whole,dense")
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert "# Evaluation on instances\n" in text
    whole = {method for method in rows(drawn / "out", 1) if method.startswith("whole image")}
    assert whole == {"whole image (alpha_clip_tiny_drawn_world)", "whole image (another)"}
    assert "LISA++" not in text
    assert "paper" not in text.split("## Table 3")[1].split("##")[0]  # not one of the paper's data sets
    assert rows(drawn / "out", 1)["MaTIR without reranking (stage 1)"]["summary"]
    # The published file is recognised by name: the paper's figures are shown, differences are noted.
    shutil.copy(drawn / "coco" / "instances.json", drawn / "coco" / "instances_val2017.json")
    done = on_coco(drawn, "--baselines", "none", annotations="instances_val2017.json")
    assert "| MaTIR without reranking (stage 1) |" in done.stdout.decode()
    assert "| 83.54 |" in done.stdout.decode()
    assert "the published val2017 has 5,000 images and 80 categories" in done.stdout.decode()
    # D3 has the same pictures under other names: they are recognised, not indexed again.
    done = on_d3(drawn)
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert "# Evaluation on d3\n" in text
    assert "paper, D3" in text
    assert "40.75" in text
    assert "83.54" not in text
    assert "the published D3 has 10,578 images" in text
    assert "| method | measure | pres (" in text
    with GalleryFile.open(drawn / "out" / "gallery.db") as gallery:
        assert gallery.count_photos() == 4
    absent = on_d3(drawn, "--subset", "abs")
    assert "Queries: 2, of which 1 have a relevant image" in absent.stdout.decode()


def test_unreadable_images_are_counted_and_reported(drawn: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(drawn, tmp_path / "drawn")
    for image in (folder / "coco" / "images").iterdir():
        if image.name.endswith("1.png"):
            image.write_bytes(b"junk")
    done = on_coco(folder, "--no-rerank", "--baselines", "none")
    assert done.returncode == 3
    assert "images that could not be read and count as not found: 1" in done.stdout.decode()
    assert "not an image" in done.stderr.decode()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--import-masks", "nothing"), "is not NAME=FILE"),
        (("--baselines", "dense,dino"), "'dino' is none of whole, dense, cluster, cropping"),
        (("--ablate", "colour"), "is not one of"),
        (("--import-masks", "x=instances.json"), "not COCO's list of results"),
        (("--import-masks", "x=nowhere.json"), "no such file"),
        (("--export-ranking", "instances.json"), "already exists; it was kept"),
        (("--models", "nowhere"), "there is no model set nowhere"),
        (("--clip", "full"), "weights of the model set full are missing"),
    ],
)
def test_invalid_options_are_reported_before_any_work(
    drawn: Path, words: tuple[str, str], complaint: str
) -> None:
    folder = drawn / "coco"
    option, value = words
    value = value.replace("instances.json", str(folder / "instances.json"))
    done = matir(
        *("eval", "coco", "--images", folder / "images", "--annotations", folder / "instances.json"),
        *("--models", "tiny", "--no-rerank", "--out", drawn / "untouched", option, value),
        MATIR_MODELS=str(drawn / "no models"),
    )
    assert done.returncode == 2
    assert complaint in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert not (drawn / "untouched" / "gallery.db").exists()
