"""Counts, sizes and absent folders as words."""

from collections.abc import Iterable, Sequence

from matir_cli.gallery.absence import AbsentFolder
from matir_cli.photos.descriptive import REJECTED
from matir_cli.records import Note


def count_of(count: int, one: str, many: str | None = None) -> str:
    """Format a count with its noun: 1 photo, 1,000 photos.

    Args:
        one: the singular.
        many: the plural; None: the singular and an s.
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def readable_size(count: int) -> str:
    """Format `count` bytes in B, kB, MB or GB (powers of 1000), with about three digits."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def describe_absent(folder: AbsentFolder) -> str:
    """Describe a folder that is kept because none of its known files exists, or existed before."""
    if folder.others:
        missing = f"{folder.files:,} of the {folder.files + folder.others:,} files"
        verb = "is" if folder.files == 1 else "are"
        return f"{folder.path}: {missing} that the gallery knows there {verb} gone, and once all were"
    if folder.files == 1:
        return f"{folder.path}: the one file that the gallery knows there is gone"
    return f"{folder.path}: none of the {folder.files:,} files that the gallery knows there exists"


def list_some(names: Sequence[str], limit: int = 5) -> str:
    """Return the first names, and the number of others, as in "a.jpg, b.jpg and 3 more"."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def describe_notes(notes: Iterable[Note]) -> str:
    """Describe what could not be read of a photo's file, for people."""
    return "; ".join(note.text for note in notes)


def describe_rating(rating: int | None) -> str:
    """Return a rating, -1 to 5, for people."""
    return "rejected" if rating == REJECTED else str(rating) if rating else "-"


def describe_position(latitude: float | None, longitude: float | None) -> str:
    """Return a position in degrees, to about a metre; a dash if there is none."""
    return "-" if latitude is None or longitude is None else f"{latitude:.5f},{longitude:.5f}"
