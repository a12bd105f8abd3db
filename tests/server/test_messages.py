"""What goes through the socket arrives as it was sent."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli import errors
from matir_cli.cli.boundary import explain
from matir_cli.records import Candidate, Verdict
from matir_cli.search.events import VerdictEvent
from matir_cli.search.rerank import JudgedCandidate
from matir_cli.server.messages import HEADER, Message, WireError, decode_message, encode_message

FACTS: dict[str, Any] = {
    "path": Path(b"/photos/\xff.db".decode("utf-8", "surrogateescape")),
    "gallery": Path("/photos/gallery.db"),
    "files": (Path("/a/b.gguf"), Path("/a/c.gguf")),
    "known": ["full", "tiny"],
    "part": "judge",
    "extra": "preview",
    "text": "a \udcff",
}
"""Facts of errors, by name; others are numbers or texts by their annotation."""


def make_error(kind: type[errors.MatirError]) -> errors.MatirError:
    """An error with facts of the right types."""
    facts: tuple[dataclasses.Field[Any], ...] = ()
    if dataclasses.is_dataclass(kind):
        facts = dataclasses.fields(kind)
    given_facts = {
        fact.name: FACTS.get(fact.name, 7 if fact.type in (int, float) else f"some {fact.name}")
        for fact in facts
        if fact.init
    }
    return kind(**given_facts)


@pytest.mark.parametrize(
    "kind", [getattr(errors, name) for name in errors.__all__], ids=lambda kind: kind.__name__
)
def test_every_error_arrives_with_its_words(kind: type[errors.MatirError]) -> None:
    error = make_error(kind)
    sent = encode_message(Message(error=WireError.of(error)))
    arrived = decode_message(sent[HEADER.size :])
    assert arrived.is_last
    assert arrived.error is not None
    again = arrived.error.error()
    assert type(again) is kind
    assert explain(again) == explain(error)


@given(st.floats(), st.floats(), st.floats(), st.integers(1, 2**62))
@settings(derandomize=True, max_examples=50)
def test_numbers_arrive_exactly(z_true: float, z_false: float, score: float, photo: int) -> None:
    event = VerdictEvent(JudgedCandidate(Candidate(photo, 1, score), Verdict(z_true, z_false)), 1)
    sent = encode_message(Message(verdict=event))
    (length,) = HEADER.unpack(sent[: HEADER.size])
    assert length == len(sent) - HEADER.size
    arrived = decode_message(sent[HEADER.size :])
    assert not arrived.is_last
    assert repr(arrived.event) == repr(event)
