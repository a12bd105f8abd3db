"""Checks of the judge's files and of memory, before llama.cpp loads them."""

from dataclasses import replace
from pathlib import Path

import pytest

from matir_cli.engines.memory import available_memory
from matir_cli.engines.qwen_vl.family import QWEN2_5_VL, QWEN3_VL, QwenFamily
from matir_cli.engines.qwen_vl.judge import load_qwen_vl_judge
from matir_cli.engines.qwen_vl.preflight import check_files, check_memory
from matir_cli.engines.registry import load_judge
from matir_cli.errors import CheckpointInvalid, MemoryTooSmall
from tests.support.small_qwen import SmallQwen, make_model
from tests.support.small_qwen3 import make_qwen3


def cut(path: Path, target: Path, bytes_kept: int) -> Path:
    target.write_bytes(path.read_bytes()[:bytes_kept])
    return target


def with_number(path: Path, target: Path, key: str, value: int) -> Path:
    """Copy a file to `target`, with `value` as the unsigned 32-bit value of `key`."""
    raw = bytearray(path.read_bytes())
    at = raw.index(key.encode()) + len(key) + 4
    raw[at : at + 4] = value.to_bytes(4, "little")
    target.write_bytes(raw)
    return target


def damaged(small_qwen: SmallQwen, folder: Path, case: str) -> tuple[Path, Path]:
    """Return model and projector, one of them wrong as `case` says."""
    text, projector, made = small_qwen.text_path, small_qwen.projector_path, folder / "made.gguf"
    made.write_bytes(b"<html>Not Found</html>")
    cut_text = folder / "cut.gguf"
    other_size = make_model(folder, seed=0, hidden_size=128).projector_path
    return {
        "swapped": (projector, text),
        "no model": (made, projector),
        "missing": (folder / "missing.gguf", projector),
        "model twice": (text, text),
        "model cut": (cut(text, cut_text, text.stat().st_size - 9), projector),
        "header cut": (cut(text, folder / "short.gguf", 900), projector),
        "projector cut": (text, cut(projector, folder / "half.gguf", projector.stat().st_size // 2)),
        "other size": (text, other_size),
        "no layers": (with_number(text, folder / "l.gguf", "qwen2vl.block_count", 0), projector),
        "more layers": (with_number(text, folder / "m.gguf", "qwen2vl.block_count", 9), projector),
        "no heads": (text, with_number(projector, folder / "h.gguf", "clip.vision.attention.head_count", 0)),
        "blind": (text, with_number(projector, folder / "b.gguf", "clip.vision.projection_dim", 7)),
        "patches": (text, with_number(projector, folder / "p.gguf", "clip.vision.patch_size", 16)),
        "windows": (text, with_number(projector, folder / "w.gguf", "clip.vision.n_wa_pattern", 1)),
    }[case]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("swapped", "architecture qwen2vl"),
        ("no model", "not a GGUF file"),
        ("missing", "No such file"),
        ("model twice", "architecture clip"),
        ("model cut", "cut short: [0-9]+ bytes of [0-9]+"),
        ("header cut", "header is damaged"),
        ("projector cut", "cut short"),
        ("other size", "of another model size"),
        ("no layers", "qwen2vl.block_count is 0"),
        ("more layers", "blk.3.attn_norm.weight' not found"),
        ("no heads", "head_count is 0"),
        ("blind", "contradict"),
        ("patches", "patch_size is 16"),
        ("windows", "without windows"),
    ],
)
def test_wrong_files_are_named(small_qwen: SmallQwen, tmp_path: Path, case: str, reason: str) -> None:
    text, projector = damaged(small_qwen, tmp_path, case)
    config = replace(small_qwen.config(), files={"model": text, "projector": projector})
    with pytest.raises(CheckpointInvalid, match=reason) as raised:
        load_qwen_vl_judge(config, "cpu")
    assert len(raised.value.reason) < 160


def test_sound_files_pass(small_qwen: SmallQwen) -> None:
    check_files(small_qwen.text_path, small_qwen.projector_path, QWEN2_5_VL)
    check_memory(small_qwen.text_path, small_qwen.projector_path, QWEN2_5_VL, 0, 4)
    assert available_memory() > 1 << 28


def test_too_little_memory(small_qwen: SmallQwen, tmp_path: Path) -> None:
    huge = tmp_path / "huge.gguf"
    huge.write_bytes(small_qwen.projector_path.read_bytes())
    with huge.open("r+b") as file:
        file.truncate(1 << 42)  # 4 TiB, sparse on disk
    config = replace(small_qwen.config(), files={"model": small_qwen.text_path, "projector": huge})
    with pytest.raises(MemoryTooSmall) as raised:
        load_qwen_vl_judge(config, "cpu")
    assert raised.value.needed > 1 << 42 > raised.value.available > 0


@pytest.mark.parametrize("family", [QWEN2_5_VL, QWEN3_VL], ids=lambda family: family.name)
def test_the_context_and_a_photo_count_as_memory(small_qwen: SmallQwen, family: QwenFamily) -> None:
    available = available_memory()
    patch_bytes = available**0.5 if family.windowed else 64 * 1024
    files = small_qwen.text_path, small_qwen.projector_path
    with pytest.raises(MemoryTooSmall) as raised:
        check_memory(*files, family, available, 0)
    assert raised.value.needed > available
    with pytest.raises(MemoryTooSmall):
        check_memory(*files, family, 0, int(available / patch_bytes))


@pytest.mark.parametrize(
    ("family", "engine", "reason"),
    [
        (
            "Qwen2.5-VL",
            "qwen3_vl",
            "Qwen3-VL (architecture qwen3vl) is needed, this is qwen2vl",
        ),
        (
            "Qwen3-VL",
            "qwen_vl",
            "Qwen2.5-VL (architecture qwen2vl) is needed, this is qwen3vl",
        ),
    ],
)
def test_files_of_the_other_family_are_named(
    small_qwen: SmallQwen, small_qwen3: SmallQwen, family: str, engine: str, reason: str
) -> None:
    small = {"Qwen2.5-VL": small_qwen, "Qwen3-VL": small_qwen3}[family]
    assert small.family.name == family
    with pytest.raises(CheckpointInvalid) as raised:
        load_judge(replace(small.config(), engine=engine), "cpu")
    assert reason in str(raised.value)


def test_a_projector_of_the_other_family_is_named(small_qwen: SmallQwen, small_qwen3: SmallQwen) -> None:
    files = {"model": small_qwen3.text_path, "projector": small_qwen.projector_path}
    with pytest.raises(CheckpointInvalid, match=r"for Qwen3-VL is needed, this one is qwen2.5vl_merger"):
        load_judge(replace(small_qwen3.config(), files=files), "cpu")


def test_deepstack_features_must_fit(small_qwen3: SmallQwen, tmp_path: Path) -> None:
    other = make_qwen3(tmp_path, seed=1, vision={"deepstack_visual_indexes": [1]})
    files = {"model": small_qwen3.text_path, "projector": other.projector_path}
    with pytest.raises(CheckpointInvalid, match=r"features of 1 inner blocks, text\.gguf needs 2"):
        load_judge(replace(small_qwen3.config(), files=files), "cpu")
