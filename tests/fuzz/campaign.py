"""One campaign of `make fuzz`: numbered, seeded trials up to a count or a time limit."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

Trial = Callable[[random.Random, Path], str | None]
"""Test one random input in an empty folder; return what went wrong, None if nothing."""


def run_campaign(name: str, trial: Trial, *, count: int, arguments: Sequence[str] | None = None) -> int:
    """Run trials until `count` or the time limit is reached, and print findings and a summary.

    Each trial draws from a generator of its own, seeded with campaign, seed and trial number: a finding is
    repeated by `--seed S --only N`.

    Args:
        count: number of trials of the full campaign.

    Returns:
        The exit code: 1 if there were findings, else 0.
    """
    parser = argparse.ArgumentParser(prog=f"python -m tests.fuzz.fuzz_{name}")
    parser.add_argument("--seconds", type=float, default=300.0, help="time limit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=count, help="number of trials")
    parser.add_argument("--only", type=int, help="run just the trial with this number")
    options = parser.parse_args(arguments)
    numbers = range(options.count) if options.only is None else [options.only]
    start = time.monotonic()
    done = findings = 0
    for number in numbers:
        if time.monotonic() - start > options.seconds:
            break
        finding = run_trial(trial, f"{name}-{options.seed}-{number}")
        done += 1
        if finding is not None:
            findings += 1
            print(f"{name} --seed {options.seed} --only {number}: {finding}", flush=True)
    seconds = time.monotonic() - start
    print(f"{name}: {done:,} of {len(numbers):,} inputs, {findings} findings, {seconds:.0f} s", flush=True)
    return 1 if findings else 0


def run_trial(trial: Trial, seed: str) -> str | None:
    """Run one trial in a temporary folder; an exception that it lets through is a finding."""
    with tempfile.TemporaryDirectory(prefix="matir-fuzz-") as folder:
        try:
            return trial(random.Random(seed), Path(folder))
        except Exception:
            return traceback.format_exc()


def main_of(name: str, trial: Trial, *, count: int) -> None:
    """Run the campaign as a program."""
    sys.exit(run_campaign(name, trial, count=count))
