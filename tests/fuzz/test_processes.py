"""A short trial of the campaign with many processes."""

import random
from pathlib import Path

from tests.fuzz.fuzz_processes import run_processes


def test_processes_do_not_disturb_each_other(tmp_path: Path) -> None:
    assert run_processes(random.Random(0), tmp_path, 4.0) is None
