"""Bench of `matir add` on image files that were made to take much time or memory.

    python -m tests.bench.bench_hostile [--quick]

Each file is added by a process of its own with the tiny models. Seconds are those of the whole command, its
start included. Memory is the largest resident size of the process that decodes, and of the command itself;
it is read from /proc, hence on Linux only.
"""

import gzip
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from struct import pack

from PIL import Image

from tests.bench.measuring import BenchParser, print_columns, print_heading, print_row
from tests.photos.crafted import chunk, encoded, many_scans, striped_tiff

BETWEEN_LOOKS = 0.02
"""Seconds between two looks at the memory of the processes."""


@dataclass
class Cost:
    """What a command has taken."""

    seconds: float
    said: str
    """What it said about the file."""
    memory: int = 0
    """Largest resident size of the command, bytes."""
    decoding: int = 0
    """Largest resident size of the process that decodes, bytes."""


def flat_png(side: int) -> bytes:
    """A PNG of one colour with alpha."""
    packed, row = zlib.compressobj(), b"\0" + bytes(4 * side)
    data = b"".join(packed.compress(row) for _ in range(side)) + packed.flush()
    head = pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def flat_gif(side: int) -> bytes:
    """A GIF that ends after its first code."""
    head = b"GIF89a" + pack("<HH", side, side) + b"\x80\0\0" + bytes(6)
    return head + b"," + pack("<HHHH", 0, 0, side, side) + b"\0\2\2\x44\1\0;"


def packed_fits(side: int) -> bytes:
    """A FITS table whose image is packed by gzip."""
    image = {"XTENSION": "'BINTABLE'", "ZIMAGE": "T", "ZCMPTYPE": "'GZIP_1  '", "ZBITPIX": "8"}
    sizes = {"NAXIS": "2", "NAXIS1": f"{side}", "NAXIS2": f"{side}", "ZNAXIS1": f"{side}"}
    cards = {"SIMPLE": "T", **image, **sizes, "ZNAXIS2": f"{side}"}
    head = b"".join(f"{name:<8}= {value:>20}".ljust(80).encode() for name, value in cards.items())
    return (head + b"END".ljust(80)).ljust(2880) + gzip.compress(bytes(side * side))


def hostile_files(quick: bool) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """Yield a description, a name and the maker of the content of each file."""
    side, scans, rows = (500, 20, 1000) if quick else (20_000, 3000, 4_000_000)
    large, huge = ((120, 90), (120, 90)) if quick else ((2000, 1500), (10_000, 8_000))
    webp, fewer = (300 if quick else 12_600), min(scans, 480)

    def flat(kind: str, side: int, mode: str) -> bytes:
        return encoded(Image.new(mode, (side, side)), kind, lossless=True, quality=0, method=0)

    def progressive(size: tuple[int, int], scans: int) -> bytes:
        return many_scans(Image.new("RGB", size, "red"), scans)

    yield f"TIFF, {rows:,} strips", "strips.tif", lambda: striped_tiff(rows)
    yield f"progressive JPEG, {scans:,} scans", "scans.jpg", lambda: progressive(large, scans)
    yield f"progressive JPEG, {fewer} scans", "fewer.jpg", lambda: progressive(large, fewer)
    yield f"the same, {huge[0]:,} x {huge[1]:,}", "huge.jpg", lambda: progressive(huge, fewer)
    most = min(side, 16_383)
    yield f"lossless WebP, {most:,} x {most:,}", "most.webp", lambda: flat("WEBP", most, "RGB")
    yield f"lossless WebP, {webp:,} x {webp:,}", "webp.webp", lambda: flat("WEBP", webp, "RGB")
    yield "the same with alpha", "alpha.webp", lambda: flat("WEBP", webp, "RGBA")
    yield f"RGBA PNG of one colour, {side:,} x {side:,}", "flat.png", lambda: flat_png(side)
    yield f"GIF, {side:,} x {side:,}", "flat.gif", lambda: flat_gif(side)
    packed = 100 if quick else 40_000
    yield f"FITS, packed, {packed:,} x {packed:,}", "packed.fits", lambda: packed_fits(packed)
    yield "the same, named .jpg", "fits.jpg", lambda: packed_fits(packed)


def add(path: Path) -> Cost:
    """Run `matir add` on a file with a new gallery."""
    gallery = path.with_suffix(".db")
    words = ["add", str(path), "--db", str(gallery), "--models", "tiny"]
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "matir_cli", *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    memory = decoding = 0
    while process.poll() is None:
        memory = max(memory, largest_size(process.pid))
        decoding = max([decoding, *map(largest_size, children(process.pid))])
        time.sleep(BETWEEN_LOOKS)
    seconds = time.perf_counter() - started
    _, errors = process.communicate()
    lines = errors.decode().replace(f" {path}", "").splitlines()
    said = next((line for line in lines if line.startswith(("skipped", "incomplete"))), lines[-1])
    return Cost(seconds, said.removeprefix("matir: "), memory, decoding)


def children(pid: int) -> list[int]:
    """Ids of the processes that the threads of a process have started."""
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except OSError:
        pass  # it has ended
    return found


def largest_size(pid: int) -> int:
    """The largest resident size of a process so far, bytes; 0 if it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = BenchParser(__doc__, arguments)
    parser.options()
    print_heading("crafted files", "no: made to take as much time and memory as they can")
    print_columns("file", "size", "seconds", "memory of the decoder", "memory of `matir add`", "outcome")
    with tempfile.TemporaryDirectory() as folder:
        for description, name, make in islice(hostile_files(parser.quick), 2 if parser.quick else None):
            path = Path(folder) / name
            path.write_bytes(make())
            cost = add(path)
            sizes = (f"{size / 1e6:,.0f} MB" for size in (cost.decoding, cost.memory))
            print_row(description, f"{path.stat().st_size:,} B", f"{cost.seconds:.1f}", *sizes, cost.said)
            path.unlink()


if __name__ == "__main__":
    main()
