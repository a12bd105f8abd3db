"""GGUF headers as llama.cpp reads them, against the writer's own reader; damaged files are named."""

from pathlib import Path

import pytest
from gguf import GGUFReader

from matir_cli.engines.llama_cpp.gguf_header import read_gguf_header
from matir_cli.errors import CheckpointInvalid
from tests.support.small_qwen import SmallQwen


@pytest.mark.parametrize("part", ["text_path", "projector_path"])
def test_tensors_are_those_of_the_reference_reader(small_qwen: SmallQwen, part: str) -> None:
    path: Path = getattr(small_qwen, part)
    expected = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    found = read_gguf_header(path).tensors
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].shape == (*(int(extent) for extent in tensor.shape), 1, 1, 1, 1)[:4]
        assert found[name].type == tensor.tensor_type


@pytest.mark.parametrize("part", ["text_path", "projector_path"])
def test_values_are_those_of_the_reference_reader(small_qwen: SmallQwen, part: str) -> None:
    path: Path = getattr(small_qwen, part)
    found = read_gguf_header(path, ["tokenizer.ggml.tokens"]).values
    fields = {key: field for key, field in GGUFReader(path).fields.items() if not key.startswith("GGUF.")}
    assert found.keys() == fields.keys()
    for key, field in fields.items():
        value, expected = found[key], field.contents()
        if isinstance(expected, list):
            assert value.length == len(expected)
        if key == "tokenizer.ggml.tokens":
            assert value.value == tuple(text.encode() for text in expected)
        elif value.kind == "[str]" or value.length > 64:
            assert value.value == ()
        else:
            assert value.value == (tuple(expected) if isinstance(expected, list) else expected)


def test_values_have_the_types_of_their_keys(small_qwen: SmallQwen) -> None:
    text, vision = read_gguf_header(small_qwen.text_path), read_gguf_header(small_qwen.projector_path)
    assert text.text("general.architecture") == "qwen2vl"
    assert text.number("qwen2vl.block_count") == 3
    assert text.values["qwen2vl.rope.dimension_sections"].kind == "[i32]"
    assert text.values["qwen2vl.rope.freq_base"].kind == "f32"
    assert vision.values["clip.has_vision_encoder"].kind == "bool"
    assert vision.number("clip.projector_type") == 0
    assert vision.text("clip.vision.patch_size") == ""
    assert vision.text("no.such.key") == ""


@pytest.mark.parametrize(
    ("cut", "reason"), [(-9, "cut short: [0-9]+ bytes of [0-9]+"), (900, "damaged"), (3, "not a GGUF file")]
)
def test_a_file_that_was_cut_short_is_named(
    small_qwen: SmallQwen, tmp_path: Path, cut: int, reason: str
) -> None:
    (tmp_path / "cut.gguf").write_bytes(small_qwen.text_path.read_bytes()[:cut])
    with pytest.raises(CheckpointInvalid, match=reason):
        read_gguf_header(tmp_path / "cut.gguf")


def test_files_that_are_something_else(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_bytes(b"<html>Not Found</html>")
    with pytest.raises(CheckpointInvalid, match="not a GGUF file"):
        read_gguf_header(tmp_path / "page.gguf")
    with pytest.raises(CheckpointInvalid, match="No such file"):
        read_gguf_header(tmp_path / "missing.gguf")
    with pytest.raises(CheckpointInvalid):
        read_gguf_header(tmp_path)
