"""XMP packets, right ones and hostile ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.photos.xmp_packet import XMP, read_properties
from tests.photos.packets import packet


def test_attributes_and_elements_are_properties() -> None:
    properties = read_properties(packet('xmp:Rating="3"', "<xmp:CreateDate>2024-05-06</xmp:CreateDate>"))
    assert properties[f"{{{XMP}}}Rating"] == "3"
    assert properties[f"{{{XMP}}}CreateDate"] == "2024-05-06"


def test_lists_and_structures_are_not() -> None:
    listed = "<xmp:Label><rdf:Bag><rdf:li>a</rdf:li></rdf:Bag></xmp:Label>"
    assert f"{{{XMP}}}Label" not in read_properties(packet("", listed))


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
        read_properties(content)


@settings(derandomize=True, deadline=None)
@given(st.data())
def test_a_mutated_packet_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(packet('xmp:Rating="3"', "<xmp:CreateDate>2024-05-06</xmp:CreateDate>"))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        properties = read_properties(bytes(content))
    except ValueError as error:
        assert "XMP packet" in str(error)  # noqa: PT017 - it need not be refused
    else:
        assert all(isinstance(value, str) for value in properties.values())
