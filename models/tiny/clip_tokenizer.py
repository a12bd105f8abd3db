"""CLIP's byte-pair tokenizer, trained on the drawn world's words.

The parts are those of OpenAI CLIP's tokenizer: lower case, its splitting pattern, bytes, the end of a
word marked by `</w>`, and ids in the order bytes, bytes at a word's end, merges, start, end. The merges
are learnt from queries of the grammar, so that each of its words is one token, while any other text
still has a spelling. The file format is that of the `tokenizers` library.
"""

import json
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from matir_cli.models.tiny.grammar import GROUPS, random_query

START, END = "<|startoftext|>", "<|endoftext|>"
_SPLIT = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def corpus(count: int = 4000) -> list[str]:
    """Queries of every group, drawn from one seed."""
    rng = np.random.default_rng(5)
    return [random_query(rng, GROUPS[i % len(GROUPS)]).text for i in range(count)]


def build() -> Tokenizer:
    """Train the tokenizer; the result is the same on every machine."""
    learner = _add_clip_splitting(models.BPE(end_of_word_suffix="</w>"))
    learner.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(vocab_size=1000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False),
    )
    merges = _merges(learner)
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*characters, *(c + "</w>" for c in characters), *(a + b for a, b in merges), START, END]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = _add_clip_splitting(
        models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", unk_token=END)
    )
    tokenizer.add_special_tokens([START, END])
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, vocabulary[END]), (START, vocabulary[START]), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def write(tokenizer: Tokenizer, path: Path) -> None:
    """Write the tokenizer as a `tokenizer.json`."""
    tokenizer.save(str(path))


def _add_clip_splitting(model: models.BPE) -> Tokenizer:
    """A tokenizer of `model` with CLIP's normalisation and splitting."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


def _merges(learner: Tokenizer) -> list[tuple[str, str]]:
    """The pairs that a trained BPE merges, in order."""
    return [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
