"""Rules for the judge's files: hostile values of each key, tensors that do not fit, and vocabularies."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matir_cli.engines.qwen_vl.gguf_rules import TEXT_KEYS, TOKENIZER_KEYS, VISION_KEYS
from matir_cli.engines.qwen_vl.preflight import check_files
from matir_cli.errors import CheckpointInvalid
from tests.support.gguf_edit import FORMATS, STRING, GgufFile, Tensor, Value, read_gguf
from tests.support.small_qwen import SmallQwen

U32, I32, F32, BOOL = 4, 5, 6, 7

TEXT_NAMES = [*(f"qwen2vl.{key}" for key in TEXT_KEYS), *TOKENIZER_KEYS]

VISION_NAMES = [f"clip.{key}" for key in VISION_KEYS]


def check_changed(small: SmallQwen, folder: Path, role: str, change: Callable[[GgufFile], object]) -> None:
    """Check the two files after `change` was made to one of them, "text" or "projector"."""
    paths = {"text": small.text_path, "projector": small.projector_path}
    edited = read_gguf(paths[role])
    change(edited)
    paths[role] = folder / f"{role}.gguf"
    paths[role].write_bytes(edited.pack())
    check_files(paths["text"], paths["projector"])


def setter(key: str, kind: int, content: object) -> Callable[[GgufFile], object]:
    return lambda made: made.values.__setitem__(key.encode(), Value(kind, content))


@pytest.mark.parametrize("role", ["text", "projector"])
def test_a_file_put_together_again_passes(small_qwen: SmallQwen, tmp_path: Path, role: str) -> None:
    check_changed(small_qwen, tmp_path, role, GgufFile.pack)


@pytest.mark.parametrize("value", [-1e-6, -math.inf, math.inf, math.nan, 2.0])
@pytest.mark.parametrize(
    ("role", "key"),
    [
        ("text", "qwen2vl.attention.layer_norm_rms_epsilon"),
        ("projector", "clip.vision.attention.layer_norm_epsilon"),
    ],
)
def test_an_epsilon_is_a_small_number(
    small_qwen: SmallQwen, tmp_path: Path, role: str, key: str, value: float
) -> None:
    with pytest.raises(CheckpointInvalid, match=f"{key} is .*expected a number from 0 to 1"):
        check_changed(small_qwen, tmp_path, role, setter(key, F32, value))


@pytest.mark.parametrize("value", [0, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("role", ["text", "projector"])
def test_a_block_count_is_bounded(small_qwen: SmallQwen, tmp_path: Path, role: str, value: int) -> None:
    key = {"text": "qwen2vl.block_count", "projector": "clip.vision.block_count"}[role]
    with pytest.raises(CheckpointInvalid, match=f"{key} is {value} .*expected a number from 1 to"):
        check_changed(small_qwen, tmp_path, role, setter(key, U32, value))


@pytest.mark.parametrize(
    ("role", "key"), [("text", key) for key in TEXT_NAMES] + [("projector", key) for key in VISION_NAMES]
)
def test_each_key_that_llama_cpp_reads_has_one_type(
    small_qwen: SmallQwen, tmp_path: Path, role: str, key: str
) -> None:
    for kind, content in ((12, 1.0), (10, 1), (U32, [1, 1, 1, 1]), (1, [1, 1, 1, 1])):
        with pytest.raises(CheckpointInvalid, match=r"expected|of no known kind"):
            check_changed(small_qwen, tmp_path, role, setter(key, kind, content))


@pytest.mark.parametrize(
    ("key", "kind", "content", "reason"),
    [
        ("qwen2vl.rope.dimension_sections", I32, [-4, 6, 6, 0], "expected a number from 0"),
        ("qwen2vl.rope.dimension_sections", I32, [0, 0, 0, 1], "do not go together"),
        ("qwen2vl.rope.dimension_sections", I32, [2, 3, 3, 600], "do not go together"),
        ("qwen2vl.rope.dimension_sections", I32, [2, 3, 3], "expected 4 elements"),
        ("qwen2vl.attention.head_count_kv", U32, 3, "do not go together"),
        ("qwen2vl.attention.head_count", U32, 64, "do not go together"),
        ("qwen2vl.attention.key_length", U32, 8, "a head has 16 numbers"),
        ("qwen2vl.rope.dimension_count_swa", U32, 32, "a head has 16 numbers"),
        ("qwen2vl.expert_count", U32, 8, "expected a number from 0 to 0"),
        ("qwen2vl.rope.scaling.type", STRING, b"\xff", "expected one of none, linear, yarn"),
        ("split.count", 2, 3, "split.count is 3"),
        ("tokenizer.ggml.token_type", I32, [1, 1], "fewer elements than there are tokens"),
    ],
)
def test_values_that_do_not_go_together(
    small_qwen: SmallQwen, tmp_path: Path, key: str, kind: int, content: object, reason: str
) -> None:
    with pytest.raises(CheckpointInvalid, match=reason):
        check_changed(small_qwen, tmp_path, "text", setter(key, kind, content))


@pytest.mark.parametrize("token", [b"!", b""])
def test_tokens_are_distinct_and_not_empty(small_qwen: SmallQwen, tmp_path: Path, token: bytes) -> None:
    def change(made: GgufFile) -> None:
        tokens = made.values[b"tokenizer.ggml.tokens"].content
        assert isinstance(tokens, list)
        tokens[7] = token

    with pytest.raises(CheckpointInvalid, match="a token twice, or an empty one"):
        check_changed(small_qwen, tmp_path, "text", change)


def damage_tensor(case: str) -> Callable[[GgufFile], object]:
    def change(made: GgufFile) -> None:
        named = {tensor.name: tensor for tensor in made.tensors}
        bias, weight = named[b"v.blk.1.attn_q.bias"], named[b"v.blk.1.attn_q.weight"]
        match case:
            case "missing":
                made.tensors.remove(bias)
            case "foreign":
                made.tensors.append(Tensor(b"v.class_embd", [64], 0, bytes(256)))
            case "shape":
                weight.shape = [32, 128]
            case "empty":
                weight.shape, weight.data = [64, 0], b""
            case "type":
                bias.type = 26  # GGML_TYPE_I32, of the same size

    return change


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("missing", "v.blk.1.attn_q.bias is missing"),
        ("foreign", "v.class_embd, which no projector"),
        ("shape", r"v.blk.1.attn_q.weight has shape \[32, 128, 1, 1\], expected \[64, 64, 1, 1\]"),
        ("empty", "v.blk.1.attn_q.weight has shape"),
        ("type", "numbers of the type 26"),
    ],
)
def test_tensors_of_a_projector_are_all_checked(
    small_qwen: SmallQwen, tmp_path: Path, case: str, reason: str
) -> None:
    with pytest.raises(CheckpointInvalid, match=reason):
        check_changed(small_qwen, tmp_path, "projector", damage_tensor(case))


NUMBERS = st.one_of(st.integers(0, 1 << 64), st.sampled_from([0, 1, 1 << 16, 1 << 31, (1 << 32) - 1]))


def contents(kind: int) -> st.SearchStrategy[object]:
    """Return a strategy of values of the type `kind`, alone or in a list."""
    elements: st.SearchStrategy[object] = st.binary(max_size=8)
    if kind in (6, 12):
        elements = st.floats(width=32 if kind == 6 else 64)
    elif kind != STRING:
        letter = FORMATS[kind]
        bits = {"b": 8, "h": 16, "i": 32, "q": 64, "?": 1}[letter.lower()]
        lowest = 1 << bits - 1 if letter.islower() and letter != "?" else 0
        elements = NUMBERS.map(lambda number: number % (1 << bits) - lowest)
    return st.one_of(elements, st.lists(elements, max_size=5))


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_value_of_any_key_passes_or_is_refused(
    small_qwen: SmallQwen, tmp_path: Path, data: st.DataObject
) -> None:
    role = data.draw(st.sampled_from(["text", "projector"]))
    key = data.draw(st.sampled_from(TEXT_NAMES if role == "text" else VISION_NAMES))
    kind = data.draw(st.sampled_from([*FORMATS, STRING]))
    reason = ""
    try:
        check_changed(small_qwen, tmp_path, role, setter(key, kind, data.draw(contents(kind))))
    except CheckpointInvalid as error:
        reason = error.reason
    assert len(reason) < 200
