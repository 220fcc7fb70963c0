"""Probes, numbers for Prometheus, the console and the pages about the API.

Probes and pages are open to all and say nothing of the data; /metrics and /v1/status need the read scope.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import FileResponse, JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from service.http.answers import Health
from service.http.dependencies import LiveDep, MetricsDep, PartsDep
from service.http.routing import ReadRoute, problems

CONSOLE = Path(__file__).parents[1] / "console"
PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' https: data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}

probes = APIRouter(tags=["system"])
reads = APIRouter(tags=["system"], route_class=ReadRoute)
pages = APIRouter(include_in_schema=False)


@probes.get("/livez", summary="Whether the process lives")
async def livez() -> Health:
    """The event loop turns; says nothing of Redis or the release."""
    return Health(status="ok")


@probes.get(
    "/readyz",
    summary="Whether requests should come here",
    responses={503: {"model": Health, "description": "Not now, and why"}},
)
@probes.get("/healthz", include_in_schema=False)
async def readyz(request: Request, live: LiveDep) -> Response:
    """Ready means that a release is served and this process is not about to stop.

    Redis being away alone does not make a replica unready: it goes on reading from memory.
    """
    ready, reasons = live.ready()
    if request.app.state.draining:
        ready, reasons = False, [*reasons, "stopping"]
    health = Health(status="ok" if ready else "unavailable", reasons=reasons)
    return JSONResponse(health.model_dump(), status_code=200 if ready else 503)


@reads.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus text"}, **problems()},
)
async def metrics(metrics: MetricsDep) -> Response:
    """Durations of requests by route, sizes of the index, lag behind Redis, requests turned away."""
    return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


@reads.get("/v1/status", summary="What is being served", responses=problems())
async def status(parts: PartsDep) -> dict[str, Any]:
    """Release, counts, and how far behind Redis this process is."""
    return parts.status()


@pages.get("/")
async def console() -> Response:
    """The console."""
    return FileResponse(CONSOLE / "index.html", headers=PAGE_HEADERS)


@pages.get("/docs")
async def docs() -> Response:
    """What the API can do, made from /openapi.json."""
    return FileResponse(CONSOLE / "docs.html", headers=PAGE_HEADERS)


class Files(StaticFiles):
    """A folder's files with the headers of our pages."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        """The file's answer; a browser never takes it for anything but what its name says."""
        response = super().file_response(*arguments, **options)
        response.headers.update(PAGE_HEADERS)
        return response

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Names that no file system takes are files that are not there."""
        return await super().get_response("missing" if "\0" in path else path, scope)
