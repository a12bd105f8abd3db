"""Integrity checks of a gallery: SQLite's own, then checks of its rows.

The file is only read. It may be damaged in any way, so the checks are independent: a check that cannot
be completed is reported as a problem, and the next one follows.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from matir_cli import masks
from matir_cli.errors import GalleryUnrecovered, MatirError, PhotoUnknown, PhotoUnreadable
from matir_cli.gallery import schema
from matir_cli.gallery.absence import AbsentFolder, missing_files
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import count_unread, stored_metadata
from matir_cli.gallery.notes import stored_notes
from matir_cli.gallery.paths import decode_path
from matir_cli.gallery.read_only import open_read_only, photo_ids
from matir_cli.gallery.rows import LONGEST_LABEL
from matir_cli.gallery.sqlite_errors import translated
from matir_cli.maintenance.doctor.findings import Finding, FindingState, ok, on_gallery, problem, warning
from matir_cli.photos.preview import decode_preview
from matir_cli.search.codes import Codes, encode_block, read_scales, scales_bytes
from matir_cli.search.index import read_runs

SAMPLE = 200
"""Number of photos, evenly spread, whose masks and previews are checked unless all of them are."""

MOST_FAULTS = 10
"""Number of faults after which SQLite stops listing them."""

WASTE = 0.25
"""Unused fraction of the file above which compacting is worthwhile."""

STRAYED = 0.02
"""Fraction of a block's scales, or of its bytes, that may differ from recomputed ones: values between two
levels may depend on the machine."""

RESTORE = "Restore a backup, or index again: matir add FOLDER --db NEWFILE"


def examine_gallery(path: Path, *, deep: bool) -> Iterator[Finding]:
    """Check the gallery at `path`; yields one finding after another. A missing file is not a problem.

    Args:
        deep: check every photo's masks and preview, not a sample, and recompute all codes.
    """
    if not path.exists():
        yield ok("gallery", f"none yet at {path}", f"Create one: {on_gallery(path, 'add FOLDER')}")
        return
    if path.is_file() and path.stat().st_size == 0:
        yield ok("gallery", f"{path} is empty", f"Index photos: {on_gallery(path, 'add FOLDER')}")
        return
    try:
        gallery = open_read_only(path)
    except GalleryUnrecovered as error:
        yield Finding("gallery", FindingState.WARNING, fault=error)
    except MatirError as error:
        yield Finding("gallery", FindingState.PROBLEM, fault=error)
    else:
        with gallery:
            yield _guarded(gallery, deep, "gallery", _schema)
            for name, check in _CHECKS:
                yield _guarded(gallery, deep, name, check)


_Check = Callable[[GalleryFile, str, bool], Finding]
"""A check: takes the gallery, the name of the finding, and `deep`."""


def _guarded(gallery: GalleryFile, deep: bool, name: str, check: _Check) -> Finding:
    """Run `check`; an error that a damaged file makes it raise becomes a finding."""
    try:
        with translated(gallery.path):
            return check(gallery, name, deep)
    except MatirError as error:
        return Finding(name, FindingState.PROBLEM, fault=error)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:  # values of another type or size
        return problem(name, f"cannot be checked: {error}", RESTORE)


def _schema(gallery: GalleryFile, name: str, _deep: bool) -> Finding:
    """Say which schema the file has; `open_read_only` has checked it."""
    version = schema.version_of(gallery.connection)
    text = f"{gallery.path}, {gallery.path.stat().st_size / 1e6:.1f} MB, schema {version}"
    if version < schema.VERSION:
        return ok(name, f"{text} of an older version, which the next command that may write to it updates")
    return ok(name, f"{text}, complete and unchanged")


def _pages(gallery: GalleryFile, name: str, _deep: bool) -> Finding:
    """Run SQLite's integrity check."""
    rows = gallery.connection.execute(f"pragma integrity_check({MOST_FAULTS})").fetchall()
    faults = [str(row[0]) for row in rows]
    if faults != ["ok"]:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return problem(name, f"{' '.join(faults[0].split())}{more}", RESTORE)
    return ok(name, "SQLite's integrity check passes")


def _references(gallery: GalleryFile, name: str, _deep: bool) -> Finding:
    """Check that foreign keys refer to rows that exist."""
    counts: dict[str, int] = {}
    for table, *_ in gallery.connection.execute("pragma foreign_key_check"):
        counts[str(table)] = counts.get(str(table), 0) + 1
    if counts:
        listed = ", ".join(f"{count} in {table}" for table, count in counts.items())
        return problem(name, f"rows that refer to missing rows: {listed}", RESTORE)
    return ok(name, "no row refers to a missing one")


