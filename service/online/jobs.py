"""Reindex jobs as the service sees them: it puts them on the list and reads what the worker writes (see model.jobs)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from redis import RedisError, WatchError
from redis.asyncio import Redis

from model import keyspace
from model.codecs import DamagedBytes
from model.jobs import (
    WORKER_DIED,
    Job,
    JobConflict,
    Mode,
    holds_lease,
    job_from_hash,
    new_job,
    queue_cancel,
    queue_end,
    queue_new,
)
from service.http.errors import Problem
from service.live.failures import StoreUnavailable

MAX_TRIES = 20
T = TypeVar("T")


class Jobs:
    """The jobs in one Redis. Every method raises StoreUnavailable when it does not answer."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def create(self, mode: Mode, idempotency_key: str | None = None) -> Job:
        """A new job, or the one that the same idempotency key made before.

        Raises JobConflict while another has not ended, Problem when the key was used for another mode.
        """
        await self._fail_dead_job()

        async def step(pipe: Any) -> Job | JobConflict:
            before = None if idempotency_key is None else await _made_by(pipe, idempotency_key)
            if before is not None:
                if before.mode != mode:
                    raise Problem("idempotency-mismatch", f"it made job {before.id} of mode {before.mode}")
                return before
            active = await _active(pipe)
            if active is not None and not active.is_over:
                return JobConflict(active)  # and raised once it is sure that nothing changed while we looked
            job = new_job(mode)
            pipe.multi()
            queue_new(pipe, job, idempotency_key)
            return job

        made = await self._transaction(step)
        if isinstance(made, JobConflict):
            raise made
        return made

    async def get(self, job_id: str) -> Job:
        """A job; raises Problem when there is none."""
        await self._fail_dead_job()
        async with _answering():
            return _known(await _read(self._client, job_id), job_id)

    async def list(self) -> list[Job]:
        """All jobs that are remembered, newest first."""
        await self._fail_dead_job()
        async with _answering():
            ids = cast(list[bytes], await self._client.zrange(keyspace.JOBS, 0, -1, desc=True))
            found = [await _read(self._client, job_id.decode()) for job_id in ids]
        return [job for job in found if job is not None]

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job: a queued one ends at once, a running one soon; raises Problem where there is none to cancel."""

        async def step(pipe: Any) -> None:
            await pipe.watch(keyspace.job(job_id))
            job = _known(await _read(pipe, job_id), job_id)
            if job.is_over:
                raise Problem("job-finished", f"it has {job.state}")
            pipe.multi()
            queue_cancel(pipe, job)

        await self._transaction(step)
        return await self.get(job_id)

    async def _fail_dead_job(self) -> None:
        """A running job whose lease ran out has lost its worker."""

        async def step(pipe: Any) -> None:
            job = await _active(pipe)
            if job is None or job.state != "running":
                return
            await pipe.watch(keyspace.JOB_LEASE)
            if not holds_lease(await pipe.get(keyspace.JOB_LEASE), job.id):
                pipe.multi()
                queue_end(pipe, job.id, "failed", error=WORKER_DIED)

        await self._transaction(step)

    async def _transaction(self, step: Callable[[Any], Awaitable[T]]) -> T:
        """Run a step that reads, calls multi and queues; again when somebody else was faster."""
        for _ in range(MAX_TRIES):
            async with _answering(), self._client.pipeline(transaction=True) as pipe:
                try:
                    result = await step(pipe)
                    await pipe.execute()
                    return result
                except WatchError:
                    continue
        raise StoreUnavailable("other writers were always first")


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    """What Redis raises when it does not answer, in our words."""
    try:
        yield
    except WatchError:
        raise
    except (RedisError, OSError) as error:
        raise StoreUnavailable(str(error)) from error


def _known(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise Problem("unknown-job", f"no job {job_id}")
    return job


async def _read(client: Any, job_id: str) -> Job | None:
    """A job's record; one that is damaged counts as none."""
    try:
        return job_from_hash(await client.hgetall(keyspace.job(job_id)))
    except DamagedBytes:
        return None


async def _active(pipe: Any) -> Job | None:
    """The newest job; it and the pointer to it are watched."""
    await pipe.watch(keyspace.JOB_ACTIVE)
    job_id = await pipe.get(keyspace.JOB_ACTIVE)
    if job_id is None:
        return None
    await pipe.watch(keyspace.job(job_id.decode()))
    return await _read(pipe, job_id.decode())


async def _made_by(pipe: Any, idempotency_key: str) -> Job | None:
    """The job that a key made; the key is watched."""
    await pipe.watch(keyspace.idempotency(idempotency_key))
    job_id = await pipe.get(keyspace.idempotency(idempotency_key))
    return None if job_id is None else await _read(pipe, job_id.decode())
