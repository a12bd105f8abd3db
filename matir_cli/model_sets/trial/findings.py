"""Findings of a trial: what a working part gives, what was seen, and the likely reason of a failure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from matir_cli.errors import MatirError


class TrialState(Enum):
    """Outcome of a check."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """There is nothing to compare with."""


@dataclass(frozen=True, slots=True)
class TrialFinding:
    """The outcome of one check of one part."""

    part: str
    """One of `catalogue.PARTS`."""
    name: str
    """Subject of the check, such as "colours"."""
    state: TrialState
    seen: str = ""
    """What was measured, in words."""
    expected: str = ""
    """What a working part gives, in words."""
    figures: tuple[float, ...] = ()
    """What was measured: one number, or the reference figures of the part."""
    reason: str = ""
    """Likely reason of a failure; "" for other states."""
    fault: MatirError | None = None
    """Error that ended the trial of the part; its message and remedy are what was seen."""

    @property
    def failed(self) -> bool:
        """True if the part does not work."""
        return self.state is TrialState.FAILED


def check_share(part: str, name: str, seen: float, least: float, unit: str) -> TrialFinding:
    """Compare a share or a mean IoU, 0..1, with the least that a working part gives; NaN fails."""
    state = TrialState.OK if seen >= least else TrialState.FAILED
    return TrialFinding(part, name, state, f"{seen:.0%} {unit}", f"at least {least:.0%}", (seen,))


def check_reference(
    part: str, measured: Sequence[float], recorded: Sequence[float], tolerance: float
) -> TrialFinding:
    """Compare figures with those recorded in the model set when it was known to work.

    Args:
        part: one of `catalogue.PARTS`.
        measured: the figures of this trial.
        recorded: the figures in the model set; empty if there are none.
        tolerance: the root mean square of the differences at most.
    """
    name, figures = "reference figures", tuple(measured)
    if not recorded:
        return TrialFinding(
            part,
            name,
            TrialState.UNKNOWN,
            "none are recorded in the set, so small deviations do not show",
            figures=figures,
        )
    difference = rms_difference(measured, recorded)
    state = TrialState.OK if difference <= tolerance else TrialState.FAILED
    return TrialFinding(
        part, name, state, f"they differ by {difference:.4f}", f"at most {tolerance:g}", figures
    )


def rms_difference(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the root mean square of the differences; infinite if the lengths differ or one is not finite."""
    if len(left) != len(right):
        return float("inf")
    difference = float(np.sqrt(np.mean(np.square(np.subtract(left, right)))))
    return difference if np.isfinite(difference) else float("inf")


def nearer(left: Sequence[float], right: Sequence[float], recorded: Sequence[float]) -> bool:
    """Return True if `left` differs less from the recorded figures than `right`, or if there are none.

    To exchange channels twice does not restore the figures: each channel has a normalisation of its own.
    """
    return not recorded or rms_difference(left, recorded) < rms_difference(right, recorded)


def with_reason(findings: Sequence[TrialFinding], reason: str) -> list[TrialFinding]:
    """Give the failed findings of a part their likely reason."""
    return [replace(finding, reason=reason) if finding.failed else finding for finding in findings]


def one_of(*reasons: str) -> str:
    """Format reasons that the checks cannot tell apart."""
    return f"one of: {'; '.join(reasons)}"
