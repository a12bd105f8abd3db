"""The command `matir`: its subcommands, and what they have in common."""

from importlib import import_module

import click

from matir_cli.cli import boundary

COMMANDS = {
    name: name
    for name in (
        *("add", "find", "tag", "sync", "ls", "show", "rm", "info", "export", "merge", "compact"),
        *("doctor", "models", "demo"),
    )
} | {"eval": "evaluate"}
"""Name of each command, and of its module in `matir_cli.cli`, to what it is called in there."""


class Commands(click.Group):
    """A group that imports a command when it is asked for: a search should not wait for the others."""

    def list_commands(self, _context: click.Context) -> list[str]:
        """All names, as they are listed in the help."""
        return sorted(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """The command called `name`, None if there is none."""
        if name not in COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"matir_cli.cli.{name}"), COMMANDS[name])
        return found


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="matir-cli", prog_name="matir")
def matir() -> None:
    """Search photos by describing an object in them, and get the object's mask.

    \b
    Examples:
      matir add ~/Photos
      matir find "dog led by rope" --masks out/
      matir find --help
    """


def main() -> None:
    """The console script."""
    boundary.run(matir)
