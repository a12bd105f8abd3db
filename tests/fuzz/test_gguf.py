"""A few trials of the campaigns, as `make fuzz` runs them."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("name", "count"), [("gguf", 25)])
def test_the_first_trials_find_nothing(name: str, count: int) -> None:
    command = [sys.executable, "-m", f"tests.fuzz.fuzz_{name}", "--count", str(count)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout
    assert f"{count} of {count} inputs, 0 findings" in done.stdout
