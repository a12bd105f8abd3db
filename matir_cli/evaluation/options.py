"""Options of an evaluation, the same for every data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matir_cli.evaluation.names import BASELINE_NAMES, METHOD_NAMES, Ablation, MethodName
from matir_cli.search.pipeline import CANDIDATES, KEEP


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What to evaluate, and which files to write or read in addition to the report."""

    device: str = "auto"
    """Device that the models run on: "auto", "cuda", "mps" or "cpu"."""
    limit_images: int | None = None
    """Use only the first so many images; None for all."""
    limit_queries: int | None = None
    """Use only so many queries, spread over the list; None for all."""
    baselines: tuple[str, ...] = BASELINE_NAMES
    """Some of `BASELINE_NAMES`, in their order."""
    methods: tuple[MethodName, ...] = METHOD_NAMES
    """Methods to compare with the paper's: some of `METHOD_NAMES`, in their order."""
    rerank: bool = True
    """False: stage 1 only."""
    candidates: int = CANDIDATES
    """N_C: photos per query that the judge reranks."""
    keep: int = KEEP
    """N_K: photos per query left after reranking."""
    refine: bool = False
    """Add a row with masks as `find --refine` makes them."""
    ablations: tuple[Ablation, ...] = ()
    export_ranking: Path | None = None
    """File for the ranked images, as JSON lines."""
    export_masks: Path | None = None
    """File for the masks in all ranked images, as COCO results."""
    import_masks: tuple[tuple[str, Path], ...] = ()
    """Other segmenters' names and their masks, as COCO results."""
    force: bool = False
    """Replace exported files that exist."""
