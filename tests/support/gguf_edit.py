"""GGUF files taken apart and put together again, with any value in any place."""

import struct
from dataclasses import dataclass, field
from pathlib import Path

FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""struct's letters for the scalar value types (`enum gguf_type`)."""

STRING, ARRAY = 8, 9

ALIGNMENT = 32


@dataclass
class Value:
    """One value of the metadata."""

    type: int
    """Type of the value, or of the elements of an array."""
    content: object
    """A number, bytes, or a list of them for an array."""

    def pack(self) -> bytes:
        if isinstance(self.content, list):
            head = struct.pack("<IIQ", ARRAY, self.type, len(self.content))
            return head + b"".join(_pack(self.type, each) for each in self.content)
        return struct.pack("<I", self.type) + _pack(self.type, self.content)


@dataclass
class Tensor:
    """One tensor with its bytes."""

    name: bytes
    shape: list[int]
    type: int
    data: bytes


@dataclass
class GgufFile:
    """A GGUF file in parts."""

    values: dict[bytes, Value] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)

    def pack_header(self) -> bytes:
        """Return everything before the tensors' bytes, with the offsets that these will have."""
        parts = [b"GGUF", struct.pack("<IQQ", 3, len(self.tensors), len(self.values))]
        parts += [_pack(STRING, key) + value.pack() for key, value in self.values.items()]
        offset = 0
        for tensor in self.tensors:
            parts.append(_pack(STRING, tensor.name))
            extents = [extent & (1 << 64) - 1 for extent in tensor.shape]
            parts.append(struct.pack(f"<I{len(extents)}Q", len(extents), *extents))
            parts.append(struct.pack("<IQ", tensor.type, offset))
            offset += _padded(len(tensor.data))
        header = b"".join(parts)
        return header.ljust(_padded(len(header)), b"\0")

    def pack(self) -> bytes:
        """Return the whole file."""
        return self.pack_header() + b"".join(
            each.data.ljust(_padded(len(each.data)), b"\0") for each in self.tensors
        )


def read_gguf(path: Path) -> GgufFile:
    """Take the valid file at `path` apart."""
    raw, reader = path.read_bytes(), _Reader(path.read_bytes())
    assert raw.startswith(b"GGUF")
    _, _, tensor_count, value_count = (reader.take(letter) for letter in "IIQQ")
    made = GgufFile()
    for _ in range(value_count):
        key, kind = reader.scalar(STRING), reader.take("I")
        assert isinstance(key, bytes)
        if kind == ARRAY:
            kind, length = reader.take("I"), reader.take("Q")
            made.values[key] = Value(kind, [reader.scalar(kind) for _ in range(length)])
        else:
            made.values[key] = Value(kind, reader.scalar(kind))
    entries = []
    for _ in range(tensor_count):
        name = reader.scalar(STRING)
        assert isinstance(name, bytes)
        shape = [reader.take("Q") for _ in range(reader.take("I"))]
        entries.append((Tensor(name, shape, reader.take("I"), b""), reader.take("Q")))
    start = _padded(reader.at)
    ends = [offset for _, offset in entries[1:]] + [len(raw) - start]
    for (tensor, offset), end in zip(entries, ends, strict=True):
        tensor.data = raw[start + offset : start + end]
        made.tensors.append(tensor)
    return made


class _Reader:
    """Reads little-endian values one after the other."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def take(self, letter: str) -> int:
        (value,) = struct.unpack_from(f"<{letter}", self.raw, self.at)
        self.at += struct.calcsize(f"<{letter}")
        taken: int = value
        return taken

    def scalar(self, kind: int) -> object:
        if kind != STRING:
            return self.take(FORMATS[kind])
        length = self.take("Q")
        self.at += length
        return self.raw[self.at - length : self.at]


def _pack(kind: int, content: object) -> bytes:
    if kind == STRING:
        assert isinstance(content, bytes)
        return struct.pack("<Q", len(content)) + content
    return struct.pack(f"<{FORMATS[kind]}", content)


def _padded(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT
