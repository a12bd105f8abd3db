"""What goes through the socket between `matir find` and the server: a request, and a stream of messages.

Both are MessagePack, which keeps floats and bytes exact: the client goes on with the very values that the
server computed. Paths are their bytes, as they may not be UTF-8. Each message is preceded by its length.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import Field, is_dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np

from matir_cli import errors
from matir_cli.errors import MatirError
from matir_cli.records import Box
from matir_cli.search.events import FinalEvent, GroundedEvent, SearchEvent, Stage1Event, VerdictEvent
from matir_cli.search.pipeline import SearchOptions
from matir_cli.search.query import Example, ExampleRule, Query, ResolvedExample

HEADER = struct.Struct(">I")
"""Precedes a message: its length in bytes."""

MEDIA_TYPE = "application/x-msgpack"

JOB_HEADER = "X-MaTIR-Job"
"""Header of the answer to a search: the id by which it is stopped."""


class WireExample(msgspec.Struct, frozen=True):
    """A `ResolvedExample`."""

    path: Path
    vector: bytes
    """(d,) float32, little endian."""
    box: Box
    share: float
    stored: bool
    iou: float | None

    @classmethod
    def of(cls, example: ResolvedExample) -> WireExample:
        """Convert an example to be sent."""
        vector = example.vector.astype("<f4").tobytes()
        return cls(example.path, vector, example.box, example.share, example.stored, example.iou)

    def resolved(self) -> ResolvedExample:
        """Convert it back; ValueError if its vector is none."""
        vector = np.frombuffer(self.vector, "<f4").astype(np.float32)
        if not vector.size or not np.isfinite(vector).all():
            raise ValueError("the example's vector is impossible")
        return ResolvedExample(self.path, vector, self.box, self.share, stored=self.stored, iou=self.iou)


class SearchRequest(msgspec.Struct, frozen=True):
    """A search that `matir find` asks for."""

    gallery: tuple[int, int]
    """Device and inode of the gallery's file: another one may have taken its path."""
    models: str
    """The model set that the client has chosen."""
    device: str
    decode_seconds: float
    """Time limit of a photo's decoding."""
    text: str | None
    examples: tuple[WireExample, ...]
    weight: float
    without: tuple[str, ...]
    unlike: tuple[WireExample, ...]
    rule: ExampleRule
    options: SearchOptions

    def query(self) -> Query:
        """Return the query; ValueError if it is impossible."""
        good, bad = (tuple(each.resolved() for each in some) for some in (self.examples, self.unlike))
        return Query(self.text, good, self.weight, self.without, bad, self.rule)


def wire_examples(examples: Iterable[Example | ResolvedExample]) -> tuple[WireExample, ...]:
    """Convert a query's examples; they must have been resolved."""
    return tuple(map(_wire_example, examples))


def _wire_example(example: Example | ResolvedExample) -> WireExample:
    if isinstance(example, Example):
        raise ValueError("the example is not resolved")
    return WireExample.of(example)


class Step(msgspec.Struct, frozen=True):
    """A step of which progress is shown; see `matir_cli.progress.ProgressObserver`."""

    name: str
    total: int | None
    unit: str
    done: int


class Waiting(msgspec.Struct, frozen=True):
    """The search waits for its turn to use the judge."""

    ahead: int
    """Searches before this one."""
    seconds: float | None
    """Time that they are likely to take; None if nothing is known yet."""

    @property
    def message(self) -> str:
        """Describe it for people."""
        searches = "1 other search" if self.ahead == 1 else f"{self.ahead} other searches"
        soon = "" if self.seconds is None else f", about {self.seconds:.0f} s"
        return f"waiting for {searches}{soon}"


class WireError(msgspec.Struct, frozen=True):
    """A `MatirError`, with its facts."""

    name: str
    facts: dict[str, Any]

    @classmethod
    def of(cls, error: MatirError) -> WireError:
        """Convert an error to be sent."""
        fields: tuple[Field[Any], ...] = dataclasses.fields(error) if is_dataclass(error) else ()
        facts = {field.name: _pack(getattr(error, field.name)) for field in fields if field.init}
        return cls(type(error).__name__, facts)

    def error(self) -> MatirError:
        """Return the error."""
        kind: Callable[..., MatirError] = getattr(errors, self.name)
        return kind(**{name: _unpack(value) for name, value in self.facts.items()})


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of the server about a search; exactly one field is set."""

    stage1: Stage1Event | None = None
    verdict: VerdictEvent | None = None
    grounded: GroundedEvent | None = None
    final: FinalEvent | None = None
    begin: Step | None = None
    """A step begins."""
    advance: int = 0
    """Number of its items that are done now."""
    end: bool = False
    """It ends."""
    waiting: Waiting | None = None
    note: str | None = None
    """A line for the user."""
    error: WireError | None = None
    """The search failed; this is the last message."""
    interrupted: bool = False
    """The search was stopped before it had a result; this is the last message."""
    fault: str | None = None
    """The server failed by a fault of its own; this is the last message."""

    @property
    def event(self) -> SearchEvent | None:
        """The event, if it is one."""
        return self.stage1 or self.verdict or self.grounded or self.final

    @property
    def is_last(self) -> bool:
        """True if no other message follows."""
        return self.final is not None or self.error is not None or self.interrupted or self.fault is not None


def event_message(event: SearchEvent) -> Message:
    """Return the message with an event."""
    match event:
        case Stage1Event():
            return Message(stage1=event)
        case VerdictEvent():
            return Message(verdict=event)
        case GroundedEvent():
            return Message(grounded=event)
        case FinalEvent():
            return Message(final=event)


Packed: TypeAlias = tuple[str, Any]


def _pack(value: object) -> Packed:
    """Prepare an error's fact: texts in it may hold bytes of a file name that are not UTF-8."""
    match value:
        case Path():
            return "path", os.fsencode(value)
        case str():
            return "text", value.encode("utf-8", "surrogatepass")
        case tuple() | list():
            return "list", [_pack(each) for each in value]
        case _:
            return "plain", value


def _unpack(packed: Packed) -> object:
    kind, value = packed
    match kind:
        case "path":
            return Path(os.fsdecode(value))
        case "text":
            return value.decode("utf-8", "surrogatepass")
        case "list":
            return [_unpack(each) for each in value]
        case _:
            return value


def _encode_other(value: object) -> object:
    if isinstance(value, Path):
        return os.fsencode(value)
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(type(value).__name__)


def _decode_other(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, bytes):
        return Path(os.fsdecode(value))
    raise NotImplementedError(kind.__name__)


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_other)
_message_decoder = msgspec.msgpack.Decoder(Message, dec_hook=_decode_other)
_request_decoder = msgspec.msgpack.Decoder(SearchRequest, dec_hook=_decode_other)


def encode_request(request: SearchRequest) -> bytes:
    """Encode a request."""
    return _encoder.encode(request)


def decode_request(content: bytes) -> SearchRequest:
    """Decode a request; msgspec.MsgspecError if it is none."""
    return _request_decoder.decode(content)


def encode_message(message: Message) -> bytes:
    """Encode a message, with its length before it."""
    content = _encoder.encode(message)
    return HEADER.pack(len(content)) + content


def decode_message(content: bytes) -> Message:
    """Decode a message; msgspec.MsgspecError if it is none."""
    return _message_decoder.decode(content)
