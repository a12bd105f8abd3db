"""Tests of the benches: each as a real process, at its smallest sizes: `make test-bench`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.bench.__main__ import NAMES

ROWS = {
    "add": [
        "plain loop",
        "`matir add`",
        "its steps in one thread",
        "its prompts' transformer",
        "the encoder's tower",
        "writing",
    ],
    "encoder": [
        "a whole photo, beside transformers",
        "3 regions of a photo, beside one by one",
        "a query in 7 prompts, beside transformers",
        "a process that encodes a query, beside `import torch`",
    ],
    "eval": ["2", "4"],
    "find": ["200"],
    "hostile": ["TIFF, 1,000 strips", "progressive JPEG, 20 scans"],
    "judge": [
        "rerank, one question per photo",
        "ground, after reranking",
        "**a query: 100 reranked, 50 grounded**",
        "8 questions about a photo: one prefix and one batch",
        "ground a photo: prefix kept",
        "ground a photo: written together",
        "the same query again",
    ],
    "large": [
        "search of 24 queries, warm process",
        "the same 24 queries together, per query",
        "`find -`, a file of 50 lines",
        "`find -`, 50 lines one after the other",
        "`find --no-rerank`, warm",
        "`find --no-rerank`, nothing in the cache",
        "`ls`",
        "`info`",
        "`sync`, all unchanged",
        "`merge` of two halves",
        "`compact`",
    ],
    "proposer": ["drawn scene 320 x 240"],
    "queries": [
        "text alone",
        "example alone",
        "in units of spread, example 0.5, gap",
        "without --not",
        "minus 0.35",
        "none",
        "three files",
        "size: 0.1% of the regions",
    ],
    "scoring": ["COCO val2017: 100 x 4", "D3: 100 x 4", "D3, larger photos: 100 x 4"],
    "scaling": ["1, each shard once", "1,000, one shard lost, hedged", "10^6", "10^10"],
    "search": ["10,000"],
    "serve": [
        "the tiny judge, nothing remembered",
        "the tiny judge, remembered",
        "stage 1 alone, the tiny text tower",
        "stage 1 alone, a text tower of full size",
        "the large judge, 8 photos, nothing remembered",
        "the large judge, 8 photos, remembered",
        "answers",
        "time of an answer",
        "memory of the server after each third, MB",
    ],
    "tokens": [
        "3 regions of a photo, Alpha-CLIP",
        "3 regions of a photo, region tokens, crops = 2",
        "a process that encodes a query, SigLIP 2",
        "the same with the text tower of So400m",
        "`matir add`",
        "`matir find`",
    ],
}
"""First cells of rows that each bench prints."""


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m` with one thread: the threads of several pools would wait for each other."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    )


def table_rows(output: str) -> dict[str, list[str]]:
    """The first cell of each table row to its other cells."""
    lines = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("| ")]
    return {first: rest for first, *rest in lines}


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """All benches by name, started here and running two at a time."""
    with ThreadPoolExecutor(max_workers=2) as executor:
        yield {name: executor.submit(run, f"tests.bench.bench_{name}", "--quick") for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_bench_prints_its_rows(
    runs: dict[str, Future[subprocess.CompletedProcess[str]]], name: str
) -> None:
    done = runs[name].result()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Data: ")
    assert "Like users' data? " in done.stdout
    rows = table_rows(done.stdout)
    for row in ROWS[name]:
        assert rows[row], row
        assert any(character.isdigit() for character in "".join(rows[row])), row


def test_every_bench_has_expected_rows() -> None:
    assert set(ROWS) == set(NAMES)


def test_a_failed_bench_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise ImportError('broken for this test')")
    done = run("tests.bench", "--quick", "encoder", "scoring", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "broken for this test" in done.stderr
    assert done.stderr.endswith("failed: encoder\n")
    assert "## scoring" in done.stdout
    assert table_rows(done.stdout)["D3: 100 x 4"]
