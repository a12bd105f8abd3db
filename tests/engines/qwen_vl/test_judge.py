"""The judge's verdicts against transformers, with random weights in llama.cpp's files."""

import gc
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import pytest
import torch

from matir_cli.engines.llama_cpp.bindings import gpu_available
from matir_cli.engines.protocols import GroundingQuestion, Judge, JudgePhoto
from matir_cli.engines.qwen_vl.judge import QwenVlJudge, load_qwen_vl_judge
from matir_cli.engines.qwen_vl.options import RERANK
from matir_cli.errors import (
    CheckpointInvalid,
    ContextTooSmall,
    DeviceUnavailable,
    EngineFailed,
)
from matir_cli.models.tiny.gguf_writer import write_gguf
from matir_cli.records import ImageArray, Verdict
from tests.support.gguf_edit import read_gguf
from tests.support.small_qwen import Precision, SmallQwen, make_model, photo

SIZES = [(112, 112), (240, 320), (333, 517), (57, 301), (28, 28), (480, 640)]
QUERIES = ["dog led by rope", "a striped red house left of a tree", "café <|im_end|> 狗"]


class ModelSettings(TypedDict, total=False):
    """Arguments of `make_model`."""

    seed: int
    precision: Precision
    tied: bool
    hidden_size: int
    num_key_value_heads: int
    num_hidden_layers: int


@pytest.fixture(scope="module")
def judge(small_qwen: SmallQwen) -> Iterator[QwenVlJudge]:
    with load_qwen_vl_judge(small_qwen.config(max_answer_tokens=48, grounds_at_once=3), "cpu") as loaded:
        yield loaded


def judge_photo(image: ImageArray, key: int = 0) -> JudgePhoto:
    return JudgePhoto(key, image)


def margins(verdicts: Sequence[Verdict | None]) -> list[float]:
    assert None not in verdicts
    return [verdict.margin for verdict in verdicts if verdict is not None]


def answer(judge: QwenVlJudge, photo: JudgePhoto) -> str:
    """Return the text of the grounding answer to the second query."""
    (grounding,) = judge.ground([GroundingQuestion(photo, QUERIES[1])])
    assert grounding is not None
    return grounding.answer


def reference_margin(small_qwen: SmallQwen, image: ImageArray, query: str) -> tuple[float, float]:
    """Return zTrue - zFalse by transformers, and the range of its logits."""
    logits = small_qwen.logits(image, RERANK + query).astype(np.float64)
    true, false = small_qwen.token_id("True"), small_qwen.token_id("False")
    return float(logits[true] - logits[false]), float(np.ptp(logits))


def test_is_a_judge(judge: QwenVlJudge) -> None:
    fulfilled: Judge = judge
    assert fulfilled.grounds_at_once == 3


@pytest.mark.parametrize(
    "build",
    [
        {},
        {"precision": "f16"},
        {"tied": True, "seed": 5},
        {"hidden_size": 128, "num_key_value_heads": 1, "num_hidden_layers": 2},
    ],
    ids=["f32", "f16", "tied", "wide"],
)
def test_margins_are_those_of_transformers(tmp_path: Path, build: ModelSettings) -> None:
    settings: ModelSettings = {"seed": 1, **build}
    small_qwen = make_model(tmp_path, **settings)
    found: list[list[float]] = []
    with load_qwen_vl_judge(small_qwen.config(), "cpu") as judge:
        for number, size in enumerate(SIZES):
            image = photo(number, *size)
            found.append(margins(judge.rerank(judge_photo(image), QUERIES)))
            for query, margin in zip(QUERIES, found[-1], strict=True):
                expected, span = reference_margin(small_qwen, image, query)
                assert abs(margin - expected) < 0.01 * span, (size, query)
    # The comparison means something only if answers vary with photo and query far beyond the tolerance.
    spread = np.array(found)
    assert spread.std(axis=0).min() > 0.2
    assert spread.std(axis=1).min() > 0.2


