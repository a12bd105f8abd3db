"""`matir find`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import click

from matir_cli import engines, output, rerank, weights
from matir_cli import find as finding
from matir_cli.catalogue import ModelSet
from matir_cli.cli.boundary import INTERRUPTED, say
from matir_cli.cli.common import (
    choose_model_set,
    device_option,
    gallery_option,
    models_option,
    progress_bar,
    verbose_option,
)
from matir_cli.find import Found, Matching
from matir_cli.gallery import GalleryFile
from matir_cli.records import Candidate
from matir_cli.rerank import Judged, JudgeRoom
from matir_cli.verdicts import Verdicts, judge_key

NOTHING_FOUND = 1

CANDIDATES = 100
"""N_C of the paper."""

KEEP = 50
"""N_K of the paper."""


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for and how far to go."""

    query: str
    limit: int
    candidates: int | None
    keep: int | None
    no_rerank: bool
    no_ground: bool
    min_score: float | None
    min_iou: float
    refine: bool
    fresh: bool
    budget: float | None
    device: str


@dataclass(frozen=True, slots=True)
class Form:
    """How results are printed."""

    name: str | None
    """"json", "jsonl", "paths", "null", or None for the table."""
    rle: bool
    all_instances: bool
    masks: Path | None


@click.command(short_help="Find photos and the object's mask in each.")
@click.argument("query")
@gallery_option
@models_option
@device_option
@verbose_option
@click.option(
    "-n", "limit", type=click.IntRange(1, 100_000), default=10, show_default=True, help="Photos to return."
)
@click.option("--no-rerank", is_flag=True, help="Stage 1 alone: rank by region vectors.")
@click.option("--no-ground", is_flag=True, help="Rerank, but take the mask of stage 1's best region.")
@click.option(
    "--candidates",
    type=click.IntRange(1),
    help=f"Photos that the judge reranks.  [default: {CANDIDATES}, or -n]",
)
@click.option(
    "--keep", type=click.IntRange(1), help=f"Photos left after reranking.  [default: {KEEP}, or -n]"
)
@click.option("--min-score", type=float, help="Leave out photos whose best region scores lower in stage 1.")
@click.option(
    "--min-iou",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="How well a stored region must fit the judge's box.",
)
@click.option("--refine", is_flag=True, help="Where none fits, ask the proposer for the mask in the box.")
@click.option("--fresh", is_flag=True, help="Ask the judge anew, ignoring remembered verdicts.")
@click.option("--budget", type=click.FloatRange(0), metavar="SECONDS", help="Stop judging after this time.")
@click.option("--json", "form", flag_value="json", help="Print one JSON array.")
@click.option("--jsonl", "form", flag_value="jsonl", help="Print one JSON object a line.")
@click.option("--paths", "form", flag_value="paths", help="Print paths only.")
@click.option("-0", "--null", "form", flag_value="null", help="Print paths, each ended by NUL.")
@click.option("--rle", is_flag=True, help="Put each mask into the JSON, as COCO RLE.")
@click.option("--all-instances", is_flag=True, help="Every object the judge pointed at, not the first alone.")
@click.option(
    "--masks",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write each mask as PNG (0 / 255) at the photo's true size.",
)
def find(
    gallery_path: Path,
    model_set: str | None,
    form: str | None,
    rle: bool,
    all_instances: bool,
    masks: Path | None,
    **search: object,
) -> None:
    """Find the photos that show what QUERY describes, and the object's mask in each.

    Stage 1 ranks photos by their best region; then the judge looks at the best of them,
    ranks them anew and says where the object is. Verdicts are remembered: the same query
    again costs nothing, and an interrupted one goes on where it stopped.

    \b
    Exit code: 0 found, 1 nothing found, 2 an error, 130 interrupted.

    \b
    Examples:
      matir find "dog led by rope" -n 20 --masks out/
      matir find --no-rerank "red car"
      matir find "a bicycle" -0 | xargs -0 cp -t bicycles/
      matir find "a bicycle" --jsonl | jq -r 'select(.p_true > 0.9) | .path'
      matir find "a bicycle" --budget 60 --json --rle > bicycles.json
    """
    wanted = Search(**search)  # type: ignore[arg-type]
    shape = Form(form, rle, all_instances, masks)
    with GalleryFile.open(gallery_path) as gallery:
        found, complete = _find(gallery, choose_model_set(gallery, model_set), wanted)
        _show(found, shape)
    if not complete:
        click.get_current_context().exit(INTERRUPTED)
    if not found:
        say("nothing found")
        click.get_current_context().exit(NOTHING_FOUND)


