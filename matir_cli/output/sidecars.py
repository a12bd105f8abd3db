"""XMP sidecar files: reading, adding and removing labels, writing back.

A sidecar comes from another program and is untrusted. It is parsed without document type, entities and
network. Existing content is kept, with its prefixes and comments. A file with unexpected content is refused
and never overwritten.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from lxml import etree

from matir_cli.atomic_write import atomic_write
from matir_cli.errors import (
    OutputError,
    OutputExists,
    SidecarElsewhere,
    SidecarRegionsUnusable,
    SidecarUnusable,
)
from matir_cli.output.file_rewrite import rewrite_file
from matir_cli.output.xmp import XmpArea, XmpTag, stored_area
from matir_cli.photos.xmp_packet import TOOLKIT
from matir_cli.records import PhotoRecord
from matir_cli.search.box_matching import box_iou
from matir_cli.search.query import normal_text

SAME_IOU = 0.5
"""Two regions of the same name are the same object from this IoU on."""

MAX_BYTES = 1 << 24
"""16 MiB, far more than photo editors write."""

Node: TypeAlias = Any
"""An lxml element or tree; the library has no type information."""

_NAMESPACES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
}
"""Namespaces of what is written."""

_EXTENSION = "{http://ns.adobe.com/photoshop/1.0/}SidecarForExtension"


def _name(prefixed: str) -> str:
    """Expand a prefix as lxml does: `dc:subject` becomes {namespace}subject."""
    prefix, local = prefixed.split(":")
    return f"{{{_NAMESPACES[prefix]}}}{local}"


_ABOUT, _DESCRIPTION, _LI = _name("rdf:about"), _name("rdf:Description"), _name("rdf:li")

_CONTAINERS = (_name("rdf:Bag"), _name("rdf:Seq"), _name("rdf:Alt"))

_SUBJECT, _REGIONS, _LIST = _name("dc:subject"), _name("mwg-rs:Regions"), _name("mwg-rs:RegionList")

_DIMENSIONS, _AREA = _name("mwg-rs:AppliedToDimensions"), _name("mwg-rs:Area")


class Sidecar:
    """A sidecar in memory, to be changed and written back."""

    def __init__(self, path: Path, *, follow_links: bool = False) -> None:
        """Read the sidecar at `path`, or start a new one if there is none.

        Args:
            follow_links: accept a link to a file in another folder, which is then the one that is written.

        Raises:
            SidecarElsewhere: it is a link to another folder, and `follow_links` is False.
            SidecarUnusable: it is not XMP, is too large or declares a document type.
            OutputError: it cannot be read.
        """
        self.path = path
        self._file = Path(os.path.realpath(path))
        if not follow_links and self._file.parent != Path(os.path.realpath(path.parent)):
            raise SidecarElsewhere(path, f"it is a link to {self._file}")
        content = _content(path)
        self._exists = content is not None
        self._declared = content is None or content.removeprefix(b"\xef\xbb\xbf").startswith(b"<?xml ")
        self._tree = _new() if content is None else _parsed(path, content)
        root = self._tree.getroot()
        self._rdf = root if root.tag == _name("rdf:RDF") else root.find(_name("rdf:RDF"))
        if self._rdf is None:
            raise SidecarUnusable(path, "it holds no XMP")

    @property
    def extension(self) -> str | None:
        """The suffix, without its dot, of the file that the sidecar says it belongs to, if it says so."""
        for description in self._rdf.findall(_DESCRIPTION):
            value = description.get(_EXTENSION) or description.findtext(_EXTENSION)
            if value and value.strip():
                return str(value).strip()
        return None

    def add(self, tag: XmpTag, photo: PhotoRecord) -> bool:
        """Add the label and its regions, unless they are present already.

        Args:
            photo: record of the photo that the sidecar belongs to; gives its size and orientation.

        Returns:
            True if anything was added.

        Raises:
            SidecarUnusable: its keywords are not a list.
            SidecarRegionsUnusable: its regions are not a list, or are of another picture.
        """
        changed = self._add_keyword(tag.label)
        try:
            for box in tag.boxes:
                area = stored_area(box, photo)
                if area.w > 0 and area.h > 0:
                    changed = self._add_region(tag, area, photo) or changed
        except SidecarUnusable as error:
            raise SidecarRegionsUnusable(error.path, error.reason) from error
        return changed

    def remove(self, label: str) -> bool:
        """Remove the keyword and all regions of this name, and the lists that become empty.

        Returns:
            True if anything was removed.

        Raises:
            SidecarUnusable: its keywords or regions are not lists.
        """
        changed = False
        for subject in self._properties(_SUBJECT):
            keywords = [item for item in self._items(subject) if _is_text(item.text, label)]
            changed = _drop(keywords) or changed
            if keywords and not self._items(subject):
                _drop([subject])
        for regions in self._properties(_REGIONS):
            body = _body(regions)
            for listed in body.findall(_LIST):
                items = self._items(listed)
                named = [item for item in items if _is_text(_value(_body(item), "mwg-rs:Name"), label)]
                changed = _drop(named) or changed
                if named and not self._items(listed):
                    _drop([listed])
                    if {field.tag for field in body.iterchildren("*")} <= {_DIMENSIONS}:
                        _drop([regions])
        return changed

    def write(self) -> None:
        """Write the sidecar back, or delete it if it was made here and holds nothing any more.

        An existing one keeps all that `rewrite_file` keeps; one with a link to it is not deleted.

        Raises:
            SidecarUnusable: another program has written a new one meanwhile.
            OutputError: it cannot be written; the existing file is untouched.
        """
        if not self._exists:
            etree.indent(self._tree, " ")
        content = etree.tostring(self._tree, encoding="UTF-8", xml_declaration=self._declared)
        if not self._exists:
            try:
                with atomic_write(self.path, force=False) as temporary:
                    temporary.write_bytes(content)
            except OutputExists:
                raise SidecarUnusable(self.path, "another program has just written it") from None
            return
        try:
            if self._holds_nothing() and not self.path.is_symlink() and self.path.stat().st_nlink == 1:
                self.path.unlink()
            else:
                rewrite_file(self._file, content)
        except OSError as error:
            raise OutputError(self.path, error.strerror or str(error)) from error

    def _holds_nothing(self) -> bool:
        made_here = self._tree.getroot().get(_name("x:xmptk")) == TOOLKIT
        return made_here and not any(
            node.tag != _DESCRIPTION or len(node) or set(node.attrib) - {_ABOUT} for node in self._rdf
        )

    def _add_keyword(self, label: str) -> bool:
        lists = self._properties(_SUBJECT)
        if any(_is_text(item.text, label) for one in lists for item in self._items(one)):
            return False
        subject = lists[0] if lists else _child(self._description(), "dc:subject")
        _child(self._container(subject), "rdf:li").text = label
        return True

    def _add_region(self, tag: XmpTag, area: XmpArea, photo: PhotoRecord) -> bool:
        existing = self._properties(_REGIONS)
        body = _body(existing[0] if existing else _structure(self._description(), "mwg-rs:Regions"))
        region_list = body.find(_LIST)
        items = [] if region_list is None else self._items(region_list)
        if any(_is_same(_body(item), tag.label, area) for item in items):
            return False
        self._apply_to(body, photo, bool(items))
        if region_list is None:
            region_list = _child(body, "mwg-rs:RegionList")
        region = _structure(self._container(region_list), "rdf:li")
        _child(region, "mwg-rs:Name").text = tag.label
        if tag.type is not None:
            _child(region, "mwg-rs:Type").text = tag.type
        made = _structure(region, "mwg-rs:Area", "stArea")
        for name, value in (("x", area.x), ("y", area.y), ("w", area.w), ("h", area.h)):
            _child(made, f"stArea:{name}").text = f"{value:.6f}"
        _child(made, "stArea:unit").text = "normalized"
        return True

    def _apply_to(self, body: Node, photo: PhotoRecord, others: bool) -> None:
        """Record the size of the stored image; refuse if other regions are of a picture of another shape."""
        size = (photo.width, photo.height) if photo.orientation < 5 else (photo.height, photo.width)
        dimensions = body.find(_DIMENSIONS)
        if dimensions is not None:
            try:
                width, height = (float(_value(_body(dimensions), f"stDim:{side}") or "") for side in "wh")
            except ValueError as error:
                raise SidecarUnusable(self.path, "it does not say what its regions apply to") from error
            if abs(width * size[1] - height * size[0]) <= 0.01 * width * size[1]:
                return
            if others:
                shapes = f"{width:.0f} x {height:.0f} pixels, not {size[0]} x {size[1]}"
                raise SidecarUnusable(self.path, f"its regions are of a picture of {shapes}")
            _drop([dimensions])
        made = _structure(body, "mwg-rs:AppliedToDimensions", "stDim")
        for name, value in (("w", str(size[0])), ("h", str(size[1])), ("unit", "pixel")):
            _child(made, f"stDim:{name}").text = value

    def _description(self) -> Node:
        """Return the description that new properties go into, made if there is none."""
        description = self._rdf.find(_DESCRIPTION)
        if description is None:
            description = _child(self._rdf, "rdf:Description", *_NAMESPACES)
            description.set(_ABOUT, "")
        return description

    def _properties(self, name: str) -> list[Node]:
        """Return all elements that state the property: the rules allow one, but any file may come in."""
        descriptions = self._rdf.findall(_DESCRIPTION)
        if any(description.get(name) is not None for description in descriptions):
            raise SidecarUnusable(self.path, f"its {etree.QName(name).localname} is not a list")
        return [property_ for description in descriptions for property_ in description.findall(name)]

    def _items(self, property_: Node) -> list[Node]:
        return list(self._container(property_).findall(_LI))

    def _container(self, property_: Node) -> Node:
        """Return the bag, sequence or alternative in the property; a bag is made if the property is empty."""
        for kind in _CONTAINERS:
            container = property_.find(kind)
            if container is not None:
                return container
        if len(property_) or (property_.text or "").strip():
            raise SidecarUnusable(self.path, f"its {etree.QName(property_).localname} is not a list")
        return _child(property_, "rdf:Bag")


def _content(path: Path) -> bytes | None:
    """Return the bytes of the file at `path`; None if there is none."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SidecarUnusable(path, "it is not a plain file")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        if path.is_symlink():  # writing through the link would create a file wherever it points
            raise SidecarUnusable(path, "it is a link to nothing") from None
        return None
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error
    if len(content) > MAX_BYTES:
        raise SidecarUnusable(path, f"it has more than {MAX_BYTES >> 20} MiB")
    return content


