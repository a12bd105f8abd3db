"""Names of methods, ablations and baselines; imports nothing heavy, for a quick `--help`."""

from typing import Literal, get_args

Ablation = Literal[
    "prompts",
    "transform",
    "whole-photo",
    "candidates",
    "keep",
    "pixels",
    "ground-pixels",
    "grounding",
    "match",
    "fusion",
]

ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)

STAGE_1_ABLATIONS: tuple[Ablation, ...] = ("prompts", "transform", "whole-photo")
"""Ablations that change stage 1, so that they need no judge."""

JUDGE_ABLATIONS: tuple[Ablation, ...] = ("pixels", "ground-pixels", "grounding")
"""Ablations that change the judge, so that each setting asks it all questions anew."""

MethodName = Literal["parts", "early"]

METHOD_NAMES: tuple[MethodName, ...] = get_args(MethodName)
"""Methods that are compared with the paper's, as options name them."""

BASELINE_NAMES = ("whole", "dense", "cluster", "cropping")
"""Baselines as options name them, in the order of `baselines.clip.BASELINES`."""
