"""The note about licences when a gallery is created with the default model set."""

from pathlib import Path

import pytest

from matir_cli.cli.indexing import open_for_indexing

NOTE = "new gallery with the default model set tiny, licences: Apache-2.0; sets for any use: matir models"


@pytest.fixture(autouse=True)
def tiny_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny set, whose files are present, as the default one."""
    monkeypatch.setattr("matir_cli.model_sets.choice.DEFAULT_MODEL_SET", "tiny")


def test_the_default_set_says_its_licences_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gallery = tmp_path / "g.matir"
    with open_for_indexing(gallery, None, "cpu"):
        pass
    said = capsys.readouterr()
    assert said.err.count(NOTE) == 1
    assert said.out == ""
    with open_for_indexing(gallery, None, "cpu"):
        pass
    assert NOTE not in capsys.readouterr().err


def test_a_set_that_was_chosen_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_for_indexing(tmp_path / "g.matir", "tiny", "cpu"):
        pass
    assert "licences" not in capsys.readouterr().err
