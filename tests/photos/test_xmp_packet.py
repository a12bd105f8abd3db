"""XMP packets, right ones and hostile ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.photos.xmp_packet import DUBLIN_CORE, XMP, XmpPacket, read_packet
from tests.photos.packets import packet


def test_attributes_and_elements_are_properties() -> None:
    properties = read_packet(packet('xmp:Rating="3"', "<xmp:CreateDate>2024-05-06</xmp:CreateDate>")).texts
    assert properties[f"{{{XMP}}}Rating"] == "3"
    assert properties[f"{{{XMP}}}CreateDate"] == "2024-05-06"


@pytest.mark.parametrize("kind", ["Bag", "Seq", "Alt"])
def test_lists_are_told_from_texts_and_structures(kind: str) -> None:
    items = "<rdf:li>a</rdf:li><!-- b --><rdf:li/><rdf:li><b/></rdf:li><rdf:li xml:lang='x'>c</rdf:li>"
    listed = (
        f"<dc:subject><rdf:{kind}>{items}</rdf:{kind}></dc:subject><xmp:Label/><xmp:Rating><a/></xmp:Rating>"
    )
    read = read_packet(packet(f'xmlns:dc="{DUBLIN_CORE}"', listed))
    assert read.lists == {f"{{{DUBLIN_CORE}}}subject": ("a", "c")}
    assert read.texts[f"{{{XMP}}}Label"] == ""
    assert f"{{{XMP}}}Rating" not in read.texts


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<x:xmpmeta",
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b'<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd"><a/>',
        "<a>" * 1000,
    ],
)
def test_a_packet_that_cannot_be_read_is_refused(content: bytes | str) -> None:
    with pytest.raises(ValueError, match="XMP packet"):
        read_packet(content)


@settings(derandomize=True, deadline=None)
@given(st.data())
def test_a_mutated_packet_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(packet('xmp:Rating="3"', "<xmp:CreateDate>2024-05-06</xmp:CreateDate>"))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = read_packet(bytes(content))
    except ValueError as error:
        assert "XMP packet" in str(error)  # noqa: PT017 - it need not be refused
    else:
        assert isinstance(read, XmpPacket)
        assert all(isinstance(value, str) for value in read.texts.values())
