"""State dicts from untrusted files: nothing is run, nothing is larger than the file."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from matir_cli.engines.tensors.torch_checkpoint import describe_mismatch, read_tensors
from matir_cli.errors import CheckpointInvalid

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(3)}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_tensors_are_read_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(STATE, path)
    else:
        save_file(STATE, path)
    state = read_tensors(path, None)
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)
    assert read_tensors(path, None, lambda name: name == "bias").keys() == {"bias"}


def test_a_state_dict_may_lie_at_a_key(tmp_path: Path) -> None:
    torch.save({"model": {"half": torch.ones(2, dtype=torch.float16)}, "step": 3}, tmp_path / "weights.pt")
    assert read_tensors(tmp_path / "weights.pt", "model")["half"].dtype == torch.float16
    with pytest.raises(CheckpointInvalid, match='no table of tensors under "ema"'):
        read_tensors(tmp_path / "weights.pt", "ema")


def test_no_code_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"conv1.weight": Trap()}, tmp_path / "trap.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Trap()))
    for name in ("trap.pth", "plain.pth"):
        with pytest.raises(CheckpointInvalid):
            read_tensors(tmp_path / name, None)
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_does_not_unpack_to_more_than_its_size(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "good.pth")
    with (
        zipfile.ZipFile(tmp_path / "good.pth") as stored,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w") as packed,
    ):
        for member in stored.infolist():
            content = stored.read(member) + b"\0" * 10_000_000 * member.filename.endswith("data.pkl")
            packed.writestr(member.filename, content, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointInvalid, match="unpack"):
        read_tensors(tmp_path / "bomb.pth", None)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({str(n): ([1024], 0, 4096) for n in range(9)}, "claims more numbers"),
        ({"proj": ([-4, -4], 0, 64)}, r"proj has the shape \[-4, -4\]"),
        ({"proj": ([1] * 99 + [16], 0, 64)}, "proj has the shape"),
        ({"proj": ([1024], 4, 4100)}, "outside the file"),
        ({"proj": ([17], 0, 64)}, "too many or too few"),
    ],
)
def test_a_safetensors_file_cannot_claim_more_than_it_has(
    tmp_path: Path, entries: dict[str, tuple[list[int], int, int]], reason: str
) -> None:
    header = json.dumps(
        {
            name: {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
            for name, (shape, begin, end) in entries.items()
        }
    ).encode()
    path = tmp_path / "visual.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4096))
    with pytest.raises(CheckpointInvalid, match=reason):
        read_tensors(path, None)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"<html>404</html>" * 50])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_something_else(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"visual{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointInvalid):
        read_tensors(path, None)
    with pytest.raises(CheckpointInvalid, match="No such file"):
        read_tensors(tmp_path / f"missing{suffix}", None)


def test_a_mismatch_names_a_few_tensors_of_each_kind() -> None:
    expected = {name: torch.zeros(2) for name in "abcdefg"}
    assert describe_mismatch(expected, expected) == ""
    found = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(2).int(), "x": torch.zeros(1)}
    assert describe_mismatch(expected, found) == (
        "no d, e, f and 1 more; unexpected x; wrong shape or type of b, c"
    )
