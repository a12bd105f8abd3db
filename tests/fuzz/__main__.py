"""`make fuzz`: run the campaigns one after the other, each in a process of its own.

    python -m tests.fuzz [--minutes M] [--seed N] [NAME ...]

The time is shared out equally; what a campaign leaves over goes to those after it. The exit code is 1 if
one of them found something.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

NAMES = sorted(path.stem.removeprefix("fuzz_") for path in Path(__file__).parent.glob("fuzz_*.py"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaigns that `arguments` name, by default all; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Run the fuzz campaigns.")
    parser.add_argument("--minutes", type=float, default=20.0, help="time limit of all campaigns together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; default: all")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"no such campaign: {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    names = options.names or NAMES
    end = time.monotonic() + options.minutes * 60
    failed = []
    for position, name in enumerate(names):
        seconds = max((end - time.monotonic()) / (len(names) - position), 0.0)
        command = [sys.executable, "-m", f"tests.fuzz.fuzz_{name}"]
        command += ["--seconds", f"{seconds:.0f}", "--seed", str(options.seed)]
        if subprocess.run(command, check=False).returncode != 0:
            failed.append(name)
    if failed:
        print(f"\nwith findings: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
