"""Thumbnails: pictures as lines of text where the output is no terminal."""

import pytest
from PIL import Image

from matir_cli.output.thumbnails import COLUMNS, ROWS, open_picture_terminal


@pytest.mark.filterwarnings("ignore:Image.Image.getdata:DeprecationWarning")  # by textual-image
def test_a_picture_fits_its_place_among_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show = open_picture_terminal()
    for size in ((400, 100), (100, 400)):
        show(Image.new("RGB", size, (200, 30, 30)))
        lines = capsys.readouterr().out.splitlines()
        assert 0 < len(lines) <= ROWS
        assert max(map(len, lines)) >= 1
        assert all(len(line.rstrip()) <= COLUMNS for line in lines)
