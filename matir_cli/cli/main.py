"""The command `matir`: its subcommands, and what they have in common."""

import click

from matir_cli.cli import boundary
from matir_cli.cli.add import add
from matir_cli.cli.demo import demo
from matir_cli.cli.find import find
from matir_cli.cli.models import models


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="matir-cli", prog_name="matir")
def matir() -> None:
    """Search photos by describing an object in them, and get the object's mask.

    \b
      matir add ~/Photos
      matir find "dog led by rope" --masks out/
    """


for command in (add, find, models, demo):
    matir.add_command(command)


def main() -> None:
    """The console script."""
    boundary.run(matir)