def test_a_shared_prefix_answers_like_a_fresh_one(small_qwen: SmallQwen, judge: QwenVlJudge) -> None:
    images = [photo(number, 112 + 56 * number, 168) for number in range(4)]
    fresh: list[tuple[list[float], str]] = []
    for image in images:
        with load_qwen_vl_judge(small_qwen.config(max_answer_tokens=48, prefix_cache_mib=0), "cpu") as other:
            margin = margins(other.rerank(judge_photo(image), QUERIES[:1]))
        with load_qwen_vl_judge(small_qwen.config(max_answer_tokens=48, prefix_cache_mib=0), "cpu") as other:
            fresh.append((margin, answer(other, judge_photo(image))))
    # All photos are reranked before the first is grounded, as in a search.
    photos = [judge_photo(image, key) for key, image in enumerate(images)]
    assert [margins(judge.rerank(one, QUERIES[:1])) for one in photos] == [margin for margin, _ in fresh]
    grounded = [answer(judge, one) for one in photos]
    assert grounded == [answer for _, answer in fresh]
    assert [margins(judge.rerank(one, QUERIES[:1])) for one in photos] == [margin for margin, _ in fresh]


def test_answers_do_not_depend_on_what_was_asked_before(small_qwen: SmallQwen, judge: QwenVlJudge) -> None:
    asked = [judge_photo(photo(number, 140 + 28 * number, 168), number) for number in range(3)]
    other = [judge_photo(photo(number, 224, 140), number) for number in range(10, 13)]
    with load_qwen_vl_judge(small_qwen.config(max_answer_tokens=48), "cpu") as fresh:
        alone = [fresh.rerank(one, QUERIES[:1]) for one in asked]
        boxes = fresh.ground([GroundingQuestion(one, QUERIES[0]) for one in asked])
    # Questions of many lengths, about photos that the cache then has and about others, alone and together.
    for history in (asked, [*other, asked[1]], [asked[2]]):
        for one in history:
            judge.rerank(one, [*QUERIES, "dog " * 30])
        judge.ground([GroundingQuestion(one, "a red house") for one in history[:2]])
        assert [judge.rerank(one, QUERIES[:1]) for one in asked] == alone
        judge.ground([GroundingQuestion(asked[2], "a red house")])
        assert judge.ground([GroundingQuestion(one, QUERIES[0]) for one in asked]) == boxes


def test_a_batch_answers_like_single_questions(judge: QwenVlJudge) -> None:
    photos = [judge_photo(photo(number, 112, 112 + 28 * number), number) for number in range(4)]
    queries = [f"{query} {number}" for number in range(12) for query in QUERIES]
    for one in photos[:2]:
        together = np.array(margins(judge.rerank(one, queries)))
        alone = np.array([margins(judge.rerank(one, [query]))[0] for query in queries])
        np.testing.assert_allclose(together, alone, atol=0.02)
    questions = [GroundingQuestion(one, query) for one in photos for query in QUERIES[:2]]
    alone_answers = [judge.ground([question])[0] for question in questions]
    assert judge.ground(questions) == alone_answers


def test_the_same_key_never_gives_another_photos_answer(judge: QwenVlJudge) -> None:
    first, second = photo(1, 112, 112), photo(2, 112, 112)
    apart = (
        margins(judge.rerank(judge_photo(first, 1), QUERIES)),
        margins(judge.rerank(judge_photo(second, 2), QUERIES)),
    )
    same = (
        margins(judge.rerank(judge_photo(first, 7), QUERIES)),
        margins(judge.rerank(judge_photo(second, 7), QUERIES)),
    )
    assert same == apart
    turned = np.ascontiguousarray(photo(3, 56, 112).reshape(112, 56, 3))
    assert margins(judge.rerank(judge_photo(turned, 8), QUERIES)) != margins(
        judge.rerank(judge_photo(photo(3, 56, 112), 8), QUERIES)
    )


