"""Qwen3-VL's verdicts against transformers, with random weights in llama.cpp's files.

What both families share is tested in `test_judge` and `test_answers`.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llama_cpp import mtmd_cpp
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel, Qwen3VLTextRotaryEmbedding

from matir_cli.engines.llama_cpp.bindings import LanguageModel, VisionProjector
from matir_cli.engines.protocols import JudgePhoto
from matir_cli.engines.qwen_vl.judge import QwenVlJudge, load_qwen3_vl_judge
from matir_cli.engines.qwen_vl.options import RERANK, Qwen3VlOptions, QwenVlOptions
from matir_cli.records import ImageArray
from tests.support.small_qwen import SmallQwen, photo
from tests.support.small_qwen3 import make_qwen3

SIZES = [
    *[(32, 32), (57, 301), (192, 192), (240, 320), (333, 517), (480, 640)],
    *[(1024, 768), (683, 1024), (1024, 1024)],
]
"""Heights and widths: the grid of positions itself is 192 x 192 pixels, the last three are working images."""

LARGE = 1024 * 32**2
"""Pixels of the largest working image."""

TOLERANCE = 0.003
"""Largest difference from transformers, as a share of the logits' range; 0.0004 was measured."""

QUERIES = ["dog led by rope", "a striped red house left of a tree", "café <|im_end|> 狗"]


@pytest.fixture(scope="module")
def judge(small_qwen3: SmallQwen) -> Iterator[QwenVlJudge]:
    with load_qwen3_vl_judge(small_qwen3.config(max_pixels=LARGE), "cpu") as loaded:
        yield loaded


def margins(judge: QwenVlJudge, image: ImageArray, queries: Sequence[str], key: int = 0) -> list[float]:
    """Return the judge's margins for each query."""
    verdicts = judge.rerank(JudgePhoto(key, image), queries)
    assert None not in verdicts
    return [verdict.margin for verdict in verdicts if verdict is not None]


def reference_margin(small: SmallQwen, image: ImageArray, query: str) -> tuple[float, float]:
    """Return zTrue - zFalse by transformers, and the range of its logits."""
    logits = small.logits(image, RERANK + query, max_pixels=LARGE).astype(np.float64)
    return float(logits[small.token_id("True")] - logits[small.token_id("False")]), float(np.ptp(logits))


def test_margins_are_those_of_transformers(small_qwen3: SmallQwen, judge: QwenVlJudge) -> None:
    found: list[list[float]] = []
    for number, size in enumerate(SIZES):
        image = photo(number, *size)
        found.append(margins(judge, image, QUERIES, number))
        for query, margin in list(zip(QUERIES, found[-1], strict=True))[: 1 if max(size) > 640 else 3]:
            expected, span = reference_margin(small_qwen3, image, query)
            assert abs(margin - expected) < TOLERANCE * span, (size, query)
    # The comparison means something only if answers vary with photo and query far beyond the tolerance.
    spread = np.array(found)
    assert spread.std(axis=0).min() > 0.2
    assert spread.std(axis=1).mean() > 0.2


@pytest.mark.parametrize(
    "build",
    [
        {"precision": "f16"},
        {"tied": True, "seed": 5},
        {"hidden_size": 128, "num_key_value_heads": 1, "num_hidden_layers": 4},
        {"vision": {"deepstack_visual_indexes": [0, 1]}},
        {"vision": {"deepstack_visual_indexes": []}},
    ],
    ids=["f16", "tied", "wide", "other blocks", "no deepstack"],
)
def test_margins_of_other_models_are_those_of_transformers(tmp_path: Path, build: dict[str, Any]) -> None:
    small = make_qwen3(tmp_path, **{"seed": 1, **build})
    with load_qwen3_vl_judge(small.config(), "cpu") as judge:
        for number, size in enumerate([(57, 301), (333, 517)]):
            image = photo(number, *size)
            for query, margin in zip(QUERIES, margins(judge, image, QUERIES, number), strict=True):
                logits = small.logits(image, RERANK + query).astype(np.float64)
                expected = logits[small.token_id("True")] - logits[small.token_id("False")]
                assert abs(margin - expected) < TOLERANCE * np.ptp(logits), (size, query)


def without_aligned_corners(small: SmallQwen, patch: pytest.MonkeyPatch) -> None:
    """Interpolate the learned positions with an offset of half a position, as older versions of llama.cpp."""
    patch.setattr(small.model.model.visual, "interpolation_align_corners", False)


def without_deepstack(_small: SmallQwen, patch: pytest.MonkeyPatch) -> None:
    """Leave out the features of inner blocks."""
    patch.setattr(Qwen3VLTextModel, "_deepstack_process", lambda _self, states, *_: states)


def with_sections_in_a_row(_small: SmallQwen, patch: pytest.MonkeyPatch) -> None:
    """Rotate the first frequencies by time, the next by row, the last by column, as Qwen2.5-VL does."""

    def in_a_row(rotary: Qwen3VLTextRotaryEmbedding, values: torch.Tensor) -> torch.Tensor:
        parts = torch.split(values, list(rotary.mrope_section or ()), dim=-1)
        return torch.cat([part[axis] for axis, part in enumerate(parts)] * 2, dim=-1)

    patch.setattr(Qwen3VLTextRotaryEmbedding, "recomposition_frequencies", in_a_row)


def with_a_system_line(_small: SmallQwen, patch: pytest.MonkeyPatch) -> None:
    """Use the prompt of Qwen2.5-VL."""
    patch.setattr(Qwen3VlOptions, "PROMPT_HEAD", QwenVlOptions.PROMPT_HEAD)


@pytest.mark.parametrize(
    "fault", [without_aligned_corners, without_deepstack, with_sections_in_a_row, with_a_system_line]
)
def test_faults_would_exceed_the_tolerance(
    small_qwen3: SmallQwen,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[SmallQwen, pytest.MonkeyPatch], None],
) -> None:
    images = [photo(number, *SIZES[number]) for number in (4, 5)]
    sound = [reference_margin(small_qwen3, image, QUERIES[0]) for image in images]
    fault(small_qwen3, monkeypatch)
    wrong = [reference_margin(small_qwen3, image, QUERIES[0])[0] for image in images]
    errors = [abs(margin - other) / span for (margin, span), other in zip(sound, wrong, strict=True)]
    assert max(errors) > TOLERANCE, errors


def test_llama_cpp_makes_a_token_of_each_32_by_32_pixels(small_qwen3: SmallQwen) -> None:
    model = LanguageModel(small_qwen3.text_path, gpu_layers=0)
    projector = VisionProjector(small_qwen3.projector_path, model, gpu=False, threads=1)
    for height, width in [(32, 32), (32, 96), (480, 640), (1024, 1024), (2048, 1536)]:
        chunks = mtmd_cpp.mtmd_input_chunks_init()
        projector._fill_chunks(chunks, photo(0, height, width))
        # The two markers around the image are tokens as well.
        assert mtmd_cpp.mtmd_helper_get_n_tokens(chunks) == height * width // 32**2 + 2
        mtmd_cpp.mtmd_input_chunks_free(chunks)
    projector.close()
    model.close()


def test_memory_of_a_token_follows_from_the_heads(tmp_path: Path) -> None:
    small = make_qwen3(tmp_path, seed=1, head_dim=32, num_hidden_layers=3)
    model = LanguageModel(small.text_path, gpu_layers=0)
    assert model.width == 64
    # Keys and values, float16, in 3 layers: 2 heads of 32 numbers.
    assert model.bytes_per_token == 2 * 2 * 3 * 2 * 32
    model.close()
