"""`matir sync --watch`: keep a gallery up to date while its folders change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matir_cli.errors import PackageMissing, PhotoInaccessible
from matir_cli.gallery.paths import is_gone
from matir_cli.photos.excludes import IGNORE_FILE

if TYPE_CHECKING:
    from watchfiles import Change

QUIET = 500
"""Milliseconds without a change after which a group of changes ends: a file being copied is read once."""

LONGEST_GROUP = 10_000
"""Milliseconds after which a group ends in any case."""


def changed_roots(roots: Sequence[Path], gallery: Path) -> Iterator[list[Path]]:
    """Yield at once all folders, and then, whenever files change, those in which they do; for ever.

    Changes that happen while the caller works on a group are in the next one.

    Args:
        roots: as returned by `folder_roots`.
        gallery: its file and those that SQLite keeps beside it do not count.

    Raises:
        PackageMissing: `watchfiles` is not installed.
        PhotoInaccessible: a folder cannot be watched.
        KeyboardInterrupt: a signal arrived.
    """
    try:
        from watchfiles import watch
    except ImportError as error:
        raise PackageMissing("watch") from error

    def counts(_change: Change, path: str) -> bool:
        name = Path(path).name
        return not name.startswith(gallery.name) and (not name.startswith(".") or name == IGNORE_FILE)

    present = [root for root in roots if not is_gone(root)]
    groups = watch(
        *present,
        watch_filter=counts,
        debounce=LONGEST_GROUP,
        step=QUIET,
        rust_timeout=QUIET,
        yield_on_timeout=True,
    )
    first = True
    try:
        for changes in groups:
            paths = [Path(path) for _, path in changes]
            if first:  # watching has begun: nothing is missed from here on
                yield [*roots]
            elif met := [root for root in roots if any(path.is_relative_to(root) for path in paths)]:
                yield met
            first = False
    except OSError as error:
        raise PhotoInaccessible(present[0], f"cannot be watched: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
