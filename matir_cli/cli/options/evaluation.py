"""Options that `matir eval` takes for every data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path

import click

from matir_cli.cli.options.common import PathName, device_option, verbose_option
from matir_cli.cli.options.decoding import decode_timeout_option
from matir_cli.cli.options.progress import progress_option
from matir_cli.evaluation.names import ABLATIONS, BASELINE_NAMES, METHOD_NAMES, Ablation, MethodName
from matir_cli.evaluation.options import EvaluationOptions
from matir_cli.model_sets.catalogue import DEFAULT_MODEL_SET
from matir_cli.search.pipeline import CANDIDATES, KEEP

WORLD_MODEL_SET = "tiny"
"""Default model set for the drawn world."""


@dataclass(frozen=True, slots=True)
class EvaluationArguments:
    """Values of the options that all data sets share."""

    model_set: str | None
    """Name or TOML file of the model set; None for the default."""
    clips: tuple[str, ...]
    """Further model sets whose encoders the baselines run with."""
    out: Path | None
    """Output folder; None for the default."""
    options: EvaluationOptions


def _list_of(known: Sequence[str]) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """Return a callback that reads some of the known names, or all, or none."""

    def read(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
        if value in ("all", "none"):
            return tuple(known) if value == "all" else ()
        names = value.split(",")
        if unknown := [name for name in names if name not in known]:
            raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(known)}, all, none")
        return tuple(name for name in known if name in names)

    return read


def _read_imports(
    _context: click.Context, _parameter: click.Parameter, values: Sequence[str]
) -> tuple[tuple[str, Path], ...]:
    pairs = [each.partition("=") for each in values]
    if wrong := next((each for each in pairs if not (each[0].strip() and each[2])), None):
        raise click.BadParameter(f"{''.join(wrong)!r} is not NAME=FILE")
    return tuple((name, Path(file)) for name, _, file in pairs)


_OPTIONS = (
    click.option(
        "--models",
        "model_set",
        envvar="MATIR_MODEL_SET",
        show_envvar=True,
        metavar="SET",
        help="Model set: a name from `matir models list`, or a TOML file."
        f"  [default: {DEFAULT_MODEL_SET}; for the drawn world {WORLD_MODEL_SET}]",
    ),
    device_option,
    decode_timeout_option,
    verbose_option,
    click.option(
        "--out",
        type=PathName(file_okay=False),
        metavar="DIR",
        help="Directory for cached results and tables.  [default: matir-eval/DATASET-SET]",
    ),
    click.option("--limit-images", type=click.IntRange(1), metavar="N", help="Use only the first N images."),
    click.option(
        "--limit-queries",
        type=click.IntRange(1),
        metavar="N",
        help="Use only N queries, spread evenly over the list.",
    ),
    click.option(
        "--baselines",
        default="all",
        show_default=True,
        callback=_list_of(BASELINE_NAMES),
        metavar="NAMES",
        help=f"Baselines to run: {', '.join(BASELINE_NAMES)} (separated by commas), all, or none.",
    ),
    click.option(
        "--methods",
        default="all",
        show_default=True,
        callback=_list_of(METHOD_NAMES),
        metavar="NAMES",
        help="Methods to compare with the paper's: "
        f"{', '.join(METHOD_NAMES)} (separated by commas), all, or none.",
    ),
    click.option(
        "--clip",
        "clips",
        multiple=True,
        metavar="SET",
        help="Also run the baselines with the encoder of this model set. May be repeated.",
    ),
    click.option("--no-rerank", is_flag=True, help="Run stage 1 only, without the judge."),
    click.option(
        "--candidates",
        type=click.IntRange(1),
        default=CANDIDATES,
        show_default=True,
        metavar="N_C",
        help="Photos per query that the judge reranks.",
    ),
    click.option(
        "--keep",
        type=click.IntRange(1),
        default=KEEP,
        show_default=True,
        metavar="N_K",
        help="Photos per query left after reranking.",
    ),
    click.option("--refine", is_flag=True, help="Add a row with masks made as by `find --refine`."),
    click.option(
        "--ablate",
        "ablations",
        multiple=True,
        type=click.Choice(ABLATIONS),
        help="Add a table of the method with other values of this setting. May be repeated.",
    ),
    click.option(
        "--export-ranking",
        type=PathName(dir_okay=False),
        metavar="FILE",
        help="Write the ranked images of each query as JSON lines, for other segmenters.",
    ),
    click.option(
        "--export-masks",
        type=PathName(dir_okay=False),
        metavar="FILE",
        help="Write our masks in all ranked images as COCO results.",
    ),
    click.option(
        "--import-masks",
        multiple=True,
        callback=_read_imports,
        metavar="NAME=FILE",
        help="Score another segmenter's masks (COCO results) on our ranking. May be repeated.",
    ),
    click.option("--force", is_flag=True, help="Replace exported files that exist."),
    progress_option,
)


def evaluation_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the shared options to a command, which gets them as its first argument, `EvaluationArguments`."""

    @wraps(command)
    def gather(
        *,
        model_set: str | None,
        clips: tuple[str, ...],
        out: Path | None,
        device: str,
        limit_images: int | None,
        limit_queries: int | None,
        baselines: tuple[str, ...],
        methods: tuple[MethodName, ...],
        no_rerank: bool,
        candidates: int,
        keep: int,
        refine: bool,
        ablations: tuple[Ablation, ...],
        export_ranking: Path | None,
        export_masks: Path | None,
        import_masks: tuple[tuple[str, Path], ...],
        force: bool,
        **others: object,
    ) -> None:
        options = EvaluationOptions(
            device=device,
            limit_images=limit_images,
            limit_queries=limit_queries,
            baselines=baselines,
            methods=methods,
            rerank=not no_rerank,
            candidates=candidates,
            keep=keep,
            refine=refine,
            ablations=ablations,
            export_ranking=export_ranking,
            export_masks=export_masks,
            import_masks=import_masks,
            force=force,
        )
        command(EvaluationArguments(model_set, clips, out, options), **others)

    decorated: Callable[..., None] = gather
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