def _parsed(path: Path, content: bytes) -> Node:
    parser = etree.XMLParser(
        **{"resolve_entities": False, "load_dtd": False, "no_network": True, "huge_tree": False},
        strip_cdata=False,
    )
    try:
        tree = etree.parse(io.BytesIO(content), parser)
    except etree.XMLSyntaxError as error:
        raise SidecarUnusable(path, "it is not well-formed XML") from error
    if tree.docinfo.doctype or tree.docinfo.internalDTD is not None:
        raise SidecarUnusable(path, "it declares a document type, which XMP does not permit")
    return tree


def _new() -> Node:
    root = etree.Element(_name("x:xmpmeta"), nsmap={"x": _NAMESPACES["x"]})
    root.set(_name("x:xmptk"), TOOLKIT)
    etree.SubElement(root, _name("rdf:RDF"), nsmap={"rdf": _NAMESPACES["rdf"]})
    return etree.ElementTree(root)


def _child(parent: Node, prefixed: str, *also: str) -> Node:
    """Append a child; declare its prefix and those in `also` where their namespace has no prefix yet."""
    declared = {
        prefix: _NAMESPACES[prefix]
        for prefix in (prefixed.split(":")[0], *also)
        if _NAMESPACES[prefix] not in parent.nsmap.values()
    }
    return etree.SubElement(parent, _name(prefixed), nsmap=declared)


