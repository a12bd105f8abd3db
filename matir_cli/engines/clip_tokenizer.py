"""CLIP's tokenizer: the byte-pair encoding of OpenAI's `clip/simple_tokenizer.py`, id for id.

Own code where a library exists, for three reasons: the `tokenizers` library takes 60 ms to load
CLIP's vocabulary and this a third of it, in a process whose whole budget is a few hundred; it
deviates from OpenAI's tokenizer (no repair of broken text, no HTML entities, another lower case,
normalisation after lower case); and it reports a damaged file by a bare `Exception`.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from matir_cli.errors import CheckpointInvalid

_FILE_LIMIT = 64 * 1024 * 1024
# What follows a word of this many bytes is past the 77 tokens anyway; merging costs its length squared.
_WORD_LIMIT = 4096
_START = "<|startoftext|>"
_END = "<|endoftext|>"
_WORD_END = "</w>"
_FIXED = re.compile(r"<\|startoftext\|>|<\|endoftext\|>|'(?:s|t|re|ve|m|ll|d)", re.IGNORECASE)


class _Model(msgspec.Struct, frozen=True):
    vocab: dict[str, int]
    merges: list[str | tuple[str, str]]
    end_of_word_suffix: str | None = None


class _File(msgspec.Struct, frozen=True):
    model: _Model


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenised text."""

    ids: tuple[int, ...]
    """From the start token to the first end token, both included."""
    truncated: bool
    """The text had more tokens than the limit; the last kept one was replaced by the end token."""


class ClipTokenizer:
    """Text to token ids with the vocabulary and merges of a Hugging Face `tokenizer.json`."""

    def __init__(self, path: Path, vocabulary: Mapping[str, int], merges: Mapping[str, int]) -> None:
        """Use `vocabulary` (token to id) and `merges` ("left right" to rank), read from `path`."""
        self._path = path
        self._vocabulary = vocabulary
        self._merges = merges
        self._bytes = _byte_symbols()
        ids = [self._id(token) for token in (_START, _END)]
        self._start, self._end = ids
        for symbol in self._bytes:
            self._id(symbol)
            self._id(symbol + _WORD_END)

    @property
    def largest_id(self) -> int:
        """The largest token id there is."""
        return max(self._vocabulary.values())

    def tokenize(self, text: str, limit: int) -> Tokens:
        """At most `limit` tokens of `text`, cleaned first as OpenAI does.

        Raises:
            CheckpointInvalid: a merge makes a token that the vocabulary lacks.
        """
        ids = [self._start]
        for piece in split(clean(text)):
            ids.extend(self._encode(piece))
            if len(ids) >= limit:
                break
        ids.append(self._end)
        truncated = len(ids) > limit
        if truncated:
            ids[limit - 1 :] = [self._end]
        # An end token may be spelled out in the text; the vector is read at the first.
        return Tokens(tuple(ids[: ids.index(self._end) + 1]), truncated)

    def _encode(self, piece: str) -> list[int]:
        if piece in (_START, _END):
            return [self._vocabulary[piece]]
        word = [self._bytes[byte] for byte in piece.encode()[:_WORD_LIMIT]]
        word[-1] += _WORD_END
        while len(word) > 1:
            pairs = [f"{left} {right}" for left, right in itertools.pairwise(word)]
            best = min(pairs, key=lambda pair: self._merges.get(pair, len(self._merges)))
            if best not in self._merges:
                break
            word = _merge(word, pairs, best)
        return [self._id(symbol) for symbol in word]

    def _id(self, token: str) -> int:
        try:
            return self._vocabulary[token]
        except KeyError as error:
            raise CheckpointInvalid(self._path, f"the vocabulary lacks the token {token!r}") from error


def load(path: Path) -> ClipTokenizer:
    """The tokenizer in the Hugging Face `tokenizer.json` at `path`; only its vocabulary and merges count.

    Raises:
        CheckpointInvalid: not such a file, or not a byte-level vocabulary with "</w>" at word ends.
    """
    try:
        if path.stat().st_size > _FILE_LIMIT:
            raise CheckpointInvalid(path, f"larger than {_FILE_LIMIT} bytes")
        model = msgspec.json.decode(path.read_bytes(), type=_File).model
    except OSError as error:
        raise CheckpointInvalid(path, error.strerror or "cannot be read") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointInvalid(path, f"not a tokenizer.json: {error}") from error
    if model.end_of_word_suffix != _WORD_END:
        raise CheckpointInvalid(path, f"model.end_of_word_suffix must be {_WORD_END!r}")
    if min(model.vocab.values(), default=-1) < 0:
        raise CheckpointInvalid(path, "the vocabulary is empty or has negative ids")
    merges = (pair if isinstance(pair, str) else " ".join(pair) for pair in model.merges)
    return ClipTokenizer(path, model.vocab, {pair: rank for rank, pair in enumerate(merges)})


def clean(text: str) -> str:
    """`text` repaired, with HTML entities resolved, single spaces and lower case."""
    if not text.isascii() or not text.isprintable() or "&" in text:
        # Printable ASCII without entities comes out as it went in, and ftfy takes 70 ms to import.
        import html

        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def split(text: str) -> Iterator[str]:
    """The words of a cleaned text: special tokens, contractions, letters, single digits, other signs."""
    at = 0
    while at < len(text):
        end = at + 1
        kind = _kind(text[at])
        if kind == "space":
            at = end
            continue
        if fixed := _FIXED.match(text, at):
            end = fixed.end()
        elif kind != "number":
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        yield text[at:end]
        at = end


def _kind(character: str) -> str:
    # OpenAI's expression ignores case and so takes U+0345, a mark with a letter for upper case, for nothing.
    if character in " \u0345":
        return "space"
    if character.isalpha():
        return "letter"
    return "number" if unicodedata.category(character).startswith("N") else "sign"


def _merge(word: list[str], pairs: list[str], best: str) -> list[str]:
    """`word` with every occurrence of the pair `best` joined, from the left; pairs[i] starts at word[i]."""
    merged = []
    at = 0
    while at < len(word):
        if at < len(pairs) and pairs[at] == best:
            merged.append(word[at] + word[at + 1])
            at += 2
        else:
            merged.append(word[at])
            at += 1
    return merged


def _byte_symbols() -> list[str]:
    """The 256 printable characters that stand for the bytes (GPT-2's table).

    Bytes that are printable in Latin-1 stand for themselves, the others for 256 and up, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
