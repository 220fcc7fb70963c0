"""Reindexing and releases."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from model.jobs import Job, JobConflict
from service.http.answers import ActivatedOut, JobOut, JobsOut, ReleaseOut, ReleasesOut
from service.http.dependencies import JobId, JobsDep, LiveDep, ReleaseId
from service.http.errors import Problem
from service.http.routing import WITH_BODY, AdminRoute, problems
from service.http.schemas import ID_PATTERN, ReindexIn

admin = APIRouter(prefix="/v1/admin", tags=["admin"], route_class=AdminRoute)

IdempotencyKey = Annotated[
    str | None, Header(pattern=ID_PATTERN, description="the same key within a day answers the same job")
]


@admin.post(
    "/reindex",
    summary="Make a new release of all there is now",
    status_code=202,
    responses={
        202: {"headers": {"Location": {"description": "the job", "required": True, "schema": {"type": "string"}}}},
        **problems("job-running", "idempotency-mismatch", *WITH_BODY, "store-unavailable"),
    },
)
async def start_reindex(
    response: Response, jobs: JobsDep, body: ReindexIn | None = None, idempotency_key: IdempotencyKey = None
) -> JobOut:
    """Puts a job on the list; a worker takes it, and its release is served as soon as it is published. One at a time.

    Without a body the mode is `index`: the quickest that takes in every live pin and board.
    """
    mode = (body or ReindexIn()).mode
    try:
        job = await jobs.create(mode, idempotency_key)
    except JobConflict as conflict:
        raise Problem("job-running", str(conflict), headers={"location": _place(conflict.job)}) from None
    response.headers["location"] = _place(job)
    return _job_out(job)


@admin.get("/jobs", summary="Reindex jobs", responses=problems("store-unavailable"))
async def list_jobs(jobs: JobsDep) -> JobsOut:
    """The newest first."""
    return JobsOut(jobs=[_job_out(job) for job in await jobs.list()])


@admin.get("/jobs/{job_id}", summary="A reindex job", responses=problems("unknown-job", "store-unavailable"))
async def get_job(job_id: JobId, jobs: JobsDep) -> JobOut:
    """State, progress and time left."""
    return _job_out(await jobs.get(job_id))


@admin.post(
    "/jobs/{job_id}/cancel",
    summary="Cancel a reindex job",
    status_code=202,
    responses=problems("unknown-job", "job-finished", "store-unavailable"),
)
async def cancel_job(job_id: JobId, jobs: JobsDep) -> JobOut:
    """A waiting job ends at once, a running one between two steps; nothing that is served changes."""
    return _job_out(await jobs.cancel(job_id))


@admin.get("/releases", summary="Releases that can be served", responses=problems())
async def list_releases(live: LiveDep) -> ReleasesOut:
    """The newest first."""
    return ReleasesOut(releases=[ReleaseOut.model_validate(release) for release in await live.list_releases()])


@admin.post(
    "/releases/{release_id}/activate",
    summary="Serve a release from now on",
    responses=problems("unknown-release", "release-refused", "store-unavailable"),
)
async def activate_release(release_id: ReleaseId, live: LiveDep) -> ActivatedOut:
    """Rolls back, or forward again. What was put in since is applied to it before it is served."""
    await live.activate(release_id)
    return ActivatedOut(release=release_id)


def _place(job: Job) -> str:
    return f"/v1/admin/jobs/{job.id}"


def _job_out(job: Job) -> JobOut:
    fields: dict[str, Any] = dataclasses.asdict(job)
    return JobOut(**fields)