def _structure(parent: Node, prefixed: str, *also: str) -> Node:
    """Append a child whose own children are the fields of a structure."""
    made = _child(parent, prefixed, *also)
    made.set(_name("rdf:parseType"), "Resource")
    return made


def _body(structure: Node) -> Node:
    """Return the element that holds the fields of a structure: itself, or a description inside it."""
    nested = structure.find(_DESCRIPTION)
    return structure if nested is None else nested


def _value(body: Node, prefixed: str) -> str | None:
    """Return a simple field of a structure, an attribute or an element; None if it has no such field."""
    value = body.get(_name(prefixed))
    if value is None:
        value = body.findtext(_name(prefixed))
    return None if value is None else str(value).strip()


def _is_text(text: str | None, label: str) -> bool:
    """Return True if a keyword or a name is the label, whichever form of Unicode another program uses."""
    return normal_text(text or "") == normal_text(label)


def _is_same(region: Node, label: str, area: XmpArea) -> bool:
    """Return True if the region has this name and is nearly `area`, as from another run of the search."""
    existing = region.find(_AREA)
    if existing is None or not _is_text(_value(region, "mwg-rs:Name"), label):
        return False
    body = _body(existing)
    try:
        existing_area = XmpArea(*(float(_value(body, f"stArea:{name}") or "") for name in "xywh"))
    except ValueError:
        return False
    return box_iou(existing_area.box, area.box) >= SAME_IOU


def _drop(nodes: Sequence[Node]) -> bool:
    """Remove nodes from their parents; return True if there were any."""
    for node in nodes:
        node.getparent().remove(node)
    return bool(nodes)
