"""Many paths in little memory."""

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.indexing.packed_paths import PackedPaths

names = st.binary(min_size=1, max_size=300).map(lambda name: Path(os.fsdecode(b"/" + name)))


@given(st.lists(names, max_size=40), st.integers(1, 400))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_paths_come_out_as_they_went_in(paths: list[Path], times: int) -> None:
    packed = PackedPaths()
    for path in paths * times:
        packed.append(path)
    assert len(packed) == len(paths) * times
    assert all(found == path for found, path in zip(packed, paths * times, strict=True))


def test_the_files_of_a_large_folder_take_little_memory() -> None:
    packed = PackedPaths()
    for number in range(50_000):
        packed.append(Path(f"/home/somebody/Photos/{number // 1000}/IMG_{number * 7919 % 1_000_003:06}.jpg"))
    assert sum(1 for _ in packed) == 50_000
    assert packed.packed_bytes < 750_000
