"""The worker process that decodes strangers' files: reads requests, writes pixels.

It is started by `decoder_process`, which can end it at any time. It imports neither torch nor a database.

A request is one line of JSON: {"task": "working" | "full" | "preview" | "metadata", "path": ...,
"bytes": N}, and then N bytes, the preview. The answer is one line of JSON, and then the bytes that it
announces: the colour profile and the pixels, 3 bytes each. The first line, before any request, is `READY`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos.formats import FORBIDDEN_FORMATS, decode_reason
from matir_cli.photos.image_file import load_image, load_metadata, load_preview
from matir_cli.photos.worker_protocol import LONGEST_LINES, READY


def main() -> None:
    """Answer requests until standard input ends.

    Arguments: a descriptor that the parent's end closes, and the limit of the address space in bytes.
    """
    lifeline, memory = (int(argument) for argument in sys.argv[-2:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends this process
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    warnings.simplefilter("ignore")
    # What libraries print must not get between the answers.
    os.dup2(2, 1)
    _end_with_the_parent(lifeline)
    _limit_memory(memory)
    Image.init()
    for name in FORBIDDEN_FORMATS & set(Image.OPEN):  # some formats open others inside them
        del Image.OPEN[name]
        Image.ID.remove(name)
    answers.write(READY)
    answers.flush()
    while line := requests.readline():
        request = json.loads(line)
        payload = requests.read(request["bytes"])
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
        for part in _answer(request, payload):
            answers.write(part)
        answers.flush()


def _answer(request: dict[str, str], payload: bytes) -> Iterator[bytes]:
    """Yield the parts of the answer to a request.

    After an error behind the header the answer cannot be completed, and the process ends.
    """
    begun = False
    try:
        for part in _decoded(request["task"], Path(request["path"]), payload):
            begun = True
            yield part
    except Exception as error:  # decoders raise anything, also by assertions
        if begun:
            raise
        yield _header(reason=error.reason if isinstance(error, PhotoUnreadable) else decode_reason(error))


def _decoded(task: str, path: Path, payload: bytes) -> Iterator[bytes]:
    """Yield the header and the pixels of an image.

    Raises:
        PhotoUnreadable: the image cannot be decoded; decoders may raise anything else.
    """
    if task == "preview":
        preview = load_preview(payload)
        yield _header(width=preview.width, height=preview.height)
        yield preview.tobytes()
        return
    if task == "metadata":
        found = load_metadata(path)
        yield _header(rating=found.rating, keywords=found.keywords)
        return
    loaded = load_image(path, _native_lines, reduced=task == "working")
    width, height = loaded.upright_size
    if task == "full":
        content = loaded.kept_profile
        parts = loaded.rgb_bands()
        first = next(parts)
        yield _header(width=width, height=height, profile=len(content))
        yield content
        yield first
        yield from parts
        return
    working = loaded.working_rgb()
    metadata = loaded.metadata
    yield _header(
        width=working.width,
        height=working.height,
        record=(width, height, working.width, working.height, loaded.orientation),
        fields=(metadata.taken_at, metadata.camera, metadata.latitude, metadata.longitude),
        rating=metadata.rating,
        keywords=metadata.keywords,
        notes=[(note.kind, note.text) for note in loaded.notes],
    )
    yield working.tobytes()


def _header(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _native_lines() -> str:
    """Return what native libraries have written to standard error, a file, since the request came."""
    os.lseek(2, 0, os.SEEK_SET)
    lines = os.read(2, LONGEST_LINES)
    os.lseek(2, 0, os.SEEK_END)
    return lines.decode("utf-8", "replace")


def _limit_memory(most: int) -> None:
    """Limit the address space, where the system has such a limit that is not also one of other things."""
    if sys.platform == "linux":
        import resource

        # Native libraries may fill a disk with messages.
        for kind, least in ((resource.RLIMIT_AS, most), (resource.RLIMIT_FSIZE, 1 << 20)):
            _, hard = resource.getrlimit(kind)
            limit = least if hard == resource.RLIM_INFINITY else min(least, hard)
            resource.setrlimit(kind, (limit, limit))


def _end_with_the_parent(lifeline: int) -> None:
    """End the process as soon as the parent does, even in the middle of native code.

    Args:
        lifeline: descriptor of a pipe that only the parent's end closes. The system then sends SIGIO,
            whose default action ends the process.
    """
    if sys.platform == "linux":
        import fcntl

        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            os.read(lifeline, 1)
            sys.exit()  # the parent ended before the signal was asked for


if __name__ == "__main__":
    main()
