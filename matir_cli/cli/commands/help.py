"""`matir help`: show a page of the manual, or a command's help."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches

import click

from matir_cli.cli.boundary import say
from matir_cli.manual import Page, read_page, read_schema, schema_names, topics
from matir_cli.output.printable import printable

JSON_TOPIC = "json"
"""Topic whose page describes the JSON that commands print; it has JSON Schemas below it."""

COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
"""A comment in a page, such as a mark for the generator."""


@click.command("help", short_help="Show a page of the manual, or a command's help.")
@click.argument("names", nargs=-1, metavar="[TOPIC|COMMAND]...")
@click.option("--page", is_flag=True, help="Show the page even if a command has the same name.")
@click.pass_context
def show_help(context: click.Context, names: tuple[str, ...], page: bool) -> None:
    """Show the page of the manual about TOPIC, or the help of COMMAND; without a name, list the topics.

    Pages are Markdown, shown in a pager on a terminal. If a name is both a command and a topic, the
    command's help is shown, and --page shows the page. `matir help json NAME` prints the JSON
    Schema of the records that a command prints.

    \b
    Exit code: 0 done, 2 an error, such as an unknown topic.

    \b
    Examples:
      matir help
      matir help searching
      matir help find
      matir help models pull
      matir help models --page
      matir help json find > find.schema.json
    """
    known = topics()
    found = None if page else _find_command(context, names)
    if not names:
        click.echo(_list_topics(context, known))
    elif found is not None:
        click.echo(found.get_help())
        if len(names) == 1 and names[0] in known:
            say(f"the manual has a page of the same name: matir help {names[0]} --page")
    elif len(names) == 1 and names[0] in known:
        _show(read_page(names[0]))
    elif len(names) == 2 and names[0] == JSON_TOPIC and names[1] in schema_names():
        click.echo(read_schema(names[1]), nl=False)
    else:
        _refuse(context, names, known)


def _group(context: click.Context) -> click.Group:
    command = context.find_root().command
    assert isinstance(command, click.Group)
    return command


def _find_command(context: click.Context, names: Sequence[str]) -> click.Context | None:
    """Return a context for the command that `names` lead to; None if there is none."""
    found = context.find_root()
    for name in names:
        if not isinstance(found.command, click.Group):
            return None
        command = found.command.get_command(found, name)
        if command is None:
            return None
        found = command.make_context(name, [], parent=found, resilient_parsing=True)
    return found if names else None


def _list_topics(context: click.Context, known: Sequence[str]) -> str:
    """Format the topics with the descriptions of their pages."""
    commands = _group(context).list_commands(context)
    width = max(map(len, known), default=0)
    lines = ["Topics of the manual, shown by `matir help TOPIC`:", ""]
    lines += [f"  {topic:<{width}}  {printable(read_page(topic).description)}" for topic in known]
    lines += ["", "Commands, whose options `matir help COMMAND` or `matir COMMAND --help` shows:", ""]
    lines += [f"  {line}" for line in click.wrap_text(", ".join(commands), 76).splitlines()]
    if shared := [topic for topic in known if topic in commands]:
        lines += ["", f"A topic with the name of a command: matir help {shared[0]} --page"]
    return "\n".join(lines)


def _show(page: Page) -> None:
    """Print a page, in a pager if a terminal shows it."""
    text = COMMENT.sub("", page.text).expandtabs(4)
    safe = "\n".join(printable(line) for line in text.splitlines())
    if sys.stdout.isatty():
        click.echo_via_pager(safe)
    else:
        click.echo(safe)


def _refuse(context: click.Context, names: Sequence[str], known: Sequence[str]) -> None:
    """Say which topic or command may be meant.

    Raises:
        UsageError: always.
    """
    group, *others = names
    command = _group(context).get_command(context, group)
    if others and isinstance(command, click.Group):
        kind, candidates, prefix = "command", command.list_commands(context), f"{group} "
    elif others and group == JSON_TOPIC:
        kind, candidates, prefix = "schema", schema_names(), f"{group} "
    else:
        kind, candidates, prefix = "topic", [*known, *_group(context).list_commands(context)], ""
    name = " ".join(names)
    meant = next(iter(get_close_matches(name.removeprefix(prefix), candidates)), None)
    context.fail(f"No such {kind} {name!r}." + (f" Did you mean {prefix}{meant}?" if meant else ""))
