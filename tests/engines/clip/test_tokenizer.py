"""CLIP's tokenizer against OpenAI's, and damaged vocabularies."""

import html
import json
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from matir_cli.engines.clip.tokenizer import ClipTokenizer, clean_text, load_tokenizer
from matir_cli.errors import CheckpointInvalid
from tests.support.clip_weights import END_TOKEN, START_TOKEN, openai_ids

# Characters in Python's Unicode tables; `regex`, which OpenAI uses, has newer tables of its own.
characters = st.characters(exclude_categories=("Cs", "Cn"))


snippets = st.sampled_from(
    ["'s", "'LL", "'ſ", " don't", "&amp;", "&lt;b&gt;", "&eacute;", "&amp;eacute;", "&#x301;", "&nbsp;",
     "\u00a0", "\u3000", "ï»¿", "â€œ", "Ã©", "ﬁ", "Σ", "İ", "ẞ", "é", "e\u0301", "½", "²", "٣", "一", "🐕",
     "\t", "\r\n", "\x1b[31m", "<", "!'s", "12345", "<|", "|>", "\ufeff", "dog", "ROPE"]
)  # fmt: skip


texts = st.lists(st.one_of(snippets, st.text(characters, max_size=4)), max_size=12).map("".join)


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(texts)
@example("")
@example("A dog's (well-behaved) RopE, 2 cats & 100 mice; it's fun!!")
@example("straße ſtreet ΟΔΟΣ I\u0307stanbul Ǆ ᾳ")
def test_tokens_equal_openai(tokenizer: ClipTokenizer, text: str) -> None:
    cleaned = clean_text(text)
    assume("_of_text>" not in cleaned)
    # ftfy may decode bytes to a character that is only in the tables of `regex`.
    assume(all(unicodedata.category(character) != "Cn" for character in cleaned))
    assert list(tokenizer.tokenize(text, 77).ids) == openai_ids(text)


def test_characters_are_classed_as_openai_does(tokenizer: ClipTokenizer) -> None:
    """All characters below U+3000, and a sample of the ideographs and symbols above."""
    codes = [*range(0x3000), *range(0x3000, sys.maxunicode + 1, 41)]
    known = [c for c in map(chr, codes) if unicodedata.category(c) not in ("Cn", "Cs") and not c.isspace()]
    for start in range(0, len(known), 2000):
        text = " ".join(f"a{character}! {character}" for character in known[start : start + 2000])
        assert list(tokenizer.tokenize(text, 10**9).ids) == openai_ids(text, 10**9)


@settings(max_examples=300, derandomize=True)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_ftfy_has_nothing_to_do_on_printable_ascii_without_entities(text: str) -> None:
    import ftfy

    text = text.replace("&", "+")
    assert html.unescape(ftfy.fix_text(text)) == text


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a<|endoftext|>b", [320, END_TOKEN]),
        ("a <|StartOfText|> b", [320, START_TOKEN, 321, END_TOKEN]),
        ("!<|endoftext|>", [256, END_TOKEN]),  # OpenAI's takes these symbols for one word
    ],
)
def test_special_tokens_in_a_query_are_openais(
    tokenizer: ClipTokenizer, text: str, pieces: list[int]
) -> None:
    """A spelled-out end token ends the text, because the vector is read at the first one."""
    assert list(tokenizer.tokenize(text, 77).ids) == [START_TOKEN, *pieces]


def test_long_texts_keep_the_end_token(tokenizer: ClipTokenizer) -> None:
    for words in (74, 75, 76, 300):
        tokens = tokenizer.tokenize("dog " * words, 77)
        assert list(tokens.ids) == openai_ids("dog " * words)
        assert tokens.truncated == (words > 75)
    monster = tokenizer.tokenize("ab" * 1_000_000, 77)
    assert monster.truncated
    assert list(monster.ids) == openai_ids("ab" * 2000)


def test_lone_surrogates_are_survived(tokenizer: ClipTokenizer) -> None:
    """Lone surrogates come from a command line that is not UTF-8."""
    assert list(tokenizer.tokenize("dog \udcff", 77).ids) == openai_ids("dog \ufffd")


def test_both_ways_to_write_merges(small_vocabulary: Path, tmp_path: Path) -> None:
    made = json.loads(small_vocabulary.read_text(encoding="utf-8"))
    made["model"]["merges"] = [merge.split(" ") for merge in made["model"]["merges"]]
    (tmp_path / "pairs.json").write_text(json.dumps(made), encoding="utf-8")
    ids = [
        load_tokenizer(path).tokenize("dog", 9).ids for path in (small_vocabulary, tmp_path / "pairs.json")
    ]
    assert ids == [(514, 513, 515)] * 2


Made = dict[str, dict[str, object]]


def _drop_byte(made: Made) -> None:
    vocabulary = made["model"]["vocab"]
    assert isinstance(vocabulary, dict)
    del vocabulary["a</w>"]


def _negative(made: Made) -> None:
    vocabulary = made["model"]["vocab"]
    assert isinstance(vocabulary, dict)
    vocabulary["a"] = -1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_drop_byte, "lacks the token 'a</w>'"),
        (_negative, "negative"),
        (lambda made: made["model"].update(end_of_word_suffix=None), "end_of_word_suffix"),
        (lambda made: made["model"].update(merges=3), "not a tokenizer.json"),
        (lambda made: made["model"].update(merges=["o g</w>"]), "lacks the token 'og</w>'"),
        (lambda made: made.pop("model"), "not a tokenizer.json"),
    ],
)
def test_damaged_vocabularies_are_named(
    small_vocabulary: Path, tmp_path: Path, change: Callable[[Made], None], reason: str
) -> None:
    made = json.loads(small_vocabulary.read_text(encoding="utf-8"))
    change(made)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(made), encoding="utf-8")
    with pytest.raises(CheckpointInvalid, match=reason):
        load_tokenizer(path).tokenize("dog", 77)


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff\xfe", b"{}"])
def test_files_that_are_no_vocabulary(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointInvalid, match="not a tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointInvalid, match="No such file"):
        load_tokenizer(tmp_path / "missing.json")
