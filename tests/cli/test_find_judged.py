"""The whole method in the real process: a small judge with random weights over the indexed pictures.

What such a judge says means nothing; that it is asked, remembered, ranked by and matched is the point.
"""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matir_cli.gallery.database import GalleryFile
from tests.support.gguf_edit import read_gguf
from tests.support.process import BEGUN, MATIR, PHOTOS, Indexed, matir, open_terminal, records

QUERY = "red house"


@pytest.fixture
def gallery(indexed: Indexed, tmp_path: Path) -> Path:
    """A copy of the indexed gallery, without any verdict."""
    return Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))


def find(gallery: Path, model_set: Path, *words: object) -> subprocess.CompletedProcess[bytes]:
    return matir("find", QUERY, "--certainty", 1, "--db", gallery, "--models", model_set, *words)


def test_the_whole_method(gallery: Path, model_set: Path, tmp_path: Path) -> None:
    first = find(gallery, model_set, "--jsonl", "-n", PHOTOS, "--masks", tmp_path / "masks")
    assert first.returncode == 0, first.stderr
    found = records(first)
    assert len(found) == PHOTOS
    margins = [record["logit_margin"] for record in found]
    assert margins == sorted(margins, reverse=True)
    assert len(set(margins)) > PHOTOS // 2  # the judge really looks at the pictures
    stage1 = [record["stage1_score"] for record in found]
    assert stage1 != sorted(stage1, reverse=True)
    for record in found:
        assert record["judged"] is True
        assert record["p_true"] == pytest.approx(1 / (1 + np.exp(-record["logit_margin"])), abs=1e-5)
        assert record["grounding"] in ("matched", "unmatched", "no box", "unreadable")
        assert ("mask_file" in record) == (record["grounding"] == "matched")
        if "box" in record:
            x0, y0, x1, y1 = record["box"]
            assert 0 <= x0 <= x1 <= record["width"]
            assert 0 <= y0 <= y1 <= record["height"]
    # The same question again is answered from the gallery, with the judge's files gone.
    again = find(gallery, model_set, "--jsonl", "-n", PHOTOS)
    assert [{**r, "mask_file": None} for r in records(again)] == [{**r, "mask_file": None} for r in found]


def test_photos_that_cannot_be_judged_do_not_end_the_query(
    gallery: Path, model_set: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model_set.parent, tmp_path / "set"))
    projector = read_gguf(folder / "projector.gguf")
    # Pixels far from the mean of all colours overflow in float16; a plain grey picture does not.
    projector.values[b"clip.vision.image_std"].content = [5e-6] * 3
    (folder / "projector.gguf").write_bytes(projector.pack())
    done = find(gallery, folder / model_set.name, "--jsonl", "-n", 3)
    assert done.returncode == 0, done.stderr
    assert [(found["judged"], found.get("judge_failed")) for found in records(done)] == [(False, True)] * 3
    said = done.stderr.decode()
    assert (
        f"matir: {PHOTOS} of {PHOTOS} candidates could not be judged; they follow in stage-1 order: " in said
    )
    assert f".png and {PHOTOS - 5} more\n" in said
    none = find(gallery, folder / model_set.name, "--min-p", "0.1")
    assert none.returncode == 1
    assert b"could not be judged; --min-p leaves them out" in none.stderr


def test_remembered_answers_load_no_judge(gallery: Path, model_set: Path) -> None:
    assert find(gallery, model_set, "-n", 3).returncode == 0
    done = subprocess.run(
        [
            MATIR[0],
            "-X",
            "importtime",
            *MATIR[1:],
            "find",
            QUERY,
            "-n",
            "3",
            "--db",
            gallery,
            "--models",
            model_set,
        ],
        capture_output=True,
        check=True,
    )
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.decode().splitlines()}
    assert "click" in imported
    assert not {"llama_cpp", "torch"} & imported


def test_no_ground_takes_the_mask_of_stage_1(gallery: Path, model_set: Path) -> None:
    found = records(find(gallery, model_set, "--jsonl", "--no-ground", "--rle"))
    assert all(record["judged"] and "mask" in record and "grounding" not in record for record in found)


def test_refine_gives_every_box_a_mask(gallery: Path, model_set: Path, tmp_path: Path) -> None:
    plain = records(find(gallery, model_set, "--jsonl", "-n", PHOTOS, "--min-iou", 1))
    refined = records(
        find(gallery, model_set, "--jsonl", "-n", PHOTOS, "--min-iou", 1, "--refine", "--masks", tmp_path)
    )
    boxed = [record for record in refined if "box" in record]
    assert {record["grounding"] for record in plain if "box" in record} <= {"unmatched"}
    assert {record["grounding"] for record in boxed} <= {"refined", "unmatched"}
    for record in boxed:
        if record["grounding"] == "refined":
            with Image.open(record["mask_file"]) as mask:
                assert mask.size == (record["width"], record["height"])


def test_candidates_and_limit_bound_the_work(gallery: Path, model_set: Path) -> None:
    found = records(find(gallery, model_set, "--jsonl", "--candidates", 5, "-n", 3))
    assert len(found) == 3
    with GalleryFile.open(gallery) as opened:
        assert opened.connection.execute("select count(*) from verdicts").get == 5
        assert opened.connection.execute("select count(*) from groundings").get == 3


