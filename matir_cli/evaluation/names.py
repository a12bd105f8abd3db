"""What can be chosen, by name; imports nothing, since the command line needs it to start."""

from typing import Literal, get_args

Ablation = Literal["prompts", "transform", "whole-photo", "candidates", "keep", "pixels", "fusion"]

ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)

STAGE_1_ABLATIONS: tuple[Ablation, ...] = ("prompts", "transform", "whole-photo")
"""Those that change something without a judge."""

BASELINE_NAMES = ("whole", "dense", "cluster", "cropping")
"""In the order of `baselines.BASELINES`."""