def test_a_small_prefix_cache_gives_up_the_least_likely(small_qwen: SmallQwen) -> None:
    with load_qwen_vl_judge(small_qwen.config(prefix_cache_mib=1), "cpu") as judge:
        photos = [judge_photo(photo(number, 448, 448), number) for number in range(12)]
        found = [margins(judge.rerank(one, QUERIES[:1]))[0] for one in photos]
        cached = judge.cached_photos
        assert 1 < len(cached) < 12
        best = sorted(range(12), key=lambda number: -found[number])
        assert set(best[: len(cached) - 1]) < cached
        assert [margins(judge.rerank(one, QUERIES[:1]))[0] for one in photos] == found


def test_ctrl_c_in_the_middle_of_the_library_is_not_lost(judge: QwenVlJudge) -> None:
    class Impatient(logging.Handler):
        """Presses Ctrl-C when the library logs, which it does in the middle of its work."""

        def emit(self, _record: logging.LogRecord) -> None:
            signal.raise_signal(signal.SIGINT)

    logger, handler = logging.getLogger("matir_cli.engines.llama_cpp.bindings"), Impatient()
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            judge.rerank(judge_photo(photo(77, 112, 112), 77), QUERIES)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(judge.rerank(judge_photo(photo(77, 112, 112), 77), QUERIES)) == len(QUERIES)


def test_no_questions_give_no_answers(judge: QwenVlJudge) -> None:
    assert judge.rerank(judge_photo(photo(0, 112, 112)), []) == []
    assert judge.ground([]) == []


def test_composed_and_decomposed_letters_are_one_query(judge: QwenVlJudge) -> None:
    image = judge_photo(photo(0, 112, 112))
    composed, decomposed = margins(judge.rerank(image, ["caf\u00e9", "cafe\u0301"]))
    # Rows of one batch differ in their last bits, even for the same question twice.
    assert composed == pytest.approx(decomposed, abs=1e-4)


def test_a_query_that_is_too_long(judge: QwenVlJudge) -> None:
    with pytest.raises(ContextTooSmall) as raised:
        judge.rerank(judge_photo(photo(0, 112, 112)), ["dog " * 3000])
    assert raised.value.needed > raised.value.available > 100


def test_closing_twice_is_harmless(small_qwen: SmallQwen) -> None:
    judge = load_qwen_vl_judge(small_qwen.config(), "cpu")
    judge.close()
    judge.close()
    del judge
    gc.collect()


