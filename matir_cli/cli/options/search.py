"""Options that control both stages of a search."""

from __future__ import annotations

from functools import wraps
from typing import get_args

import click

from matir_cli.cli.options.common import CommandFunction, OptionDecorator, limit_option
from matir_cli.records import MatchRule
from matir_cli.search.pipeline import CANDIDATES, SearchOptions
from matir_cli.search.query import Query

SECTION = (
    *("limit", "whole", "no_rerank", "no_ground", "candidates", "certainty", "min_score", "min_p", "unique"),
    *("match", "min_iou", "refine", "fresh", "budget", "use_server"),
)
"""Names of the parameters of `search_options`, for the help."""

_DEFAULTS = SearchOptions()

no_rerank_option = click.option("--no-rerank", is_flag=True, help="Stage 1 alone: rank by region vectors.")

whole_option = click.option(
    "--whole",
    is_flag=True,
    help="Compare QUERY as a whole in stage 1, not by its parts (see: matir parse).",
)

min_score_option = click.option(
    "--min-score", type=float, help="Leave out photos whose best region scores lower in stage 1."
)

min_p_option = click.option(
    "--min-p",
    type=click.FloatRange(0, 1),
    help="Leave out photos to which the judge gives a lower probability.",
)


def no_ground_option(text: str) -> OptionDecorator:
    """Make the flag --no-ground; `text` is its help."""
    return click.option("--no-ground", is_flag=True, help=text)


def search_options(command: CommandFunction) -> CommandFunction:
    """Add the options of `SearchOptions`; the command gets them as its parameter `options`."""

    @limit_option(default=_DEFAULTS.limit, show_default=True, help="Photos to return.")
    @whole_option
    @no_rerank_option
    @no_ground_option("Rerank, but take the mask of stage 1's best region.")
    @click.option(
        "--candidates",
        type=click.IntRange(1),
        help=f"Photos that the judge reranks, at most.  [default: {CANDIDATES}, or -n]",
    )
    @click.option(
        "--certainty",
        type=click.FloatRange(0, 1),
        default=_DEFAULTS.certainty,
        show_default=True,
        help="End judging when the first -n are known this well; 1: judge all candidates.",
    )
    @min_score_option
    @min_p_option
    @click.option(
        "--unique", is_flag=True, help="Show near-copies of a photo, and photos of one burst, only once."
    )
    @click.option(
        "--match",
        type=click.Choice(get_args(MatchRule)),
        help="Choose the region of the judge's box by their IoU, or jointly with the text and the region's "
        "quality. [default: as the model set says; usually iou]",
    )
    @click.option(
        "--min-iou",
        type=click.FloatRange(0, 1),
        help="Least IoU of a stored region with the judge's box. [default: 0.5; with --match joint 0]",
    )
    @click.option(
        "--refine", is_flag=True, help="If no region fits, ask the proposer for the mask in the box."
    )
    @click.option("--fresh", is_flag=True, help="Ask the judge again, ignoring remembered verdicts.")
    @click.option(
        "--budget", type=click.FloatRange(0), metavar="SECONDS", help="Stop judging after this time."
    )
    @wraps(command)
    def with_options(
        *,
        limit: int,
        whole: bool,
        no_rerank: bool,
        no_ground: bool,
        candidates: int | None,
        certainty: float,
        min_score: float | None,
        min_p: float | None,
        unique: bool,
        match: MatchRule | None,
        min_iou: float | None,
        refine: bool,
        fresh: bool,
        budget: float | None,
        **others: object,
    ) -> object:
        options = SearchOptions(
            limit=limit,
            candidates=candidates,
            certainty=certainty,
            rerank=not no_rerank,
            ground=not no_ground,
            whole=whole,
            min_score=min_score,
            min_p=min_p,
            unique=unique,
            match=match,
            min_iou=min_iou,
            refine=refine,
            fresh=fresh,
            budget=budget,
        )
        return command(options=options, **others)

    return with_options


def check_judge_options(options: SearchOptions, query: Query) -> None:
    """Refuse --min-p for a search that does not ask the judge.

    Raises:
        UsageError: the two contradict each other.
    """
    if options.min_p is not None and not options.asks_judge(query):
        raise click.UsageError("--min-p needs the judge: describe the object in QUERY, and omit --no-rerank.")
