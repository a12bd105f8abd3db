"""`matir models try` as a real process: the tiny set, and copies of it with crafted faults."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.broken_sets import (
    Fault,
    activate_by_silu,
    change_gguf,
    change_proposer,
    change_visual,
    copy_tiny,
    exchange_input_channels,
    exchange_projector_channels,
    randomise,
    randomise_gguf,
    set_option,
    shuffle_token_rows,
    shuffle_vocabulary,
    zero_alpha,
    zero_projection,
)

PROJECTOR = "qwen_vl_projector.gguf"

BGR = "expects the colour channels in the other order (BGR instead of RGB)"


@dataclass(frozen=True)
class Broken:
    """Faults of all three parts of one set, and the reasons to be found."""

    faults: tuple[Fault, ...]
    proposer: str
    encoder: str
    judge: str


SETS = {
    "exchanged channels": Broken(
        (
            change_proposer(exchange_input_channels("image_encoder.trunk.patch_embed.proj.weight")),
            change_visual(exchange_input_channels("conv1.weight")),
            change_gguf(PROJECTOR, exchange_projector_channels),
        ),
        f"the checkpoint {BGR}",
        f"the visual tower {BGR}",
        f"the projector {BGR}",
    ),
    "files of other models": Broken(
        (change_proposer(randomise), shuffle_vocabulary, change_gguf(PROJECTOR, randomise_gguf)),
        "one of: the checkpoint is of another model than `config`, untrained or damaged",
        "one of: the vocabulary is not that of the text file",
        "one of: the projector is of another model, untrained or damaged",
    ),
    "nothing comes through": Broken(
        (
            set_option("predicted_iou_threshold = 0.35", "predicted_iou_threshold = 0.95"),
            change_visual(zero_alpha),
            change_gguf(PROJECTOR, zero_projection),
        ),
        "predicted_iou_threshold or stability_threshold is too high",
        "masks have no effect: the visual file has no trained alpha weights",
        "one of: the weights are damaged; half precision overflows",
    ),
    "other functions": Broken(
        (
            set_option("image_size = 192", "image_size = 96"),
            change_visual(activate_by_silu),
            change_gguf("qwen_vl.gguf", shuffle_token_rows),
        ),
        "it was trained with other pixel values or another image_size",
        "another activation function (GELU or QuickGELU)",
        "the tokens of the vocabulary are not those that the text model was trained with",
    ),
}


ON_ONE_CPU = """
import os, random
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {random.choice(sorted(os.sched_getaffinity(0)))})
from matir_cli.cli.main import main
main()
"""
"""The command with one thread per library: several run side by side, and waiting threads take time."""


def try_set(model_set: str | Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `matir models try` as a process."""
    return subprocess.run(
        [sys.executable, "-c", ON_ONE_CPU, "models", "try", str(model_set), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    )


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """The runs of the intact set and of all broken ones, started here, two at a time."""
    with ThreadPoolExecutor(max_workers=2) as executor:
        started = {"tiny": executor.submit(try_set, "tiny")}
        for number, (name, broken) in enumerate(SETS.items()):
            folder = tmp_path_factory.mktemp(f"set{number}")
            toml = copy_tiny(folder)
            for damage in broken.faults:
                damage(folder)
            started[name] = executor.submit(try_set, toml, "--json")
        yield started


def test_the_tiny_set_works(runs: dict[str, Future[subprocess.CompletedProcess[str]]]) -> None:
    done = runs["tiny"].result()
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 13
    assert all(line.startswith("ok ") for line in lines), done.stdout
    checks = [line[19:36].strip() for line in lines if line[9:17] == "encoder "]
    assert checks == ["colours", "kinds", "regions", "reference figures"]
    assert done.stderr.splitlines()[-1] == "matir: all checks passed"
    assert "matir: judge: loading qwen2.5_vl_tiny_drawn_world (8.03 MB)" in done.stderr


@pytest.mark.parametrize("name", SETS)
def test_a_broken_set_is_caught(runs: dict[str, Future[subprocess.CompletedProcess[str]]], name: str) -> None:
    done = runs[name].result()
    assert done.returncode == 1, done.stdout + done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    broken = SETS[name]
    for part in ("proposer", "encoder", "judge"):
        reasons = {row["reason"] for row in rows if row["part"] == part and row["state"] == "failed"}
        assert len(reasons) == 1, (part, rows)
        assert getattr(broken, part) in reasons.pop()
    assert "matir: does not work: proposer, encoder, judge" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_weights_name_the_remedy_before_anything_is_loaded(tmp_path: Path) -> None:
    done = try_set("full", MATIR_MODELS=str(tmp_path), HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "weights of the model set full are missing: Qwen2.5-VL-7B" in done.stderr
    assert "Fetch them: matir models pull full" in done.stderr
    assert "loading" not in done.stderr


def test_a_part_that_the_set_lacks_is_an_error(tmp_path: Path) -> None:
    toml = copy_tiny(tmp_path)
    toml.write_text(toml.read_text().partition("[judge]")[0])
    done = try_set(toml, "--part", "judge")
    assert done.returncode == 2
    assert "has no judge" in done.stderr
