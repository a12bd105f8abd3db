"""The registry of parsers: seeds are valid, and only a `MatirError` comes out for what is not."""

import warnings
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matir_cli.errors import MatirError
from tests.fuzz.campaign import run_trial
from tests.fuzz.fuzz_parsers import trial
from tests.fuzz.mutation import mutate
from tests.fuzz.parsers import PARSERS

TRIALS = 200


@pytest.mark.parametrize("name", PARSERS)
def test_the_first_seed_is_valid(name: str, tmp_path: Path) -> None:
    parser = PARSERS[name]
    parser.read(parser.seeds[0], tmp_path)
    assert all(parser.seeds)


@pytest.mark.parametrize("name", PARSERS)
@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 1 << 32))
def test_only_errors_made_for_users_come_out(name: str, tmp_path: Path, seed: int) -> None:
    parser, message = PARSERS[name], "sound after all"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser.read(mutate(Random(seed), parser.seeds), tmp_path)
    except MatirError as error:
        message = str(error)
    assert message


def test_the_first_trials_find_nothing() -> None:
    findings = [run_trial(trial, f"parsers-0-{number}") for number in range(TRIALS)]
    assert [finding for finding in findings if finding is not None] == []
