"""What the server does for other processes of its user, through the Unix socket.

POST /find       a `SearchRequest`; the answer is a stream of messages
POST /stop/ID    stops a search as Ctrl-C does
POST /shutdown   ends the server
GET  /status     a `ServerStatus`, as JSON
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from http import HTTPStatus

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from matir_cli.server.jobs import Jobs, QueueFull, Search, SearchJob
from matir_cli.server.messages import JOB_HEADER, MEDIA_TYPE, decode_request, encode_message
from matir_cli.server.runtime import ServerStatus, file_identity
from matir_cli.server.transfer import BodyRefused, StreamUntilLeft, read_body


def socket_app(jobs: Jobs, end: Callable[[], object]) -> Starlette:
    """Make the application for the Unix socket.

    Args:
        end: ends the server.
    """

    async def find(request: Request) -> Response:
        try:
            wanted = decode_request(await read_body(request, jobs.limits.request_seconds))
            query = wanted.query()
        except BodyRefused as refused:
            return PlainTextResponse(f"refuses the request: {refused}", refused.status)
        except (msgspec.MsgspecError, ValueError):
            return PlainTextResponse("does not understand the request", HTTPStatus.BAD_REQUEST)
        if (wanted.models, wanted.device) != (jobs.models, jobs.device):
            return PlainTextResponse("has other models", HTTPStatus.CONFLICT)
        if file_identity(jobs.gallery) != wanted.gallery:
            return PlainTextResponse("serves another file", HTTPStatus.CONFLICT)
        try:
            job = jobs.start(Search(lambda *_: query, wanted.options, decode_seconds=wanted.decode_seconds))
        except QueueFull:
            return PlainTextResponse(f"is busy with {jobs.active} searches", HTTPStatus.TOO_MANY_REQUESTS)
        return StreamUntilLeft(_encoded(job), MEDIA_TYPE, job.expect_listener, {JOB_HEADER: job.id})

    async def stop(request: Request) -> Response:
        job = jobs.get(request.path_params["id"])
        if job is None:
            return PlainTextResponse("has no such search", HTTPStatus.NOT_FOUND)
        job.stop()
        return Response()

    async def shutdown(_request: Request) -> Response:
        end()
        return Response()

    async def status(_request: Request) -> Response:
        content = msgspec.json.encode(ServerStatus(jobs.active, jobs.served, jobs.engines.loaded))
        return Response(content, media_type="application/json")

    return Starlette(
        routes=[
            Route("/find", find, methods=["POST"]),
            Route("/stop/{id}", stop, methods=["POST"]),
            Route("/shutdown", shutdown, methods=["POST"]),
            Route("/status", status),
        ]
    )


async def _encoded(job: SearchJob) -> AsyncGenerator[bytes, None]:
    async with aclosing(job.messages()) as messages:
        async for _, message in messages:
            yield encode_message(message)
