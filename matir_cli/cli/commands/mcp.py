"""`matir mcp`: tools for agents."""

from __future__ import annotations

from pathlib import Path

import click

from matir_cli.cli.boundary import STAGE_1_ALONE, explain, say
from matir_cli.cli.options.common import (
    PathName,
    choose_model_set,
    device_option,
    gallery_option,
    idle_option,
    models_option,
    verbose_option,
)
from matir_cli.cli.server_search import server_option
from matir_cli.errors import MatirError, PackageMissing
from matir_cli.gallery.database import GalleryFile


@click.command(short_help="Offer tools for agents, by the Model Context Protocol.")
@gallery_option
@models_option
@device_option
@verbose_option
@server_option
@click.option(
    "--write-to",
    type=PathName(file_okay=False),
    metavar="FOLDER",
    help="Let agents save masks and cut-outs in this folder; without it, they cannot write.",
)
@idle_option
def mcp(
    gallery_path: Path,
    model_set: str | None,
    device: str,
    use_server: bool,
    write_to: Path | None,
    idle_minutes: float,
) -> None:
    """Offer an agent tools to search one gallery, on standard input and output.

    An agent starts this command itself: put it into the agent's configuration, with the gallery as
    an absolute path. The agent can search by words or by an example, look at photos and at results,
    and, with --write-to, save masks and cut-outs in that one folder.

    A server for the gallery, if one runs, searches with models that stay loaded; otherwise this
    process loads them at the first search. See: matir help agents

    \b
    Exit code: 0 the agent has closed standard input, 2 an error, 130 interrupted.

    \b
    Examples:
      matir mcp --db ~/photos.db
      matir mcp --db ~/photos.db --write-to ~/cutouts
    """
    # Imported here: it is an optional package, and takes half a second.
    try:
        import mcp_types  # noqa: F401
    except ImportError as error:
        raise PackageMissing("mcp") from error
    from matir_cli.mcp.options import McpOptions
    from matir_cli.mcp.process import run_mcp_server

    with GalleryFile.open(gallery_path) as gallery:
        models = choose_model_set(gallery, model_set)
    run_mcp_server(
        McpOptions(
            gallery=gallery_path.absolute(),
            models=models.handle,
            device=device,
            use_server=use_server,
            write_to=write_to,
            idle_seconds=idle_minutes * 60,
            log=say,
            explain=_explain,
        )
    )


def _explain(error: MatirError) -> str:
    """Return what is wrong and what to do about it, in the words of the tools."""
    return " ".join(filter(None, explain(error))).replace(STAGE_1_ALONE, "search with judge=false")
