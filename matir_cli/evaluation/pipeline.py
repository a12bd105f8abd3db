"""`matir eval`: prepare a data set, index its images, evaluate, report.

    prepare_evaluation -> index_dataset -> evaluate_dataset -> reporting.reports.write_report

Nothing here prints: progress goes to the observer that is passed in, results are returned.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matir_cli.errors import AnnotationsInvalid, OutputExists
from matir_cli.evaluation.baselines.clip import BASELINES
from matir_cli.evaluation.coverage import annotated_objects
from matir_cli.evaluation.datasets.dataset import Dataset
from matir_cli.evaluation.datasets.source import DatasetSource
from matir_cli.evaluation.datasets.subset import limit_dataset
from matir_cli.evaluation.image_index import locate_images
from matir_cli.evaluation.methods import EvaluationSetup
from matir_cli.evaluation.names import BASELINE_NAMES, STAGE_1_ABLATIONS, Ablation
from matir_cli.evaluation.options import EvaluationOptions
from matir_cli.evaluation.other_segmenters import export_masks, export_ranking, import_masks
from matir_cli.evaluation.reporting.provenance import record_provenance
from matir_cli.evaluation.reporting.reports import Report
from matir_cli.evaluation.run import EvaluationOutcome, EvaluationPlan, run_evaluation
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.outcomes import Outcome
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.model_sets.catalogue import ModelSet
from matir_cli.model_sets.session import INDEXING_PARTS, ModelSession, locate_part
from matir_cli.model_sets.weights import locate_files
from matir_cli.progress import ProgressObserver, no_progress

BASELINES_BY_NAME = dict(zip(BASELINE_NAMES, BASELINES, strict=True))


@dataclass(frozen=True, slots=True)
class PreparedEvaluation:
    """An evaluation whose inputs are read and checked; nothing is indexed or computed yet."""

    source: DatasetSource
    dataset: Dataset
    """The part of the data set that the options ask for."""
    models: ModelSet
    options: EvaluationOptions
    plan: EvaluationPlan
    folder: Path
    """Folder of everything that takes time to compute."""

    @property
    def gallery_path(self) -> Path:
        """File of the gallery that the images are indexed into."""
        return self.folder / "gallery.db"

    @property
    def lacks_judge(self) -> bool:
        """True if reranking was asked for, but the model set has no judge."""
        return self.options.rerank and not self.plan.judge

    @property
    def skipped_ablations(self) -> tuple[Ablation, ...]:
        """Ablations that were asked for, but change nothing without a judge."""
        return tuple(name for name in self.options.ablations if name not in self.plan.ablations)


def prepare_evaluation(
    source: DatasetSource,
    models: ModelSet,
    clips: Sequence[ModelSet],
    options: EvaluationOptions,
    folder: Path,
    progress: ProgressObserver = no_progress,
) -> PreparedEvaluation:
    """Check the options and weights, and read the data set and imported masks, before hours of work.

    Args:
        clips: further model sets whose encoders the baselines run with.
        folder: for everything that takes time to compute; data sets that are generated go there, too.

    Raises:
        PartMissing, WeightsMissing, WeightsChanged: weights that will be needed are not here.
        OutputExists: a file to export exists, and is not to be replaced.
        AnnotationsInvalid: the data set, or a file of imported masks, is invalid.
        OutputError: the data set cannot be generated.
    """
    judge = options.rerank and any(part.kind == "judge" for part in models.parts)
    _check_weights(models, clips, judge=judge)
    for path in (options.export_ranking, options.export_masks):
        if path is not None and path.is_file() and not options.force:
            raise OutputExists(path)
    whole = source.read(folder, progress)
    imported = tuple(import_masks(name, path, whole) for name, path in options.import_masks)
    plan = EvaluationPlan(
        options.candidates,
        options.keep,
        judge=judge,
        refine=options.refine,
        methods=options.methods,
        baselines=tuple(BASELINES_BY_NAME[name] for name in options.baselines),
        clips=tuple(clips),
        ablations=tuple(name for name in options.ablations if judge or name in STAGE_1_ABLATIONS),
        imported=imported,
        all_masks=options.export_masks is not None,
    )
    dataset = limit_dataset(whole, options.limit_images, options.limit_queries)
    return PreparedEvaluation(source, dataset, models, options, plan, folder)


def _check_weights(models: ModelSet, clips: Sequence[ModelSet], *, judge: bool) -> None:
    """Make sure that the weights of all parts that will run are here."""
    for part in (*INDEXING_PARTS, "judge") if judge else INDEXING_PARTS:
        locate_part(models, part)
    for each in clips:
        locate_files(each, "encoder")


def index_dataset(prepared: PreparedEvaluation, gallery: GalleryFile) -> Generator[Outcome, None, None]:
    """Index the images as `matir add` does, one outcome per image.

    The indexing models are this generator's own: they are freed when it ends.

    Raises:
        ModelMismatch: the gallery was made with other models.
        MatirError: whatever ends indexing; see `add_photos`.
    """
    session = ModelSession(gallery, prepared.models, prepared.options.device)
    session.bind()
    paths = [image.path for image in prepared.dataset.images]
    yield from add_photos(gallery, paths, IndexingModels.of(session), previews=True)


def evaluate_dataset(
    prepared: PreparedEvaluation, gallery: GalleryFile, progress: ProgressObserver
) -> Report:
    """Evaluate the indexed data set and write the exports; the report is returned, not written.

    Every expensive result is stored as it comes: after an interruption, the same call resumes.

    Raises:
        AnnotationsInvalid: no image could be read, or no query has a relevant image.
        OutputError: an export cannot be written.
        MatirError: from the models, the gallery or the files.
    """
    setup = _locate_dataset(prepared, gallery)
    session = ModelSession(gallery, prepared.models, prepared.options.device)
    read_objects = prepared.source.read_objects
    objects = read_objects(prepared.folder) if read_objects else annotated_objects(prepared.dataset)
    outcome = run_evaluation(setup, session, prepared.plan, objects, prepared.folder, progress)
    _export(setup, outcome, prepared.options)
    settings = {**_settings(prepared), **prepared.source.settings}
    return Report(
        prepared.dataset,
        setup.queries,
        outcome,
        record_provenance(settings, prepared.models, prepared.plan.clips),
        len(prepared.dataset.images) - len(setup.image_index.photos),
    )


def _locate_dataset(prepared: PreparedEvaluation, gallery: GalleryFile) -> EvaluationSetup:
    """The data set in its gallery, with at least one image and one query that counts."""
    setup = EvaluationSetup(prepared.dataset, gallery, locate_images(gallery, prepared.dataset))
    if not setup.image_index.photos:
        raise AnnotationsInvalid(prepared.source.annotations, "none of its images can be read")
    if not setup.queries:
        raise AnnotationsInvalid(prepared.source.annotations, "none of its queries has a relevant image")
    return setup


def _export(setup: EvaluationSetup, outcome: EvaluationOutcome, options: EvaluationOptions) -> None:
    if options.export_ranking is not None:
        export_ranking(options.export_ranking, setup, outcome.rankings, force=options.force)
    if options.export_masks is not None:
        export_masks(options.export_masks, setup, outcome.rankings, outcome.masks, force=options.force)


def _settings(prepared: PreparedEvaluation) -> dict[str, str]:
    """The options in words, for the report."""
    return {
        "model set": prepared.models.handle,
        "stages": "both" if prepared.plan.judge else "the first alone",
        "N_C": str(prepared.plan.candidates),
        "N_K": str(prepared.plan.keep),
        "compared methods": ", ".join(prepared.plan.methods) or "none",
        "a box becomes": "the stored region that fits it best",
        "baselines": ", ".join(prepared.options.baselines) or "none",
        "device": prepared.options.device,
    }
