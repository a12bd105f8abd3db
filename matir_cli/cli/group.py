"""The command `matir` and the names of its subcommands."""

from importlib import import_module

import click
from click.shell_completion import CompletionItem

from matir_cli.cli.defaults import WITHOUT_DEFAULTS, command_defaults, defaults_path, read_defaults

COMMANDS = {
    name: name
    for name in (
        *("add", "find", "parse", "tag", "sync", "ls", "show", "rm", "info", "export", "merge", "split"),
        *("compact", "duplicates", "saved", "reencode", "config"),
        *("doctor", "models", "demo", "serve", "mcp"),
    )
} | {"eval": "evaluate", "help": "show_help", "import-corrections": "import_corrections"}
"""Name of each command: name of its function in its module, which `module_of` names."""

SUMMARIES = {
    "add": "Index photos.",
    "compact": "Give unused space back and rebuild the search index.",
    "config": "Show the defaults file, and where values come from.",
    "demo": "Try the program on drawn pictures.",
    "doctor": "Check the installation and the gallery, with a remedy for each problem.",
    "duplicates": "List near-copies of photos, for cleaning up.",
    "eval": "Measure retrieval and segmentation: the paper's tables.",
    "export": "Write all regions as COCO JSON, or all vectors as an array.",
    "find": "Find photos and the object's mask in each.",
    "help": "Show a page of the manual, or a command's help.",
    "import-corrections": "Bring corrections from Label Studio into the gallery.",
    "info": "Show what the gallery holds and what uses its disk space.",
    "ls": "List the photo files in the gallery.",
    "mcp": "Offer tools for agents, by the Model Context Protocol.",
    "merge": "Copy another gallery's photos into this one.",
    "models": "List model sets, fetch them, locate or verify their files, and try them.",
    "parse": "Show how a description is understood.",
    "reencode": "Make new vectors with the encoder of another model set.",
    "rm": "Take photos out of the gallery; files on disk are not touched.",
    "saved": "Save searches in the gallery, and run them again.",
    "serve": "Search on a page, and keep the models loaded for matir find.",
    "show": "Show what is stored about a photo.",
    "split": "Divide the gallery among several new ones.",
    "sync": "Update the gallery to the current content of folders.",
    "tag": "Write labels to XMP sidecars, never to a photo.",
}
"""The `short_help` of each command, for the list of commands: importing all of them takes a second."""

SYNONYMS = {
    **dict.fromkeys(("search", "query"), "find"),
    **dict.fromkeys(("index", "import", "scan"), "add"),
    **dict.fromkeys(("update", "refresh"), "sync"),
    **dict.fromkeys(("list", "dir"), "ls"),
    **dict.fromkeys(("remove", "delete", "forget"), "rm"),
    **dict.fromkeys(("reembed", "re-encode", "upgrade"), "reencode"),
    **dict.fromkeys(("settings", "defaults", "configure"), "config"),
    **dict.fromkeys(("status", "stats"), "info"),
    **dict.fromkeys(("pull", "download"), "models pull"),
    **dict.fromkeys(("dupes", "dedupe", "dedup"), "duplicates"),
    **dict.fromkeys(("explain", "understand"), "parse"),
    **{"label": "tag", "check": "doctor", "evaluate": "eval", "vacuum": "compact"},
}
"""Names that other programs use: the command that they stand for."""


def module_of(command: str) -> str:
    """Return the name of the module of a command."""
    return f"matir_cli.cli.commands.{command.replace('-', '_')}"


class LazyGroup(click.Group):
    """A group that imports a command only when it is used, so that no command waits for the others."""

    def list_commands(self, _context: click.Context) -> list[str]:
        """Return all names, in the order of the help."""
        return sorted(COMMANDS)

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUMMARIES[name]) for name in sorted(COMMANDS)])

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """Return the command called `name`; None if there is none."""
        if name not in COMMANDS:
            return None
        found: click.Command = getattr(import_module(module_of(name)), COMMANDS[name])
        return found

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and options that begin with `incomplete`, without importing the commands."""
        named = [
            CompletionItem(name, help=SUMMARIES[name])
            for name in sorted(COMMANDS)
            if name.startswith(incomplete)
        ]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that `args` begin with, and give it the user's defaults; else suggest one."""
        name = args[0]
        if name not in COMMANDS and name[:1].isalpha() and not ctx.resilient_parsing:
            # Imported here: only a mistyped command needs it.
            from difflib import get_close_matches

            meant = SYNONYMS.get(name) or next(iter(get_close_matches(name, COMMANDS)), None)
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {meant}?" if meant else ""))
        found, command, rest = super().resolve_command(ctx, args)
        if command is not None and found not in WITHOUT_DEFAULTS and not ctx.resilient_parsing:
            path = defaults_path()
            tables = read_defaults(path, COMMANDS)
            if path is not None and tables and found is not None:
                ctx.default_map = {found: command_defaults(path, found, command, tables)}
        return found, command, rest


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
      matir help searching
    """
