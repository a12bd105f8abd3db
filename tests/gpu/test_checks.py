"""The GPU checks as a real process: without a GPU, and on the CPU at small sizes."""

import os
import subprocess
import sys

import pytest

from tests.gpu.__main__ import main
from tests.gpu.checks import CHECKS


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.gpu", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    )


@pytest.fixture(scope="module")
def on_cpu() -> subprocess.CompletedProcess[str]:
    return run("--device", "cpu", "--quick")


def test_without_a_gpu_nothing_is_run_and_nothing_fails() -> None:
    done = run(CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout) == (0, "This machine has no CUDA GPU that torch can use: 0 run\n")


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_passes_on_the_cpu(on_cpu: subprocess.CompletedProcess[str], name: str) -> None:
    rows = [line.split() for line in on_cpu.stdout.splitlines()]
    states = {row[1]: row[0] for row in rows if len(row) > 3}
    assert states[name] == "ok", on_cpu.stdout + on_cpu.stderr
    assert on_cpu.returncode == 0
    assert on_cpu.stdout.endswith(f"\n{len(CHECKS)} run, 0 failed\n")


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--device", "cpu", "nonsense"])
    assert ended.value.code == 2
    assert "no such check: nonsense; choose from proposer, adaptive" in capsys.readouterr().err


def test_a_check_that_would_begin_too_late_is_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu", "--quick", "--minutes", "0", "encoder", "memory"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("not run") == 2
    assert printed.endswith("\n0 run, 0 failed\n")


def test_a_failed_check_is_told_and_the_next_one_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_device: str, _quick: bool) -> str:
        raise AssertionError("12 of 100 regions matched")

    monkeypatch.setitem(CHECKS, "proposer", fail)
    monkeypatch.setitem(CHECKS, "memory", lambda _device, _quick: "as it should be")
    assert main(["--device", "cpu", "proposer", "memory"]) == 1
    shown = capsys.readouterr().out
    assert "failed   proposer" in shown
    assert "AssertionError: 12 of 100 regions matched" in shown
    assert shown.endswith("as it should be\n\n2 run, 1 failed\n")