def _find(gallery: GalleryFile, chosen: ModelSet, search: Search) -> tuple[list[Found], bool]:
    """The results, and whether nothing was cut short by Ctrl-C."""
    finding.check_askable(gallery, search.query)
    encoder = weights.locate(chosen, "encoder")
    gallery.check_model("encoder", encoder.identity)
    room = None if search.no_rerank else _judge_room(gallery, chosen, search)
    query = engines.load_text_encoder(encoder).encode(search.query)
    if query.truncated:
        say("the query is longer than the encoder reads; its end was left out")
    width = search.limit if room is None else search.candidates or max(CANDIDATES, search.limit)
    candidates = finding.candidates(gallery, query.vector, width, search.min_score)
    if room is None:
        return list(finding.by_region(gallery, [Judged(item, None) for item in candidates])), True
    ranking, complete = _judge(room, candidates, search)
    kept = ranking[: min(search.keep or max(KEEP, search.limit), search.limit)]
    if search.no_ground or not complete:
        return list(finding.by_region(gallery, kept)), complete
    return list(_ground(room, kept, _matching(chosen, search))), True


def _judge_room(gallery: GalleryFile, chosen: ModelSet, search: Search) -> JudgeRoom:
    """What stage 2 needs; its weights must be here, but nothing is loaded yet."""
    config = weights.locate(chosen, "judge")
    memory = Verdicts(gallery, judge_key(config), search.query, fresh=search.fresh)
    return JudgeRoom(gallery, cache(partial(engines.load_judge, config, search.device)), memory, search.query)


def _matching(chosen: ModelSet, search: Search) -> Matching:
    if not search.refine:
        return Matching(search.min_iou)
    config = weights.locate(chosen, "proposer")
    return Matching(search.min_iou, cache(partial(engines.load_proposer, config, search.device)))


def _judge(room: JudgeRoom, candidates: Sequence[Candidate], search: Search) -> tuple[list[Judged], bool]:
    """The candidates in the judge's order; after Ctrl-C those judged so far, and False."""
    end = time.monotonic() + search.budget if search.budget is not None else None
    judged: list[Judged] = []
    complete = True
    try:
        with progress_bar(len(candidates), "judging") as bar:
            for item in rerank.rerank(room, candidates, lambda: end is None or time.monotonic() < end):
                judged.append(item)
                bar.advance()
    except KeyboardInterrupt:
        complete = False
        judged = [item for item in judged if item.verdict is not None]
        say(f"interrupted: {len(judged)} of {len(candidates)} candidates were judged; these alone follow")
    missed = sum(item.verdict is None for item in judged)
    if missed:
        say(f"{missed} of {len(judged)} candidates were not judged; they follow in stage-1 order")
    return rerank.in_order(judged), complete


def _ground(room: JudgeRoom, ranking: Sequence[Judged], matching: Matching) -> list[Found]:
    found: list[Found] = []
    with progress_bar(len(ranking), "grounding") as bar:
        for item in finding.by_box(room, ranking, matching):
            found.append(item)
            bar.advance()
    for word in (finding.UNMATCHED, finding.NO_BOX, finding.UNREADABLE):
        count = sum(item.grounding == word for item in found)
        if count:
            say(f"{count} of {len(found)} photos: {_GROUNDING_NOTES[word]}")
    return found


_GROUNDING_NOTES = {
    finding.UNMATCHED: "no stored region fits the judge's box, so there is no mask (try --refine)",
    finding.NO_BOX: "the judge pointed at nothing",
    finding.UNREADABLE: "the judge's answer holds no boxes that can be read",
}


def _show(found: Sequence[Found], form: Form) -> None:
    """Write the masks, then the results to stdout in the form asked for."""
    mask_files = [
        output.write_masks(form.masks, item, form.all_instances) if form.masks else () for item in found
    ]
    if form.name in ("json", "jsonl"):
        lines = [
            output.to_json(output.record(item, files, with_rle=form.rle, all_instances=form.all_instances))
            for item, files in zip(found, mask_files, strict=True)
        ]
        if form.name == "json":
            click.echo(f"[{', '.join(lines)}]")
        for line in lines if form.name == "jsonl" else []:
            click.echo(line)
    elif form.name in ("paths", "null"):
        _print_paths(found, b"\0" if form.name == "null" else b"\n")
    else:
        for line in output.table(found):
            click.echo(line)
    if form.masks:
        say(f"{sum(file is not None for files in mask_files for file in files)} masks in {form.masks}")


def _print_paths(found: Sequence[Found], end: bytes) -> None:
    """The bytes of each path as they are, unless a terminal is to show them."""
    raw = end == b"\0" or not sys.stdout.isatty()
    for item in found:
        name = os.fsencode(item.path) if raw else output.printable(str(item.path)).encode()
        sys.stdout.buffer.write(name + end)
