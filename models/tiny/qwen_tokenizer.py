"""A small byte-level BPE tokenizer with Qwen2.5-VL's special tokens and splitting.

The construction is that of Qwen2's own `tokenizer.json`: NFC, a GPT-4-like split in which every digit
is a piece of its own, byte-level pieces, and special tokens after the vocabulary. llama.cpp calls this
split "qwen2", so text in a GGUF file made from it is tokenised as in transformers.
"""

from collections.abc import Callable, Iterable
from itertools import chain, repeat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Special tokens in the order of their ids in Qwen2.5-VL's vocabulary, where they start at 151643."""

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenizer: words with the character before them, single digits, punctuation, space."""

ANSWERS = ("True", "False")
"""Answers whose logits the judge compares; each must be one token."""


def build_tokenizer(corpus: Iterable[str], vocab_size: int) -> "PreTrainedTokenizerFast":
    """Train a tokenizer on `corpus`, with `True` and `False` as single tokens.

    Args:
        corpus: texts like those that the model will read and write.
        vocab_size: total number of tokens: 256 bytes, merges, and 14 special tokens; at least 288.

    Returns:
        A `transformers` tokenizer whose ids run from 0 to at most `vocab_size` - 1, special
        tokens last. A corpus that is too small for that many merges gives fewer tokens.

    Raises:
        ValueError: `vocab_size` leaves no room for the merges that `True` and `False` need.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = list(corpus)
    # Frequent enough for both words to be merged before anything else in the corpus.
    weight = sum(len(text) for text in texts) + 1
    frequent = chain.from_iterable(repeat(ANSWERS, weight))
    tokenizer.train_from_iterator(chain(texts, frequent), trainer=trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    if any(len(tokenizer.encode(answer).ids) != 1 for answer in ANSWERS):
        raise ValueError(f"a vocabulary of {vocab_size} has no room for {ANSWERS} as single tokens")
    # Its constructor has no annotations.
    construct: Callable[..., PreTrainedTokenizerFast] = PreTrainedTokenizerFast
    return construct(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",  # noqa: S106 (a marker, no secret)
        pad_token="<|endoftext|>",  # noqa: S106
        clean_up_tokenization_spaces=False,
    )
