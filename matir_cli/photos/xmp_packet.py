"""XMP packets inside photos: their simple properties, without document types, entities or network."""

from __future__ import annotations

from collections.abc import Mapping

MAX_PACKET = 16 << 20
"""Bytes; larger packets are not read."""

EXIF = "http://ns.adobe.com/exif/1.0/"
XMP = "http://ns.adobe.com/xap/1.0/"
PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


def read_properties(packet: bytes | str) -> Mapping[str, str]:
    """Return the properties of a packet that have a plain text, by their names in Clark notation.

    Raises:
        ValueError: the packet is too large, not well-formed or declares a document type.
    """
    # Imported here: a photo with EXIF fields needs it not.
    from lxml import etree

    content = packet.encode("utf-8", "surrogatepass") if isinstance(packet, str) else packet
    if len(content) > MAX_PACKET:
        raise ValueError("the XMP packet is too large")
    parser = etree.XMLParser(
        **{"resolve_entities": False, "load_dtd": False, "no_network": True, "huge_tree": False}
    )
    try:
        root = etree.fromstring(content.strip(b"\0 \t\r\n"), parser)
    except etree.XMLSyntaxError as error:
        raise ValueError("the XMP packet is not well-formed") from error
    if root.getroottree().docinfo.doctype:
        raise ValueError("the XMP packet declares a document type")
    properties: dict[str, str] = {}
    for description in root.iter(f"{_RDF}Description"):
        for name, value in description.attrib.items():
            properties.setdefault(str(name), str(value))
        for child in description:
            if isinstance(child.tag, str) and not len(child) and child.text:
                properties.setdefault(child.tag, str(child.text))
    return properties
