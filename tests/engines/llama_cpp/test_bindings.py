"""The bindings with a small model: tokens, sequences of a context, grammars."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from matir_cli.engines.llama_cpp.bindings import (
    Context,
    LanguageModel,
    TokenRun,
    VisionProjector,
    available_threads,
)
from matir_cli.engines.llama_cpp.grammar import Grammar
from matir_cli.errors import CheckpointInvalid, EngineFailed
from matir_cli.records import FloatArray
from tests.support.small_qwen import SmallQwen

TEXT = "a dog led by rope"


@pytest.fixture(scope="module")
def model(small_qwen: SmallQwen) -> Iterator[LanguageModel]:
    loaded = LanguageModel(small_qwen.text_path, gpu_layers=0)
    yield loaded
    loaded.close()


@pytest.fixture
def context(model: LanguageModel) -> Iterator[Context]:
    made = Context(model, cells=512, sequences=4, batch=128, outputs=8, threads=1)
    yield made
    made.close()


def last_logits(context: Context, sequence: int, position: int, tokens: list[int]) -> FloatArray:
    ((row,),) = context.decode([TokenRun(sequence, position, tokens, len(tokens) - 1)])
    return row.copy()


def test_tokens_are_those_of_the_reference(small_qwen: SmallQwen, model: LanguageModel) -> None:
    assert model.tokenize(TEXT) == small_qwen.encode(TEXT)
    assert b"".join(map(model.token_bytes, model.tokenize("café 狗"))) == "café 狗".encode()
    assert model.tokenize("<|im_end|>", special=True) == [small_qwen.token_id("<|im_end|>")]
    assert len(model.tokenize("<|im_end|>")) > 1
    assert model.is_end_of_turn(small_qwen.token_id("<|im_end|>"))
    assert not model.is_end_of_turn(small_qwen.token_id("True"))


def test_sizes_are_those_of_the_model(small_qwen: SmallQwen, model: LanguageModel) -> None:
    config = small_qwen.model.config.get_text_config()
    assert model.vocabulary_size == config.vocab_size
    assert model.width == config.hidden_size
    # Keys and values, float16, in each layer: 2 heads of 16 numbers.
    assert model.bytes_per_token == 2 * 2 * config.num_hidden_layers * 2 * 16
    assert available_threads() >= 1


def test_forked_dropped_and_restored_sequences_answer_alike(model: LanguageModel, context: Context) -> None:
    tokens = model.tokenize(TEXT)
    expected = last_logits(context, 0, 0, tokens)
    assert expected.shape == (model.vocabulary_size,)
    assert expected.std() > 0
    context.drop(0, len(tokens) - 1)
    state = context.save(0)
    context.fork(0, 1)
    forked = last_logits(context, 1, len(tokens) - 1, tokens[-1:])
    np.testing.assert_allclose(forked, expected, atol=1e-4)
    context.restore(2, state)
    assert np.array_equal(last_logits(context, 2, len(tokens) - 1, tokens[-1:]), forked)
    other = last_logits(context, 0, len(tokens) - 1, tokens[:1])
    assert not np.allclose(other, expected)


def test_runs_of_several_sequences_return_their_own_rows(model: LanguageModel, context: Context) -> None:
    first, second = model.tokenize("a red house"), model.tokenize(TEXT)
    rows = context.decode([TokenRun(0, 0, first, 1), TokenRun(1, 0, second, len(second) - 1)])
    assert [len(outputs) for outputs in rows] == [len(first) - 1, 1]
    found = rows[1][0].copy()
    assert np.allclose(found, last_logits(context, 2, 0, second), atol=0.02)


def test_more_tokens_than_a_batch_holds(model: LanguageModel, context: Context) -> None:
    with pytest.raises(EngineFailed, match="more than 128 tokens in a batch"):
        context.decode([TokenRun(0, 0, model.tokenize("dog ") * 129, 0)])


def test_a_grammar_restricts_the_best_token(small_qwen: SmallQwen, model: LanguageModel) -> None:
    true, false = small_qwen.token_id("True"), small_qwen.token_id("False")
    grammar = Grammar(model, 'root ::= "True" | "False"')
    logits = np.zeros(model.vocabulary_size, np.float32)
    logits[small_qwen.token_id("<|im_end|>")], logits[false], logits[true] = 9, 2, 1
    assert grammar.best_token(logits) == false
    logits[true] = 10
    assert grammar.best_token(logits) == true
    grammar.accept(true)
    assert model.is_end_of_turn(grammar.best_token(logits))
    grammar.close()
    grammar.close()


def test_a_grammar_that_is_not_valid(model: LanguageModel) -> None:
    with pytest.raises(EngineFailed, match="does not accept the grammar"):
        Grammar(model, "root ::= (")


def test_wrong_files_are_named(small_qwen: SmallQwen, model: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_bytes(b"<html>Not Found</html>")
    with pytest.raises(CheckpointInvalid) as raised:
        LanguageModel(tmp_path / "page.gguf", gpu_layers=0)
    assert raised.value.path == tmp_path / "page.gguf"
    assert str(tmp_path) not in raised.value.reason
    with pytest.raises(CheckpointInvalid):
        VisionProjector(small_qwen.text_path, model, gpu=False, threads=1)
