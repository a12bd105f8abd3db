"""XMP packets, inside photos and in sidecars: simple properties and lists, without entities or network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_PACKET = 16 << 20
"""Bytes; larger packets are not read."""

EXIF = "http://ns.adobe.com/exif/1.0/"
XMP = "http://ns.adobe.com/xap/1.0/"
PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
DUBLIN_CORE = "http://purl.org/dc/elements/1.1/"
LIGHTROOM = "http://ns.adobe.com/lightroom/1.0/"
DIGIKAM = "http://www.digikam.org/ns/1.0/"
MICROSOFT = "http://ns.microsoft.com/photo/1.0/"

TOOLKIT = "MaTIR CLI"
"""`x:xmptk` of sidecars that `matir tag` has made and no other program has written since."""

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"

_CONTAINERS = frozenset({f"{_RDF}Bag", f"{_RDF}Seq", f"{_RDF}Alt"})

_XMPTK = "{adobe:ns:meta/}xmptk"


@dataclass(frozen=True, slots=True)
class XmpPacket:
    """The properties of a packet, by their names in Clark notation."""

    texts: Mapping[str, str]
    """Properties that have a plain text, as attributes or as elements."""
    lists: Mapping[str, tuple[str, ...]]
    """Properties that are a bag, a sequence or an alternative: the plain texts in it, in order."""
    toolkit: str
    """What wrote the packet; empty if it does not say so."""


def read_packet(packet: bytes | str) -> XmpPacket:
    """Parse a packet.

    Raises:
        ValueError: the packet is too large, not well-formed or declares a document type.
    """
    # Imported here: a photo without a packet does not need it.
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
    texts: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}
    for description in root.iter(f"{_RDF}Description"):
        for name, value in description.attrib.items():
            texts.setdefault(str(name), str(value))
        for child in description:
            if not isinstance(child.tag, str):
                continue  # a comment
            if not len(child):
                texts.setdefault(child.tag, str(child.text or ""))
            elif child[0].tag in _CONTAINERS:
                lists.setdefault(child.tag, tuple(_items(child[0])))
    return XmpPacket(texts, lists, str(root.get(_XMPTK, "")))


def _items(container: Any) -> list[str]:
    return [str(item.text) for item in container.iterchildren(f"{_RDF}li") if item.text and not len(item)]
