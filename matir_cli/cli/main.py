"""The command `matir`: its subcommands, and what they have in common."""

import click

from matir_cli.cli import boundary
from matir_cli.cli.add import add
from matir_cli.cli.compact import compact
from matir_cli.cli.demo import demo
from matir_cli.cli.doctor import doctor
from matir_cli.cli.eval import evaluate
from matir_cli.cli.export import export
from matir_cli.cli.find import find
from matir_cli.cli.info import info
from matir_cli.cli.ls import ls
from matir_cli.cli.merge import merge
from matir_cli.cli.models import models
from matir_cli.cli.rm import rm
from matir_cli.cli.show import show
from matir_cli.cli.sync import sync
from matir_cli.cli.tag import tag


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="matir-cli", prog_name="matir")
def matir() -> None:
    """Search photos by describing an object in them, and get the object's mask.

    \b
      matir add ~/Photos
      matir find "dog led by rope" --masks out/
    """


for command in (
    add,
    find,
    tag,
    sync,
    ls,
    show,
    rm,
    info,
    export,
    merge,
    compact,
    doctor,
    evaluate,
    models,
    demo,
):
    matir.add_command(command)


def main() -> None:
    """The console script."""
    boundary.run(matir)
