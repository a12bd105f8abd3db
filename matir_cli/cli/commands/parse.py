"""`matir parse`: show how a description is understood."""

from __future__ import annotations

from collections.abc import Iterator

import click

from matir_cli.output.json_encoding import to_json
from matir_cli.output.printable import printable
from matir_cli.search.phrases.description import Description, Phrase, Relation, RelationKind
from matir_cli.search.phrases.parser import parse_phrase
from matir_cli.search.query import Query

NO_PARTS = "no parts: the text is compared as a whole"


@click.command(short_help="Show how a description is understood.")
@click.argument("text", metavar="TEXT")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def parse(text: str, as_json: bool) -> None:
    """Show the parts that `matir find` sees in TEXT: the object, its relations, and what it must not have.

    No gallery and no model is needed. A description that is not understood has no parts, and is
    searched for as a whole; so is every description with `matir find --whole`.

    \b
    Exit code: 0 done, 2 an error, such as a TEXT without words.

    \b
    Examples:
      matir parse "house without a door, left of a tree"
      matir parse "a dog and a cat" --json | jq .target.text
    """
    Query(text).check()
    description = parse_phrase(text)
    if as_json:
        click.echo(to_json(description))
    else:
        for line in _lines(description):
            click.echo(printable(line))


def _lines(description: Description) -> Iterator[str]:
    yield from _phrase_lines(description.target, 0)
    for other in description.others:
        yield "and in the same photo:"
        yield from _phrase_lines(other, 1)
    if not description.has_parts:
        yield NO_PARTS


def _phrase_lines(phrase: Phrase, depth: int) -> Iterator[str]:
    """Format a phrase: its text, and below it one line for each thing that is known about it."""
    indent = "  " * depth
    yield f"{indent}{phrase.text}"
    facts = {"noun": phrase.head, "count": phrase.count, "place": phrase.place}
    for name, value in facts.items():
        if value is not None and value != phrase.text:
            yield f"{indent}  {name}: {value}"
    for relation in phrase.relations:
        yield f"{indent}  {_relation_name(relation)}:"
        yield from _phrase_lines(relation.other, depth + 2)
    for absence in phrase.absences:
        yield f"{indent}  {absence.words}: {absence.absent} (not like: {absence.counterpart})"


def _relation_name(relation: Relation) -> str:
    """Return the words of a relation, with its kind in brackets if that is another word."""
    if relation.kind is RelationKind.ATTRIBUTE or relation.kind.value == relation.words:
        return relation.words
    return f"{relation.words} ({relation.kind.value})"
