"""Grounding answers written together: greedy, within the grammar, expected text drafted.

Each step decodes one batch for all answers that are still open. Most of an answer is known
before the model says it (the JSON around the numbers, the label); such text is drafted:
decoded in the same batch as the last token and kept as far as the model's own choices agree
with it. The answers are those of plain greedy decoding within the grammar, token for token,
in about a third of the steps; and a step for several answers costs little more than for one,
since the weights are read once (speculative decoding: Leviathan et al., ICML 2023).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from matir_cli.engines.llama_cpp.bindings import Context, Grammar, LanguageModel, Run
from matir_cli.engines.qwen_vl.boxes import EXPECTED_START, expected_rest, is_complete
from matir_cli.records import FloatArray

DRAFT_LIMIT = 24
"""Tokens drafted at most in one step; what is left of a long label goes on in the next."""


@dataclass(slots=True)
class OpenAnswer:
    """An answer that is being written."""

    query: str
    sequence: int
    position: int
    """Of the first token of `pending`."""
    pending: list[int]
    """Tokens that the context does not hold yet: at first the question, then the last token."""
    grammar: Grammar
    expected: list[int] = field(default_factory=list)
    """How it most likely goes on behind `pending`."""
    written: bytes = b""
    tokens: list[int] = field(default_factory=list)
    done: bool = False

    @property
    def text(self) -> str:
        """The answer so far."""
        return self.written.decode(errors="replace")

    @property
    def draft(self) -> list[int]:
        """The part of `expected` that the next step tries."""
        return self.expected[:DRAFT_LIMIT]

    @property
    def run(self) -> Run:
        """What to decode next."""
        return Run(self.sequence, self.position, self.pending + self.draft, len(self.pending) - 1)


def write_answers(
    model: LanguageModel, context: Context, answers: Sequence[OpenAnswer], token_limit: int
) -> None:
    """Writes all `answers` to their end: a complete JSON value, or `token_limit` tokens.

    Raises:
        EngineFailed: llama.cpp could not compute.
    """
    for answer in answers:
        answer.expected = model.tokenize(EXPECTED_START)
    while open_answers := [answer for answer in answers if not answer.done]:
        outputs = context.decode([answer.run for answer in open_answers])
        for answer, logits in zip(open_answers, outputs, strict=True):
            _take(model, context, answer, logits, token_limit)


def _take(
    model: LanguageModel, context: Context, answer: OpenAnswer, logits: Sequence[FloatArray], token_limit: int
) -> None:
    """Takes the model's choices over as far as the draft agrees with them, and one more."""
    draft = answer.draft
    agreed = 0
    for drafted, row in zip([*draft, None], logits, strict=True):
        token = answer.grammar.best(row)
        _append(model, answer, token, token_limit)
        if answer.done or token != drafted:
            break
        agreed += 1
    answer.position += len(answer.pending) + agreed
    if agreed < len(draft):
        context.drop(answer.sequence, answer.position)
    answer.pending = answer.tokens[-1:]
    left = answer.expected[agreed:]
    if left and left[:1] == answer.pending:
        answer.expected = left[1:]
    else:
        rest = expected_rest(answer.text, answer.query)
        answer.expected = model.tokenize(rest) if rest else []


def _append(model: LanguageModel, answer: OpenAnswer, token: int, token_limit: int) -> None:
    """Adds the model's choice and sees whether the answer ends with it."""
    if model.ends_answer(token):
        answer.done = True
        return
    answer.grammar.accept(token)
    piece = model.piece(token)
    answer.tokens.append(token)
    answer.written += piece
    closes = any(sign in piece for sign in (b"]", b"}"))
    answer.done = len(answer.tokens) >= token_limit or (closes and is_complete(answer.text))
