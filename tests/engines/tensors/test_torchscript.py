"""TorchScript archives: nothing in them is run, and damage is named."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.engines.clip.checkpoint import read_image_tower
from matir_cli.errors import CheckpointInvalid
from tests.support.clip_weights import save_torchscript

# torch.jit, which writes the archives here, is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")


def test_no_code_in_an_archive_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    save_torchscript({"visual.x": torch.zeros(3)}, tmp_path / "good.pt")
    archive_with(tmp_path / "good.pt", tmp_path / "trap.pt", pickle.dumps(Trap(), protocol=2))
    with pytest.raises(CheckpointInvalid, match=r"it names \w+.mkdir.* save its state_dict"):
        read_image_tower(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def archive_with(source: Path, target: Path, pickled: bytes) -> None:
    """Copy the archive `source` to `target` with `pickled` as its "data.pkl"."""
    with zipfile.ZipFile(source) as stored, zipfile.ZipFile(target, "w") as made:
        for member in stored.infolist():
            is_pickle = member.filename.endswith("data.pkl")
            made.writestr(member.filename, pickled if is_pickle else stored.read(member))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content[:-30], "not a TorchScript archive"),
        (lambda content: b"r\xff\xff\xff\x7f" + content, "memo slot"),
        # The only tensor claims 127 numbers instead of its three.
        (lambda content: content.replace(b"K\x03", b"K\x7f"), "not a TorchScript archive"),
        (lambda content: content.replace(b"FloatStorage", b"QuintStorage"), "it names torch.QuintStorage"),
        (lambda _: pickle.dumps([1, 2], 2), "not a TorchScript archive"),
        (lambda _: b"", "not a TorchScript archive"),
    ],
)
def test_damaged_archives_are_named(tmp_path: Path, change: Callable[[bytes], bytes], reason: str) -> None:
    save_torchscript({"visual.x": torch.zeros(3)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as archive:
        content = archive.read("good/data.pkl")
    assert read_image_tower(tmp_path / "good.pt").keys() == {"x"}
    archive_with(tmp_path / "good.pt", tmp_path / "bad.pt", change(content))
    with pytest.raises(CheckpointInvalid, match=reason):
        read_image_tower(tmp_path / "bad.pt")


def test_an_archive_does_not_unpack_to_more_than_its_size(tmp_path: Path) -> None:
    save_torchscript({"visual.x": torch.zeros(3)}, tmp_path / "good.pt")
    with (
        zipfile.ZipFile(tmp_path / "good.pt") as stored,
        zipfile.ZipFile(tmp_path / "bad.pt", "w", zipfile.ZIP_DEFLATED) as made,
    ):
        for member in stored.infolist():
            content = stored.read(member)
            made.writestr(member.filename, bytes(10_000_000) if "/data/" in member.filename else content)
    with pytest.raises(CheckpointInvalid, match="would unpack to 10000000 bytes"):
        read_image_tower(tmp_path / "bad.pt")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_archives_with_changed_bytes_load_or_say_so(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    good, bad = folder / "changed_good.pt", folder / "changed_bad.pt"
    if not good.exists():
        save_torchscript({"visual.x.y": torch.zeros(3), "visual.z": torch.ones(2, 2)}, good)
    with zipfile.ZipFile(good) as archive:
        content = bytearray(archive.read("changed_good/data.pkl"))
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[at] = data.draw(st.integers(0, 255))
    archive_with(good, bad, bytes(content))
    try:
        found = read_image_tower(bad)
    except CheckpointInvalid:
        return
    assert sum(value.numel() for value in found.values()) <= bad.stat().st_size
