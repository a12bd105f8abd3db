"""Engines for workers in processes of their own, one of which a picture kills."""

import os

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


def load_fragile() -> IndexingModels:
    """Load the engines that a red picture kills."""
    return IndexingModels(FragileProposer, ColourEncoder)