def _photos(gallery: GalleryFile, name: str, _deep: bool) -> Finding:
    """Check the photos' values, and that each has a file and regions."""
    with gallery.snapshot():
        return _examine_photos(gallery, name)


def _examine_photos(gallery: GalleryFile, name: str) -> Finding:
    count = gallery.count_photos()
    impossible = _count(gallery, _IMPOSSIBLE_PHOTOS)
    if impossible:
        return problem(name, f"{impossible} of {count} have an impossible size or hash", RESTORE)
    fileless = _count(gallery, "photos where not exists (select 1 from files where photo_id = photos.id)")
    if fileless:
        remedy = f"Index their folders again: {on_gallery(gallery.path, 'add FOLDER')}"
        return warning(name, f"{fileless} of {count} have no file", remedy)
    bare = _count(gallery, "photos where not exists (select 1 from regions where photo_id = photos.id)")
    if bare:
        return problem(name, f"{bare} of {count} have no region and cannot be found", RESTORE)
    return ok(name, f"{count} photos, {_count(gallery, 'regions where ordinal > 0')} regions")


_IMPOSSIBLE_PHOTOS = """
    photos where typeof(sha256) <> 'blob' or octet_length(sha256) <> 32
    or typeof(width + height + mask_width + mask_height + orientation) <> 'integer'
    or width < 1 or height < 1 or mask_width not between 1 and width or mask_height not between 1 and height
    or orientation not between 1 and 8
"""


def _vectors(gallery: GalleryFile, name: str, _deep: bool) -> Finding:
    """Check that each region has a vector of the common length that is not all zeros."""
    lacking = _count(
        gallery,
        "regions left join vectors on region_id = regions.id where vectors.photo_id is not regions.photo_id",
    )
    if lacking:
        return problem(name, f"{lacking} regions have none, or one of another photo", RESTORE)
    lengths = gallery.connection.execute(
        "select typeof(vector), octet_length(vector), count(*) from vectors group by 1, 2"
    ).fetchall()
    if any(kind != "blob" or not length for kind, length, _ in lengths) or len(lengths) > 1:
        return problem(name, "they differ in type or length, or are empty", RESTORE)
    zeros = _count(gallery, "vectors where vector = zeroblob(octet_length(vector))")
    if zeros:
        return problem(name, f"{zeros} are all zeros", RESTORE)
    if _count(gallery, _IMPOSSIBLE_RESIDUALS):
        return problem(name, "residuals have an impossible length", RESTORE)
    return ok(name, f"{lengths[0][2]} of {lengths[0][1]} dimensions" if lengths else "none yet")


_IMPOSSIBLE_RESIDUALS = """
    residuals where typeof(residuals) <> 'blob' or octet_length(residuals) <> (
        select count(*) * ((octet_length(vector) + 1) / 2) from regions cross join vectors
        on region_id = regions.id where regions.photo_id = residuals.photo_id
    )
"""


def _masks(gallery: GalleryFile, name: str, deep: bool) -> Finding:
    """Check that the masks of sampled photos can be decoded and have the stored areas."""
    checked = faults = 0
    first = ""
    for photo_id in _sample(gallery, deep):
        checked += 1
        try:
            regions = gallery.regions(photo_id)
            wrong = [r.id for r in regions if masks.area(r.region.rle) != r.region.area]
            fault = f"region {wrong[0]}: the mask's area is not the stored one" if wrong else ""
        except MatirError as error:
            fault = str(getattr(error, "reason", error))
        if fault:
            faults += 1
            first = first or fault
    if faults:
        return problem(name, f"{first} ({faults} of {checked} checked photos have faults)", RESTORE)
    return ok(name, f"those of {checked} checked photos can be decoded")


def _origins(gallery: GalleryFile, name: str, _deep: bool) -> Finding:
    """Check the origins and labels of regions that were given."""
    impossible = _count(gallery, f"{_IMPOSSIBLE_ORIGINS} or length(label) > {LONGEST_LABEL}")
    if impossible:
        return problem(name, f"{impossible} regions have an impossible origin or label", RESTORE)
    human = _count(gallery, "region_origins where origin = 'human'")
    others = _count(gallery, "region_origins where origin <> 'human'")
    return ok(name, f"{human} regions are drawn or confirmed by a person, {others} from a data set")


