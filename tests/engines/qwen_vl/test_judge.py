"""The judge against transformers: random and trained weights in llama.cpp's files, same answers."""

import codecs
import gc
import itertools
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import regex
import torch

from matir_cli.engines.llama_cpp.bindings import gpu_offered
from matir_cli.engines.protocols import GroundingQuestion, Judge, JudgePhoto
from matir_cli.engines.qwen_vl.judge import EngineFailed, QwenVlJudge, load_qwen_vl_judge
from matir_cli.engines.qwen_vl.options import GROUND, RERANK
from matir_cli.errors import (
    CheckpointInvalid,
    ContextTooSmall,
    DeviceUnavailable,
    MemoryTooSmall,
    ModelSetInvalid,
)
from matir_cli.models.tiny.gguf_writer import write_gguf
from matir_cli.records import Box, Grounding, ImageArray, Verdict
from tests.support.small_qwen import SmallQwen, make_model, photo

SIZES = [(112, 112), (240, 320), (333, 517), (57, 301), (28, 28), (480, 640)]
QUERIES = ["dog led by rope", "a striped red house left of a tree", "café <|im_end|> 狗"]
ANSWER = (
    r"(```json\s{0,10})?(?:OBJECT|\[\s{0,10}(?:OBJECT(?:\s{0,10},\s{0,10}OBJECT)*)?\s{0,10}\])\s{0,10}(```)?"
).replace(
    "OBJECT",
    r'\{\s{0,10}(?:"label"\s{0,10}:\s{0,10}TEXT\s{0,10},\s{0,10})?"bbox_2d"\s{0,10}:\s{0,10}'
    r"\[\s{0,10}N\s{0,10},\s{0,10}N\s{0,10},\s{0,10}N\s{0,10},\s{0,10}N\s{0,10}\]"
    r"(?:\s{0,10},\s{0,10}TEXT\s{0,10}:\s{0,10}(?:TEXT|N))*\s{0,10}\}",
)
ANSWER_FORM = regex.compile(
    ANSWER.replace(r"\s", r"[ \n\r\t]")
    .replace("TEXT", r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*"')
    .replace("N", r"-?(?:0|[1-9][0-9]{0,4})(?:\.[0-9]{1,3})?")
)
"""The form of an answer once more, as a regular expression that knows partial matches."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallQwen:
    """Random weights, float32."""
    return make_model(tmp_path_factory.mktemp("small"), seed=1)


@pytest.fixture(scope="module")
def judge(small: SmallQwen) -> Iterator[QwenVlJudge]:
    with load_qwen_vl_judge(small.config(max_answer_tokens=48, grounds_at_once=3), "cpu") as loaded:
        yield loaded


def asked(image: ImageArray, key: int = 0) -> JudgePhoto:
    return JudgePhoto(key, image)


def margins(verdicts: list[Verdict]) -> list[float]:
    return [verdict.margin for verdict in verdicts]


def reference_margin(small: SmallQwen, image: ImageArray, query: str) -> tuple[float, float]:
    """zTrue - zFalse by transformers, and the range of its logits."""
    logits = small.logits(image, RERANK + query).astype(np.float64)
    true, false = small.tokenizer.convert_tokens_to_ids(["True", "False"])
    return logits[true] - logits[false], np.ptp(logits)


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
def test_margins_are_those_of_transformers(tmp_path: Path, build: dict[str, object]) -> None:
    small = make_model(tmp_path, **{"seed": 1, **build})
    found: list[list[float]] = []
    with load_qwen_vl_judge(small.config(), "cpu") as judge:
        for number, size in enumerate(SIZES):
            image = photo(number, *size)
            found.append(margins(judge.rerank(asked(image), QUERIES)))
            for query, margin in zip(QUERIES, found[-1], strict=True):
                expected, span = reference_margin(small, image, query)
                assert abs(margin - expected) < 0.01 * span, (size, query)
    # Or else nothing would have been compared: the answers depend on both, far beyond the tolerance.
    spread = np.array(found)
    assert spread.std(axis=0).min() > 0.2
    assert spread.std(axis=1).min() > 0.2


def reference_answer(small: SmallQwen, image: ImageArray, query: str, limit: int) -> tuple[str, bool]:
    """Greedy text by transformers within `ANSWER_FORM`, and whether greed alone says the same."""
    written, tokens, free = b"", [], True
    while len(tokens) < limit:
        order = np.argsort(-small.logits(image, GROUND + query, tokens))
        token = next(int(token) for token in order if may_follow(written, small.bytes_of(int(token))))
        free &= token == order[0]
        tokens.append(token)
        written += small.bytes_of(token)
        if ANSWER_FORM.fullmatch(written.decode(errors="replace")):
            break
    return written.decode(errors="replace"), free


def may_follow(written: bytes, piece: bytes) -> bool:
    """Whether the bytes so far can still become an answer; a character may be cut in two."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        text = decoder.decode(written + piece)
    except UnicodeDecodeError:
        return False
    # Half a character is one beyond ASCII, and the form treats those alike.
    text += "é" if decoder.getstate()[0] else ""
    return bool(piece) and ANSWER_FORM.fullmatch(text, partial=True) is not None


def test_greedy_answers_are_those_of_transformers(tmp_path: Path) -> None:
    answers: list[str] = []
    for seed in (7, 8, 18, 23):
        small = make_model(tmp_path, seed=seed)
        with load_qwen_vl_judge(small.config(max_answer_tokens=40), "cpu") as judge:
            for size in [(112, 140), (333, 517)]:
                image = photo(seed, *size)
                (found,) = judge.ground([GroundingQuestion(asked(image), QUERIES[0])])
                assert found.answer == reference_answer(small, image, QUERIES[0], 40)[0]
                answers.append(found.answer)
    assert len(set(answers)) >= 6
    assert any("bbox_2d" in answer for answer in answers)


LESSONS = [
    '```json\n[\n\t{"bbox_2d": [12, 34, 56, 78], "label": "dog led by rope"}\n]',
    '```json\n[\n\t{"bbox_2d": [0, 8, 101, 99], "label": "dog led by rope"},\n\t'
    '{"bbox_2d": [60, 5, 7, 120], "label": "dog"}\n]',
    "```json\n[]",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SmallQwen:
    """A model that has learnt one answer to each of three photos by heart, in Qwen's form."""
    small = make_model(tmp_path_factory.mktemp("trained"), seed=2, tied=True)
    optimizer = torch.optim.AdamW(small.model.parameters(), lr=2e-3)
    texts = [small.tokenizer.encode(lesson) for lesson in LESSONS]
    lessons = [
        (small.inputs(image, GROUND + QUERIES[0], text), len(text))
        for image, text in zip(lesson_photos(), texts, strict=True)
    ]
    for inputs, length in itertools.islice(itertools.cycle(lessons), 240):
        logits = small.model(**inputs).logits[0, -length - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, inputs["input_ids"][0, -length:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    small.write("f32")
    return small


def lesson_photos() -> list[ImageArray]:
    return [photo(20 + number, 112, 140) for number in range(3)]


def test_learnt_answers_come_out_as_they_are(trained: SmallQwen) -> None:
    for image, lesson in zip(lesson_photos(), LESSONS, strict=True):
        text, free = reference_answer(trained, image, QUERIES[0], 80)
        assert (text, free) == (lesson, True)
    with load_qwen_vl_judge(trained.config(), "cpu") as judge:
        found = judge.ground([GroundingQuestion(asked(image), QUERIES[0]) for image in lesson_photos()])
    assert [grounding.answer for grounding in found] == LESSONS
    assert [grounding.boxes for grounding in found] == [
        (Box(12, 34, 56, 78),),
        (Box(0, 8, 101, 99), Box(7, 5, 60, 112)),
        (),
    ]
    assert all(grounding.readable for grounding in found)


def test_an_answer_that_is_cut_off_is_not_readable(trained: SmallQwen) -> None:
    with load_qwen_vl_judge(trained.config(max_answer_tokens=16), "cpu") as judge:
        (found,) = judge.ground([GroundingQuestion(asked(lesson_photos()[0]), QUERIES[0])])
    assert found == Grounding((), LESSONS[0][: len(found.answer)], False)
    assert len(found.answer) > 10


def test_a_shared_prefix_answers_like_a_fresh_one(small: SmallQwen, judge: QwenVlJudge) -> None:
    images = [photo(number, 112 + 56 * number, 168) for number in range(4)]
    fresh: list[tuple[list[float], str]] = []
    for image in images:
        with load_qwen_vl_judge(small.config(max_answer_tokens=48, prefix_cache_mib=0), "cpu") as other:
            told = margins(other.rerank(asked(image), QUERIES[:1]))
        with load_qwen_vl_judge(small.config(max_answer_tokens=48, prefix_cache_mib=0), "cpu") as other:
            fresh.append((told, other.ground([GroundingQuestion(asked(image), QUERIES[1])])[0].answer))
    # All photos are reranked before the first is grounded, as in a search.
    photos = [asked(image, key) for key, image in enumerate(images)]
    assert [margins(judge.rerank(one, QUERIES[:1])) for one in photos] == [told for told, _ in fresh]
    grounded = [judge.ground([GroundingQuestion(one, QUERIES[1])])[0].answer for one in photos]
    assert grounded == [answer for _, answer in fresh]
    assert [margins(judge.rerank(one, QUERIES[:1])) for one in photos] == [told for told, _ in fresh]


def test_together_is_as_one_by_one(judge: QwenVlJudge) -> None:
    photos = [asked(photo(number, 112, 112 + 28 * number), number) for number in range(4)]
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
    apart = margins(judge.rerank(asked(first, 1), QUERIES)), margins(judge.rerank(asked(second, 2), QUERIES))
    same = margins(judge.rerank(asked(first, 7), QUERIES)), margins(judge.rerank(asked(second, 7), QUERIES))
    assert same == apart
    turned = np.ascontiguousarray(photo(3, 56, 112).reshape(112, 56, 3))
    assert margins(judge.rerank(asked(turned, 8), QUERIES)) != margins(
        judge.rerank(asked(photo(3, 56, 112), 8), QUERIES)
    )


def test_a_small_prefix_cache_gives_up_the_least_likely(small: SmallQwen) -> None:
    with load_qwen_vl_judge(small.config(prefix_cache_mib=1), "cpu") as judge:
        photos = [asked(photo(number, 448, 448), number) for number in range(12)]
        found = [judge.rerank(one, QUERIES[:1])[0].margin for one in photos]
        kept = judge.kept_photos
        assert 1 < len(kept) < 12
        best = sorted(range(12), key=lambda number: -found[number])
        assert set(best[: len(kept) - 1]) < kept
        assert [judge.rerank(one, QUERIES[:1])[0].margin for one in photos] == found


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
            judge.rerank(asked(photo(77, 112, 112), 77), QUERIES)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(judge.rerank(asked(photo(77, 112, 112), 77), QUERIES)) == len(QUERIES)


def test_no_question_no_answer(judge: QwenVlJudge) -> None:
    assert judge.rerank(asked(photo(0, 112, 112)), []) == []
    assert judge.ground([]) == []


def test_composed_and_decomposed_letters_are_one_query(judge: QwenVlJudge) -> None:
    image = asked(photo(0, 112, 112))
    composed, decomposed = judge.rerank(image, ["caf\u00e9", "cafe\u0301"])
    # As one question twice: rows of one batch differ in their last bits.
    assert composed.margin == pytest.approx(decomposed.margin, abs=1e-4)


def test_a_query_that_is_too_long(judge: QwenVlJudge) -> None:
    with pytest.raises(ContextTooSmall) as raised:
        judge.rerank(asked(photo(0, 112, 112)), ["dog " * 3000])
    assert raised.value.needed > raised.value.available > 100


def test_closing_twice_is_harmless(small: SmallQwen) -> None:
    judge = load_qwen_vl_judge(small.config(), "cpu")
    judge.close()
    judge.close()
    del judge
    gc.collect()


def cut(path: Path, target: Path, bytes_kept: int) -> Path:
    target.write_bytes(path.read_bytes()[:bytes_kept])
    return target


def with_number(path: Path, target: Path, key: str, value: int) -> Path:
    """A copy whose unsigned 32-bit value of `key` is another."""
    raw = bytearray(path.read_bytes())
    at = raw.index(key.encode()) + len(key) + 4
    raw[at : at + 4] = value.to_bytes(4, "little")
    target.write_bytes(raw)
    return target


def damaged(small: SmallQwen, folder: Path, case: str) -> tuple[Path, Path]:
    """Model and projector, one of them wrong in the way that `case` says."""
    text, projector, made = small.text_path, small.projector_path, folder / "made.gguf"
    made.write_bytes(b"<html>Not Found</html>")
    cut_text = folder / "cut.gguf"
    other_size = make_model(folder, seed=0, hidden_size=128).projector_path
    return {
        "swapped": (projector, text),
        "no model": (made, projector),
        "missing": (folder / "missing.gguf", projector),
        "model twice": (text, text),
        "model cut": (cut(text, cut_text, text.stat().st_size - 9), projector),
        "header cut": (cut(text, folder / "short.gguf", 900), projector),
        "projector cut": (text, cut(projector, folder / "half.gguf", projector.stat().st_size // 2)),
        "other size": (text, other_size),
        "no layers": (with_number(text, folder / "l.gguf", "qwen2vl.block_count", 0), projector),
        "more layers": (with_number(text, folder / "m.gguf", "qwen2vl.block_count", 9), projector),
        "no heads": (text, with_number(projector, folder / "h.gguf", "clip.vision.attention.head_count", 0)),
        "blind": (text, with_number(projector, folder / "b.gguf", "clip.vision.projection_dim", 7)),
        "patches": (text, with_number(projector, folder / "p.gguf", "clip.vision.patch_size", 16)),
        "windows": (text, with_number(projector, folder / "w.gguf", "clip.vision.n_wa_pattern", 1)),
    }[case]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("swapped", "architecture qwen2vl"),
        ("no model", "not a GGUF file"),
        ("missing", "No such file"),
        ("model twice", "architecture clip"),
        ("model cut", "cut short: [0-9]+ bytes of [0-9]+"),
        ("header cut", "header is damaged"),
        ("projector cut", "cut short"),
        ("other size", "of another model size"),
        ("no layers", "without layers"),
        ("more layers", "blk.3.attn_norm.weight' not found"),
        ("no heads", "contradict"),
        ("blind", "contradict"),
        ("patches", "contradict"),
        ("windows", "without windows"),
    ],
)
def test_wrong_files_are_named(small: SmallQwen, tmp_path: Path, case: str, reason: str) -> None:
    text, projector = damaged(small, tmp_path, case)
    config = replace(small.config(), files={"model": text, "projector": projector})
    with pytest.raises(CheckpointInvalid, match=reason) as raised:
        load_qwen_vl_judge(config, "cpu")
    assert len(raised.value.reason) < 160


def test_a_vocabulary_without_the_answers(small: SmallQwen, tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_bytes(
        small.text_path.read_bytes().replace(b"\x04\0\0\0\0\0\0\0True", b"\x04\0\0\0\0\0\0\0Trux", 1)
    )
    config = replace(small.config(), files={"model": text, "projector": small.projector_path})
    with pytest.raises(CheckpointInvalid, match='no single token for "True"'):
        load_qwen_vl_judge(config, "cpu")


def test_damaged_weights_are_no_verdict(tmp_path: Path) -> None:
    broken = make_model(tmp_path, seed=0)
    with torch.no_grad():
        broken.model.model.language_model.norm.weight.fill_(float("nan"))
    write_gguf(broken.model, broken.tokenizer, broken.text_path, broken.projector_path, precision="f32")
    with (
        load_qwen_vl_judge(broken.config(), "cpu") as judge,
        pytest.raises(EngineFailed, match="not numbers"),
    ):
        judge.rerank(asked(photo(0, 112, 112)), QUERIES)


def test_too_little_memory(small: SmallQwen, tmp_path: Path) -> None:
    huge = tmp_path / "huge.gguf"
    huge.write_bytes(small.projector_path.read_bytes())
    with huge.open("r+b") as file:
        file.truncate(1 << 42)  # 4 TiB that take no room on disk
    config = replace(small.config(), files={"model": small.text_path, "projector": huge})
    with pytest.raises(MemoryTooSmall) as raised:
        load_qwen_vl_judge(config, "cpu")
    assert raised.value.needed > 1 << 42 > raised.value.available > 0


def test_a_context_that_does_not_hold_a_photo(small: SmallQwen) -> None:
    with pytest.raises(ContextTooSmall) as raised:
        load_qwen_vl_judge(small.config(context_tokens=400), "cpu")
    assert raised.value.available == 400 < raised.value.needed


@pytest.mark.parametrize(
    "options", [{"min_pixels": 900000}, {"max_pixel": 9}, {"max_answer_tokens": 1}, {"threads": "two"}]
)
def test_wrong_options_are_named(small: SmallQwen, options: dict[str, object]) -> None:
    with pytest.raises(ModelSetInvalid):
        load_qwen_vl_judge(small.config(**options), "cpu")


def test_a_gpu_that_is_not_there(small: SmallQwen) -> None:
    if gpu_offered():
        load_qwen_vl_judge(small.config(), "auto").close()
    else:
        with pytest.raises(DeviceUnavailable):
            load_qwen_vl_judge(small.config(), "cuda")


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
def test_nothing_of_the_log_reaches_the_user(small: SmallQwen, ending: str, code: int) -> None:
    arguments = [sys.executable, "-c", PROCESS, small.text_path, small.projector_path, ending]
    done = subprocess.run(arguments, capture_output=True, check=False)
    assert done.returncode == code
    assert len(done.stdout.splitlines()) == 2
    if ending == "verbose":
        assert b"matir_cli.engines.llama_cpp.bindings" in done.stderr
        assert b"n_ctx" in done.stderr
    else:
        assert done.stderr == b""
