"""The training loop of the three models: device, schedule, checkpoints, log.

A training consists of a `torch.nn.Module`, a function that computes the loss of a step, and a function
that reports figures on validation seeds. The number of a step determines its pictures, so a resumed
training sees the same pictures as an uninterrupted one.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from matir_cli.models.tiny.world import SPLITS, Picture, picture

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate of one training stage."""

    name: str
    """Also the name of the checkpoint file."""
    steps: int
    rate: float
    """Peak learning rate; after a linear warm-up it falls as a cosine to a hundredth of it."""
    warm_up: int = 200
    """Steps of the warm-up."""
    report_every: int = 500
    """Steps between two reports, each with a checkpoint."""
    weight_decay: float = 0.02

    def scaled(self, factor: float) -> "Schedule":
        """The same stage with `factor` times the steps."""
        steps = max(1, round(self.steps * factor))
        return Schedule(
            self.name,
            steps,
            self.rate,
            min(self.warm_up, steps // 4 + 1),
            self.report_every,
            self.weight_decay,
        )

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def best_device() -> torch.device:
    """CUDA if present, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """Compute in bfloat16 on CUDA only: on a CPU, casts cost such small layers more than they save."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def pictures(first: int, count: int, split: str = "train") -> Iterator[Picture]:
    """`count` pictures of a split, beginning with number `first`."""
    start = SPLITS[split].start
    return (picture(seed) for seed in range(start + first, start + first + count))


def train(
    model: nn.Module,
    schedule: Schedule,
    loss_of: Callable[[int], Tensor],
    report: Callable[[], str],
    folder: Path,
) -> None:
    """Run the stage to its end, from its checkpoint in `folder` if there is one.

    Args:
        loss_of: maps a step's number to its loss, a scalar tensor with a graph.
        report: returns one line of figures on validation pictures.
    """
    path = folder / f"{schedule.name}.checkpoint"
    optimiser = torch.optim.AdamW(
        _parameter_groups(model, schedule.weight_decay), lr=schedule.rate, betas=(0.9, 0.98)
    )
    first = 0
    if path.exists():
        state = torch.load(path, weights_only=True, map_location="cpu")
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first = int(state["step"])
    started, mean = time.monotonic(), 0.0
    for step in range(first, schedule.steps):
        torch.manual_seed(step)
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate_at(step)
        model.train()
        loss = loss_of(step)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        mean += (float(loss.detach()) - mean) / min(step - first + 1, 100)
        if (step + 1) % schedule.report_every == 0 or step + 1 == schedule.steps:
            model.eval()
            with torch.no_grad():
                figures = report()
            pace = (time.monotonic() - started) / (step + 1 - first)
            log.info(
                "%s %d/%d %.2f s/step loss %.4f %s",
                schedule.name,
                step + 1,
                schedule.steps,
                pace,
                mean,
                figures,
            )
            _save(path, {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1})


def _parameter_groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    """Parameters with weight decay (matrices) and without (biases, norms and single vectors)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def _save(path: Path, state: dict[str, object]) -> None:
    """Write a checkpoint beside `path` and rename it: an interrupted write keeps the previous one."""
    partial = path.with_suffix(".part")
    torch.save(state, partial)
    partial.replace(path)
