"""The worlds that a model set can be tried in, by the name in its TOML."""

from matir_cli.model_sets.catalogue import TrialWorldName
from matir_cli.model_sets.trial.drawn_world import DRAWN_WORLD
from matir_cli.model_sets.trial.pictures import TrialWorld
from matir_cli.model_sets.trial.shapes import SHAPES

WORLDS: dict[TrialWorldName, TrialWorld] = {"shapes": SHAPES, "drawn_world": DRAWN_WORLD}
"""Worlds by name: `shapes` for models of photographs, `drawn_world` for models of the tiny set's pictures."""
