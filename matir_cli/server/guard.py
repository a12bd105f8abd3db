"""Refuses requests that the user of this machine has not made.

A browser lets any page send requests to 127.0.0.1. So every request that comes by TCP is checked:

- its `Host` must be this server's own, since a page can give its own name the address 127.0.0.1 (DNS
  rebinding); its `Origin` and `Sec-Fetch-Site`, where there are any, must be this server's, too;
- one that changes something must have the header `X-MaTIR`, which a page of another origin cannot send
  without being allowed to, and nobody is;
- with a token, it must have that token, unless it asks for the page's own files.

Answers forbid browsers to load or send anything elsewhere, and to show the page in a frame.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matir_cli.server.static_files import is_public

CHANGING_HEADER = "X-MaTIR"
"""Header that a request that changes something must have, with any value."""

TOKEN_COOKIE = "matir_token"  # noqa: S105 - a name
"""Cookie that may carry the token instead of the header `Authorization: Bearer TOKEN`."""

ANSWER_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer."""

_SAFE_METHODS = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use the server by TCP."""

    hosts: frozenset[str]
    """Values of `Host` that are this server's, in lower case; empty: any, which is only safe with a token."""
    token: str | None = None
    """None: no token is needed."""


class Guard:
    """Passes on the requests that may be answered; refuses the others."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        """Stand before `app`."""
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in ANSWER_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, send_guarded)
            return
        status, reason = refusal
        await JSONResponse({"error": reason}, status)(scope, receive, send_guarded)

    def _refusal(self, method: str, path: str, headers: Headers) -> tuple[HTTPStatus, str] | None:
        """Return why a request is refused; None if it is not."""
        if len(headers.getlist("host")) != 1:
            return HTTPStatus.FORBIDDEN, "not a name of this server"
        host = headers["host"].lower()
        if self._access.hosts and host not in self._access.hosts:
            return HTTPStatus.FORBIDDEN, "not a name of this server"
        if any(origin.lower() != f"http://{host}" for origin in headers.getlist("origin")):
            return HTTPStatus.FORBIDDEN, "a page of another origin"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return HTTPStatus.FORBIDDEN, "a page of another origin"
        if not (is_public(method, path) or self._has_token(headers)):
            return HTTPStatus.UNAUTHORIZED, "the token is missing or wrong"
        if method not in _SAFE_METHODS and CHANGING_HEADER not in headers:
            return HTTPStatus.FORBIDDEN, f"the header {CHANGING_HEADER} is missing"
        return None

    def _has_token(self, headers: Headers) -> bool:
        if self._access.token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = _cookie(headers.get("cookie", ""))
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._access.token.encode())


def _cookie(header: str) -> str:
    """Return the token in a `Cookie` header; an empty string if there is none."""
    try:
        morsel = SimpleCookie(header).get(TOKEN_COOKIE)
    except CookieError:
        return ""
    return "" if morsel is None else morsel.value


def loopback_hosts(port: int) -> frozenset[str]:
    """Return the names of this machine, with the port, that a browser may have in its address bar."""
    return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))
