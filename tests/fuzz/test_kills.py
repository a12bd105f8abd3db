"""A few trials of the campaign of killed commands."""

from pathlib import Path

import pytest

from tests.fuzz.campaign import run_trial
from tests.fuzz.fuzz_kills import kill_reencoding, trial


@pytest.mark.parametrize("number", range(3))
def test_a_killed_command_loses_nothing(number: int) -> None:
    assert run_trial(trial, f"kills-test-{number}") is None


def test_reencoding_killed_between_its_writes_goes_on(tmp_path: Path) -> None:
    assert [found for found in kill_reencoding("write", 5, tmp_path) if found] == []
