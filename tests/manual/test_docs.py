"""The README cannot drift: what it says of the commands and of the files is checked."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from matir_cli.cli.main import matir

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    yield prefix, group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def help_text(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
    context.help_option_names = ["-h", "--help"]
    return command.get_help(context)


def test_the_help_of_every_command_is_in_the_readme() -> None:
    missing = [
        f"\n```console\n$ {name} --help\n{help_text(name, command)}\n```\n"
        for name, command in commands(matir, "matir")
        if help_text(name, command) not in README
    ]
    assert not missing, "put this into the README:\n" + "".join(missing)


def test_every_command_shows_examples() -> None:
    without = [
        name for name, command in commands(matir, "matir") if "Examples:" not in help_text(name, command)
    ]
    assert without == []


def test_the_file_tree_is_the_one_there_is() -> None:
    tree = README.split("<!-- tree -->")[1]
    named = set(re.findall(r"[\w/.-]+\.(?:py|toml)\b", tree))
    modules = (ROOT / "matir_cli").rglob("*.py")
    there = {
        str(path.relative_to(ROOT / "matir_cli"))
        for path in modules
        if path.name not in ("__init__.py", "__main__.py")
    }
    assert there <= named, f"not in the README's tree: {sorted(there - named)}"
    gone = {name for name in named if not (ROOT / "matir_cli" / name).exists() and not (ROOT / name).exists()}
    assert not gone, f"in the README's tree, but not there: {sorted(gone)}"


def test_no_link_of_the_readme_leads_nowhere() -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in README.splitlines()
        if line.startswith("#")
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings
