"""Pickles that are damaged or hostile."""

import pickle
import struct

import pytest

from matir_cli.evaluation.datasets.pickles import load_pickle


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps({1: {"id": 1}})[:-4],
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy\nndarray\n(I1\ntR.",  # numpy would make an array of any size
        b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.",
        b"\x80\x04N\x72" + struct.pack("<I", 2**32 - 1) + b".",  # a memo slot that takes 64 GB
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b".",  # a byte array of an exabyte
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b".",
        b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x01\x00\x00\x00O\x85RU\x08aaaaaaaa\x86R.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.",
        b"P1\n.",
        b"\x80\x02\x82\x01.",
    ],
)
def test_damaged_and_hostile_pickles_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a pickle of plain values"):
        load_pickle(content)
