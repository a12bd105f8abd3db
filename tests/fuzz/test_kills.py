"""A few trials of the campaign of killed commands."""

import pytest

from tests.fuzz.campaign import run_trial
from tests.fuzz.fuzz_kills import trial


@pytest.mark.parametrize("number", range(3))
def test_a_killed_command_loses_nothing(number: int) -> None:
    assert run_trial(trial, f"kills-test-{number}") is None
