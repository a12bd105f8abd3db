"""Reading engine options, and the part of them that makes up an identity."""

import math

import pytest

from matir_cli.engines.options import EngineOptions, read_options
from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.errors import ModelSetInvalid


class Plain(EngineOptions, frozen=True):
    IDENTITY_OPTIONS = ("size", "name")

    size: int = 3
    name: str = "a"
    threads: int = 1


class Asking(Plain, frozen=True):
    METHOD = "Is it there?"


def test_options_are_read_with_defaults() -> None:
    assert read_options({"size": 5}, Plain, "here") == Plain(size=5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"sizes": 5}, "sizes"), ({"size": "large"}, r"\$\.size"), ({"name": 3}, r"\$\.name")],
)
def test_invalid_options_are_named_with_their_place(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ModelSetInvalid, match=reason) as raised:
        read_options(options, Plain, "here")
    assert raised.value.source == "here"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_passes_no_bounds(number: float) -> None:
    with pytest.raises(ModelSetInvalid, match="nms_threshold must be a finite number"):
        read_options({"nms_threshold": number}, Sam2Options, "sam2")
    with pytest.raises(ModelSetInvalid, match=r"architecture.d_model must be a finite number"):
        read_options({"architecture": {"d_model": number}}, Sam2Options, "sam2")


def test_defaults_and_speed_leave_no_trace_in_an_identity() -> None:
    assert Plain().identity() == Plain(size=3, threads=8).identity() == b""


def test_an_identity_tells_changed_results_apart() -> None:
    kinds = [Plain(), Plain(size=4), Plain(name="b"), Plain(size=4, name="b"), Asking(), Asking(size=4)]
    assert len({options.identity() for options in kinds}) == len(kinds)
    assert Asking().identity() == Asking(threads=8).identity() != b""
