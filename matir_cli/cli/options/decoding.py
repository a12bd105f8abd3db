"""The option that limits how long a photo may take to decode."""

from __future__ import annotations

import click

from matir_cli.photos.decode import set_decode_timeout
from matir_cli.photos.decoder_process import DECODE_SECONDS


def _set(_context: click.Context, _parameter: click.Parameter, seconds: float) -> None:
    set_decode_timeout(seconds)


decode_timeout_option = click.option(
    "--decode-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=DECODE_SECONDS,
    show_default=True,
    envvar="MATIR_DECODE_TIMEOUT",
    show_envvar=True,
    metavar="SECONDS",
    expose_value=False,
    callback=_set,
    help="Skip a photo that takes longer to decode.",
)
