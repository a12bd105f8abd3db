"""Batches on the cores of a CPU, one each."""

import threading
from collections.abc import Iterator

import pytest
import torch

from matir_cli.engines.cores import run_on_cores


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_batches() -> None:
    both = threading.Barrier(2, timeout=60)

    def work(number: int) -> tuple[int, int, bool]:
        if number < 2:
            both.wait()  # until another thread computes a batch, too
        return number, torch.get_num_threads(), torch.is_inference_mode_enabled()

    assert run_on_cores(range(9), work) == [(number, 1, True) for number in range(9)]
    assert torch.get_num_threads() == 2


def test_an_error_ends_the_other_batches() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        raise ValueError(f"batch {number}")

    with pytest.raises(ValueError, match=r"batch [01]"):
        run_on_cores(range(1000), work)
    assert len(begun) <= 2
    assert torch.get_num_threads() == 2


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    batches = torch.randn(4, 64, 300)
    weight = torch.randn(300, 500)

    def work(batch: torch.Tensor) -> torch.Tensor:
        return (batch @ weight).softmax(dim=1)

    side_by_side = run_on_cores(list(batches), work)
    torch.set_num_threads(1)
    for ours, alone in zip(side_by_side, run_on_cores(list(batches), work), strict=True):
        assert torch.equal(ours, alone)


def test_a_single_batch_has_all_threads() -> None:
    assert run_on_cores([0], lambda _: torch.get_num_threads()) == [2]
