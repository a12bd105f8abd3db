"""`matir serve`: a page to search with, an HTTP API, and models that stay loaded for `matir find`."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import click
import msgspec
import platformdirs

import matir_cli
from matir_cli.cli.boundary import say
from matir_cli.cli.exit_codes import DONE, NOTHING_FOUND
from matir_cli.cli.options.common import (
    choose_model_set,
    device_option,
    gallery_option,
    idle_option,
    models_option,
    verbose_option,
)
from matir_cli.errors import ServerFailed
from matir_cli.gallery.database import GalleryFile
from matir_cli.server.client import ServerUnusable, ask_server
from matir_cli.server.options import LOOPBACK, ServerOptions, is_loopback
from matir_cli.server.runtime import RuntimeFiles, ServerRecord, ServerStatus, find_server

LONGEST_TOKEN = 256
"""Characters."""

_START = (
    "import sys; root = sys.argv.pop(1); root in sys.path or sys.path.insert(0, root); "
    "from matir_cli.cli.main import main; main()"
)
"""Program of the server in the background. Run with -P: the current folder may hold modules of any name."""


@click.command(short_help="Search on a page, and keep the models loaded for matir find.")
@gallery_option
@models_option
@device_option
@verbose_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Port of the HTTP API.  [default: one that is free]",
)
@click.option(
    "--host",
    default=LOOPBACK,
    show_default=True,
    metavar="ADDRESS",
    help="Address of the HTTP API; one that other machines can reach needs --token.",
)
@click.option(
    "--token",
    envvar="MATIR_SERVER_TOKEN",
    show_envvar=True,
    metavar="TEXT",
    help="Answer only requests with this token.",
)
@idle_option
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser once it is ready.")
@click.option("--detach", is_flag=True, help="Go on in the background, and return once it is ready.")
@click.option("--status", is_flag=True, help="Say whether a server runs, and what it does.")
@click.option("--stop", is_flag=True, help="End the server that runs.")
def serve(
    gallery_path: Path,
    model_set: str | None,
    device: str,
    port: int,
    host: str,
    token: str | None,
    idle_minutes: float,
    open_page: bool,
    detach: bool,
    status: bool,
    stop: bool,
) -> None:
    """Serve one gallery: a page to search it with, and models that stay loaded.

    The address of the page is printed once it is ready; only this machine can reach it. `matir
    find` and `matir tag` use the loaded models as well: they print what they would print without
    the server, and do without it if it ends. There is one server per gallery; where it runs
    already, --open opens its page.

    \b
    Exit code: 0 done, 1 no server runs (--status, --stop), 2 an error, 130 interrupted.

    \b
    Examples:
      matir serve --open
      matir serve --detach --idle 60
      matir serve --status
      matir serve --stop
    """
    if status + stop + detach > 1:
        raise click.UsageError("--detach, --status and --stop exclude each other.")
    if status or stop:
        click.get_current_context().exit(_ask(gallery_path, stop=stop))
    if token is not None and not (token.isascii() and token.isprintable() and 0 < len(token) < LONGEST_TOKEN):
        raise click.UsageError(f"--token is up to {LONGEST_TOKEN} printable ASCII characters.")
    if not is_loopback(host) and token is None:
        raise click.UsageError(f"Other machines can reach {host}: give a --token, which they must know.")
    with GalleryFile.open(gallery_path) as gallery:
        models = choose_model_set(gallery, model_set)
    if open_page and (record := _running(gallery_path)) is not None:
        click.echo(record.url)
        _open(record.url)
        return
    if detach:
        click.get_current_context().exit(_detach(gallery_path))
    options = ServerOptions(gallery_path, models.handle, device, port, host, token, idle_minutes * 60)
    # Imported here: it takes a tenth of a second, and `matir --help` imports this module.
    from matir_cli.server.process import run_server

    def announce(record: ServerRecord) -> None:
        click.echo(record.url)
        say(f"serving {record.gallery}; Ctrl-C ends it")
        if open_page:
            # A browser in a terminal returns only when it is left.
            threading.Thread(target=_open, args=(record.url,), daemon=True).start()

    run_server(options, announce, say)


def _open(url: str) -> None:
    """Open the page in the user's browser. A token is not passed on: other users could read it there."""
    # Imported here: it looks for browsers.
    import webbrowser

    if not webbrowser.open(url):
        say(f"no browser was found; open {url} in one")


def _running(gallery: Path) -> ServerRecord | None:
    """Return the record of the gallery's server if it answers."""
    record = find_server(gallery)
    try:
        if record is not None:
            ask_server(record, "GET", "/status")
    except ServerUnusable:
        return None
    return record


def _ask(gallery: Path, *, stop: bool) -> int:
    """Ask the server of a gallery what it does, or to end; return the exit code."""
    record = find_server(gallery)
    try:
        if record is not None and stop:
            ask_server(record, "POST", "/shutdown")
            return DONE
        if record is not None:
            answer = msgspec.json.decode(ask_server(record, "GET", "/status"), type=ServerStatus)
            _print_status(record, answer)
            return DONE
    except ServerUnusable:
        pass  # a killed one left its file behind
    say(f"no server runs for {gallery}")
    return NOTHING_FOUND


def _print_status(record: ServerRecord, status: ServerStatus) -> None:
    click.echo(record.url)
    click.echo(f"  process   {record.pid}, version {record.version}, since {record.started}")
    click.echo(f"  gallery   {record.gallery}")
    click.echo(f"  models    {record.models}, device {record.device}")
    click.echo(f"  loaded    {', '.join(status.loaded) or 'nothing'}")
    click.echo(f"  searches  {status.searches} at work, {status.served} in all")


def _detach(gallery: Path) -> int:
    """Start the same command in the background; return once it accepts connections, or has ended.

    Returns:
        The exit code: that of the server, if it has ended.

    Raises:
        ServerFailed: it cannot be started.
    """
    log = (
        platformdirs.user_log_path("matir", appauthor=False)
        / f"serve-{RuntimeFiles.of(gallery).record.stem}.log"
    )
    words = [word for word in sys.argv[1:] if word != "--detach"]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as messages:
            process = subprocess.Popen(  # noqa: S603 - this program itself
                [sys.executable, "-P", "-c", _START, str(Path(matir_cli.__file__).parents[1]), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=messages,
                start_new_session=True,
            )
    except OSError as error:
        raise ServerFailed(f"{error.filename or sys.executable}: {error.strerror}") from error
    assert process.stdout is not None
    with process.stdout as output:
        url = output.readline().decode().strip()
    if not url:
        click.echo(log.read_text(encoding="utf-8", errors="replace"), nl=False, err=True)
        return process.wait()
    click.echo(url)
    say(f"serving {gallery} as process {process.pid}; messages go to {log}; end it with: matir serve --stop")
    return DONE
