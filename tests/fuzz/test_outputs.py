"""A few trials of the campaign on outputs."""

import pytest

from tests.fuzz.campaign import run_trial
from tests.fuzz.fuzz_outputs import trial


@pytest.mark.parametrize("number", range(12))
def test_every_form_can_be_read_back(number: int) -> None:
    assert run_trial(trial, f"outputs-test-{number}") is None
