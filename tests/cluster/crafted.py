"""Engines for workers in processes of their own: slow ones, and one that a picture kills."""

import os
import time
from dataclasses import dataclass

from matir_cli.indexing.pipeline import IndexingModels
from matir_cli.records import ImageArray, Region
from tests.support.fakes import ColourEncoder, ColourProposer, near

DEADLY = 0.5
"""Share of red in a picture from which on it ends the process."""


class FragileProposer(ColourProposer):
    """Ends the process when it sees a picture that is mostly red."""

    def propose(self, image: ImageArray) -> list[Region]:
        if near(image, "red").mean() > DEADLY:
            os._exit(1)
        return super().propose(image)


@dataclass
class SlowProposer(ColourProposer):
    """Takes its time, without using a core."""

    seconds: float
    seen: int = 0

    def propose(self, image: ImageArray) -> list[Region]:
        time.sleep(self.seconds)
        return super().propose(image)


def load_fragile() -> IndexingModels:
    """Load the engines that a red picture kills."""
    return IndexingModels(FragileProposer, ColourEncoder)


@dataclass(frozen=True)
class SlowModels:
    """Loader of engines that take `seconds` per photo."""

    seconds: float

    def __call__(self) -> IndexingModels:
        return IndexingModels(lambda: SlowProposer(self.seconds), ColourEncoder)
