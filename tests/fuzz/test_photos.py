"""A few trials of the campaign of mutated photos."""

import pytest

from tests.fuzz.campaign import run_trial
from tests.fuzz.fuzz_photos import trial


@pytest.mark.parametrize("number", range(12))
def test_a_mutated_photo_is_decoded_or_refused(number: int) -> None:
    assert run_trial(trial, f"photos-0-{number}") is None
