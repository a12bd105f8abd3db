"""CLIP's tokenizer: the byte-pair encoding of OpenAI's `clip/simple_tokenizer.py`, id for id.

The `tokenizers` library encodes; of a `tokenizer.json` only vocabulary and merges are taken, since
the cleaning that the hub's files describe is not OpenAI's (no repair of broken text, no HTML
entities, normalisation after lower case). One thing differs from OpenAI: a special token that is
spelled out in a query is always that token, also where other signs touch it.
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

# A token takes at least a byte of a word, so what follows so many characters is past any limit.
_TEXT_LIMIT = 1 << 16

_START = "<|startoftext|>"

_END = "<|endoftext|>"

_WORD_END = "</w>"

# Words: contractions, letters, single digits, other signs. OpenAI's expression ignores
# case and so takes U+0345, a mark with a letter for upper case, for nothing.
_WORD = Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+")


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
    """Text to token ids."""

    def __init__(self, encoder: Tokenizer, vocabulary: Mapping[str, int]) -> None:
        """Use `encoder`, made of `vocabulary` (token to id)."""
        self._encoder = encoder
        self._start, self._end = vocabulary[_START], vocabulary[_END]
        self.largest_id = max(vocabulary.values())
        """The largest token id there is."""

    def tokenize(self, text: str, limit: int) -> Tokens:
        """At most `limit` tokens of `text`, cleaned first as OpenAI does."""
        encoded = self._encoder.encode(clean_text(text)[:_TEXT_LIMIT], add_special_tokens=False)
        ids = [self._start, *encoded.ids, self._end]
        truncated = len(ids) > limit
        if truncated:
            ids[limit - 1 :] = [self._end]
        # An end token may be spelled out in the text; the vector is read at the first.
        return Tokens(tuple(ids[: ids.index(self._end) + 1]), truncated)


def load_tokenizer(path: Path) -> ClipTokenizer:
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
    encoder = Tokenizer(BPE(model.vocab, _checked_merges(path, model), end_of_word_suffix=_WORD_END))
    encoder.pre_tokenizer = Sequence(
        [Split(_WORD, "removed", invert=True), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    encoder.add_special_tokens([_START, _END])
    return ClipTokenizer(encoder, model.vocab)


def _checked_merges(path: Path, model: _Model) -> list[tuple[str, str]]:
    """The merges, and no file that the library would report by a bare `Exception` or take in silence."""
    if model.end_of_word_suffix != _WORD_END:
        raise CheckpointInvalid(path, f"model.end_of_word_suffix must be {_WORD_END!r}")
    if not (min(model.vocab.values(), default=-1) >= 0 and max(model.vocab.values()) < 1 << 31):
        raise CheckpointInvalid(path, "the vocabulary has negative or huge ids")
    # Whole columns at a time: there are 49,000 merges, and a query is to be answered at once.
    merges = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else merge for merge in model.merges]
    if any(len(merge) != 2 for merge in merges):
        raise CheckpointInvalid(path, "a merge does not join two tokens")
    symbols = ByteLevel.alphabet()
    needed = {_START, _END, *symbols, *(symbol + _WORD_END for symbol in symbols), *map("".join, merges)}
    lacking = min(needed.union(*merges) - model.vocab.keys(), default=None)
    if lacking is not None:
        raise CheckpointInvalid(path, f"the vocabulary lacks the token {lacking!r}")
    return cast("list[tuple[str, str]]", merges)


def clean_text(text: str) -> str:
    """`text` repaired, with HTML entities resolved, single spaces and lower case."""
    if not text.isascii() or not text.isprintable() or "&" in text:
        # Printable ASCII without entities comes out as it went in, and ftfy takes 70 ms to import.
        import html

        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()
