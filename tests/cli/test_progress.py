"""Progress on a terminal: the time left is that of the estimate."""

import io

import pytest
from tqdm import tqdm

from matir_cli.cli.progress import bar_format
from matir_cli.progress import TimeLeft
from tests.support.clock import Clock


@pytest.mark.parametrize(
    ("seconds", "shown"), [(10, "<00:20, "), (95, "<03:10, "), (3600, "<2:00:00, "), (90_000, "<50:00:00, ")]
)
def test_the_estimate_is_shown_and_not_the_speed_of_the_last_items(seconds: int, shown: str) -> None:
    clock, stream = Clock(), io.StringIO()
    left = TimeLeft(5, clock)
    with tqdm(total=5, file=stream, mininterval=0, unit="photo", bar_format=bar_format(left)) as bar:
        for taken in (300, seconds / 2, seconds * 3 / 2):
            clock.seconds += taken
            left.advance()
            bar.bar_format = bar_format(left)
            bar.update()
    steps = stream.getvalue().split("\r")
    assert any(" 1/5 [" in step and "<?, " in step for step in steps)
    assert any(" 3/5 [" in step and shown in step for step in steps)
