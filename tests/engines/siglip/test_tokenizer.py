"""SigLIP 2's tokenizer against transformers' own class, and damaged files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

from matir_cli.engines.siglip.tokenizer import GemmaTokenizer, load_tokenizer
from matir_cli.errors import CheckpointInvalid
from tests.support.siglip_weights import SCRIPTS, random_strings, save_gemma_tokenizer

LIMIT = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of Gemma's structure, trained on other strings than those of the tests."""
    folder = tmp_path_factory.mktemp("gemma")
    save_gemma_tokenizer(folder, random_strings(300, 1))
    return folder


@pytest.fixture(scope="module")
def ours(folder: Path) -> GemmaTokenizer:
    """Our tokenizer with that file."""
    return load_tokenizer(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def reference(folder: Path) -> Siglip2Tokenizer:
    """Transformers' tokenizer with that file."""
    tokenizer: Siglip2Tokenizer = Siglip2Tokenizer.from_pretrained(folder)
    return tokenizer


def padded(tokenizer: GemmaTokenizer, text: str) -> list[int]:
    """Return the ids of `text`, with the padding of the text tower."""
    ids = tokenizer.tokenize(text, LIMIT).ids
    return [*ids, *[0] * (LIMIT - len(ids))]


def expected(tokenizer: Siglip2Tokenizer, text: str) -> list[int]:
    """Return transformers' ids of `text`."""
    ids: list[int] = tokenizer(text, padding="max_length", max_length=LIMIT, truncation=True)["input_ids"]
    return ids


def test_ids_equal_transformers_in_all_scripts(ours: GemmaTokenizer, reference: Siglip2Tokenizer) -> None:
    strings = random_strings(230, 2)
    assert len(SCRIPTS) >= 12
    found = [padded(ours, text) for text in strings]
    assert found == [expected(reference, text) for text in strings]
    merged = sum(len(text) for text in strings) - sum(LIMIT - ids.count(0) for ids in found)
    assert merged > 500, "hardly any merge was used"


@given(st.text(max_size=40))
def test_ids_equal_transformers_for_any_text(
    ours: GemmaTokenizer, reference: Siglip2Tokenizer, text: str
) -> None:
    assert padded(ours, text) == expected(reference, text)


def test_a_long_text_is_truncated_alike(ours: GemmaTokenizer, reference: Siglip2Tokenizer) -> None:
    text = " ".join(random_strings(40, 3))
    assert len(text) > 256
    assert padded(ours, text) == expected(reference, text)
    assert ours.tokenize(text, LIMIT).truncated
    assert not ours.tokenize("dog", LIMIT).truncated


def test_a_text_that_just_fits(ours: GemmaTokenizer) -> None:
    three = ours.tokenize("abc", LIMIT).ids
    assert ours.tokenize("abc", len(three)).ids == three
    assert not ours.tokenize("abc", len(three)).truncated
    assert ours.tokenize("abc", len(three) - 1).truncated
    assert ours.tokenize("abc", len(three) - 1).ids == (*three[:-2], three[-1])


def test_merges_written_as_lines(ours: GemmaTokenizer, tmp_path: Path) -> None:
    path = save_gemma_tokenizer(tmp_path, random_strings(300, 1), pairs=False)
    assert isinstance(json.loads(path.read_text())["model"]["merges"][0], str)
    lines = load_tokenizer(path)
    for text in random_strings(20, 4):
        assert lines.tokenize(text, LIMIT) == ours.tokenize(text, LIMIT)


def damage(change: Callable[[dict[str, Any]], object], folder: Path, target: Path) -> Path:
    """Write a changed copy of the tokenizer."""
    made = json.loads((folder / "tokenizer.json").read_text())
    change(made)
    target.write_text(json.dumps(made))
    return target


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda made: made["model"].pop("vocab"), "not a tokenizer.json of Gemma's kind"),
        (lambda made: made["model"].update(type="Unigram"), "not a tokenizer.json of Gemma's kind"),
        (lambda made: made["model"].update(merges=[["a"]]), "not a tokenizer.json of Gemma's kind"),
        (lambda made: made["model"].update(byte_fallback=False), "byte_fallback must be true"),
        (lambda made: made["model"]["vocab"].update({"<pad>": 7}), "the id of <pad> must be 0"),
        (lambda made: made["model"]["vocab"].update({"x": -1}), "negative or huge ids"),
        (lambda made: made["model"]["vocab"].update({"x": 1 << 40}), "negative or huge ids"),
        (lambda made: made["model"]["vocab"].pop("<0x41>"), "lacks the token '<0x41>'"),
        (lambda made: made["model"]["vocab"].pop("<eos>"), "lacks the token '<eos>'"),
        (lambda made: made["added_tokens"][5].update(id=3), "another id for the token"),
        (lambda made: made["added_tokens"][5].update(content=""), "another id for the token ''"),
    ],
)
def test_a_damaged_file(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    with pytest.raises(CheckpointInvalid, match=reason):
        load_tokenizer(damage(change, folder, tmp_path / "tokenizer.json"))


def test_a_merge_of_tokens_that_are_missing(folder: Path, tmp_path: Path) -> None:
    path = damage(
        lambda made: made["model"]["merges"].insert(0, ["q", "\u2603"]), folder, tmp_path / "tokenizer.json"
    )
    tokenizer = load_tokenizer(path)
    assert tokenizer.tokenize("dog", LIMIT).ids
    with pytest.raises(CheckpointInvalid, match="lacks the token"):
        tokenizer.tokenize("q\u2603", LIMIT)


def test_files_that_are_no_json(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointInvalid, match="not a tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointInvalid, match="No such file"):
        load_tokenizer(tmp_path / "none.json")
