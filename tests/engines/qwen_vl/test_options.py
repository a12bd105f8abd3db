"""Options and prompts of the judge."""

import pytest

from matir_cli.engines.qwen_vl.judge import load_qwen_vl_judge
from matir_cli.engines.qwen_vl.options import GROUND, HEAD, RERANK, TAIL, QwenVlOptions
from matir_cli.errors import ModelSetInvalid
from tests.support.small_qwen import SmallQwen


@pytest.mark.parametrize(
    "options",
    [
        {"min_pixels": 900000},
        {"ground_min_pixels": 900000},
        {"max_pixel": 9},
        {"max_answer_tokens": 1},
        {"threads": "two"},
    ],
)
def test_wrong_options_are_named(small_qwen: SmallQwen, options: dict[str, object]) -> None:
    with pytest.raises(ModelSetInvalid):
        load_qwen_vl_judge(small_qwen.config(**options), "cpu")


def test_prompts_are_part_of_the_identity_and_speed_is_not() -> None:
    method = QwenVlOptions.METHOD
    assert all(text in method for text in (HEAD, RERANK, GROUND, TAIL))
    usual = QwenVlOptions()
    assert usual.identity() == QwenVlOptions(threads=3, prefix_cache_mib=1, grounds_at_once=2).identity()
    assert usual.identity() != QwenVlOptions(max_answer_tokens=64).identity()


def test_the_size_for_boxes_is_part_of_the_identity_of_sets_that_set_it() -> None:
    usual = QwenVlOptions(max_pixels=100_000)
    assert b"ground" not in usual.identity()
    assert usual.identity() == QwenVlOptions(max_pixels=100_000, ground_min_pixels=0).identity()
    assert usual.identity() != QwenVlOptions(max_pixels=100_000, ground_min_pixels=50_000).identity()
