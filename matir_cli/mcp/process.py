"""The process of `matir mcp`: standard streams and signals."""

from __future__ import annotations

import io
import logging
import os
import signal
from collections.abc import Callable

import anyio
from anyio import CancelScope, to_thread
from mcp.server.stdio import stdio_server

from matir_cli.mcp.options import McpOptions
from matir_cli.mcp.protocol import ToolServer
from matir_cli.mcp.tools import Tools

LONGEST_REQUEST = 1 << 20
"""Characters of a request at most."""


def run_mcp_server(options: McpOptions) -> None:
    """Answer requests on standard input until it ends, or a signal arrives.

    Raises:
        OutputError: the folder to write to cannot be opened.
        KeyboardInterrupt: or what else the handler of the signal that ended the process raises.
    """
    # What the package logs holds what clients sent; it is shown with -v only.
    logging.getLogger("mcp").propagate = logging.getLogger().isEnabledFor(logging.DEBUG)
    logging.getLogger("mcp").addHandler(logging.NullHandler())
    ending = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if _is_handled(number)]
    handlers = {number: signal.getsignal(number) for number in ending}
    received = anyio.run(_serve, options, ending)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    if received is not None:
        signal.raise_signal(received)


def _is_handled(number: signal.Signals) -> bool:
    return signal.getsignal(number) is not signal.SIG_IGN


async def _serve(options: McpOptions, ending: list[signal.Signals]) -> signal.Signals | None:
    """Answer requests; return the signal that ended this, None if the client ended it."""
    tools = Tools(options)
    server = ToolServer(options, tools).server
    received: signal.Signals | None = None
    requests, answers = _take_streams(options.log)
    with CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def wait_for_signal() -> None:
                nonlocal received
                with anyio.open_signal_receiver(*ending) as signals:
                    async for number in signals:
                        received = number
                        scope.cancel()
                        return

            tasks.start_soon(wait_for_signal)
            async with stdio_server(requests, answers) as (read_stream, write_stream):
                await server.run(read_stream, write_stream, server.create_initialization_options())
            tasks.cancel_scope.cancel()
    tools.searches.end()
    return received


def _take_streams(log: Callable[[str], object]) -> tuple[_Stream, _Stream]:
    """Return standard input and output for the protocol alone.

    From now on, whatever else reads standard input finds its end, and what else writes to standard output,
    such as a model's library, writes to standard error.
    """
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    reader = os.fdopen(incoming, encoding="utf-8", errors="replace", closefd=False)
    writer = os.fdopen(outgoing, "w", encoding="utf-8", closefd=False)
    return _Stream(reader, log), _Stream(writer, log)


class _Stream(anyio.AsyncFile[str]):
    """A standard stream whose threads are not waited for: a read or write may never return."""

    def __init__(self, stream: io.TextIOWrapper, log: Callable[[str], object]) -> None:
        super().__init__(stream)
        self._stream, self._log = stream, log

    async def readline(self) -> str:
        """Return the next line of at most `LONGEST_REQUEST` characters; an empty string at the end."""
        return await to_thread.run_sync(self._next_line, abandon_on_cancel=True)

    async def write(self, text: str) -> int:
        """Write text."""
        return await to_thread.run_sync(self._stream.write, text, abandon_on_cancel=True)

    async def flush(self) -> None:
        """Hand over what was written."""
        await to_thread.run_sync(self._stream.flush, abandon_on_cancel=True)

    def _next_line(self) -> str:
        while True:
            line = self._stream.readline(LONGEST_REQUEST)
            if len(line) < LONGEST_REQUEST or line.endswith("\n"):
                return line
            while line and not line.endswith("\n"):
                line = self._stream.readline(LONGEST_REQUEST)
            self._log("a request was too long, and left out")
