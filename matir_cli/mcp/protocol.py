"""The tools as the protocol sees them: names, schemas, hints, and errors as one line."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)

from matir_cli.errors import MatirError
from matir_cli.mcp import arguments, records
from matir_cli.mcp.options import McpOptions, ToolRefused
from matir_cli.mcp.searches import Report
from matir_cli.mcp.tools import Answer, Tools
from matir_cli.output.printable import printable
from matir_cli.server.runtime import program_version

MOST_CALLS = 32
"""Calls at work or waiting; further ones are refused."""

INSTRUCTIONS = (
    "Searches a gallery of photos by a description of an object, and gives back the photos and the object in "
    "each: box, mask, region. search_photos begins; view_results shows its results as one picture, "
    "view_photo one photo with the object outlined. Photos and regions are named by the ids in results."
)

_DRAFT = "#/$defs/{name}"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tool."""

    title: str
    description: str
    arguments: type[msgspec.Struct]
    record: type[msgspec.Struct]
    call: Callable[[Any, Report], Awaitable[Answer]]
    writes: bool = False

    def tool(self, name: str) -> Tool:
        """Describe it for a client."""
        return Tool(
            name=name,
            title=self.title,
            description=self.description,
            input_schema=_schema(self.arguments),
            output_schema=_schema(self.record),
            annotations=ToolAnnotations(
                title=self.title,
                read_only_hint=not self.writes,
                destructive_hint=False,
                idempotent_hint=not self.writes,
                open_world_hint=False,
            ),
        )


def _entries(tools: Tools) -> dict[str, _Entry]:
    entries = {
        "search_photos": _Entry(
            "Search photos",
            "Find the photos that show what a text describes, or what an example shows, and the object in "
            "each. The judge's verdicts are remembered: the same search is quick the second time.",
            arguments.SearchArguments,
            records.ResultPage,
            tools.search,
        ),
        "next_results": _Entry(
            "Next results",
            "Return the next page of a search's results.",
            arguments.PageArguments,
            records.ResultPage,
            tools.next_page,
        ),
        "similar_objects": _Entry(
            "Similar objects",
            "Find the photos with the objects that look most like a region; its own photo is first.",
            arguments.SimilarArguments,
            records.ResultPage,
            tools.similar,
        ),
        "view_photo": _Entry(
            "View a photo",
            "Show a photo, with the object that a search found or with regions outlined and labelled.",
            arguments.PhotoArguments,
            records.PhotoView,
            tools.photo,
        ),
        "view_results": _Entry(
            "View results",
            "Show results of a search as one picture: each photo with its object, and its number.",
            arguments.SheetArguments,
            records.ContactSheet,
            tools.sheet,
        ),
        "gallery_facts": _Entry(
            "Facts of the gallery",
            "Return how many photos there are, when and by which cameras, and whether models are missing.",
            arguments.FactsArguments,
            records.GallerySummary,
            tools.facts,
        ),
    }
    if tools.folder is not None:
        entries["save_objects"] = _Entry(
            "Save objects",
            "Write the masks or the cut-outs of a search's results as PNG files into a new folder in "
            f"{records.path_text(tools.folder.path)}, and nowhere else. Existing files are never replaced.",
            arguments.SaveArguments,
            records.SavedObjects,
            tools.save,
            writes=True,
        )
    return entries


def _schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON schema of a structure, an object at its root."""
    _, parts = msgspec.json.schema_components([kind], ref_template=_DRAFT)
    root = parts.pop(kind.__name__)
    return {**root, "$defs": parts} if parts else root


class ToolServer:
    """Answers a client's requests. Its methods run in the event loop."""

    def __init__(self, options: McpOptions, tools: Tools) -> None:
        """Offer the tools."""
        self._options = options
        self._entries = _entries(tools)
        self._calls = 0
        self.server: Server[Any] = Server(
            "matir",
            version=program_version(),
            title="MaTIR",
            description="Search photos by describing an object in them, and get the object's mask.",
            instructions=INSTRUCTIONS,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )

    async def _list(
        self, _context: ServerRequestContext[Any], _params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(tools=[entry.tool(name) for name, entry in self._entries.items()])

    async def _call(
        self, context: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult:
        entry = self._entries.get(params.name)
        if entry is None:
            known = ", ".join(self._entries)
            raise MCPError(
                INVALID_PARAMS, f"there is no tool {printable(params.name[:100])}; choose from: {known}"
            )
        if self._calls >= MOST_CALLS:
            return _error(f"{self._calls} calls are at work; wait for one, or cancel one")
        self._calls += 1
        try:
            wanted = _convert(params.arguments, entry.arguments)
            return _result(await entry.call(wanted, context.session.report_progress))
        except MatirError as error:
            return _error(self._options.explain(error))
        except (ToolRefused, ValueError) as error:  # msgspec's are ValueError
            return _error(str(error))
        except Exception as error:
            self._options.log(f"internal error in {params.name}: {type(error).__name__}: {error}")
            return _error(f"internal error: {type(error).__name__}: {error}; please report it")
        finally:
            self._calls -= 1


def _convert(given: dict[str, Any] | None, kind: type[msgspec.Struct]) -> msgspec.Struct:
    """Return the arguments of a call, read as strictly as JSON; ValueError if they are wrong."""
    try:
        content = msgspec.json.encode(given or {})
    except (UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise ValueError("the arguments are no JSON in UTF-8; send valid text") from error
    return msgspec.json.decode(content, type=kind)


def _result(answer: Answer) -> CallToolResult:
    record = msgspec.to_builtins(answer.record)
    content: list[TextContent | ImageContent] = []
    if answer.picture is not None:
        picture = base64.b64encode(answer.picture).decode()
        content.append(ImageContent(data=picture, mime_type="image/jpeg"))
    content.append(TextContent(text=json.dumps(record)))
    return CallToolResult(content=[*content], structured_content=record)


def _error(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=printable(text))], is_error=True)
