"""Grounding answers against transformers' greedy decoding, token for token."""

import codecs
import contextlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import regex
import torch

from matir_cli.engines.protocols import GroundingQuestion, Judge, JudgePhoto
from matir_cli.engines.qwen_vl.options import GROUND
from matir_cli.engines.registry import load_judge
from matir_cli.records import Grounding, ImageArray
from tests.support.small_qwen import SmallQwen, make_model, photo
from tests.support.small_qwen3 import make_qwen3

QUERY = "dog led by rope"


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
"""The form of an answer as a regular expression, for partial matches; independent of the grammar."""


LESSONS = [
    '```json\n[\n\t{"bbox_2d": [12, 34, 56, 78], "label": "dog led by rope"}\n]',
    '```json\n[\n\t{"bbox_2d": [0, 8, 101, 99], "label": "dog led by rope"},\n\t'
    '{"bbox_2d": [60, 5, 7, 120], "label": "dog"}\n]',
    "```json\n[]",
]


MAKERS: dict[str, Callable[..., SmallQwen]] = {"Qwen2.5-VL": make_model, "Qwen3-VL": make_qwen3}
"""Makers of small models, by family."""


def lesson_photos() -> list[ImageArray]:
    return [photo(20 + number, 112, 140) for number in range(3)]


@pytest.fixture(scope="module", params=list(MAKERS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SmallQwen:
    """A model that was trained on one answer to each of three photos, in Qwen's form."""
    small_qwen = MAKERS[request.param](tmp_path_factory.mktemp("trained"), seed=2, tied=True)
    optimizer = torch.optim.AdamW(small_qwen.model.parameters(), lr=2e-3)
    texts = [small_qwen.encode(lesson) for lesson in LESSONS]
    lessons = [
        (small_qwen.inputs(image, GROUND + QUERY, text), len(text))
        for image, text in zip(lesson_photos(), texts, strict=True)
    ]
    for inputs, length in itertools.islice(itertools.cycle(lessons), 240):
        logits = small_qwen.model(**inputs).logits[0, -length - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, inputs["input_ids"][0, -length:])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    small_qwen.write("f32")
    return small_qwen


def reference_answer(small_qwen: SmallQwen, image: ImageArray, query: str, limit: int) -> tuple[str, bool]:
    """Return transformers' greedy text within `ANSWER_FORM`, and True if the form ruled out no choice."""
    written, free = b"", True
    tokens: list[int] = []
    while len(tokens) < limit:
        order = np.argsort(-small_qwen.logits(image, GROUND + query, tokens))
        token = next(int(token) for token in order if may_follow(written, small_qwen.bytes_of(int(token))))
        free &= token == order[0]
        tokens.append(token)
        written += small_qwen.bytes_of(token)
        if ANSWER_FORM.fullmatch(written.decode(errors="replace")):
            break
    return written.decode(errors="replace"), free


def may_follow(written: bytes, piece: bytes) -> bool:
    """Return True if the bytes so far can still become an answer; a character may be incomplete."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        text = decoder.decode(written + piece)
    except UnicodeDecodeError:
        return False
    # An incomplete character is not ASCII, and the form treats all of those alike.
    text += "é" if decoder.getstate()[0] else ""
    return bool(piece) and ANSWER_FORM.fullmatch(text, partial=True) is not None


def ground(judge: Judge, images: Sequence[ImageArray]) -> list[Grounding]:
    """Ask for the boxes in photos about which the judge can answer."""
    found = judge.ground([GroundingQuestion(JudgePhoto(0, image), QUERY) for image in images])
    assert None not in found
    return [grounding for grounding in found if grounding is not None]


@pytest.mark.parametrize(("family", "seeds"), [("Qwen2.5-VL", (7, 8, 18, 23)), ("Qwen3-VL", (7, 18))])
def test_greedy_answers_are_those_of_transformers(
    tmp_path: Path, family: str, seeds: tuple[int, ...]
) -> None:
    answers: list[str] = []
    for seed in seeds:
        small_qwen = MAKERS[family](tmp_path, seed=seed)
        with contextlib.closing(load_judge(small_qwen.config(max_answer_tokens=40), "cpu")) as judge:
            for size in [(112, 140), (333, 517)]:
                image = photo(seed, *size)
                (found,) = ground(judge, [image])
                assert found.answer == reference_answer(small_qwen, image, QUERY, 40)[0]
                answers.append(found.answer)
    assert len(set(answers)) >= 3 * len(seeds) // 2
    assert any("bbox_2d" in answer for answer in answers)


def test_learnt_answers_come_out_as_they_are(trained: SmallQwen) -> None:
    for image, lesson in zip(lesson_photos(), LESSONS, strict=True):
        text, free = reference_answer(trained, image, QUERY, 80)
        assert (text, free) == (lesson, True)
    with contextlib.closing(load_judge(trained.config(), "cpu")) as judge:
        found = ground(judge, lesson_photos())
    assert [grounding.answer for grounding in found] == LESSONS
    # The photos have 112 x 140 pixels. Qwen2.5-VL sees them so, and means pixels; Qwen3-VL means thousandths.
    x, y = {"Qwen2.5-VL": (1.0, 1.0), "Qwen3-VL": (0.140, 0.112)}[trained.family.name]
    expected = [
        [(12, 34, 56, 78)],
        [(0, 8, 101, 99), (7, 5, 60, 112 if y == 1 else 120)],
        [],
    ]
    assert [
        [value for box in grounding.boxes for value in (box.x0, box.y0, box.x1, box.y1)]
        for grounding in found
    ] == [
        pytest.approx([value for a, b, c, d in boxes for value in (a * x, b * y, c * x, d * y)])
        for boxes in expected
    ]
    assert all(grounding.readable for grounding in found)


def test_an_answer_that_is_cut_off_is_not_readable(trained: SmallQwen) -> None:
    with contextlib.closing(load_judge(trained.config(max_answer_tokens=16), "cpu")) as judge:
        (found,) = ground(judge, lesson_photos()[:1])
    assert found == Grounding((), LESSONS[0][: len(found.answer)], False)
    assert len(found.answer) > 10
