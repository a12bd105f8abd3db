"""The command `matir`: its subcommands, and what they have in common."""

from importlib import import_module

import click

from matir_cli.cli.boundary import run

COMMANDS = {
    name: name
    for name in (
        *("add", "find", "tag", "sync", "ls", "show", "rm", "info", "export", "merge", "compact"),
        *("doctor", "models", "demo"),
    )
} | {"eval": "evaluate"}
"""Name of each command, and of its module in `matir_cli.cli`, to what it is called in there."""

SYNONYMS = {
    **dict.fromkeys(("search", "query"), "find"),
    **dict.fromkeys(("index", "import", "scan"), "add"),
    **dict.fromkeys(("update", "refresh"), "sync"),
    **dict.fromkeys(("list", "dir"), "ls"),
    **dict.fromkeys(("remove", "delete", "forget"), "rm"),
    **dict.fromkeys(("status", "stats"), "info"),
    **dict.fromkeys(("pull", "download"), "models pull"),
    **{"label": "tag", "check": "doctor", "evaluate": "eval", "vacuum": "compact"},
}
"""What other programs call a command, to what it is called here."""


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for: a search should not wait for the others."""

    def list_commands(self, _context: click.Context) -> list[str]:
        """All names, as they are listed in the help."""
        return sorted(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """The command called `name`, None if there is none."""
        if name not in COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"matir_cli.cli.commands.{name}"), COMMANDS[name])
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begin with; where there is none, say which may be meant."""
        name = args[0]
        if name not in COMMANDS and name[:1].isalpha() and not ctx.resilient_parsing:
            # Here: only a command mistyped needs it.
            from difflib import get_close_matches

            meant = SYNONYMS.get(name) or next(iter(get_close_matches(name, COMMANDS)), None)
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {meant}?" if meant else ""))
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
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
    run(matir)
