"""`matir mcp` run as a real process, with the client of the protocol's own package."""

import base64
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import jsonschema
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import Client, StdioServerParameters, stdio_client
from mcp_types import CallToolResult, ImageContent, TextContent
from PIL import Image

from tests.support.process import MATIR


class Agent:
    """A client, connected to a `matir mcp` of its own."""

    def __init__(self, portal: BlockingPortal, client: Client) -> None:
        self.portal, self.client = portal, client
        self.tools = {tool.name: tool for tool in portal.call(client.list_tools).tools}
        self.progress: list[tuple[float, float | None, str | None]] = []
        """The reports of the last call."""

    def result(self, name: str, arguments: dict[str, Any]) -> CallToolResult:
        """Call a tool."""
        self.progress.clear()
        return self.portal.call(partial(self.client.call_tool, name, arguments, progress_callback=self._note))

    def call(self, name: str, **arguments: Any) -> Any:
        """The structured result of a call, which must succeed and have the promised structure."""
        return self.look(name, **arguments)[0]

    def look(self, name: str, **arguments: Any) -> tuple[Any, Image.Image | None]:
        """The structured result of a call and its picture."""
        result = self.result(name, arguments)
        assert not result.is_error, result.content
        schema = self.tools[name].output_schema
        assert schema is not None
        jsonschema.validate(result.structured_content, schema)
        pictures = [each for each in result.content if isinstance(each, ImageContent)]
        assert all(each.mime_type == "image/jpeg" for each in pictures)
        opened = [Image.open(io.BytesIO(base64.b64decode(each.data))) for each in pictures]
        return result.structured_content, opened[0] if opened else None

    def refusal(self, name: str, **arguments: Any) -> str:
        """The error of a call, which must fail with one line."""
        result = self.result(name, arguments)
        assert result.is_error, result.structured_content
        [content] = result.content
        assert isinstance(content, TextContent)
        assert "\n" not in content.text
        assert "Traceback" not in content.text
        return content.text

    async def _note(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append((progress, total, message))


class Messages:
    """Passes the message of each report on."""

    def __init__(self, observe: Callable[[str | None], object]) -> None:
        self._observe = observe

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        """Pass it on."""
        self._observe(message)


def parameters(*words: object) -> StdioServerParameters:
    """The command line that starts `matir mcp` with `words`."""
    command = [*MATIR, "mcp", *map(str, words)]
    return StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))


@contextmanager
def run_agent(gallery: Path, models: object, *words: object, errors: TextIO = sys.stderr) -> Iterator[Agent]:
    """Run `matir mcp` for a gallery and connect a client until the block ends."""
    transport = stdio_client(parameters("--db", gallery, "--models", models, *words), errlog=errors)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Client(transport)) as client,
    ):
        yield Agent(portal, client)
