"""CLIP's tokenizer: the same ids as OpenAI's `clip/simple_tokenizer.py`.

The `tokenizers` library does the byte-pair encoding. Only the vocabulary and the merges of a
`tokenizer.json` are used, because the text cleaning that the hub's files describe is not OpenAI's: it does
not repair broken text or HTML entities, and it normalises after lower-casing. One difference from OpenAI:
a special token spelled out in a query always becomes that token, even next to other symbols.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from matir_cli.errors import CheckpointInvalid

_FILE_LIMIT = 64 * 1024 * 1024
"""Bytes; a larger tokenizer.json is refused."""

_TEXT_LIMIT = 1 << 16
"""Characters of a text that are encoded; the rest is beyond any token limit."""

_START = "<|startoftext|>"

_END = "<|endoftext|>"

_WORD_END = "</w>"

# Words: contractions, runs of letters, single digits, runs of other symbols. OpenAI's expression ignores
# case, and therefore does not match U+0345, a combining mark whose upper case is a letter.
_WORD = Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+")


class _ModelSection(msgspec.Struct, frozen=True):
    """The object "model" of a tokenizer.json, as far as it is used."""

    vocab: dict[str, int]
    merges: list[str | tuple[str, str]]
    end_of_word_suffix: str | None = None


class _TokenizerFile(msgspec.Struct, frozen=True):
    """A tokenizer.json, as far as it is used."""

    model: _ModelSection


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenised text."""

    ids: tuple[int, ...]
    """Token ids from the start token to the first end token, both included."""
    truncated: bool
    """True if the text was longer than the limit; its last kept token was replaced by the end token."""


class ClipTokenizer:
    """Converts text to CLIP's token ids."""

    def __init__(self, encoder: Tokenizer, vocabulary: Mapping[str, int]) -> None:
        """Tokenize with `encoder`, whose `vocabulary` maps tokens to ids."""
        self._encoder = encoder
        self._start, self._end = vocabulary[_START], vocabulary[_END]
        self.largest_id = max(vocabulary.values())
        """Largest id in the vocabulary."""

    def tokenize(self, text: str, limit: int) -> Tokens:
        """Return at most `limit` tokens of `text`, cleaned as in `clean_text`."""
        encoded = self._encoder.encode(clean_text(text)[:_TEXT_LIMIT], add_special_tokens=False)
        ids = [self._start, *encoded.ids, self._end]
        truncated = len(ids) > limit
        if truncated:
            ids[limit - 1 :] = [self._end]
        # The text may spell out an end token; the text tower reads the vector at the first one.
        return Tokens(tuple(ids[: ids.index(self._end) + 1]), truncated)


def load_tokenizer(path: Path) -> ClipTokenizer:
    """Load the Hugging Face `tokenizer.json` at `path`; only its vocabulary and merges are used.

    Raises:
        CheckpointInvalid: the file is not a tokenizer.json, or not one with a byte-level vocabulary and
            "</w>" at word ends.
    """
    try:
        if path.stat().st_size > _FILE_LIMIT:
            raise CheckpointInvalid(path, f"larger than {_FILE_LIMIT} bytes")
        model = msgspec.json.decode(path.read_bytes(), type=_TokenizerFile).model
    except OSError as error:
        raise CheckpointInvalid(path, error.strerror or "cannot be read") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointInvalid(path, f"not a tokenizer.json: {error}") from error
    encoder = Tokenizer(BPE(model.vocab, _validate_merges(path, model), end_of_word_suffix=_WORD_END))
    encoder.pre_tokenizer = Sequence(
        [Split(_WORD, "removed", invert=True), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    encoder.add_special_tokens([_START, _END])
    return ClipTokenizer(encoder, model.vocab)


def _validate_merges(path: Path, model: _ModelSection) -> list[tuple[str, str]]:
    """Return the merges, after checks that the library lacks or reports as a bare `Exception`.

    Raises:
        CheckpointInvalid: merges and vocabulary do not fit together, or are not CLIP's kind.
    """
    if model.end_of_word_suffix != _WORD_END:
        raise CheckpointInvalid(path, f"model.end_of_word_suffix must be {_WORD_END!r}")
    if not (min(model.vocab.values(), default=-1) >= 0 and max(model.vocab.values()) < 1 << 31):
        raise CheckpointInvalid(path, "the vocabulary has negative or huge ids")
    # Set operations rather than a loop: there are 49,000 merges, and every query waits for this check.
    merges = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else merge for merge in model.merges]
    if any(len(merge) != 2 for merge in merges):
        raise CheckpointInvalid(path, "a merge does not join two tokens")
    symbols = ByteLevel.alphabet()
    needed = {_START, _END, *symbols, *(symbol + _WORD_END for symbol in symbols), *map("".join, merges)}
    missing = min(needed.union(*merges) - model.vocab.keys(), default=None)
    if missing is not None:
        raise CheckpointInvalid(path, f"the vocabulary lacks the token {missing!r}")
    return cast("list[tuple[str, str]]", merges)


def clean_text(text: str) -> str:
    """Clean `text` as OpenAI does: repair encoding, resolve HTML entities, single spaces, lower case."""
    if not text.isascii() or not text.isprintable() or "&" in text:
        # ftfy does not change printable ASCII without entities, and takes 70 ms to import.
        import html

        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()
