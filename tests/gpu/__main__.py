"""`make gpu-check`: run the checks on a CUDA GPU and print a table, line by line as they end.

    python -m tests.gpu [--device cuda|cpu] [--quick] [--minutes 8] [NAME ...]

Needs a CUDA GPU and no network: all weights are drawn or ship with the package. Without a GPU it says so and
exits with 0. `--device cpu --quick` runs the same code at small sizes. The exit code is 1 if a check failed.
A check that would begin after --minutes is not run.
"""

import argparse
import sys
import time
import traceback
import warnings
from collections.abc import Sequence

import torch

from tests.gpu.checks import CHECKS, NotRun


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks that `arguments` name, by default all; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description="Check MaTIR on a GPU.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes: a check of the checks")
    parser.add_argument(
        "--minutes", type=float, default=8, help="begin no check after this time (default: 8)"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CHECKS)}; default: all")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in CHECKS]
    if unknown:
        parser.error(f"no such check: {', '.join(unknown)}; choose from {', '.join(CHECKS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("This machine has no CUDA GPU that torch can use: 0 run")
        return 0
    # Upstream's predictor scripts its transforms, which newer torch warns of.
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {'small' if options.quick else 'full'} sizes\n")
    print(f"{'state':<7}  {'check':<10}  {'seconds':>7}  result", flush=True)
    started = time.monotonic()
    states: list[str] = []
    for check in options.names or CHECKS:
        if time.monotonic() - started >= 60 * options.minutes:
            _print_line("not run", check, 0.0, "no time left (--minutes)")
            continue
        states.append(_run(check, options.device, quick=options.quick))
    failed = states.count("failed")
    print(f"\n{len(states) - states.count('not run')} run, {failed} failed")
    return 1 if failed else 0


def _run(name: str, device: str, *, quick: bool) -> str:
    """Run one check and print its line; return its state."""
    begun = time.monotonic()
    try:
        result, state = CHECKS[name](device, quick), "ok"
    except NotRun as reason:
        result, state = str(reason), "not run"
    except Exception as error:
        if not isinstance(error, AssertionError):
            traceback.print_exc()
        result, state = f"{type(error).__name__}: {error}", "failed"
    _print_line(state, name, time.monotonic() - begun, result)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return state


def _print_line(state: str, name: str, seconds: float, result: str) -> None:
    print(f"{state:<7}  {name:<10}  {seconds:>7.1f}  {result}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
