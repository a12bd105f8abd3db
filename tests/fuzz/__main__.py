"""`make fuzz`: run the campaigns, two at a time, each in a process of its own.

    python -m tests.fuzz [--minutes M] [--seed N] [NAME ...]

No campaign begins after the time limit, and each gets the time that is left. The exit code is 1 if one of
them found something.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

LONGEST_FIRST = ("galleries", "kills", "processes", "parsers", "outputs", "photos", "gguf")
"""The campaigns in the order in which they begin, so that no long one is left over at the end."""

AT_ONCE = 2
"""Campaigns that run at a time."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaigns that `arguments` name, by default all; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Run the fuzz campaigns.")
    parser.add_argument("--minutes", type=float, default=20.0, help="time limit of all campaigns together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(LONGEST_FIRST)}")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in LONGEST_FIRST]
    if unknown:
        parser.error(f"no such campaign: {', '.join(unknown)}; choose from {', '.join(LONGEST_FIRST)}")
    end = time.monotonic() + options.minutes * 60

    def has_findings(name: str) -> bool:
        seconds = max(end - time.monotonic(), 0.0)
        command = [sys.executable, "-m", f"tests.fuzz.fuzz_{name}"]
        command += ["--seconds", f"{seconds:.0f}", "--seed", str(options.seed)]
        return subprocess.run(command, check=False).returncode != 0

    names = options.names or LONGEST_FIRST
    with ThreadPoolExecutor(AT_ONCE) as pool:
        failed = [name for name, found in zip(names, pool.map(has_findings, names), strict=True) if found]
    if failed:
        print(f"\nwith findings: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
