"""The HTTP API, which `openapi.json` describes."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from matir_cli.errors import GalleryError, MatirError, PhotoUnknown, PhotoUnreadable
from matir_cli.gallery.database import GalleryFile
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import ModelSession
from matir_cli.output.json_encoding import to_json
from matir_cli.search.pipeline import SearchOptions, run_search
from matir_cli.search.query import Query, resolve_region
from matir_cli.search.results import SearchResult
from matir_cli.server.command_lines import command_line
from matir_cli.server.explanations import ExplanationBody, explain_photo
from matir_cli.server.exports import MEDIA_TYPES, ExportBody, selected, write_export
from matir_cli.server.facts import gallery_facts
from matir_cli.server.jobs import Jobs, QueueFull, SearchJob
from matir_cli.server.photos import (
    MOST_OUTLINES,
    Pictures,
    newest_photos,
    region_outlines,
    shown_photo,
    shown_regions,
)
from matir_cli.server.searches import MOST_RESULTS, SearchBody, event_json, results_json
from matir_cli.server.static_files import page_routes
from matir_cli.server.transfer import BodyRefused, StreamUntilLeft, read_body

Value = TypeVar("Value")

JSON = "application/json"

MOST_THREADS = 4
"""Requests at a time that read the gallery or decode photos; further ones wait."""

PHOTO_SECONDS = 3600
"""Time for which a browser may keep a picture: the id of a photo is never used again."""


def api_app(jobs: Jobs) -> Starlette:
    """Make the application for TCP, which must stand behind a `Guard`."""
    api = _Api(jobs)
    return Starlette(
        routes=[
            *page_routes(),
            Route("/api/openapi.json", _description),
            Route("/api/gallery", api.gallery),
            Route("/api/searches", api.start, methods=["POST"]),
            Route("/api/searches/{id}", api.state),
            Route("/api/searches/{id}/events", api.events),
            Route("/api/searches/{id}/stop", api.stop, methods=["POST"]),
            Route("/api/commands", api.command, methods=["POST"]),
            Route("/api/explanations", api.explanation, methods=["POST"]),
            Route("/api/photos", api.newest),
            Route("/api/photos/{id:int}", api.photo),
            Route("/api/photos/{id:int}/image", api.image),
            Route("/api/photos/{id:int}/regions", api.regions),
            Route("/api/regions/outlines", api.outlines),
            Route("/api/regions/{id:int}/similar", api.similar),
            Route("/api/exports", api.export, methods=["POST"]),
        ],
        exception_handlers={
            HTTPException: _refuse,
            BodyRefused: _refuse_body,
            MatirError: _report,
            Exception: _fault,
        },
    )


class _Api:
    """The endpoints that use the gallery."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._pictures = Pictures()
        self._threads = asyncio.Semaphore(MOST_THREADS)
        self._exports = asyncio.Semaphore(1)

    async def _with_gallery(self, use: Callable[[GalleryFile], Value]) -> Value:
        """Call `use` with the gallery, in a thread of its own; MatirError as that raises it."""

        def call() -> Value:
            with GalleryFile.open(self._jobs.gallery) as opened:
                return use(opened)

        async with self._threads:
            return await run_in_threadpool(call)

    async def gallery(self, _request: Request) -> Response:
        """Answer with facts about the gallery."""
        facts = await self._with_gallery(lambda opened: gallery_facts(opened, self._jobs.models))
        return Response(to_json(facts), media_type=JSON)

    async def _read(self, request: Request, kind: type[Value]) -> Value:
        """Return the content of a request, which is JSON of this kind."""
        content = await read_body(request, self._jobs.limits.request_seconds)
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.MsgspecError as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error

    # Searches

    async def start(self, request: Request) -> Response:
        """Start a search."""
        try:
            search = (await self._read(request, SearchBody)).search()
        except ValueError as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error
        try:
            job = self._jobs.start(search)
        except QueueFull:
            raise HTTPException(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{self._jobs.active} searches are at work or waiting",
                {"Retry-After": str(self._jobs.retry_seconds)},
            ) from None
        job.expect_listener()
        place = f"/api/searches/{job.id}"
        body = {"id": job.id, "events": f"{place}/events", "stop": f"{place}/stop"}
        return JSONResponse(body, HTTPStatus.ACCEPTED, {"Location": place})

    async def command(self, request: Request) -> Response:
        """Answer with the command line of a search."""
        body = await self._read(request, SearchBody)
        line = await self._with_gallery(lambda opened: command_line(opened, body, self._jobs.models))
        return JSONResponse({"command": line})

    async def explanation(self, request: Request) -> Response:
        """Answer with where the score and the mask of a photo come from."""
        body = await self._read(request, ExplanationBody)
        jobs = self._jobs

        def explain(opened: GalleryFile) -> str:
            session = ModelSession(opened, load_model_set(jobs.models), jobs.device)
            explanation = explain_photo(opened, session, jobs.engines, body)
            return "null" if explanation is None else to_json(explanation)

        try:
            content = await self._with_gallery(explain)
        except ValueError as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error
        return Response(f'{{"explanation":{content}}}', media_type=JSON)

    async def state(self, request: Request) -> Response:
        """Answer with the state of a search."""
        job = self._job(request)
        return JSONResponse({"id": job.id, "over": job.is_over, "events": len(job.history)})

    async def events(self, request: Request) -> Response:
        """Stream the events of a search from the first on, or from the one after `Last-Event-ID`."""
        job = self._job(request)
        last = request.headers.get("last-event-id", "")
        start = int(last) + 1 if last.isdecimal() and len(last) < 10 else 0
        return StreamUntilLeft(_server_sent(job, start), "text/event-stream", job.expect_listener)

    async def stop(self, request: Request) -> Response:
        """Stop a search after the photo that is being judged."""
        self._job(request).stop()
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def _job(self, request: Request) -> SearchJob:
        job = self._jobs.get(request.path_params["id"])
        if job is None or not job.search.kept:
            raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such search, perhaps no longer")
        return job

    # Photos

    async def newest(self, request: Request) -> Response:
        """Answer with the facts of the photos taken last."""
        limit = _number(request, "limit", 100, 1, MOST_RESULTS)
        photos = await self._with_gallery(lambda opened: newest_photos(opened, limit))
        return Response(f'{{"photos":[{",".join(map(to_json, photos))}]}}', media_type=JSON)

    async def photo(self, request: Request) -> Response:
        """Answer with the facts of a photo."""
        photo = await self._with_gallery(lambda opened: shown_photo(opened, _id(request)))
        return Response(to_json(photo), media_type=JSON)

    async def image(self, request: Request) -> Response:
        """Answer with a photo as JPEG."""
        size = _number(request, "size", 640, 1, 1 << 16)
        jpeg = await self._with_gallery(lambda opened: self._pictures.jpeg(opened, _id(request), size))
        return Response(
            jpeg, media_type="image/jpeg", headers={"Cache-Control": f"private, max-age={PHOTO_SECONDS}"}
        )

    async def regions(self, request: Request) -> Response:
        """Answer with the outlines of a photo's regions."""
        regions = await self._with_gallery(lambda opened: shown_regions(opened, _id(request)))
        return Response(to_json(regions), media_type=JSON)

    async def outlines(self, request: Request) -> Response:
        """Answer with the outlines of some regions."""
        ids = _numbers(request, "ids", MOST_OUTLINES)
        outlines = await self._with_gallery(lambda opened: region_outlines(opened, ids))
        return JSONResponse({"outlines": outlines})

    async def similar(self, request: Request) -> Response:
        """Answer with the photos that have a region most like one region."""
        limit = _number(request, "limit", 20, 1, MOST_RESULTS)

        def search(opened: GalleryFile) -> str:
            query = Query(examples=(resolve_region(opened, _id(request)),))
            models = ModelSession(opened, load_model_set(self._jobs.models), self._jobs.device)
            outcome = run_search(opened, models, query, SearchOptions(limit=limit, rerank=False))
            return f'{{"results":{results_json(outcome.results)}}}'

        return Response(await self._with_gallery(search), media_type=JSON)

    async def export(self, request: Request) -> Response:
        """Answer with a file of the selected results."""
        wanted = await self._read(request, ExportBody)
        jobs = [self._jobs.get(each) for each in (wanted.search, *wanted.further)]
        job = jobs[0]
        if job is None or (wanted.photos is None and job.outcome is None):
            raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such search, or it is not over")
        results: list[SearchResult] = [] if job.outcome is None else job.outcome.results
        if wanted.photos is not None:
            results = selected((result for each in jobs if each for result in each.results), wanted.photos)
        if not results:
            raise HTTPException(HTTPStatus.BAD_REQUEST, "none of its results is selected")
        form, title = wanted.form, job.search.title
        folder = tempfile.TemporaryDirectory(prefix="matir-", ignore_cleanup_errors=True)
        place = Path(folder.name)
        try:
            async with self._exports:
                file = await self._with_gallery(
                    lambda opened: write_export(opened, form, title, results, place)
                )
        except BaseException:
            folder.cleanup()
            raise
        cleanup = BackgroundTask(folder.cleanup)
        return FileResponse(file, media_type=MEDIA_TYPES[form], filename=file.name, background=cleanup)


