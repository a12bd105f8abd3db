"""Evaluation of one model set on one indexed data set.

From the gallery to the figures of the tables:

    baselines -> stage 1 -> stage 2, photo by photo -> rankings and masks -> average precision

Every expensive result is stored as soon as it is known (vectors and the judge's answers in the
gallery, baselines' scores beside it), so that a run that was stopped, or one with another option,
computes only what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from matir_cli.evaluation.ablations import AblationRunner, Variant, candidates_needed, other_judges
from matir_cli.evaluation.baselines.clip import BASELINES, Baseline
from matir_cli.evaluation.baselines.retrieval import BaselinePlan, run_baselines
from matir_cli.evaluation.coverage import Coverage, measure_coverage
from matir_cli.evaluation.methods import (
    EARLY,
    WITH_PARTS,
    EncodeQuery,
    EvaluationSetup,
    JudgeSessions,
    Method,
    PredictedMasks,
    ask_judge,
    fusion_weights,
    object_directions,
    query_encoder,
    run_stage_1,
    run_stage_1_with_parts,
)
from matir_cli.evaluation.names import JUDGE_ABLATIONS, Ablation, MethodName
from matir_cli.evaluation.other_segmenters import ImportedMasks
from matir_cli.evaluation.reporting.comparison import Comparison, comparison_tables
from matir_cli.evaluation.reporting.tables import AblationTable, Table, paper_tables
from matir_cli.evaluation.scoring import Scorer
from matir_cli.gallery.score_store import ScoreStore
from matir_cli.model_sets.catalogue import ModelSet
from matir_cli.model_sets.session import ModelSession
from matir_cli.model_sets.weights import locate_files
from matir_cli.progress import ProgressObserver
from matir_cli.records import FloatArray, Rle
from matir_cli.search.early_stopping import CERTAINTY
from matir_cli.search.encoding import match_directions
from matir_cli.search.pipeline import CANDIDATES, KEEP, open_judge_session
from matir_cli.search.rerank import JudgeSession


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What an evaluation runs."""

    candidates: int = CANDIDATES
    """N_C: photos per query that the judge reranks."""
    keep: int = KEEP
    """N_K: photos per query left after reranking."""
    judge: bool = True
    """False: stage 1 only."""
    refine: bool = False
    """Add a row with masks from the proposer where no stored region fits the judge's box."""
    methods: tuple[MethodName, ...] = ()
    """Methods to compare with the paper's."""
    baselines: tuple[Baseline, ...] = BASELINES
    clips: tuple[ModelSet, ...] = ()
    """Further model sets whose encoders the baselines run with."""
    ablations: tuple[Ablation, ...] = ()
    imported: tuple[ImportedMasks, ...] = ()
    """Masks of other segmenters to score on the method's ranking."""
    all_masks: bool = False
    """Predict a mask in every ranked image, not only in relevant ones: for export."""


@dataclass(frozen=True, slots=True)
class EvaluationOutcome:
    """Results of an evaluation."""

    tables: tuple[Table, ...]
    ablations: tuple[AblationTable, ...]
    coverage: Coverage
    groundings: Mapping[str, int]
    """How the judge's boxes became masks in relevant images: counts, by the words of `search.results`."""
    truncated_queries: int
    """Number of queries whose ends the encoder did not read."""
    rankings: Mapping[int, Sequence[int]]
    """Query id to image ids, best first: in the judge's order, or in stage 1's where there is no judge."""
    unanswered: tuple[str, ...]
    """Names of the images about which the judge was asked and could not answer."""
    masks: Mapping[int, PredictedMasks]
    """By query id, the masks predicted in the ranked images."""
    comparison: Comparison = field(default_factory=Comparison)
    """The paper's method and others; empty where no other was asked for."""


