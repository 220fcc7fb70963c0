"""Reindex jobs as records in Redis: what the service and the worker say to each other.

    service  create: JOB_ACTIVE points to a new record in state queued, unless the one before has not ended
    worker   take: gets the lease, sets running; writes phase and progress; ends as succeeded, failed or cancelled
    anybody  expire: a running job without a lease lost its worker, and is failed

Every step is a MULTI under WATCH of the record, so that two of them never both happen. A queued or running job is thus
always one that a worker will take or holds.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, get_args

from redis import Redis, WatchError

from model import keyspace
from model.codecs import DamagedBytes
from model.errors import PinsageError

Mode = Literal["index", "embed", "train"]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
MODES: tuple[Mode, ...] = get_args(Mode)
STATES: tuple[State, ...] = get_args(State)
WORKER_DIED = "the worker died"

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """A reindex job. Times are seconds since 1970; progress goes from 0 to 1."""

    id: str
    mode: Mode
    state: State = "queued"
    phase: str = "waiting for a worker"
    progress: float = 0.0
    eta_seconds: float | None = None
    release: str | None = None
    error: str | None = None
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def is_over(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled")


class JobConflict(PinsageError):
    """There is a job that has not ended."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} is {job.state}")
        self.job = job


def new_job(mode: Mode) -> Job:
    """A job that is not in Redis yet."""
    now = time.time()
    name = time.strftime("j%Y%m%d-%H%M%S-", time.gmtime(now)) + secrets.token_hex(4)
    return Job(name, mode, created_at=now)


def job_to_hash(job: Job) -> dict[str, str]:
    """The fields of a job's hash; what is not known yet is an empty string."""
    fields = dataclasses.asdict(job)
    return {name: "" if value is None else str(value) for name, value in fields.items()}


def job_from_hash(fields: Mapping[bytes, bytes]) -> Job | None:
    """The job in a hash, None for an empty one; DamagedBytes when a field is missing or makes no sense."""
    if not fields:
        return None
    try:
        text = {field.name: fields[field.name.encode()].decode() for field in dataclasses.fields(Job)}
        times = {
            name: float(text[name]) if text[name] else None for name in ("eta_seconds", "started_at", "finished_at")
        }
        job = Job(
            id=text["id"],
            mode=cast(Mode, text["mode"]),
            state=cast(State, text["state"]),
            phase=text["phase"],
            progress=float(text["progress"]),
            release=text["release"] or None,
            error=text["error"] or None,
            created_at=float(text["created_at"]),
            **times,
        )
    except (KeyError, ValueError) as error:
        raise DamagedBytes(f"the record of a job is damaged: {error!r}") from None
    if job.mode not in MODES or job.state not in STATES:
        raise DamagedBytes(f"the record of a job is damaged: mode {job.mode}, state {job.state}")
    return job


# What goes into one MULTI; for clients of both kinds, since queueing needs no await.


def queue_new(pipe: Any, job: Job, idempotency_key: str | None = None) -> None:
    """Put a new job on the list and wake a worker."""
    pipe.hset(keyspace.job(job.id), mapping=job_to_hash(job))
    pipe.expire(keyspace.job(job.id), keyspace.JOB_SECONDS)
    pipe.zadd(keyspace.JOBS, {job.id: job.created_at})
    pipe.zremrangebyrank(keyspace.JOBS, 0, -keyspace.MAX_JOBS - 1)
    pipe.set(keyspace.JOB_ACTIVE, job.id)
    pipe.delete(keyspace.JOB_QUEUE)
    pipe.rpush(keyspace.JOB_QUEUE, job.id)
    if idempotency_key is not None:
        pipe.set(keyspace.idempotency(idempotency_key), job.id, ex=keyspace.IDEMPOTENCY_SECONDS)


def queue_end(pipe: Any, job_id: str, state: State, *, error: str = "", release: str = "") -> None:
    """End a job."""
    fields: dict[str, Any] = {"state": state, "error": error, "release": release, "eta_seconds": ""}
    if state == "succeeded":
        fields |= {"phase": "done", "progress": 1.0}
    pipe.hset(keyspace.job(job_id), mapping={**fields, "finished_at": time.time()})


def queue_cancel(pipe: Any, job: Job) -> None:
    """End a queued job; ask the worker of a running one to stop."""
    if job.state == "queued":
        queue_end(pipe, job.id, "cancelled")
    elif job.state == "running":
        pipe.set(keyspace.job_cancel(job.id), 1, ex=keyspace.JOB_SECONDS)


# The steps, for a client that blocks.


def read_job(client: Redis, job_id: str) -> Job | None:
    """A job by its id."""
    return job_from_hash(cast(Mapping[bytes, bytes], client.hgetall(keyspace.job(job_id))))


