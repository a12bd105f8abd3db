"""Suffixes of pictures by how they are read. This module imports no library, since every command needs it."""

from __future__ import annotations

import importlib.util
from functools import cache

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif", ".heics", ".heifs"})
"""Suffixes of formats that Pillow reads only with the optional package pi-heif."""

MORE_SUFFIXES = frozenset(
    {
        *(".mpo", ".jps", ".insp", ".jif", ".jfi", ".pjpeg", ".pjp"),  # JPEG, some with several images
        *(".tf8", ".btf", ".ptif", ".ptiff"),  # TIFF
        *(".targa", ".jph", ".jpm", ".pam"),
        *(".sun", ".im8", ".im24", ".im32", ".rs"),
    }
)
"""Suffixes of readable formats that Pillow does not register."""

RAW_SUFFIXES = frozenset(
    {
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos"),
        *(".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw"),
        ".x3f",
    }
)
"""Suffixes of cameras' raw formats. Some are also TIFFs, whose picture is a thumbnail: the suffix decides."""

UNREAD_SUFFIXES = frozenset(
    {*(".eps", ".fit", ".fits", ".fts", ".blp", ".wmf", ".emf", ".iim"), *(".jxl", ".psb", ".xcf", ".svg")}
)
"""Suffixes of pictures in formats that are not read."""

NEEDS_RAW = "camera raw: needs pip install 'matir-cli[raw]'"


@cache
def reads_raw() -> bool:
    """Return True if rawpy, which reads cameras' raw files, is installed."""
    return importlib.util.find_spec("rawpy") is not None
