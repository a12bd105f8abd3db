"""A few trials of the campaign on mutated galleries."""

import pytest

from tests.fuzz.campaign import run_trial
from tests.fuzz.fuzz_galleries import trial


@pytest.mark.parametrize("number", range(10))
def test_mutated_galleries(number: int) -> None:
    assert run_trial(trial, f"galleries-0-{number}") is None
