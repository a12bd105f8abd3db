"""The campaigns as a whole: names, findings and limits."""

import random
from pathlib import Path

import pytest

from tests.fuzz.__main__ import LONGEST_FIRST
from tests.fuzz.campaign import run_campaign


def test_every_campaign_is_run() -> None:
    modules = Path(__file__).parent.glob("fuzz_*.py")
    assert {path.stem.removeprefix("fuzz_") for path in modules} == {*LONGEST_FIRST}


def even_numbers_fail(rng: random.Random, folder: Path) -> str | None:
    """Fail for every other number; leave a file behind, which must not be there the next time."""
    (folder / "left").open("x").close()
    if rng.random() < 0.1:
        raise ValueError("crashed")
    return "even" if rng.randrange(2) == 0 else None


def test_findings_and_crashes_are_counted_and_can_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_campaign("x", even_numbers_fail, count=40, arguments=[]) == 1
    *findings, summary = (line for line in capsys.readouterr().out.splitlines() if line.startswith("x"))
    assert summary.startswith(f"x: 40 of 40 inputs, {len(findings)} findings")
    assert 10 < len(findings) < 35
    number = findings[0].split()[4].rstrip(":")
    assert run_campaign("x", even_numbers_fail, count=40, arguments=["--only", number]) == 1


def test_no_trial_begins_after_the_time_limit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_campaign("x", even_numbers_fail, count=40, arguments=["--seconds", "-1"]) == 0
    assert "x: 0 of 40 inputs, 0 findings" in capsys.readouterr().out
