"""Content of requests within bounds, and answers that are streamed as they come about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

LONGEST_BODY = 1 << 20
"""Bytes of a request's content at most."""


class BodyRefused(Exception):
    """The content of a request is too long, or comes too slowly; `status` says so."""

    def __init__(self, reason: str, status: HTTPStatus) -> None:
        """Keep the status."""
        super().__init__(reason)
        self.status = status


async def read_body(request: Request, seconds: float) -> bytes:
    """Return the content of a request; BodyRefused if it is too long, or takes longer than `seconds`."""
    content = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                content += chunk
                if len(content) > LONGEST_BODY:
                    raise BodyRefused("it is too long", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    except (TimeoutError, ClientDisconnect):
        raise BodyRefused("it came too slowly", HTTPStatus.REQUEST_TIMEOUT) from None
    return bytes(content)


class StreamUntilLeft(Response):
    """An answer whose chunks are sent as they come; they are closed as soon as the client goes away.

    Starlette's own `StreamingResponse` learns of that only when it sends the next chunk, for which the judge
    would have to look at another photo.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        media_type: str,
        left: Callable[[], object],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Stream `chunks`; `left` is called at the end, or when the client has gone away."""
        super().__init__(media_type=media_type, headers=headers)
        del self.headers["content-length"]
        self._chunks, self._left = chunks, left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        del scope
        stream = asyncio.ensure_future(self._stream(send))
        leave = asyncio.ensure_future(_wait_until_left(receive))
        try:
            await asyncio.wait([stream, leave], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stream.cancel()
            leave.cancel()
            ended, _ = await asyncio.gather(stream, leave, return_exceptions=True)
            await self._chunks.aclose()
            self._left()
        if isinstance(ended, Exception) and not isinstance(ended, OSError):
            raise ended

    async def _stream(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        async for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _wait_until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
