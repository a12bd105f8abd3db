"""The options that `matir eval` takes for every data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path

import click

from matir_cli.cli.options.common import device_option, verbose_option
from matir_cli.evaluation.names import ABLATIONS, BASELINE_NAMES, Ablation
from matir_cli.model_sets.catalogue import DEFAULT_MODEL_SET
from matir_cli.search.pipeline import CANDIDATES, KEEP

WORLD_MODEL_SET = "tiny"


@dataclass(frozen=True, slots=True)
class EvaluationArguments:
    """The options that all data sets have in common."""

    model_set: str | None
    device: str
    out: Path | None
    limit_images: int | None
    limit_queries: int | None
    baselines: tuple[str, ...]
    clips: tuple[str, ...]
    no_rerank: bool
    candidates: int
    keep: int
    refine: bool
    ablations: tuple[Ablation, ...]
    export_ranking: Path | None
    export_masks: Path | None
    import_masks: tuple[tuple[str, Path], ...]
    force: bool


def _read_baselines(_context: click.Context, _parameter: click.Parameter, given: str) -> tuple[str, ...]:
    if given in ("all", "none"):
        return BASELINE_NAMES if given == "all" else ()
    names = given.split(",")
    if unknown := [name for name in names if name not in BASELINE_NAMES]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(BASELINE_NAMES)}, all, none")
    return tuple(name for name in BASELINE_NAMES if name in names)


def _read_imports(
    _context: click.Context, _parameter: click.Parameter, given: Sequence[str]
) -> tuple[tuple[str, Path], ...]:
    pairs = [each.partition("=") for each in given]
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
    verbose_option,
    click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Where everything is kept that takes time, and the tables.  [default: matir-eval/DATA-SET]",
    ),
    click.option("--limit-images", type=click.IntRange(1), metavar="N", help="Only the first N images."),
    click.option(
        "--limit-queries", type=click.IntRange(1), metavar="N", help="Only N queries, spread over the list."
    ),
    click.option(
        "--baselines",
        default="all",
        show_default=True,
        callback=_read_baselines,
        metavar="NAMES",
        help=f"Of {', '.join(BASELINE_NAMES)}: some, separated by commas, or all, or none.",
    ),
    click.option(
        "--clip",
        "clips",
        multiple=True,
        metavar="SET",
        help="Run the baselines with the encoder of this model set, too. May be repeated.",
    ),
    click.option("--no-rerank", is_flag=True, help="Stage 1 alone: no judge is asked."),
    click.option(
        "--candidates",
        type=click.IntRange(1),
        default=CANDIDATES,
        show_default=True,
        metavar="N_C",
        help="Photos that the judge reranks for each query.",
    ),
    click.option(
        "--keep",
        type=click.IntRange(1),
        default=KEEP,
        show_default=True,
        metavar="N_K",
        help="Photos left after reranking.",
    ),
    click.option("--refine", is_flag=True, help="A row more: masks as `find --refine` makes them."),
    click.option(
        "--ablate",
        "ablations",
        multiple=True,
        type=click.Choice(ABLATIONS),
        help="A table more: the method with other values of this one setting. May be repeated.",
    ),
    click.option(
        "--export-ranking",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write the ranked images of each query as JSON lines, for other segmenters.",
    ),
    click.option(
        "--export-masks",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write our masks in all ranked images as COCO results.",
    ),
    click.option(
        "--import-masks",
        multiple=True,
        callback=_read_imports,
        metavar="NAME=FILE",
        help="Score a segmenter's masks (COCO results) on our ranking. May be repeated.",
    ),
    click.option("--force", is_flag=True, help="Replace exported files that exist."),
)


def evaluation_options(command: Callable[..., object]) -> Callable[..., object]:
    """The options of a `Wanted`; the command gets them as its one argument `wanted`."""

    @wraps(command)
    def with_wanted(**values: object) -> object:
        given = {field.name: values.pop(field.name) for field in fields(EvaluationArguments)}
        return command(wanted=EvaluationArguments(**given), **values)  # type: ignore[arg-type]

    for option in reversed(_OPTIONS):
        with_wanted = option(with_wanted)
    return with_wanted
