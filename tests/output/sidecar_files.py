"""Writing and reading sidecars: read back by namespace with the standard library's parser."""

import xml.etree.ElementTree as ET
from pathlib import Path

from matir_cli.output.sidecars import Sidecar
from matir_cli.output.xmp import (
    XmpTag,
)
from matir_cli.records import Box, PhotoRecord

SPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
}


PHOTO = PhotoRecord(bytes(32), 400, 300, 400, 300, 1)


DOG = XmpTag("dog on a lead", (Box(100, 30, 300, 90),))


# As other programs write them: a packet, a comment, prefixes of their own, characters that a careless
# writer would lose, and regions as nested descriptions with attributes.
FOREIGN = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<!-- kept -->
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Another 1.0">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xap="http://ns.adobe.com/xap/1.0/" xap:Rating="3"
    xmlns:odd="urn:odd" odd:lines="one&#10;two&#9;three" odd:path="&lt;&quot;&amp;'&gt;">
   <odd:text>carriage&#13;return<![CDATA[ <raw> ]]></odd:text>
   <d:subject xmlns:d="http://purl.org/dc/elements/1.1/"><rdf:Bag><rdf:li>holiday</rdf:li></rdf:Bag></d:subject>
  </rdf:Description>
  <rdf:Description rdf:about="" xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
    xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#" xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#">
   <mwg-rs:Regions rdf:parseType="Resource">
    <mwg-rs:AppliedToDimensions stDim:w="400" stDim:h="300" stDim:unit="pixel"/>
    <mwg-rs:RegionList><rdf:Bag>
     <rdf:li><rdf:Description mwg-rs:Name="Ada" mwg-rs:Type="Face">
      <mwg-rs:Area stArea:x="0.5" stArea:y="0.2" stArea:w="0.5" stArea:h="0.2" stArea:unit="normalized"/>
     </rdf:Description></rdf:li>
    </rdf:Bag></mwg-rs:RegionList>
   </mwg-rs:Regions>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


def tagged(path: Path, tag: XmpTag = DOG, photo: PhotoRecord = PHOTO) -> bool:
    sidecar = Sidecar(path)
    if changed := sidecar.add(tag, photo):
        sidecar.write()
    return changed


def untagged(path: Path, label: str = DOG.label) -> bool:
    sidecar = Sidecar(path)
    if changed := sidecar.remove(label):
        sidecar.write()
    return changed


def parsed(path: Path) -> ET.Element:
    return ET.parse(path).getroot()  # noqa: S314 - written by the test


def keywords(path: Path) -> list[str | None]:
    return [
        item.text
        for item in parsed(path).findall("rdf:RDF/rdf:Description/dc:subject/rdf:Bag/rdf:li", SPACES)
    ]


def regions(path: Path) -> list[ET.Element]:
    lists = "rdf:RDF/rdf:Description/mwg-rs:Regions/mwg-rs:RegionList/rdf:Bag/rdf:li"
    return parsed(path).findall(lists, SPACES)


def canonical(path: Path) -> str:
    return ET.canonicalize(path.read_text("utf-8"), with_comments=True, strip_text=True)
