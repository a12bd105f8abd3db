"""Label Studio's run lengths: its own coder, and files that are none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pycocotools import mask as pycoco

from matir_cli.gallery.brush_rle import decode_brush, encode_brush
from matir_cli.records import MaskArray
from tests.support.brush import label_studio_brush

shapes = st.tuples(st.integers(1, 30), st.integers(1, 30))
mask_arrays = arrays(np.bool_, shapes)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(mask_arrays)
def test_a_mask_survives_bit_for_bit(mask: MaskArray) -> None:
    height, width = mask.shape
    decoded = decode_brush(bytes(encode_brush(mask)), width, height)
    assert (decoded == mask).all()
    before, after = (pycoco.encode(np.asfortranarray(each, np.uint8)) for each in (mask, decoded))
    assert before == after


def test_the_bytes_are_those_of_label_studio() -> None:
    # Written by mask2rle of label-studio-sdk 2.1.2.
    known = [0, 0, 0, 140, 57, 27, 254, 35, 0, 183, 255, 124, 2, 223, 254, 63, 0, 0]
    mask = np.zeros((5, 7), np.bool_)
    mask[1:3, 2:5] = True
    assert encode_brush(mask) == known
    assert (decode_brush(bytes(known), 7, 5) == mask).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))
    | st.just(np.ones((150, 150), np.bool_))
)
def test_label_studio_writes_and_reads_the_same(mask: MaskArray) -> None:
    brush = label_studio_brush()
    encoded = encode_brush(mask)
    assert encoded == brush.mask2rle(mask.astype(np.uint8) * 255)
    height, width = mask.shape
    assert ((brush.decode_rle(encoded).reshape(height, width, 4)[..., 3] > 0) == mask).all()


def packed(values: list[int], split: int, sizes: tuple[int, ...]) -> bytes:
    """Encode values as a frontend may: literal blocks of up to `split` values, and other sizes of counts."""
    bits = [f"{len(values):032b}00111", *(f"{size - 1:04b}" for size in sizes)]
    at = 0
    while at < len(values):
        run = 1
        while at + run < len(values) and values[at + run] == values[at] and run < 1 << sizes[3]:
            run += 1
        if run > 2:
            bits.append(f"111{run - 1:0{sizes[3]}b}{values[at]:08b}")
            at += run
            continue
        part = values[at : at + min(split, 1 << sizes[1])]
        bits.append(f"001{len(part) - 1:0{sizes[1]}b}" + "".join(f"{value:08b}" for value in part))
        at += len(part)
    joined = "".join(bits)
    return int(joined.ljust(-(-len(joined) // 8) * 8, "0"), 2).to_bytes(-(-len(joined) // 8))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(4))),
    st.integers(1, 40),
    st.sampled_from([(3, 4, 8, 16), (1, 7, 2, 5), (4, 1, 1, 16)]),
)
def test_any_colours_and_blocks_are_read_and_alpha_counts(
    picture: NDArray[np.uint8], split: int, sizes: tuple[int, ...]
) -> None:
    height, width, _ = picture.shape
    encoded = packed(picture.ravel().tolist(), split, sizes)
    assert (decode_brush(encoded, width, height) == (picture[..., 3] >= 128)).all()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=60), mask_arrays, st.data())
def test_other_bytes_are_refused(raw: bytes, mask: MaskArray, data: st.DataObject) -> None:
    height, width = mask.shape
    encoded = bytes(encode_brush(mask))
    cut = data.draw(st.integers(0, len(encoded)))
    for content in (raw, encoded[:cut] + raw, (4 * width * height).to_bytes(4) + raw):
        try:
            decoded = decode_brush(content, width, height)
        except ValueError:
            continue
        assert decoded.shape == (height, width)


@pytest.mark.parametrize("size", [(8, 5), (7, 6), (16_384, 16_384)])
def test_another_size_is_refused_before_anything_is_made(size: tuple[int, int]) -> None:
    encoded = bytes(encode_brush(np.zeros((5, 7), np.bool_)))
    with pytest.raises(ValueError, match="140 values"):
        decode_brush(encoded, *size)
