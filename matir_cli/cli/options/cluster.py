"""Options that let other processes index photos."""

from __future__ import annotations

import re
from functools import wraps
from typing import Any

import click

from matir_cli.cli.options.common import CommandFunction
from matir_cli.cluster.options import AUTO, RayOptions

_ADDRESS = re.compile(r"[^\s/\\]+:[0-9]{1,5}")


def _check_address(_context: click.Context, _parameter: click.Parameter, address: str | None) -> str | None:
    """Return the address; a path after --ray, which click takes for one, is refused."""
    if address is None or address == AUTO or _ADDRESS.fullmatch(address):
        return address
    raise click.BadParameter(
        f"{address!r} is no HOST:PORT. For a cluster on this machine write --ray={AUTO}, or --ray at the end."
    )


def ray_options(command: CommandFunction) -> CommandFunction:
    """Add the options to a command, which gets `ray`, a `RayOptions` or None."""

    @wraps(command)
    def with_ray(*words: Any, ray_address: str | None, **others: Any) -> object:
        values = {name: others.pop(name) for name in _NAMES}
        if ray_address is None:
            given = [name for name, value in values.items() if value]
            if given:
                raise click.UsageError(f"--{given[0].replace('_', '-')} goes with --ray.")
            return command(*words, ray=None, **others)
        return command(*words, ray=RayOptions(ray_address, **values), **others)

    decorated: CommandFunction = with_ray
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


_NAMES = ("workers", "gpus_per_worker", "cpus_per_worker", "shared_files", "ship_models")

_OPTIONS = (
    click.option(
        "--ray",
        "ray_address",
        is_flag=False,
        flag_value=AUTO,
        metavar="[HOST:PORT]",
        callback=_check_address,
        help="Let a Ray cluster index new photos: the one at HOST:PORT, else that in RAY_ADDRESS, else one "
        "that is started on this machine. Needs the extra ray.",
    ),
    click.option(
        "--workers", type=click.IntRange(1), metavar="N", help="With --ray: workers.  [default: all that fit]"
    ),
    click.option(
        "--gpus-per-worker",
        type=click.FloatRange(0),
        metavar="F",
        help="With --ray: GPUs of each worker, such as 0.5.  [default: 1 where there are GPUs]",
    ),
    click.option(
        "--cpus-per-worker",
        type=click.IntRange(1),
        metavar="N",
        help="With --ray: CPUs of each worker.  [default: its share]",
    ),
    click.option(
        "--shared-files", is_flag=True, help="With --ray: workers read the photos under the same paths."
    ),
    click.option(
        "--ship-models", is_flag=True, help="With --ray: send the models' files to the nodes that need them."
    ),
)
