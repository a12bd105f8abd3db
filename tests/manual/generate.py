"""Generates parts of the manual: the commands' help, the source tree and the schemas of JSON records.

    python -m tests.manual.generate [--check]

Run from a checkout of the source: the tree also names the folders next to the package.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from matir_cli.cli.group import matir
from tests.manual.json_schemas import CONTRACTS, field_tables, schema_text

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "matir_cli"
MANUAL = PACKAGE / "manual"

COMMANDS_PAGE = MANUAL / "commands.md"
TREE_PAGE = MANUAL / "architecture.md"

TREE_START, TREE_END = "<!-- tree -->", "<!-- end of tree -->"
"""Lines of `TREE_PAGE` between which the tree is written."""

JSON_PAGE = MANUAL / "json.md"

SCHEMAS = MANUAL / "schemas"

FIELDS_START, FIELDS_END = "<!-- fields -->", "<!-- end of fields -->"
"""Lines of `JSON_PAGE` between which the tables of fields are written."""

HELP_COLUMNS = 100

INTRODUCTION = """# Commands

Every command of `matir` and its options, as `matir COMMAND --help` prints them.
"""


def walk_commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all below it, each with its full name, such as "matir models pull"."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from walk_commands(found, f"{name} {child}")


def help_text(name: str, command: click.Command) -> str:
    """Return the command's --help as a terminal of `HELP_COLUMNS` columns shows it."""
    context = click.Context(
        command,
        info_name=name,
        max_content_width=HELP_COLUMNS,
        terminal_width=HELP_COLUMNS,
        help_option_names=["-h", "--help"],
    )
    return command.get_help(context)


def commands_page() -> str:
    """Return the page of all commands."""
    sections = [
        f"\n## {name}\n\n```console\n$ {name} --help\n{help_text(name, command)}\n```\n"
        for name, command in walk_commands(matir, "matir")
    ]
    return INTRODUCTION + "".join(sections)


def source_tree() -> str:
    """Return the annotated tree of the package, with a line each for the folders next to it."""
    rows = [("matir_cli/", _first_line(PACKAGE / "__init__.py")), *_package_rows(PACKAGE, 1)]
    for name in ("models", "tests"):
        rows.append((f"{name}/", _first_line(ROOT / name / "__init__.py")))
        rows += [
            (f"  {folder.name}/", line)
            for folder in _packages(ROOT / name)
            if (line := _first_line(folder / "__init__.py"))
        ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {line}".rstrip() for name, line in rows]
    return "\n".join(["```text", *lines, "```"])


def _package_rows(package: Path, depth: int) -> Iterator[tuple[str, str]]:
    """Yield name and description of each module and package in `package`: modules first."""
    indent = "  " * depth
    for module in sorted(package.glob("*.py")):
        if module.name != "__init__.py":
            yield f"{indent}{module.name}", _first_line(module)
    for folder in _packages(package):
        yield f"{indent}{folder.name}/", _first_line(folder / "__init__.py")
        yield from _package_rows(folder, depth + 1)


def _packages(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/__init__.py"))


def _first_line(module: Path) -> str:
    """Return the first line of the module's docstring; an empty string if it has none."""
    return (ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def architecture_page() -> str:
    """Return the architecture page with the current source tree in it.

    Raises:
        ValueError: the page has not exactly one place for the tree.
    """
    return _with_part(TREE_PAGE, TREE_START, TREE_END, source_tree())


def json_page() -> str:
    """Return the page of JSON records with the current tables of fields in it.

    Raises:
        ValueError: the page has not exactly one place for the tables.
    """
    return _with_part(JSON_PAGE, FIELDS_START, FIELDS_END, field_tables())


def _with_part(page: Path, start: str, end: str, part: str) -> str:
    """Return the text of a page with `part` between two marks."""
    before, rest = page.read_text(encoding="utf-8").split(f"{start}\n")
    _, after = rest.split(end)
    return f"{before}{start}\n\n{part}\n\n{end}{after}"


def stale_pages() -> dict[Path, str]:
    """Return the generated files that are not up to date, each with the text that it should have."""
    pages = {COMMANDS_PAGE: commands_page(), TREE_PAGE: architecture_page(), JSON_PAGE: json_page()}
    pages |= {SCHEMAS / f"{contract.name}.json": schema_text(contract) for contract in CONTRACTS}
    return {
        path: text
        for path, text in pages.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a page is not up to date.")
def generate(check: bool) -> None:
    """Write the generated parts of the manual."""
    stale = stale_pages()
    for path, text in stale.items():
        name = path.relative_to(ROOT)
        if check:
            click.echo(f"{name} is not up to date; run: make docs", err=True)
        else:
            path.write_text(text, encoding="utf-8")
            click.echo(f"{name} written", err=True)
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    generate()
