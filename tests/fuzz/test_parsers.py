"""The registry of parsers, and the first trials of their campaign."""

from pathlib import Path

import pytest

from tests.fuzz.campaign import run_trial
from tests.fuzz.fuzz_parsers import trial
from tests.fuzz.parsers import PARSERS

TRIALS = 400


@pytest.mark.parametrize("name", PARSERS)
def test_the_first_seed_is_valid(name: str, tmp_path: Path) -> None:
    parser = PARSERS[name]
    parser.read(parser.seeds[0], tmp_path)
    assert all(parser.seeds)


def test_the_first_trials_find_nothing() -> None:
    findings = [run_trial(trial, f"parsers-0-{number}") for number in range(TRIALS)]
    assert [finding for finding in findings if finding is not None] == []
