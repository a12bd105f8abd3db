"""GGUF headers as llama.cpp reads them, against the writer's own reader; damaged files are named."""

from pathlib import Path

import pytest
from gguf import GGUFReader

from matir_cli.engines.llama_cpp.gguf_header import read_gguf_header
from matir_cli.errors import CheckpointInvalid
from tests.support.small_qwen import SmallQwen


@pytest.mark.parametrize("part", ["text_path", "projector_path"])
def test_shapes_are_those_of_the_reference_reader(small_qwen: SmallQwen, part: str) -> None:
    path: Path = getattr(small_qwen, part)
    expected = {
        tensor.name: tuple(int(extent) for extent in tensor.shape) for tensor in GGUFReader(path).tensors
    }
    found = read_gguf_header(path).shapes
    assert found.keys() == expected.keys()
    for name, shape in expected.items():
        assert found[name] == (*shape, 1, 1, 1, 1)[:4]


def test_values_have_the_types_of_their_keys(small_qwen: SmallQwen) -> None:
    text, vision = read_gguf_header(small_qwen.text_path), read_gguf_header(small_qwen.projector_path)
    assert text.texts["general.architecture"] == "qwen2vl"
    assert text.numbers["qwen2vl.block_count"] == 3
    assert text.numbers["qwen2vl.embedding_length"] == 64
    assert vision.texts["clip.projector_type"] == "qwen2.5vl_merger"
    assert vision.numbers["clip.has_vision_encoder"] == 1
    assert "qwen2vl.rope.freq_base" not in text.numbers, "a floating-point number"


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
