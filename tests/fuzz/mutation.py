"""Mutations of valid inputs: bytes, numbers, nesting, and parts of other seeds."""

import random
import re
from collections.abc import Callable, Sequence

TOKENS = (
    b"",
    b"\0",
    b"\xff\xfe\xfa",
    b"\xed\xa0\x80",
    b"9" * 5000,
    b"-1",
    b"-0.0",
    b"1e999",
    b"NaN",
    b"18446744073709551616",
    b"2147483648",
    b"null",
    b"[" * 3000,
    b'{"a":' * 2000,
    b"\r\n",
    b"\xd9\xa3",
    b'"',
    b"\\",
    b"../../etc/passwd",
    b"\x1b[31m",
)
"""Pieces that parsers are known to stumble over."""


def mutate(draw: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return a seed with one to four mutations."""
    content = bytearray(draw.choice(seeds))
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        draw.choice(_MUTATIONS)(draw, content, seeds)
    return bytes(content)


def _place(draw: random.Random, content: bytearray) -> int:
    return draw.randrange(len(content) + 1)


def _flip(draw: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    for _count in range(draw.choice((1, 1, 3))):
        if content:
            content[draw.randrange(len(content))] = draw.randrange(256)


def _insert(draw: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    at = _place(draw, content)
    content[at:at] = draw.choice(TOKENS)


def _overwrite(draw: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    at, token = _place(draw, content), draw.choice(TOKENS)
    content[at : at + len(token)] = token


def _delete(draw: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    at = _place(draw, content)
    del content[at : at + draw.choice((1, 2, 8, 64))]


def _truncate(draw: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    del content[_place(draw, content) :]


def _repeat(draw: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    at = _place(draw, content)
    content[at:at] = content[at : at + draw.choice((1, 8, 64, 512))]


def _splice(draw: random.Random, content: bytearray, seeds: Sequence[bytes]) -> None:
    other = draw.choice(seeds)
    at, start = _place(draw, content), draw.randrange(len(other) + 1)
    content[at : at + 32] = other[start : start + 64]


def _replace_number(draw: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    """Replace a decimal number in the text by a token."""
    found = list(re.finditer(rb"-?[0-9]+(?:\.[0-9]+)?", bytes(content[:20_000])))
    if found:
        number = draw.choice(found)
        content[number.start() : number.end()] = draw.choice((*TOKENS, b"0", b"1", b"7"))


def _replace_text(draw: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    """Replace a text in quotes by a token."""
    found = list(re.finditer(rb'"[^"]*"', bytes(content[:20_000])))
    if found:
        text = draw.choice(found)
        content[text.start() : text.end()] = draw.choice((*TOKENS, b"1", b"[]", b"{}", b'""', b"1.5"))


_MUTATIONS: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    *(_flip, _flip, _insert, _overwrite, _delete, _truncate, _repeat, _splice),
    *(_replace_number, _replace_number, _replace_text),
)