def test_judging_ends_when_the_first_are_known(gallery: Path, model_set: Path) -> None:
    words = ("--db", gallery, "--models", model_set, "-n", 2, "--jsonl")
    done = matir("find", QUERY, *words, "--certainty", 0)
    assert done.returncode == 0, done.stderr
    with GalleryFile.open(gallery) as opened:
        judged = opened.connection.execute("select count(*) from verdicts").get
    assert 2 <= judged < PHOTOS
    said = (
        f"{judged} of {PHOTOS} candidates judged; the others are unlikely to change the first 2 (--certainty)"
    )
    assert said in done.stderr.decode()
    assert all(record["judged"] for record in records(done))
    # Nothing more is asked the second time, and everything if that is wanted.
    again = matir("find", QUERY, *words, "--certainty", 0)
    assert again.stdout == done.stdout
    everything = matir("find", QUERY, *words, "--certainty", 1)
    assert b"unlikely" not in everything.stderr
    with GalleryFile.open(gallery) as opened:
        assert opened.connection.execute("select count(*) from verdicts").get == PHOTOS


def test_with_min_p_every_result_has_a_verdict(gallery: Path, model_set: Path) -> None:
    words = ("--db", gallery, "--models", model_set, "-n", PHOTOS, "--no-ground", "--jsonl")
    loose = records(matir("find", QUERY, *words, "--certainty", 0))
    assert len(loose) == PHOTOS
    assert [record["judged"] for record in loose[:10]] == [True] * 10
    done = records(matir("find", QUERY, *words, "--certainty", 0, "--min-p", 0))
    assert [record["judged"] for record in done] == [True] * PHOTOS


def test_no_time_leaves_stage_1_order_and_says_so(gallery: Path, model_set: Path) -> None:
    done = find(gallery, model_set, "--jsonl", "--budget", 0)
    assert done.returncode == 0
    assert f"{PHOTOS} of {PHOTOS} candidates not judged" in done.stderr.decode()
    found = records(done)
    assert not any(record["judged"] for record in found)
    stage1 = [record["stage1_score"] for record in found]
    assert stage1 == sorted(stage1, reverse=True)


def test_fresh_asks_again(gallery: Path, model_set: Path) -> None:
    def verdicts() -> list[tuple[object, ...]]:
        with GalleryFile.open(gallery) as opened:
            return opened.connection.execute(
                "select photo_id, z_true, z_false from verdicts order by 1"
            ).fetchall()

    find(gallery, model_set)
    first = verdicts()
    with GalleryFile.open(gallery) as opened:
        opened.connection.execute("update verdicts set z_true = 99")
    assert records(find(gallery, model_set, "--jsonl"))[0]["p_true"] == 1.0
    find(gallery, model_set, "--fresh")
    assert np.allclose(np.array(verdicts(), float), np.array(first, float), atol=1e-4)


def test_ctrl_c_prints_what_was_judged_and_the_next_run_goes_on(gallery: Path, model_set: Path) -> None:
    # The judge sees much larger pictures, so that there is time for Ctrl-C.
    slow = model_set.with_name("slow.toml")
    slow.write_text(model_set.read_text().replace("max_pixels = 50176", "min_pixels = 802816"))
    shown, terminal = open_terminal()
    process = subprocess.Popen(
        [*MATIR, "find", QUERY, "--certainty", "1", "--jsonl", "--db", str(gallery), "--models", str(slow)],
        stderr=terminal,
        stdout=subprocess.PIPE,
    )
    os.close(terminal)
    said = b""
    while not BEGUN.search(said):
        said += os.read(shown, 4096)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    os.close(shown)
    printed = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 130
    assert 1 <= len(printed) < PHOTOS
    assert all(record["judged"] for record in printed)
    with GalleryFile.open(gallery) as opened:
        remembered = opened.connection.execute("select count(*) from verdicts").get
    assert remembered - len(printed) in (0, 1)  # one may have been stored but not yet counted
    assert len(records(find(gallery, slow, "--jsonl", "-n", PHOTOS, "--no-ground"))) == PHOTOS


def test_the_log_of_llama_is_shown_only_when_asked_for(gallery: Path, model_set: Path) -> None:
    quiet = find(gallery, model_set, "--candidates", 1)
    assert b"matir_cli.engines" not in quiet.stderr
    assert b"llama_" not in quiet.stderr
    loud = find(gallery, model_set, "--candidates", 1, "--fresh", "-v")
    assert b"matir_cli.engines.llama_cpp.bindings: " in loud.stderr
    assert loud.stdout == quiet.stdout


def test_a_damaged_judge_is_one_clear_line(gallery: Path, model_set: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model_set.parent, broken)
    (text,) = [path for path in broken.glob("*.gguf") if "proj" not in path.name]
    text.write_bytes(text.read_bytes()[: text.stat().st_size // 2])
    done = find(gallery, broken / "set.toml")
    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1
    assert "cannot be loaded" in lines[0]
    text.unlink()
    done = find(gallery, broken / "set.toml")
    assert done.returncode == 2
    assert b"matir models pull" in done.stderr
    assert b"--no-rerank" in done.stderr