def run_evaluation(
    setup: EvaluationSetup,
    models: ModelSession,
    plan: EvaluationPlan,
    objects: Mapping[int, Sequence[Rle]],
    folder: Path,
    progress: ProgressObserver,
) -> EvaluationOutcome:
    """Run the plan on the data set of `setup`.

    Args:
        objects: image id to the annotated objects that the proposer should have found.
        folder: where baselines' scores and the galleries of ablations are stored.

    Raises:
        MatirError: from the models, the gallery or the files.
    """
    coverage = measure_coverage(setup, objects, progress)
    encoders = [models.config("encoder"), *(locate_files(each, "encoder") for each in plan.clips)]
    baseline_plan = BaselinePlan(plan.baselines, encoders, models.config("proposer"), models.device)
    with ScoreStore.open(folder / "scores.db") as store:
        baselines = run_baselines(setup, baseline_plan, store, progress)
    encode = query_encoder(setup.gallery, models)
    sessions = open_judge_sessions(setup, models, encode) if plan.judge else None
    depth = candidates_needed(plan.candidates, plan.ablations)
    stage_1 = run_stage_1(setup, setup.gallery, models.text_encoder, depth, progress)
    base = Method(stage_1, sessions, plan.candidates, plan.keep)
    others = list(_other_methods(setup, models, encode, plan, base, depth, progress))
    runner = AblationRunner(setup, models.config("encoder"), folder / "ablations", models.device, progress)
    variants = [each for name in plan.ablations for each in runner.variants(name, base)]
    if sessions is not None:
        methods = [base, *others, *(each.method for each in variants)]
        ask_judge(setup, sessions, methods, progress, everywhere=plan.all_masks)
        models.release_judge()
    scorer = Scorer(setup, base, progress, all_masks=plan.all_masks)
    measurements = replace(
        scorer.measure(plan.imported, models if plan.refine else None), baselines=baselines
    )
    groundings = dict(scorer.box_masks.outcomes)
    comparison = scorer.compare(measurements, others) if others else Comparison()
    for name in plan.ablations:
        if name in JUDGE_ABLATIONS:
            variants += _run_other_judges(setup, models, encode, base, name, progress)
    return EvaluationOutcome(
        (*paper_tables(measurements), *comparison_tables(comparison)),
        tuple(scorer.ablation_tables(runner, measurements, variants)),
        coverage,
        groundings,
        stage_1.truncated,
        scorer.rankings,
        _unanswered(setup, sessions or {}),
        scorer.masks,
        comparison,
    )


def _other_methods(
    setup: EvaluationSetup,
    models: ModelSession,
    encode: EncodeQuery,
    plan: EvaluationPlan,
    base: Method,
    depth: int,
    progress: ProgressObserver,
) -> Iterator[Method]:
    """Run stage 1 of the methods to compare with the base, which share its judge."""
    if not plan.methods:
        return
    stage_1 = run_stage_1_with_parts(setup, encode, depth, progress)
    with_parts = replace(
        base,
        stage_1=stage_1,
        directions=object_directions(setup, encode) if models.match == "joint" else None,
        fusion=fusion_weights(setup, encode, models) if models.fusion else 0.0,
        name=WITH_PARTS,
    )
    if "parts" in plan.methods:
        yield with_parts
    if "early" in plan.methods and base.sessions is not None:
        yield replace(with_parts, name=EARLY, certainty=CERTAINTY)


def open_judge_sessions(setup: EvaluationSetup, models: ModelSession, encode: EncodeQuery) -> JudgeSessions:
    """Open a session of the judge of `models` for each query; loads nothing yet.

    Args:
        encode: of `query_encoder`.
    """

    def open_session(text: str) -> JudgeSession:
        session = open_judge_session(setup.gallery, models, text)

        def directions() -> FloatArray:
            return match_directions(setup.gallery, encode(text))

        return replace(session, directions=cache(directions))

    return {query.text: open_session(query.text) for query in setup.queries}


def _unanswered(setup: EvaluationSetup, sessions: JudgeSessions) -> tuple[str, ...]:
    """Return the names of the images about which the judge could not answer, sorted."""
    failed = {photo_id for session in sessions.values() for photo_id in session.failed}
    return tuple(sorted(str(setup.gallery.photo(photo_id).paths[0].name) for photo_id in failed))


def _run_other_judges(
    setup: EvaluationSetup,
    models: ModelSession,
    encode: EncodeQuery,
    base: Method,
    ablation: Ablation,
    progress: ProgressObserver,
) -> Iterator[Variant]:
    """An ablation of the judge: every setting is another judge, which is asked and freed before the next."""
    for setting, changed in other_judges(models.models, ablation):
        changed_models = ModelSession(setup.gallery, changed, models.device)
        sessions = open_judge_sessions(setup, changed_models, encode)
        method = replace(base, sessions=sessions)
        ask_judge(setup, sessions, [method], progress)
        changed_models.release_judge()
        yield Variant(ablation, setting, method)
