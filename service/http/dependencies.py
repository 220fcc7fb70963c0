"""What routes get handed: the parts of the service that live as long as the app, and the checked ids of a path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Path
from starlette.requests import Request

from service.http.metrics import Metrics
from service.http.schemas import ID_PATTERN
from service.live.live import Live
from service.online.child_worker import ChildWorker
from service.online.jobs import Jobs


@dataclass
class Parts:
    """The parts of a running service."""

    live: Live
    jobs: Jobs
    metrics: Metrics
    worker: ChildWorker | None = None

    def status(self) -> dict[str, Any]:
        """What is served, for people and for Prometheus."""
        ready, _ = self.live.ready()
        trouble = self.worker.problem if self.worker is not None else None
        return {"ready": int(ready), **self.live.status(), **({"worker": trouble} if trouble else {})}


async def get_parts(request: Request) -> Parts:
    """The parts of the app that the request is for."""
    parts: Parts = request.app.state.parts
    return parts


async def get_live(request: Request) -> Live:
    """The catalogue and the store behind it."""
    return (await get_parts(request)).live


async def get_jobs(request: Request) -> Jobs:
    """The reindex jobs."""
    return (await get_parts(request)).jobs


async def get_metrics(request: Request) -> Metrics:
    """The numbers of this app."""
    return (await get_parts(request)).metrics


PartsDep = Annotated[Parts, Depends(get_parts)]
LiveDep = Annotated[Live, Depends(get_live)]
JobsDep = Annotated[Jobs, Depends(get_jobs)]
MetricsDep = Annotated[Metrics, Depends(get_metrics)]

PinId = Annotated[str, Path(pattern=ID_PATTERN, examples=["p-1"])]
UserId = Annotated[str, Path(pattern=ID_PATTERN, examples=["u-1"])]
BoardId = Annotated[str, Path(pattern=ID_PATTERN, examples=["b-12"])]
JobId = Annotated[str, Path(pattern=ID_PATTERN, examples=["5f0c"])]
ReleaseId = Annotated[str, Path(pattern=ID_PATTERN, examples=["20260131T120000-3f2a"])]
