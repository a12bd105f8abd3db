"""Batched generation of grounding answers, with speculative drafts.

Each step decodes one batch for all answers that are still open. Most of an answer can be predicted: the
JSON around the numbers, and the label. Such text is drafted, that is decoded in the same batch as the last
token, and kept as far as the model's own choices agree with it. The answers are token for token those of
plain greedy decoding within the grammar, in about a third of the steps; and a step for several answers
costs little more than for one, since the weights are read once (speculative decoding: Leviathan et al.,
ICML 2023).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from matir_cli.engines.llama_cpp.bindings import Context, LanguageModel, TokenRun
from matir_cli.engines.llama_cpp.grammar import Grammar
from matir_cli.engines.qwen_vl.boxes import EXPECTED_START, expected_continuation, is_complete
from matir_cli.records import FloatArray

DRAFT_LIMIT = 24
"""Largest number of tokens drafted in one step; the rest of a long label is drafted in the next."""


@dataclass(slots=True)
class PartialAnswer:
    """An answer that is being generated."""

    query: str
    """Description of the object to ground."""
    sequence: int
    """Sequence of the context that holds the photo and the answer."""
    position: int
    """Position of the first token of `pending`."""
    pending: list[int]
    """Tokens that the context does not hold yet: first the question, later the last token chosen."""
    grammar: Grammar
    """The answer's grammar, advanced past all `tokens`."""
    expected: list[int] = field(default_factory=list)
    """Tokens that most likely follow `pending`."""
    text_bytes: bytes = b""
    """The answer so far; a UTF-8 character may be incomplete at its end."""
    tokens: list[int] = field(default_factory=list)
    """Tokens of the answer so far."""
    done: bool = False
    """True once the answer has ended."""
    failed: bool = False
    """True if the model gave logits that are not finite; the answer ended there."""

    @property
    def text(self) -> str:
        """The answer so far."""
        return self.text_bytes.decode(errors="replace")

    @property
    def draft(self) -> list[int]:
        """The part of `expected` that the next step tries."""
        return self.expected[:DRAFT_LIMIT]

    @property
    def run(self) -> TokenRun:
        """Tokens to decode in the next step: those pending and the draft."""
        return TokenRun(self.sequence, self.position, self.pending + self.draft, len(self.pending) - 1)


def generate_answers(
    model: LanguageModel, context: Context, answers: Sequence[PartialAnswer], token_limit: int
) -> None:
    """Generate all `answers` up to a complete JSON value, the end of the turn, or `token_limit` tokens.

    Raises:
        EngineFailed: llama.cpp could not compute.
    """
    for answer in answers:
        answer.expected = model.tokenize(EXPECTED_START)
    while open_answers := [answer for answer in answers if not answer.done]:
        outputs = context.decode([answer.run for answer in open_answers])
        for answer, logits in zip(open_answers, outputs, strict=True):
            _advance(model, context, answer, logits, token_limit)


def _advance(
    model: LanguageModel,
    context: Context,
    answer: PartialAnswer,
    logits: Sequence[FloatArray],
    token_limit: int,
) -> None:
    """Append the model's choices as far as the draft agrees with them, and one more; draft anew."""
    draft = answer.draft
    agreed = 0
    for drafted, row in zip([*draft, None], logits, strict=True):
        if not np.isfinite(row).all():
            answer.failed = answer.done = True
            return
        token = answer.grammar.best_token(row)
        _append_token(model, answer, token, token_limit)
        if answer.done or token != drafted:
            break
        agreed += 1
    # The context holds the whole draft; only the part that agrees stays.
    answer.position += len(answer.pending) + agreed
    if agreed < len(draft):
        context.drop(answer.sequence, answer.position)
    answer.pending = answer.tokens[-1:]
    rest = answer.expected[agreed:]
    if rest and rest[:1] == answer.pending:
        answer.expected = rest[1:]
    else:
        continuation = expected_continuation(answer.text, answer.query)
        answer.expected = model.tokenize(continuation) if continuation else []


def _append_token(model: LanguageModel, answer: PartialAnswer, token: int, token_limit: int) -> None:
    """Append the model's choice, and mark the answer as done if it ends there."""
    if model.is_end_of_turn(token):
        answer.done = True
        return
    answer.grammar.accept(token)
    token_bytes = model.token_bytes(token)
    answer.tokens.append(token)
    answer.text_bytes += token_bytes
    closes = any(bracket in token_bytes for bracket in (b"]", b"}"))
    answer.done = len(answer.tokens) >= token_limit or (closes and is_complete(answer.text))
