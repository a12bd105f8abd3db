"""Files written for a user: under a temporary name first, and never over one that is to be kept.

Every module that writes a result uses this one context manager, whatever the format:

    with replacing(path, force=force) as temporary:
        picture.save(temporary, "PNG")
"""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matir_cli.errors import OutputError, OutputExists

_LONGEST_SUFFIX = 16
"""Characters; a longer one means no format, and the temporary name must fit where the final one does."""


@contextmanager
def atomic_write(path: Path, *, force: bool) -> Iterator[Path]:
    """A temporary name for the block to write to; when the block ends well it becomes `path`.

    It lies in the folder of `path`, which is made if need be, and ends in the same suffix. When
    the block raises, it is deleted and whatever lay at `path` is untouched. A link is kept and
    what it leads to replaced. A device or a pipe (`/dev/stdout`, the shell's `>(gzip)`) is no
    file to replace: then `path` itself is what the block gets.

    Args:
        force: replace a file that exists.

    Raises:
        OutputExists: there is a file at `path`, and not `force`.
        OutputError: it cannot be written; any OSError of the block becomes one.
    """
    try:
        if _is_stream(path):
            yield path
            return
        _check(path, force)
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        suffix = target.suffix if len(target.suffix) <= _LONGEST_SUFFIX else ""
        temporary = target.with_name(f".matir-{os.getpid()}-{secrets.token_hex(4)}{suffix}")
        try:
            yield temporary
            _check(path, force)  # somebody else may have written it meanwhile
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except BrokenPipeError:
        raise  # whoever read it has enough: no error
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error


def _check(path: Path, force: bool) -> None:
    if path.is_dir():
        raise OutputError(path, "it is a folder")
    if not force and os.path.lexists(path):
        raise OutputExists(path)


def _is_stream(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
