"""Result tables for terminals.

Lines are styled; `click.echo`, which prints them, removes the styles if the output is no terminal.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from matir_cli.output.printable import printable
from matir_cli.output.result_pixels import file_url
from matir_cli.records import Box
from matir_cli.search.explanation import (
    Corners,
    ExampleCosine,
    ExplainedMatch,
    ExplainedRegion,
    ExplainedTerm,
    Explanation,
)
from matir_cli.search.results import GroundedObject, SearchResult

HEADER = click.style(f"{'rank':>4}  {'score':>6}  {'box x0,y0,x1,y1':<23}  path", dim=True)


def table_rows(result: SearchResult, *, all_instances: bool, link_host: str | None) -> list[str]:
    """Format a result as a line with rank, score, box and path, and one with the box of each further object.

    Args:
        all_instances: add the lines of further objects.
        link_host: name of this machine, to make paths links to files on it (OSC 8); None: no links.
    """
    first, *others = result.objects or (None,)
    name = _name(result.path)
    if link_host is not None:
        name = _link(file_url(result.path, link_host), name)
    score = click.style(f"{result.score:6.3f}", bold=True)
    hidden = result.candidate.near_copies
    more = click.style(f"  (+{hidden} alike)", dim=True) if hidden else ""
    lines = [f"{result.rank:>4}  {score}  {_box(first)}  {name}{more}"]
    return lines + [f"{'':>4}  {'':>6}  {_box(other)}" for other in others if all_instances]


def explanation_rows(explanation: Explanation) -> Iterator[str]:
    """Format an explanation; deeper rows are indented by two more spaces each."""
    stage1 = explanation.stage1
    yield f"stage 1: {stage1.score:.6f} by {_region(stage1.region)}"
    for term in stage1.terms:
        yield from _term_rows(term)
    for each in stage1.relations:
        place = "" if each.placed else ", not so placed"
        name = printable(f"{each.object} {each.kind} {each.other}")
        yield f"  {each.contribution:+.6f}  {name}: {_region(each.region)}, z {each.z_score:+.3f}{place}"
    if stage1.whole_photo:
        yield f"  {stage1.whole_photo:+.6f}  the whole photo is no object"
    verdict = explanation.verdict
    if verdict is not None:
        yield f"judge: p {verdict.p_true:.6f}, z_True {verdict.z_true:.3f}, z_False {verdict.z_false:.3f}"
        added = f" + {verdict.fusion:.3f} * {stage1.score:.6f}" if verdict.fusion else ""
        yield f"  ranked by {verdict.ranked_by:.6f} = z_True - z_False{added}"
    for box in explanation.boxes:
        yield f"judge's box {_corners(box.box)}"
        for match in box.matches:
            yield f"  {_match(match)}"
    yield f"mask: {explanation.mask}"


def _term_rows(term: ExplainedTerm) -> Iterator[str]:
    examples = term.examples or ()
    name = f"of {len(examples)} examples" if term.kind == "mean" else term.text or _example(examples[0])
    words = printable(f"{term.kind} {name}")
    factor = "" if term.weight is None else f" * {term.weight:+.6f}"
    yield f"  {term.contribution:+.6f}  {words}: cosine {term.cosine:+.6f}{factor}"
    for each in examples if len(examples) > 1 else ():
        yield f"    cosine {each.cosine:+.6f}  {printable(_example(each))}"
    for prompt in term.prompts or ():
        yield f"    cosine {prompt.cosine:+.6f}  {printable(prompt.text)}"


def _example(example: ExampleCosine) -> str:
    return f"{example.path}, box {_corners(example.box)}"


def _region(region: ExplainedRegion) -> str:
    name = f"region {region.ordinal}" if region.ordinal else "the whole photo"
    words = [each for each in (region.origin, region.label) if each is not None]
    origin = f" ({printable(': '.join(words))})" if words else ""
    return f"{name}{origin}, box {_corners(region.box)}, {region.share:.1%} of the photo"


def _match(match: ExplainedMatch) -> str:
    joint = ""
    if match.joint is not None and match.similarity is not None:
        joint = f", similarity {match.similarity:+.3f}, joint score {match.joint:+.3f}"
    chosen = ", chosen" if match.chosen else ""
    quality = f"IoU {match.iou:.4f}, predicted IoU {match.predicted_iou:.4f}"
    return f"{quality}{joint}: {_region(match.region)}{chosen}"


def _box(grounded: GroundedObject | None) -> str:
    return f"{'-' if grounded is None else format_corners(grounded.box):<23}"


def format_corners(box: Box) -> str:
    """Format a box as x0,y0,x1,y1, rounded to integers."""
    return _corners((box.x0, box.y0, box.x1, box.y1))


def _corners(corners: Corners) -> str:
    return ",".join(str(round(edge)) for edge in corners)


def _name(path: Path) -> str:
    """Format a path with its folder dimmed."""
    folder = printable(os.path.join(path.parent, ""))  # noqa: PTH118 - pathlib drops the last slash
    return click.style(folder, dim=True) + printable(path.name)


def _link(url: str, text: str) -> str:
    """Make `text` a hyperlink by OSC 8, which terminals that do not support it ignore."""
    return f"\x1b]8;;{url}\x1b\\{text}\x1b]8;;\x1b\\"