_IMPOSSIBLE_ORIGINS = """
    region_origins where typeof(origin) <> 'text' or origin not in ('human', 'data set')
    or typeof(label) not in ('text', 'null')
"""


def _index(gallery: GalleryFile, name: str, deep: bool) -> Finding:
    """Check that a search finds every region: its photo is loose, or a block holds its codes."""
    with gallery.snapshot():  # a short one, without codes and vectors: other commands may seal new blocks
        found = _examine_index(gallery, name)
    if deep and found.state is FindingState.OK:
        blocks: Any = gallery.connection.execute("select id from codes").fetchall()
        for (block_id,) in blocks:
            with gallery.snapshot():
                strayed = _strayed(gallery, block_id)
            if strayed > STRAYED:
                return problem(
                    name, f"the codes of block {block_id} do not match its vectors", _compact(gallery)
                )
    return found


def _compact(gallery: GalleryFile) -> str:
    return f"Rebuild the search index: {on_gallery(gallery.path, 'compact')}"


def _examine_index(gallery: GalleryFile, name: str) -> Finding:
    db = gallery.connection
    if db.execute("select exists(select 1 from blocks)").get:
        text = "of an older version: a search compares all regions one by one"
        return warning(name, text, "Let a command write the gallery: matir compact")
    dimensions: Any = db.execute("select octet_length(vector) from vectors limit 1").fetchone()
    # Temporary: the file is not changed. Untyped columns would make the look-ups below scan the table.
    db.execute("create temp table covered (photo integer, first integer, past integer)")
    blocks = 0
    rows = db.execute("select id, runs, octet_length(centre), octet_length(codes) from codes")
    for block_id, blob, centre, codes in rows:
        runs = read_runs(gallery, blob)
        count = int(runs["count"].sum())
        if dimensions is None:  # all photos were removed; the block is dissolved when others are sealed
            continue
        if centre != 4 * dimensions[0] or codes != Codes.size(count, dimensions[0]):
            return problem(name, f"block {block_id} has an impossible length", _compact(gallery))
        db.executemany("insert into temp.covered values (?1, ?2, ?2 + ?3)", runs.tolist())
        blocks += 1
    db.execute("create index temp.covered_by_photo on covered (photo, first)")
    missing = _count(gallery, _NOT_FOUND)
    if missing:
        return problem(
            name, f"{missing} regions are in no block and not loose: they cannot be found", _compact(gallery)
        )
    return ok(name, f"{blocks} blocks, {_count(gallery, 'loose where true')} photos outside of them")


_NOT_FOUND = """
    regions where not exists (select 1 from loose where loose.photo_id = regions.photo_id)
    and not exists (
        select 1 from temp.covered
        where covered.photo = regions.photo_id and first <= regions.id and regions.id < past
    )
"""


def _strayed(gallery: GalleryFile, block_id: int) -> float:
    """Return the fraction of a block's scales, or of the bytes of its levels, that do not match its vectors.

    0 if some of the vectors have been deleted since, or the whole block.
    """
    row: Any = gallery.connection.execute(
        "select runs, codes from codes where id = ?", (block_id,)
    ).fetchone()
    if row is None:
        return 0.0
    runs = read_runs(gallery, row[0])
    blobs: list[bytes] = []
    for _, first, count in runs.tolist():
        part = gallery.connection.execute(
            "select vector from vectors where region_id >= ? and region_id < ? order by region_id",
            (first, first + count),
        )
        before = len(blobs)
        blobs += [vector for (vector,) in part]
        if len(blobs) < before + count:
            return 0.0
    vectors = np.frombuffer(b"".join(blobs), np.int8).reshape(len(blobs), -1)
    _, recomputed = encode_block(vectors)
    split = scales_bytes(len(vectors))
    with np.errstate(all="ignore"):
        scales = np.isclose(read_scales(row[1][:split]), (recomputed.along, recomputed.spread), rtol=1e-3)
    levels = np.frombuffer(row[1], np.uint8)[split:] == recomputed.levels.ravel()
    return 1.0 - float(min(scales.mean(), levels.mean()))


