"""Atomic writing of result files: under a temporary name first, then renamed.

Every module that writes a result uses this context manager, whatever the format:

    with atomic_write(path, force=force) as temporary:
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
"""Characters. A longer suffix names no format, and would make the temporary name too long for the system."""


@contextmanager
def atomic_write(path: Path, *, force: bool) -> Iterator[Path]:
    """Yield a temporary path for the block to write to, and rename it to `path` when the block ends.

    The temporary file is in the folder of `path`, which is created if necessary, and has the same suffix.
    If the block raises, it is deleted and an existing file at `path` is untouched. If `path` is a link, the
    link is kept and its target replaced. If it is a device or a pipe (`/dev/stdout`, the shell's `>(gzip)`),
    there is no file to replace, and the block gets `path` itself.

    Args:
        force: replace an existing file.

    Raises:
        OutputExists: there is a file at `path`, and `force` is False.
        OutputError: `path` cannot be written; every OSError in the block becomes one.
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
            _check(path, force)  # another process may have written it meanwhile
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except BrokenPipeError:
        raise  # the reader of a pipe has seen enough, which is no error of the output
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
