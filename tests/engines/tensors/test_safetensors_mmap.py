"""The memory-mapped reader of .safetensors files against the library's own writer."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from matir_cli.engines.tensors.safetensors_mmap import MappedTensors
from matir_cli.errors import CheckpointInvalid

MATRIX = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def save(path: Path, dtype: torch.dtype = torch.float32) -> Path:
    save_file({"matrix": MATRIX.to(dtype), "count": torch.arange(3)}, path, metadata={"format": "pt"})
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_precision_is_read_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = MappedTensors(save(tmp_path / "x.safetensors", dtype))
    found = tensors.read("matrix", 4, 3)
    assert found.dtype == np.float32
    assert np.array_equal(found, MATRIX.to(dtype).float().numpy())
    rows = tensors.read_rows("matrix", (4, 3), np.array([2, 0, 2]))
    assert np.array_equal(rows, found[[2, 0, 2]])


def test_names_and_shapes_are_those_of_the_header(tmp_path: Path) -> None:
    tensors = MappedTensors(save(tmp_path / "x.safetensors"))
    assert set(tensors) == {"matrix", "count"}
    assert "matrix" in tensors
    assert "vector" not in tensors
    assert tensors.shape("matrix") == (4, 3)


def test_float32_is_a_view_of_the_file(tmp_path: Path) -> None:
    found = MappedTensors(save(tmp_path / "x.safetensors")).read("matrix", 4, 3)
    assert not found.flags.owndata
    assert not found.flags.writeable


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("vector", (3,), "vector is missing"),
        ("matrix", (3, 4), r"shape \[4, 3\], expected \[3, 4\]"),
        ("count", (3,), "count is I64, expected F32, F16, BF16"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    tmp_path: Path, name: str, shape: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(CheckpointInvalid, match=reason):
        MappedTensors(save(tmp_path / "x.safetensors")).read(name, *shape)


@pytest.mark.parametrize(
    "content",
    [b"", b"12345", b"<html>404</html>" * 9, struct.pack("<Q", 2**63) + b"{}", b"\3" + bytes(7) + b"{]}"],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(CheckpointInvalid, match=r"empty|not a safetensors file"):
        MappedTensors(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointInvalid, match="No such file"):
        MappedTensors(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("entry", [{"dtype": "F32"}, {"dtype": 3, "shape": [1], "data_offsets": [0, 4]}, 7])
def test_a_malformed_entry_is_named(tmp_path: Path, entry: object) -> None:
    header = json.dumps({"x": entry}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(CheckpointInvalid, match="x has a malformed header"):
        MappedTensors(tmp_path / "x.safetensors").shape("x")


@pytest.mark.parametrize(
    "entry",
    [
        b'{"dtype":"F\xff","shape":[1],"data_offsets":[0,4]}',
        b'{"dtype":"F32","shape":[' + b"[" * 5000 + b'],"data_offsets":[0,4]}',
        b'{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}',
        b'{"dtype":"F32","shape":[' + b"9223372036854775807," * 20000 + b'1],"data_offsets":[0,4]}',
        b'{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}',
        b'{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}',
    ],
)
def test_an_entry_that_is_no_tensor(tmp_path: Path, entry: bytes) -> None:
    header = b'{"x":' + entry + b"}"
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))

    def read() -> None:
        tensors = MappedTensors(path)
        tensors.read("x", *tensors.shape("x"))

    with pytest.raises(CheckpointInvalid):
        read()