def _previews(gallery: GalleryFile, name: str, deep: bool) -> Finding:
    """Check that the previews of sampled photos can be decoded and have the size of the masks."""
    checked = faults = 0
    first = ""
    for photo_id in _sample(gallery, deep):
        with gallery.snapshot():
            try:
                record = gallery.photo(photo_id).record
            except PhotoUnknown:  # another command has removed it meanwhile
                continue
            jpeg = gallery.preview(photo_id)
        if jpeg is None:
            continue
        checked += 1
        try:
            fault = decode_preview(jpeg).shape[:2] != (record.mask_height, record.mask_width)
        except PhotoUnreadable:
            fault = True
        if fault:
            faults += 1
            first = first or f"photo {photo_id}"
    if faults:
        drop = on_gallery(gallery.path, "compact --drop-previews")
        remedy = f"Drop them (judging then reads the original files): {drop}"
        text = f"{faults} of {checked} checked are damaged or of the wrong size, such as that of {first}"
        return problem(name, text, remedy)
    without = _count(gallery, "photos where not exists (select 1 from previews where photo_id = photos.id)")
    return ok(name, f"{checked} checked can be decoded; {without} photos have none")


def _notes(gallery: GalleryFile, name: str, _deep: bool) -> Finding:
    """Check the notes on what could not be read of photos' files."""
    noted: Any = gallery.connection.execute("select distinct photo_id from notes").fetchall()
    for (photo_id,) in noted:
        stored_notes(gallery.connection, gallery.path, gallery.checked_id(photo_id))
    if noted:
        text = f"{len(noted)} photos were added without a part of their file"
        return ok(name, text, f"List them: {on_gallery(gallery.path, 'ls --incomplete')}")
    return ok(name, "every photo was read in full")


def _metadata(gallery: GalleryFile, name: str, _deep: bool) -> Finding:
    """Check the ratings, keywords and positions of files, and say of how many they have not been read."""
    described: Any = gallery.connection.execute("select path from file_metadata").fetchall()
    for (path,) in described:
        stored_metadata(gallery.connection, decode_path(path))
    if unread := count_unread(gallery.connection):
        remedy = f"Read them: {on_gallery(gallery.path, 'sync --metadata FOLDER')}"
        return ok(name, f"those of {unread} of {unread + len(described)} files have not been read", remedy)
    return ok(name, f"ratings and keywords of {len(described)} files")


def _files(gallery: GalleryFile, name: str, _deep: bool) -> Finding:
    """Check that the photos' files exist on disk."""
    count, missing = _count(gallery, "files"), 0
    first: Path | None = None
    folder: Path | None = None
    for gone in missing_files(gallery):
        if isinstance(gone, AbsentFolder):
            missing += gone.files
            folder = folder or gone.path
        else:
            missing += 1
            first = first or gone
    if folder is not None:
        text = f"{missing} of {count} do not exist, among them those in {folder}"
        drop = on_gallery(gallery.path, f"sync --drop-all {shlex.quote(str(folder))}")
        remedy = f"Mount its volume; if they were moved or deleted: {drop}"
        return warning(name, text, remedy)
    if missing:
        text = f"{missing} of {count} do not exist, such as {first}"
        return warning(name, text, f"Drop them from the gallery: {on_gallery(gallery.path, 'rm --missing')}")
    skipped = _count(gallery, "skipped where true")
    return ok(name, f"all {count} exist; {skipped} others could not be indexed")


def _space(gallery: GalleryFile, name: str, _deep: bool) -> Finding:
    """Check how much of the file is unused."""
    text = f"{gallery.free_bytes / 1e6:.1f} MB of the file are unused"
    if gallery.free_bytes > WASTE * gallery.file_bytes:
        return warning(name, text, f"Return them to the disk: {on_gallery(gallery.path, 'compact')}")
    return ok(name, text)


def _sample(gallery: GalleryFile, deep: bool) -> Iterator[int]:
    """Return ids of photos: all of them if `deep`, else some `SAMPLE`, evenly spread."""
    step = 1 if deep else max(1, gallery.count_photos() // SAMPLE)
    return (photo_id for photo_id in photo_ids(gallery) if photo_id % step == 0)


def _count(gallery: GalleryFile, source: str) -> int:
    """Count the rows of `source`, which is what follows `from` in SQL."""
    return int(gallery.connection.execute(f"select count(*) from {source}").get)  # noqa: S608 - constants


_CHECKS: tuple[tuple[str, _Check], ...] = (
    ("gallery pages", _pages),
    ("gallery references", _references),
    ("gallery photos", _photos),
    ("gallery vectors", _vectors),
    ("gallery masks", _masks),
    ("gallery origins", _origins),
    ("gallery index", _index),
    ("gallery previews", _previews),
    ("gallery notes", _notes),
    ("gallery metadata", _metadata),
    ("gallery files", _files),
    ("gallery space", _space),
)