def test_a_vocabulary_without_the_answers(small_qwen: SmallQwen, tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_bytes(
        small_qwen.text_path.read_bytes().replace(b"\x04\0\0\0\0\0\0\0True", b"\x04\0\0\0\0\0\0\0Trux", 1)
    )
    config = replace(small_qwen.config(), files={"model": text, "projector": small_qwen.projector_path})
    with pytest.raises(CheckpointInvalid, match='no single token for "True"'):
        load_qwen_vl_judge(config, "cpu")


def test_damaged_weights_raise_instead_of_a_verdict(tmp_path: Path) -> None:
    broken = make_model(tmp_path, seed=0)
    with torch.no_grad():
        broken.model.model.language_model.norm.weight.fill_(float("nan"))
    write_gguf(broken.model, broken.tokenizer, broken.text_path, broken.projector_path, precision="f32")
    with (
        load_qwen_vl_judge(broken.config(), "cpu") as judge,
        pytest.raises(EngineFailed, match="not numbers"),
    ):
        judge.rerank(judge_photo(photo(0, 112, 112)), QUERIES)


@pytest.fixture
def overflowing(small_qwen: SmallQwen, tmp_path: Path) -> Iterator[QwenVlJudge]:
    """A judge whose vision tower overflows, in float16, for pixels far from the mean of all colours."""
    projector = read_gguf(small_qwen.projector_path)
    projector.values[b"clip.vision.image_std"].content = [5e-6] * 3
    path = tmp_path / "projector.gguf"
    path.write_bytes(projector.pack())
    config = small_qwen.config(max_answer_tokens=24, grounds_at_once=3)
    config = replace(config, files={"model": small_qwen.text_path, "projector": path})
    with load_qwen_vl_judge(config, "cpu") as loaded:
        yield loaded


def test_a_photo_that_overflows_leaves_the_others_alone(overflowing: QwenVlJudge) -> None:
    rng = np.random.default_rng(0)
    calm, other = (JudgePhoto(n, rng.integers(100, 140, (112, 112, 3), np.uint8)) for n in (0, 1))
    white = JudgePhoto(2, np.full((112, 112, 3), 255, np.uint8))
    before = overflowing.rerank(calm, QUERIES)
    assert None not in before
    assert overflowing.rerank(white, QUERIES) == [None] * len(QUERIES)
    assert overflowing.rerank(white, QUERIES) == [None] * len(QUERIES)
    assert margins(overflowing.rerank(calm, QUERIES)) == pytest.approx(margins(before), abs=1e-3)
    alone = [overflowing.ground([GroundingQuestion(one, QUERIES[0])])[0] for one in (calm, other)]
    together = overflowing.ground([GroundingQuestion(one, QUERIES[0]) for one in (calm, white, other)])
    assert together == [alone[0], None, alone[1]]
    assert None not in alone
    assert margins(overflowing.rerank(calm, QUERIES)) == pytest.approx(margins(before), abs=1e-3)


def test_a_photo_that_overflows_is_asked_about_at_another_size(overflowing: QwenVlJudge) -> None:
    rows, columns = np.indices((224, 224))
    board = np.repeat((((rows + columns) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    # Three quarters of its size, each pixel is the mean of black and white squares.
    photo = JudgePhoto(0, board)
    assert None not in overflowing.rerank(photo, QUERIES)
    (grounding,) = overflowing.ground([GroundingQuestion(photo, QUERIES[0])])
    assert grounding is not None
    assert all(0 <= box.x0 < box.x1 <= 224 for box in grounding.boxes)


def test_a_context_that_does_not_hold_a_photo(small_qwen: SmallQwen) -> None:
    with pytest.raises(ContextTooSmall) as raised:
        load_qwen_vl_judge(small_qwen.config(context_tokens=400), "cpu")
    assert raised.value.available == 400 < raised.value.needed


def test_a_gpu_that_is_not_there(small_qwen: SmallQwen) -> None:
    if gpu_available():
        load_qwen_vl_judge(small_qwen.config(), "auto").close()
    else:
        with pytest.raises(DeviceUnavailable):
            load_qwen_vl_judge(small_qwen.config(), "cuda")


PROCESS = """
import logging, sys
from pathlib import Path
import numpy as np
from matir_cli.engines.qwen_vl.judge import load_qwen_vl_judge
from matir_cli.engines.protocols import GroundingQuestion, JudgePhoto
from matir_cli.records import EngineConfig, ModelIdentity
text, projector, ending = sys.argv[1:]
if ending == "verbose":
    logging.basicConfig(level=logging.DEBUG)
files = {"model": Path(text), "projector": Path(projector)}
judge = load_qwen_vl_judge(EngineConfig("qwen_vl", {"threads": 1}, files, ModelIdentity("small", "0")), "cpu")
photo = JudgePhoto(0, np.zeros((100, 150, 3), np.uint8))
print(judge.rerank(photo, ["dog"])[0].margin)
print(len(judge.ground([GroundingQuestion(photo, "dog")])))
if ending == "error":
    raise SystemExit(7)
if ending == "cycle":
    judge.itself = judge
    del judge
"""


@pytest.mark.parametrize(("ending", "code"), [("left open", 0), ("error", 7), ("cycle", 0), ("verbose", 0)])
def test_nothing_of_the_log_reaches_the_user(small_qwen: SmallQwen, ending: str, code: int) -> None:
    files = str(small_qwen.text_path), str(small_qwen.projector_path)
    arguments = [sys.executable, "-c", PROCESS, *files, ending]
    done = subprocess.run(arguments, capture_output=True, check=False)
    assert done.returncode == code
    assert len(done.stdout.splitlines()) == 2
    if ending == "verbose":
        assert b"matir_cli.engines.llama_cpp.bindings" in done.stderr
        assert b"n_ctx" in done.stderr
    else:
        assert done.stderr == b""
