"""XMP packets for tests."""

import html

_NAMESPACES = (
    'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
    'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
)

_KEYWORDS = (
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:lr="http://ns.adobe.com/lightroom/1.0/" '
    'xmlns:digiKam="http://www.digikam.org/ns/1.0/" '
    'xmlns:MicrosoftPhoto="http://ns.microsoft.com/photo/1.0/" '
)


def packet(attributes: str, elements: str = "") -> bytes:
    """Make a packet with attributes and elements of one description."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {_NAMESPACES} {attributes}>{elements}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def described(attributes: str, elements: str = "", *, toolkit: str = "") -> bytes:
    """Make a packet that may use the names of keywords, too; `toolkit` is what wrote it."""
    made = packet(f"{_KEYWORDS} {attributes}", elements)
    return made.replace(b'"adobe:ns:meta/"', f'"adobe:ns:meta/" x:xmptk="{toolkit}"'.encode())


def bag(name: str, *items: str, kind: str = "Bag") -> str:
    """Make a list of texts, as an element."""
    texts = "".join(f"<rdf:li>{html.escape(item)}</rdf:li>" for item in items)
    return f"<{name}><rdf:{kind}>{texts}</rdf:{kind}></{name}>"
