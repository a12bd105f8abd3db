"""Rules for the judge's files: hostile values of each key, tensors that do not fit, and vocabularies."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matir_cli.engines.qwen_vl.family import QWEN2_5_VL, QWEN3_VL
from matir_cli.engines.qwen_vl.preflight import check_files
from matir_cli.engines.qwen_vl.projector_rules import vision_keys
from matir_cli.engines.qwen_vl.text_rules import text_keys
from matir_cli.errors import CheckpointInvalid
from tests.support.gguf_edit import FORMATS, STRING, GgufFile, Tensor, Value, read_gguf
from tests.support.small_qwen import SmallQwen

U32, I32, F32, BOOL = 4, 5, 6, 7

KEYS = {
    family.name: {"text": list(text_keys(family)), "projector": list(vision_keys(family))}
    for family in (QWEN2_5_VL, QWEN3_VL)
}
"""Keys that llama.cpp reads, by family and file."""


@pytest.fixture(params=list(KEYS))
def either_qwen(request: pytest.FixtureRequest, small_qwen: SmallQwen, small_qwen3: SmallQwen) -> SmallQwen:
    """A small model of each family."""
    return {small.family.name: small for small in (small_qwen, small_qwen3)}[request.param]


def check_changed(small: SmallQwen, folder: Path, role: str, change: Callable[[GgufFile], object]) -> None:
    """Check the two files after `change` was made to one of them, "text" or "projector"."""
    paths = {"text": small.text_path, "projector": small.projector_path}
    edited = read_gguf(paths[role])
    change(edited)
    paths[role] = folder / f"{role}.gguf"
    paths[role].write_bytes(edited.pack())
    check_files(paths["text"], paths["projector"], small.family)


def setter(key: str, kind: int, content: object) -> Callable[[GgufFile], object]:
    return lambda made: made.values.__setitem__(key.encode(), Value(kind, content))


@pytest.mark.parametrize("role", ["text", "projector"])
def test_a_file_put_together_again_passes(either_qwen: SmallQwen, tmp_path: Path, role: str) -> None:
    check_changed(either_qwen, tmp_path, role, GgufFile.pack)


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


@pytest.mark.parametrize("role", ["text", "projector"])
def test_each_key_that_llama_cpp_reads_has_one_type(
    either_qwen: SmallQwen, tmp_path: Path, role: str
) -> None:
    for key in KEYS[either_qwen.family.name][role]:
        for kind, content in ((12, 1.0), (10, 1), (U32, [1, 1, 1, 1]), (1, [1, 1, 1, 1])):
            with pytest.raises(CheckpointInvalid, match=r"expected|of no known kind"):
                check_changed(either_qwen, tmp_path, role, setter(key, kind, content))


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


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_deepstack_layers": 3}, "3 layers with deepstack features, but 3 in all"),
        ({"n_deepstack_layers": 65}, "expected a number from 0 to 64"),
        ({"n_deepstack_layers": 1}, "features of 2 inner blocks, text.gguf needs 1"),
        ({"attention.key_length": 32}, "value_length is 16, but a head has 32 numbers"),
        ({"attention.key_length": 15, "attention.value_length": 15}, "do not go together"),
        ({"attention.head_count": 5}, "5 heads, 2 of keys, do not go together"),
        ({"rope.dimension_count": 8}, "a head has 16 numbers"),
    ],
)
def test_values_of_qwen3_that_do_not_go_together(
    small_qwen3: SmallQwen, tmp_path: Path, changes: dict[str, int], reason: str
) -> None:
    def change(made: GgufFile) -> None:
        for key, value in changes.items():
            setter(f"qwen3vl.{key}", U32, value)(made)

    with pytest.raises(CheckpointInvalid, match=reason):
        check_changed(small_qwen3, tmp_path, "text", change)


def test_a_key_length_needs_a_value_length(small_qwen3: SmallQwen, tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="value_length is missing"):
        check_changed(
            small_qwen3,
            tmp_path,
            "text",
            lambda made: made.values.pop(b"qwen3vl.attention.value_length"),
        )


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


def damage_qwen3_tensor(case: str) -> Callable[[GgufFile], object]:
    def change(made: GgufFile) -> None:
        named = {tensor.name: tensor for tensor in made.tensors}
        positions, feature = named[b"v.position_embd.weight"], named[b"v.deepstack.2.fc1.weight"]
        match case:
            case "no square":
                positions.shape = [64, 143]
                positions.data = positions.data[: 64 * 143 * 4]
            case "one position":
                positions.shape, positions.data = [64, 1], positions.data[:256]
            case "positions in float16":
                positions.type, positions.data = 1, positions.data[: 64 * 144 * 2]
            case "no positions":
                made.tensors.remove(positions)
            case "no bias":
                made.tensors.remove(named[b"v.patch_embd.bias"])
            case "no feature":
                made.tensors.remove(feature)
            case "feature of no block":
                feature.name = b"v.deepstack.3.fc1.weight"
            case "separate":
                named[b"v.blk.0.attn_qkv.weight"].name = b"v.blk.0.attn_q.weight"

    return change


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("no square", r"v.position_embd.weight has shape \[64, 143, 1, 1\], expected \[64, 121, 1, 1\]"),
        ("one position", r"v.position_embd.weight has shape \[64, 1, 1, 1\], expected \[64, 4, 1, 1\]"),
        ("positions in float16", "v.position_embd.weight has numbers of the type 1"),
        ("no positions", "v.position_embd.weight is missing"),
        ("no bias", "v.patch_embd.bias is missing"),
        ("no feature", "v.deepstack.2.* no projector of Qwen3-VL has"),
        ("feature of no block", "v.deepstack.* no projector of Qwen3-VL has"),
        ("separate", "v.blk.0.attn_qkv.weight is missing"),
    ],
)
def test_tensors_of_a_qwen3_projector_are_all_checked(
    small_qwen3: SmallQwen, tmp_path: Path, case: str, reason: str
) -> None:
    with pytest.raises(CheckpointInvalid, match=reason):
        check_changed(small_qwen3, tmp_path, "projector", damage_qwen3_tensor(case))


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
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_value_of_any_key_passes_or_is_refused(
    either_qwen: SmallQwen, tmp_path: Path, data: st.DataObject
) -> None:
    role = data.draw(st.sampled_from(["text", "projector"]))
    key = data.draw(st.sampled_from(KEYS[either_qwen.family.name][role]))
    kind = data.draw(st.sampled_from([*FORMATS, STRING]))
    reason = ""
    try:
        check_changed(either_qwen, tmp_path, role, setter(key, kind, data.draw(contents(kind))))
    except CheckpointInvalid as error:
        reason = error.reason
    assert len(reason) < 200
