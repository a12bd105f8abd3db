"""Raw files that share the photo of the picture beside them: foo.CR2 and foo.JPG are one photo.

Both are rows of `files` with one photo, which is that of the picture: its pixels, regions and hash. The raw
file follows where its picture goes. If the picture is forgotten, the raw file keeps its photo until it is
read again as a photo of its own, which its impossible time of modification provides for.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from matir_cli.gallery.paths import decode_path, encode_path
from matir_cli.photos.raw_pairs import is_beside_raw, is_raw, picture_of_raw

TO_READ_AGAIN = -(2**63)
"""Time of modification that no file has: `photos.discover.stat_file` gives greater ones only."""


def shared_photo(connection: apsw.Connection, raw: Path) -> int | None:
    """Return the photo that a raw file shares or would share: that of the known picture of its name.

    None if the gallery holds no such picture.
    """
    files = _files_of_stem(connection, raw)
    picture = picture_of_raw(path for path in files if is_beside_raw(path))
    return None if picture is None else files[picture]


def shares_photo(connection: apsw.Connection, raw: Path) -> bool:
    """Return True if the gallery knows a raw file with the photo of the picture of its name."""
    photo_id = shared_photo(connection, raw)
    return photo_id is not None and _files_of_stem(connection, raw).get(raw) == photo_id


def raw_files_of(connection: apsw.Connection, picture: Path) -> list[Path]:
    """Return the known raw files that share the photo of the picture at this path, in order of path.

    There are none if the file is not of a kind that cameras write beside raw files.
    """
    if not is_beside_raw(picture):
        return []
    files = _files_of_stem(connection, picture)
    photo_id = files.get(picture)
    return [path for path, other in files.items() if is_raw(path) and other == photo_id]


def move_raw_files(connection: apsw.Connection, picture: Path, old: int, new: int) -> None:
    """Let the raw files that share the photo `old` of a picture share its photo `new`."""
    for path, photo_id in _files_of_stem(connection, picture).items():
        if is_raw(path) and photo_id == old:
            _set_photo(connection, path, new)


def join_raw_files(connection: apsw.Connection, file: Path) -> None:
    """Let the known raw files of the name of `file` share the photo of the known picture of that name.

    The photos that they were before are deleted with their last file.
    """
    photo_id = shared_photo(connection, file)
    if photo_id is None:
        return
    for path, own in _files_of_stem(connection, file).items():
        if is_raw(path) and own != photo_id:
            _set_photo(connection, path, photo_id)
            connection.execute(
                "delete from photos where id = ?1 and not exists (select 1 from files where photo_id = ?1)",
                (own,),
            )


def leave_raw_files(connection: apsw.Connection, picture: Path, photo_id: int) -> None:
    """Let the raw files of a forgotten picture share that of another one of its name, or be read again.

    Args:
        photo_id: the photo of the picture.
    """
    if shared_photo(connection, picture) is not None:
        join_raw_files(connection, picture)
        return
    for path, own in _files_of_stem(connection, picture).items():
        if is_raw(path) and own == photo_id:
            connection.execute(
                "update files set mtime_ns = ? where path = ?", (TO_READ_AGAIN, encode_path(path))
            )


def _set_photo(connection: apsw.Connection, path: Path, photo_id: int) -> None:
    connection.execute("update files set photo_id = ? where path = ?", (photo_id, encode_path(path)))


def _files_of_stem(connection: apsw.Connection, file: Path) -> dict[Path, int]:
    """Return the known files in the folder and of the stem of `file`, in order of path, with their photos."""
    low = encode_path(file.with_name(f"{file.stem}."))
    high = f"{low[:-1]}/" if isinstance(low, str) else low[:-1] + b"/"  # after all that begin with `low`
    rows = connection.execute(
        "select path, photo_id from files where path >= ? and path < ? order by path", (low, high)
    )
    found = {}
    for stored, photo_id in rows:
        try:
            path = decode_path(stored)
        except ValueError:  # this tool has not written it
            continue
        if path.stem == file.stem and path.parent == file.parent and isinstance(photo_id, int):
            found[path] = photo_id
    return found