async def _server_sent(job: SearchJob, start: int) -> AsyncGenerator[bytes, None]:
    """Yield the events of a search in the form of server-sent events."""
    async with aclosing(job.messages(start)) as messages:
        async for number, message in messages:
            event = await run_in_threadpool(event_json, message, job.search.outlines)
            if event is not None:
                name, data = event
                yield f"id: {number}\nevent: {name}\ndata: {data}\n\n".encode()


def _id(request: Request) -> int:
    """Return the id in the path of a request."""
    identity = int(request.path_params["id"])
    if identity >= 1 << 63:
        raise HTTPException(HTTPStatus.NOT_FOUND, "ids are not that large")
    return identity


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    """Return a number in the query of a request."""
    text = request.query_params.get(name, str(default))
    if not (text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"{name} is a number from {least} to {most}")
    return int(text)


def _numbers(request: Request, name: str, most: int) -> list[int]:
    """Return numbers, separated by commas, in the query of a request."""
    words = request.query_params.get(name, "").split(",")
    if len(words) > most or not all(word.isdecimal() and len(word) < 19 for word in words):
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"{name} is 1 to {most} numbers, separated by commas")
    return [int(word) for word in words]


async def _description(_request: Request) -> Response:
    return Response(files("matir_cli.server").joinpath("openapi.json").read_bytes(), media_type=JSON)


async def _refuse(_request: Request, error: Exception) -> Response:
    """Answer with the reason of a refusal."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _refuse_body(_request: Request, error: Exception) -> Response:
    assert isinstance(error, BodyRefused)
    return JSONResponse({"error": f"the content of the request is refused: {error}"}, error.status)


async def _report(_request: Request, error: Exception) -> Response:
    """Answer with one of this program's own errors."""
    status = HTTPStatus.BAD_REQUEST
    if isinstance(error, PhotoUnknown | PhotoUnreadable):
        status = HTTPStatus.NOT_FOUND
    elif isinstance(error, GalleryError):
        status = HTTPStatus.INTERNAL_SERVER_ERROR
    return JSONResponse({"error": str(error), "kind": type(error).__name__}, status)


async def _fault(_request: Request, error: Exception) -> Response:
    """Answer with an error that is not one of ours."""
    reason = f"internal error: {type(error).__name__}: {error}"
    return JSONResponse({"error": reason}, HTTPStatus.INTERNAL_SERVER_ERROR)