def list_jobs(client: Redis) -> list[Job]:
    """All jobs that are remembered, newest first."""
    ids: Sequence[Any] = cast(Sequence[Any], client.zrange(keyspace.JOBS, 0, -1, desc=True))
    jobs = (read_job(client, job_id.decode()) for job_id in ids)
    return [job for job in jobs if job is not None]


def create_job(client: Redis, mode: Mode) -> Job:
    """Put a job on the list; JobConflict while there is another that has not ended."""
    expire_dead_job(client)

    def step(pipe: Any) -> Job:
        active = _active(pipe)
        if active is not None and not active.is_over:
            raise JobConflict(active)
        job = new_job(mode)
        pipe.multi()
        queue_new(pipe, job)
        return job

    return _transaction(client, step)


def cancel_job(client: Redis, job_id: str) -> Job | None:
    """Cancel a job that has not ended; the job as it was, None when there is none."""

    def step(pipe: Any) -> Job | None:
        pipe.watch(keyspace.job(job_id))
        job = job_from_hash(pipe.hgetall(keyspace.job(job_id)))
        pipe.multi()
        if job is not None:
            queue_cancel(pipe, job)
        return job

    return _transaction(client, step)


def expire_dead_job(client: Redis) -> Job | None:
    """Fail the active job when it runs but nobody holds its lease; that job, if there was one."""

    def step(pipe: Any) -> Job | None:
        job = _active(pipe)
        pipe.watch(keyspace.JOB_LEASE)
        dead = job is not None and job.state == "running" and not holds_lease(pipe.get(keyspace.JOB_LEASE), job.id)
        pipe.multi()
        if job is None or not dead:
            return None
        queue_end(pipe, job.id, "failed", error=WORKER_DIED)
        return job

    return _transaction(client, step)


def take_job(client: Redis, worker: str) -> Job | None:
    """Take the lease of the queued job and set it running; None when there is none to take."""

    def step(pipe: Any) -> Job | None:
        job = _active(pipe)
        pipe.watch(keyspace.JOB_LEASE)
        free = pipe.get(keyspace.JOB_LEASE) is None
        pipe.multi()
        if job is None or job.state != "queued" or not free:
            return None
        taken = dataclasses.replace(job, state="running", phase="starting", started_at=time.time())
        pipe.hset(keyspace.job(job.id), mapping=job_to_hash(taken))
        pipe.set(keyspace.JOB_LEASE, lease(job.id, worker), px=keyspace.JOB_LEASE_MS)
        return taken

    return _transaction(client, step)


def renew_lease(client: Redis, job_id: str, worker: str) -> bool:
    """Hold the lease for another while; False when it was lost."""

    def step(pipe: Any) -> bool:
        pipe.watch(keyspace.JOB_LEASE)
        ours: bool = pipe.get(keyspace.JOB_LEASE) == lease(job_id, worker).encode()
        pipe.multi()
        if ours:
            pipe.pexpire(keyspace.JOB_LEASE, keyspace.JOB_LEASE_MS)
        return ours

    return _transaction(client, step)


def end_job(client: Redis, job_id: str, worker: str, state: State, *, error: str = "", release: str = "") -> bool:
    """End the job that we run and give its lease back; False when the lease was lost, and with it the right to."""

    def step(pipe: Any) -> bool:
        pipe.watch(keyspace.JOB_LEASE)
        ours: bool = pipe.get(keyspace.JOB_LEASE) == lease(job_id, worker).encode()
        pipe.multi()
        if ours:
            queue_end(pipe, job_id, state, error=error, release=release)
            pipe.delete(keyspace.JOB_LEASE, keyspace.job_cancel(job_id))
        return ours

    return _transaction(client, step)


def lease(job_id: str, worker: str) -> str:
    """What the lease says."""
    return f"{job_id}/{worker}"


def holds_lease(value: bytes | None, job_id: str) -> bool:
    """Whether somebody holds this job's lease."""
    return value is not None and value.decode(errors="replace").startswith(f"{job_id}/")


def _active(pipe: Any) -> Job | None:
    """The newest job; it and the pointer to it are watched. A damaged record bars no way: it counts as none."""
    pipe.watch(keyspace.JOB_ACTIVE)
    job_id = pipe.get(keyspace.JOB_ACTIVE)
    if job_id is None:
        return None
    key = keyspace.job(job_id.decode())
    pipe.watch(key)
    try:
        return job_from_hash(pipe.hgetall(key))
    except DamagedBytes:
        return None


def _transaction(client: Redis, step: Callable[[Any], T]) -> T:
    """Run a step that reads, calls multi and queues; again when somebody else was faster."""
    while True:
        with client.pipeline(transaction=True) as pipe:
            try:
                result = step(pipe)
                pipe.execute()
                return result
            except WatchError:
                continue
