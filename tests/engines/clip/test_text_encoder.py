import html
import json
import struct
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import CLIPTextModelWithProjection

from matir_cli.engines.clip.options import SEVEN_PROMPTS
from matir_cli.engines.clip.text_encoder import load_clip_text_encoder
from matir_cli.engines.clip.tokenizer import ClipTokenizer, clean_text, load_tokenizer
from matir_cli.errors import CheckpointInvalid, ModelSetInvalid
from matir_cli.records import FloatArray
from tests.support.clip_weights import (
    byte_symbols,
    config,
    random_text,
    reference_tokenizer,
    save_text,
    save_tokenizer,
    save_vocabulary,
    text_config,
)

QUERIES = (
    "dog led by rope",
    "cat",
    "a house without a door, left of the tree",
    "Crème brûlée &amp; 3 spoons",
    "very " * 100 + "long",
)
START, END = 49406, 49407
openai = reference_tokenizer().SimpleTokenizer()


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    save_vocabulary(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(vocabulary: Path) -> ClipTokenizer:
    return load_tokenizer(vocabulary)


@pytest.fixture(scope="module")
def small_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes and two merges: 516 tokens."""
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), "do", "dog</w>"]
    save_tokenizer(path, [*tokens, "<|startoftext|>", "<|endoftext|>"], ["d o", "do g</w>"])
    return path


@pytest.fixture(scope="module")
def small_model() -> CLIPTextModelWithProjection:
    return random_text(text_config(48, 3, 3, 24, 516), 1)


@torch.no_grad()
def reference(model: CLIPTextModelWithProjection, ids: Sequence[Sequence[int]]) -> FloatArray:
    """(texts, d) unit vectors by transformers, padded with the end token as the hub's tokenizer does."""
    end, longest = model.config.eos_token_id, max(len(text) for text in ids)
    padded = torch.tensor([[*text, *[end] * (longest - len(text))] for text in ids])
    vectors = model(padded).text_embeds
    return (vectors / vectors.norm(dim=1, keepdim=True)).numpy()


def openai_ids(text: str, limit: int = 77) -> list[int]:
    """As OpenAI's `clip.tokenize(text, truncate=True)`, without its padding."""
    ids = [START, *openai.encode(text), END]
    return ids if len(ids) <= limit else [*ids[: limit - 1], END]


# -- Parity --------------------------------------------------------------------------------


def test_vectors_equal_transformers_with_full_size_vit_b16(tmp_path: Path, vocabulary: Path) -> None:
    """The mean over the seven prompts, tokenised by OpenAI's tokenizer on the other side."""
    model = random_text(text_config(512, 12, 8, 512), 0)
    save_text(model, tmp_path / "text.safetensors", {"vision_model.x": torch.ones(3, dtype=torch.int64)})
    encoder = load_clip_text_encoder(config(text=tmp_path / "text.safetensors", vocabulary=vocabulary))
    found = [encoder.encode(query) for query in QUERIES]
    expected = []
    for query in QUERIES:
        prompts = [openai_ids(prompt.format(query)) for prompt in SEVEN_PROMPTS]
        mean = reference(model, prompts).mean(axis=0)
        expected.append(mean / np.linalg.norm(mean))
    assert np.max(np.triu(np.stack(expected) @ np.stack(expected).T, 1)) < 0.95, "all queries look alike"
    assert np.abs(np.stack([query.vector for query in found]) - expected).max() < 1e-4
    assert [query.truncated for query in found] == [False, False, False, False, True]
    assert found[0].vector.dtype == np.float32
    assert encoder.dimensions == 512


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_stored_precisions(
    tmp_path: Path, small_vocabulary: Path, small_model: CLIPTextModelWithProjection, dtype: torch.dtype
) -> None:
    rounded = {name: value.to(dtype) for name, value in small_model.state_dict().items()}
    save_file(rounded, tmp_path / "text.safetensors")
    model = random_text(small_model.config, 1)
    model.load_state_dict({name: value.float() for name, value in rounded.items()})
    options = {"text_heads": 3, "prompts": ["{}"]}
    encoder = load_clip_text_encoder(
        config(options, text=tmp_path / "text.safetensors", vocabulary=small_vocabulary)
    )
    ids = load_tokenizer(small_vocabulary).tokenize("dog and doggerel", 77).ids
    assert 513 in ids
    assert np.abs(encoder.encode("dog and doggerel").vector - reference(model, [ids])[0]).max() < 1e-5


def test_prompts_that_share_beginnings_do_not_disturb_each_other(
    tmp_path: Path, small_vocabulary: Path, small_model: CLIPTextModelWithProjection
) -> None:
    """One prompt is the beginning of another, one occurs twice."""
    save_text(small_model, tmp_path / "text.safetensors")
    prompts = ["a {}", "a {} in", "{}", "a {}", "in a {}"]
    files = {"text": tmp_path / "text.safetensors", "vocabulary": small_vocabulary}
    together = (
        load_clip_text_encoder(config({"text_heads": 3, "prompts": prompts}, **files)).encode("dog").vector
    )
    alone = [
        load_clip_text_encoder(config({"text_heads": 3, "prompts": [prompt]}, **files)).encode("dog").vector
        for prompt in prompts
    ]
    mean = np.mean(alone, axis=0)
    assert np.allclose(together, mean / np.linalg.norm(mean), atol=1e-6)


def test_nan_weights_give_nan(
    tmp_path: Path, small_vocabulary: Path, small_model: CLIPTextModelWithProjection
) -> None:
    for value in (float("nan"), 0.0):
        state = small_model.state_dict()
        state["text_projection.weight"] = torch.full_like(state["text_projection.weight"], value)
        save_file(state, tmp_path / "text.safetensors")
        files = {"text": tmp_path / "text.safetensors", "vocabulary": small_vocabulary}
        assert np.isnan(load_clip_text_encoder(config({"text_heads": 3}, **files)).encode("dog").vector).all()


# -- Start-up ------------------------------------------------------------------------------


def test_a_query_loads_no_torch(
    tmp_path: Path, small_vocabulary: Path, small_model: CLIPTextModelWithProjection
) -> None:
    save_text(small_model, tmp_path / "text.safetensors")
    program = """
import sys
from pathlib import Path
from matir_cli.engines.clip.text_encoder import load_clip_text_encoder
from matir_cli.records import EngineConfig, ModelIdentity
files = {"text": Path(sys.argv[1]), "vocabulary": Path(sys.argv[2])}
encoder = load_clip_text_encoder(EngineConfig("alpha_clip", {"text_heads": 3}, files, ModelIdentity("", "")))
encoder.encode("Dog, led by rope")
heavy = {"torch", "transformers", "safetensors", "ftfy", "PIL", "pycocotools"}
print(sorted(heavy & set(sys.modules)))
encoder.encode("crème")
print(sorted(heavy & set(sys.modules)))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "text.safetensors"), str(small_vocabulary)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "['ftfy']"]


# -- Tokenizer -----------------------------------------------------------------------------

# Of the characters that Python's Unicode tables know; `regex` brings newer tables of its own.
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
    # ftfy may decode bytes to a character that only `regex` knows.
    assume(all(unicodedata.category(character) != "Cn" for character in cleaned))
    assert list(tokenizer.tokenize(text, 77).ids) == openai_ids(text)


def test_characters_are_classed_as_openai_does(tokenizer: ClipTokenizer) -> None:
    """Every one up to the end of the scripts, and a sample of the ideographs and signs behind them."""
    codes = [*range(0x3000), *range(0x3000, sys.maxunicode + 1, 41)]
    known = [c for c in map(chr, codes) if unicodedata.category(c) not in ("Cn", "Cs") and not c.isspace()]
    for start in range(0, len(known), 2000):
        text = " ".join(f"a{character}! {character}" for character in known[start : start + 2000])
        assert list(tokenizer.tokenize(text, 10**9).ids) == [START, *openai.encode(text), END]


@settings(max_examples=300, derandomize=True)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_ftfy_has_nothing_to_do_on_printable_ascii_without_entities(text: str) -> None:
    import ftfy

    text = text.replace("&", "+")
    assert html.unescape(ftfy.fix_text(text)) == text


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a<|endoftext|>b", [320, END]),
        ("a <|StartOfText|> b", [320, START, 321, END]),
        ("!<|endoftext|>", [256, END]),  # OpenAI's takes these signs for one word
    ],
)
def test_special_tokens_in_a_query_are_openais(
    tokenizer: ClipTokenizer, text: str, pieces: list[int]
) -> None:
    """A spelled-out end token ends the text: the vector is read at the first one."""
    assert list(tokenizer.tokenize(text, 77).ids) == [START, *pieces]


def test_long_texts_keep_the_end_token(tokenizer: ClipTokenizer) -> None:
    for words in (74, 75, 76, 300):
        tokens = tokenizer.tokenize("dog " * words, 77)
        assert list(tokens.ids) == openai_ids("dog " * words)
        assert tokens.truncated == (words > 75)
    monster = tokenizer.tokenize("ab" * 1_000_000, 77)
    assert monster.truncated
    assert list(monster.ids) == openai_ids("ab" * 2000)


def test_lone_surrogates_are_survived(tokenizer: ClipTokenizer) -> None:
    """As they come from a command line that is not UTF-8."""
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


# -- Weights -------------------------------------------------------------------------------


def _change_header(path: Path, change: Callable[[dict[str, dict[str, object]]], None]) -> None:
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + length :])


NORM = "text_model.final_layer_norm.weight"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda header: header.pop(NORM), f"{NORM} is missing"),
        (lambda header: header[NORM].update(shape=[47]), r"shape \[47\], expected \[48\]"),
        (lambda header: header[NORM].update(shape=[-48]), "shape"),
        (lambda header: header[NORM].update(shape=["a"]), "malformed"),
        (lambda header: header[NORM].update(dtype="I32"), "is I32"),
        (lambda header: header[NORM].update(data_offsets=[0, 2**62]), "outside"),
        (lambda header: header[NORM].update(data_offsets=[-192, 0]), "outside"),
        (lambda header: header[NORM].update(data_offsets=[0, 196]), "196 bytes"),
        (lambda header: header["text_projection.weight"].update(shape=[1152]), "expected a matrix"),
        (lambda header: header["text_projection.weight"].update(shape=[24, 0]), "expected a matrix"),
        (lambda header: header.pop("text_model.encoder.layers.0.layer_norm1.weight"), "0 layers"),
        (lambda header: header.pop("text_model.encoder.layers.2.mlp.fc2.bias"), "fc2.bias is missing"),
        (lambda header: header.clear(), "missing"),
    ],
)
def test_damaged_weights_are_named(
    tmp_path: Path,
    small_vocabulary: Path,
    small_model: CLIPTextModelWithProjection,
    change: Callable[[dict[str, dict[str, object]]], None],
    reason: str,
) -> None:
    path = tmp_path / "text.safetensors"
    save_text(small_model, path)
    _change_header(path, change)
    with pytest.raises(CheckpointInvalid, match=reason):
        load_clip_text_encoder(config({"text_heads": 3}, text=path, vocabulary=small_vocabulary))


@pytest.mark.parametrize(
    "content",
    [b"", b"12345", b"<html>404</html>" * 9, struct.pack("<Q", 2**63) + b"{}", b"\3" + bytes(7) + b"{]}"],
)
def test_files_that_are_no_weights(tmp_path: Path, small_vocabulary: Path, content: bytes) -> None:
    path = tmp_path / "text.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointInvalid, match=r"empty|not a safetensors file"):
        load_clip_text_encoder(config(text=path, vocabulary=small_vocabulary))
    with pytest.raises(CheckpointInvalid, match="No such file"):
        load_clip_text_encoder(config(text=tmp_path / "missing", vocabulary=small_vocabulary))


def test_parts_that_do_not_fit(
    tmp_path: Path, vocabulary: Path, small_vocabulary: Path, small_model: CLIPTextModelWithProjection
) -> None:
    path = tmp_path / "text.safetensors"
    save_text(small_model, path)
    with pytest.raises(CheckpointInvalid, match="does not fit the vocabulary"):
        load_clip_text_encoder(config({"text_heads": 3}, text=path, vocabulary=vocabulary))
    with pytest.raises(CheckpointInvalid, match="5 heads do not divide"):
        load_clip_text_encoder(config({"text_heads": 5}, text=path, vocabulary=small_vocabulary))
    for wrong in ({"prompts": []}, {"prompts": ["no place"]}, {"prompts": ["{} and {}"]}, {"colour": 1}):
        with pytest.raises(ModelSetInvalid):
            load_clip_text_encoder(config(wrong, text=path, vocabulary=small_vocabulary))
    with pytest.raises(ModelSetInvalid, match="vocabulary"):
        load_clip_text_encoder(config(text=path))
