"""`make bench`: run the benches one after the other, each in a process of its own.

    python -m tests.bench [--quick] [NAME ...]

A bench that fails does not keep the others from running; the exit code is then 1.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

NAMES = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benches that `arguments` name, by default all; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Run the benches.")
    parser.add_argument("--quick", action="store_true", help="smallest sizes: a check, not a measurement")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; default: all")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"no such bench: {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    failed = [name for name in options.names or NAMES if not _succeeds(name, quick=options.quick)]
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _succeeds(name: str, *, quick: bool) -> bool:
    """Run one bench below its title; return whether it exited with 0."""
    print(f"\n## {name}\n", flush=True)
    command = [sys.executable, "-m", f"tests.bench.bench_{name}", *(["--quick"] if quick else [])]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
