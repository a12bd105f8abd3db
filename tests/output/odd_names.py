"""A result for a photo of any name, and names that are hard on outputs."""

import os
from pathlib import Path

import numpy as np

from matir_cli import masks
from matir_cli.gallery.rows import StoredPhoto, StoredRegion
from matir_cli.records import Box, Candidate, PhotoRecord, Region, Verdict
from matir_cli.search.results import GroundedObject, SearchResult

NAMES = [
    b"plain.jpg",
    b"new\nline.jpg",
    b"\xff\xfe\xfa.jpg",
    "שלום\u202egpj.exe".encode(),
    b"'quote\" & <tag>.jpg",
    b"\x1b]0;title\x07.jpg",
    b"..",
    b"...jpg",
    b"x" * 251 + b".jpg",
    "日本語".encode() * 27 + b".jpg",
]


def make_result(name: bytes = b"a.jpg", sha: int = 1, *, verdict: Verdict | None = None) -> SearchResult:
    mask = np.zeros((50, 100), dtype=np.bool_)
    mask[10:30, 20:60] = True
    rle = masks.encode(mask)
    region = StoredRegion(7, 1, 3, Box(200, 100, 600, 300), Region(rle, masks.box(rle), 800, 0.9, 0.95))
    path = Path("/photos") / os.fsdecode(name)
    photo = StoredPhoto(1, (path,), PhotoRecord(bytes([sha]) * 32, 1000, 500, 100, 50, 1))
    answer = GroundedObject(region.box, region, None, rle)
    other = GroundedObject(Box(0, 0, 5, 5), region, 0.25, None)
    return SearchResult(1, photo, Candidate(1, 7, 0.25), (answer, other), verdict)
