"""SigLIP 2's tokenizer: Gemma's vocabulary over lower-case text, with the same ids as transformers.

Gemma's `tokenizer.json` has 256,000 tokens and over half a million merges, from which the `tokenizers`
library builds a tokenizer in about a second: longer than a whole search. Byte-pair encoding can only ever use
merges of parts of the text. So for a short text, a tokenizer of these merges alone is built, with the same
result.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase, Replace, Sequence

from matir_cli.errors import CheckpointInvalid

PADDING = 0
"""Id of Gemma's token `<pad>`."""

_PAD, _END, _UNKNOWN = "<pad>", "<eos>", "<unk>"

_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""Tokens for the bytes of characters that the vocabulary lacks."""

_SPACE = "▁"
"""Gemma's symbol for a space."""

_FILE_LIMIT = 256 * 1024 * 1024
"""Bytes; a larger tokenizer.json is refused."""

_TEXT_LIMIT = 1 << 16
"""Characters of a text that are encoded; the rest is beyond any token limit."""

_SHORT_TEXT = 256
"""Characters; for a longer text, the whole tokenizer is built."""

_JSON_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_Merge: TypeAlias = tuple[str, str]


class _AddedToken(msgspec.Struct, frozen=True):
    """A token that is found in the text before all else."""

    id: int
    content: str
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False


class _ModelSection(msgspec.Struct, frozen=True):
    """The object "model" of a tokenizer.json, as far as it is used."""

    type: Literal["BPE"]
    vocab: dict[str, int]
    merges: msgspec.Raw
    byte_fallback: bool = False


class _TokenizerFile(msgspec.Struct, frozen=True):
    """A tokenizer.json, as far as it is used."""

    model: _ModelSection
    added_tokens: list[_AddedToken] = []


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenised text."""

    ids: tuple[int, ...]
    """Token ids, the end token included, without padding."""
    truncated: bool
    """True if the text was longer than the limit."""


class GemmaTokenizer:
    """Converts text to the token ids of SigLIP 2."""

    def __init__(
        self, path: Path, vocabulary: dict[str, int], merges: list[_Merge], added: Iterable[AddedToken]
    ) -> None:
        """Tokenize with what the file at `path` holds.

        Args:
            path: the file, for error messages.
            vocabulary: ids by token, with the tokens of Gemma's that this module names.
            merges: pairs of tokens, best first.
            added: tokens of the vocabulary that are found in a text before all else.
        """
        self._path = path
        self._vocabulary = vocabulary
        self._merges = merges
        self._added = list(added)
        self._end = vocabulary[_END]
        self._kept = {_PAD, _END, _UNKNOWN, *_BYTES, *(str(token.content) for token in self._added)}
        self._whole: Tokenizer | None = None
        self.largest_id = max(vocabulary.values())
        """Largest id in the vocabulary."""

    def tokenize(self, text: str, limit: int) -> Tokens:
        """Return at most `limit` tokens of `text`, the end token included.

        Raises:
            CheckpointInvalid: a merge that concerns the text is of tokens that the vocabulary lacks.
        """
        text = text[:_TEXT_LIMIT]
        ids = self._encoder_for(text).encode(text, add_special_tokens=False).ids
        return Tokens((*ids[: limit - 1], self._end), len(ids) >= limit)

    def _encoder_for(self, text: str) -> Tokenizer:
        """Return a tokenizer that is right for `text`."""
        if len(text) > _SHORT_TEXT:
            if self._whole is None:
                self._whole = self._build(self._vocabulary, self._merges)
            return self._whole
        normalised = _normaliser().normalize_str(text)
        length = len(normalised)
        parts = {normalised[start:end] for start in range(length) for end in range(start + 1, length + 1)}
        merges = [merge for merge in self._merges if merge[0] in parts and merge[1] in parts]
        tokens = self._kept.union(parts, map("".join, merges)) & self._vocabulary.keys()
        return self._build({token: self._vocabulary[token] for token in tokens}, merges)

    def _build(self, vocabulary: dict[str, int], merges: list[_Merge]) -> Tokenizer:
        """Build a tokenizer of these tokens and merges; CheckpointInvalid if they do not fit together."""
        needed = set(map("".join, merges)).union(*merges)
        missing = min(needed - vocabulary.keys(), default=None)
        if missing is not None:
            raise CheckpointInvalid(self._path, f"the vocabulary lacks the token {missing!r}")
        encoder = Tokenizer(BPE(vocabulary, merges, unk_token=_UNKNOWN, fuse_unk=True, byte_fallback=True))
        encoder.normalizer = _normaliser()
        encoder.add_tokens([token for token in self._added if not token.special])
        encoder.add_special_tokens([token for token in self._added if token.special])
        return encoder


def _normaliser() -> Sequence:
    """Return Gemma's normaliser after lower-casing, as in SigLIP 2's training; its file does not say so."""
    return Sequence([Lowercase(), Replace(" ", _SPACE)])


def load_tokenizer(path: Path) -> GemmaTokenizer:
    """Load the Hugging Face `tokenizer.json` at `path`: vocabulary, merges and added tokens are used.

    Raises:
        CheckpointInvalid: the file is not a tokenizer.json, or not of Gemma's kind.
    """
    try:
        if path.stat().st_size > _FILE_LIMIT:
            raise CheckpointInvalid(path, f"larger than {_FILE_LIMIT} bytes")
        file = msgspec.json.decode(path.read_bytes(), type=_TokenizerFile)
        merges = _decode_merges(file.model.merges)
    except OSError as error:
        raise CheckpointInvalid(path, error.strerror or "cannot be read") from error
    except _JSON_ERRORS as error:
        raise CheckpointInvalid(path, f"not a tokenizer.json of Gemma's kind: {error}") from error
    _validate(path, file)
    added = [
        AddedToken(
            token.content,
            single_word=token.single_word,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            normalized=token.normalized,
            special=token.special,
        )
        for token in file.added_tokens
    ]
    return GemmaTokenizer(path, file.model.vocab, merges, added)


def _decode_merges(raw: msgspec.Raw) -> list[_Merge]:
    """Decode merges, written as "left right" or as pairs."""
    try:
        return msgspec.json.decode(raw, type=list[_Merge])
    except msgspec.ValidationError:
        lines = msgspec.json.decode(raw, type=list[str])
    return [(left, right) for left, _, right in (line.partition(" ") for line in lines)]


def _validate(path: Path, file: _TokenizerFile) -> None:
    """Make the checks that the library lacks or reports as a bare `Exception`.

    Raises:
        CheckpointInvalid: vocabulary and added tokens do not fit together, or are not Gemma's kind.
    """
    vocabulary = file.model.vocab
    if not file.model.byte_fallback:
        raise CheckpointInvalid(path, "model.byte_fallback must be true, as in Gemma's tokenizer.json")
    if not (min(vocabulary.values(), default=-1) >= 0 and max(vocabulary.values()) < 1 << 31):
        raise CheckpointInvalid(path, "the vocabulary has negative or huge ids")
    if vocabulary.get(_PAD) != PADDING:
        raise CheckpointInvalid(path, f"the id of {_PAD} must be {PADDING}, as in Gemma's tokenizer.json")
    missing = min({_END, _UNKNOWN, *_BYTES} - vocabulary.keys(), default=None)
    if missing is not None:
        raise CheckpointInvalid(path, f"the vocabulary lacks the token {missing!r}")
    for token in file.added_tokens:
        if not token.content or vocabulary.get(token.content) != token.id:
            raise CheckpointInvalid(path, f"the vocabulary has another id for the token {token.content!r}")
