"""The `[encoder.options]` of a model set with region tokens, shared by its region and text encoders."""

from typing import Annotated

import msgspec

from matir_cli.engines.clip.options import Prompt, TowerOptions


class RegionTokensOptions(TowerOptions, frozen=True):
    """Options of region tokens, for CLIP and for SigLIP 2."""

    IDENTITY_OPTIONS = ("crops", "global_patch_threshold", "heads")
    """Options that change the vectors in a gallery; the others concern queries, rounding or speed."""
    METHOD = "TextRegion: values of the photo and its crops, pooled by mask"

    crops: Annotated[int, msgspec.Meta(ge=0, le=8)] = 2
    """Crops along the photo's short side, each encoded at the tower's full resolution beside the whole photo;
    along the long side there are as many as fit, at most three times this. 0: the whole photo alone."""
    global_patch_threshold: Annotated[float, msgspec.Meta(ge=-3, le=3)] = 0.07
    """Patches are left out whose mean similarity to their own regions exceeds that to the other regions by
    less than this: they hold global information. -3 keeps all."""
    prompts: Annotated[tuple[Prompt, ...], msgspec.Meta(min_length=1, max_length=1000)] | None = None
    """Sentences into which a query is inserted; if None, those of the paper for CLIP, and the query as it is
    for SigLIP 2, which reads many languages."""
