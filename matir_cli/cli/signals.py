"""Signals that end the program: Ctrl-C, SIGTERM and SIGHUP.

While modules are imported and once the result is known, a signal ends the process at once, without a word
and with 128 + its number as exit code: nothing is lost then. While a command runs, it is raised as an
exception, so that files and transactions are closed: `KeyboardInterrupt` or `Terminated`. A signal that the
caller has set to be ignored, as `nohup` does, stays ignored.

This module imports nothing that takes time, since it is loaded before anything else.
"""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Those of them that the system has."""

AGAIN_AFTER = 0.002
"""Seconds after which a signal that was lost in a destructor is raised again."""

_received: list[int] = []
"""Numbers of the signals that were raised as exceptions."""


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived; like `KeyboardInterrupt`, this is not an `Exception`."""


def end_at_once() -> None:
    """From now on, let a signal end the process."""
    _handle_with(_exit)


def raise_in_command() -> None:
    """From now on, raise a signal as an exception in the main thread."""
    if hasattr(signal, "setitimer"):
        sys.unraisablehook = _raise_again
    _handle_with(_raise)


def exit_code() -> int | None:
    """Return 128 + the number of the first signal that was raised, None if there was none."""
    return 128 + _received[0] if _received else None


def _handle_with(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            signal.signal(number, handler)


def _exit(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)


def _raise(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated


def _raise_again(lost: "sys.UnraisableHookArgs") -> None:
    """Raise a signal again that arrived in a destructor or callback, from which no exception gets out.

    That happens a moment later: raised from here, it would be lost again.
    """
    if isinstance(lost.exc_value, KeyboardInterrupt | Terminated) and _received:
        signal.signal(signal.SIGALRM, lambda _, frame: _raise(_received[0], frame))
        signal.setitimer(signal.ITIMER_REAL, AGAIN_AFTER)
    else:
        sys.__unraisablehook__(lost)
