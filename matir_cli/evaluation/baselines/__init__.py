"""CLIP's baselines of the paper's tables."""
