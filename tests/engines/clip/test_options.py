"""Options shared by the CLIP engines."""

from pathlib import Path

import pytest

from matir_cli.engines.clip.options import SEVEN_PROMPTS, ClipOptions, PlainClipOptions, model_file
from matir_cli.engines.options import read_options
from matir_cli.errors import ModelSetInvalid
from tests.support.clip_weights import alpha_clip_config


def test_defaults_are_those_of_the_paper_and_of_clip() -> None:
    assert ClipOptions().prompts == SEVEN_PROMPTS
    assert len(SEVEN_PROMPTS) == 7
    assert all(prompt.count("{}") == 1 for prompt in SEVEN_PROMPTS)
    assert (ClipOptions().transform, PlainClipOptions().transform) == ("letterbox", "crop")


@pytest.mark.parametrize("prompt", ["no place", "{} and {}", "{0}", "{", "x" * 1001 + "{}"])
def test_a_prompt_has_one_place_for_the_query(prompt: str) -> None:
    with pytest.raises(ModelSetInvalid):
        read_options({"prompts": [prompt]}, ClipOptions, "encoder")


def test_a_missing_file_is_named_by_its_role() -> None:
    config = alpha_clip_config(visual=Path("visual.pth"))
    assert model_file(config, "visual") == Path("visual.pth")
    with pytest.raises(ModelSetInvalid, match="needs a file with the role 'text'"):
        model_file(config, "text")
