"""The files of the page at `/`, which are part of the package."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Suffix to media type."""

FOLDER = "/page/"
"""Path below which the files lie, all but the page itself."""


def page_routes() -> list[Route]:
    """Make a route for each file: no path that a client sends is ever opened."""
    routes = []
    for file in files("matir_cli.server").joinpath("page").iterdir():
        media_type = MEDIA_TYPES.get(file.name[file.name.rfind(".") :])
        if media_type is not None:
            path = "/" if file.name == "index.html" else FOLDER + file.name
            routes.append(Route(path, _endpoint(file.read_bytes(), media_type)))
    return routes


def is_public(method: str, path: str) -> bool:
    """Return True if a request asks for the page's files, which hold nothing of the gallery."""
    return method in ("GET", "HEAD") and (path == "/" or path.startswith(FOLDER))


def _endpoint(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    """Make the endpoint that answers with a file."""

    async def answer(_request: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer
