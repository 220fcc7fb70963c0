"""Reindex jobs from the service's side: one at a time, idempotent, cancelled, failed when their worker dies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import redis

from model import keyspace
from model.jobs import Job, JobConflict, create_job, end_job, take_job
from model.redis_clients import async_client
from model.redis_server import RedisSource
from service.http.errors import Problem
from service.live.failures import StoreUnavailable
from service.online.jobs import Jobs

T = TypeVar("T")


def ask(source: RedisSource, action: Callable[[Jobs], Awaitable[T]]) -> T:
    """Run an action on the jobs of a Redis."""

    async def run() -> T:
        client = async_client(source, timeout=5.0)
        try:
            return await action(Jobs(client))
        finally:
            await client.aclose()

    return asyncio.run(run())


def test_new_job_waits_for_a_worker(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    job = ask(redis_source, lambda jobs: jobs.create("embed"))
    assert (job.state, job.mode, job.progress) == ("queued", "embed", 0.0)
    taken = take_job(redis_client, "w1")
    assert taken is not None
    assert taken.id == job.id


def test_one_at_a_time(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    first = ask(redis_source, lambda jobs: jobs.create("index"))
    with pytest.raises(JobConflict) as waiting:
        ask(redis_source, lambda jobs: jobs.create("index"))
    take_job(redis_client, "w1")
    with pytest.raises(JobConflict) as running:
        ask(redis_source, lambda jobs: jobs.create("train"))
    assert waiting.value.job.id == running.value.job.id == first.id
    end_job(redis_client, first.id, "w1", "succeeded", release="r2")
    assert ask(redis_source, lambda jobs: jobs.create("index")).id != first.id


def test_of_many_that_ask_at_once_one_wins(redis_source: RedisSource) -> None:
    async def race(jobs: Jobs) -> list[Job | BaseException]:
        return await asyncio.gather(*(jobs.create("index") for _ in range(20)), return_exceptions=True)

    results = ask(redis_source, race)
    made = [result for result in results if isinstance(result, Job)]
    lost = [result for result in results if isinstance(result, JobConflict)]
    assert (len(made), len(lost)) == (1, 19)
    assert {conflict.job.id for conflict in lost} == {made[0].id}


def test_the_same_idempotency_key_answers_the_same_job(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    first = ask(redis_source, lambda jobs: jobs.create("index", "key-1"))
    assert ask(redis_source, lambda jobs: jobs.create("index", "key-1")).id == first.id
    take_job(redis_client, "w1")
    end_job(redis_client, first.id, "w1", "failed", error="disk full")
    again = ask(redis_source, lambda jobs: jobs.create("index", "key-1"))
    assert (again.id, again.state) == (first.id, "failed")
    assert 0 < redis_client.ttl(keyspace.idempotency("key-1")) <= keyspace.IDEMPOTENCY_SECONDS


def test_idempotency_key_of_another_request_is_refused(redis_source: RedisSource) -> None:
    ask(redis_source, lambda jobs: jobs.create("index", "key-1"))
    with pytest.raises(Problem) as refused:
        ask(redis_source, lambda jobs: jobs.create("train", "key-1"))
    assert refused.value.status == 422


def test_of_many_with_one_idempotency_key_all_get_the_same_job(redis_source: RedisSource) -> None:
    async def race(jobs: Jobs) -> list[Job]:
        return await asyncio.gather(*(jobs.create("index", "key-1") for _ in range(20)))

    assert len({job.id for job in ask(redis_source, race)}) == 1


def test_jobs_are_listed_newest_first(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    made = []
    for _ in range(3):
        made.append(create_job(redis_client, "index").id)
        take_job(redis_client, "w1")
        end_job(redis_client, made[-1], "w1", "succeeded")
    listed = ask(redis_source, lambda jobs: jobs.list())
    assert [job.id for job in listed] == made[::-1]
    assert {job.state for job in listed} == {"succeeded"}


def test_waiting_job_is_cancelled_at_once(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    job = ask(redis_source, lambda jobs: jobs.create("index"))
    assert ask(redis_source, lambda jobs: jobs.cancel(job.id)).state == "cancelled"
    assert take_job(redis_client, "w1") is None
    with pytest.raises(Problem) as ended:
        ask(redis_source, lambda jobs: jobs.cancel(job.id))
    assert ended.value.kind == "job-finished"


def test_running_job_is_asked_to_stop(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    job = ask(redis_source, lambda jobs: jobs.create("index"))
    take_job(redis_client, "w1")
    assert ask(redis_source, lambda jobs: jobs.cancel(job.id)).state == "running"
    assert redis_client.exists(keyspace.job_cancel(job.id))


def test_job_whose_worker_died_is_failed_and_the_next_may_start(
    redis_source: RedisSource, redis_client: redis.Redis
) -> None:
    job = ask(redis_source, lambda jobs: jobs.create("index"))
    take_job(redis_client, "w1")
    redis_client.delete(keyspace.JOB_LEASE)  # as when its time runs out
    found = ask(redis_source, lambda jobs: jobs.get(job.id))
    assert (found.state, found.error) == ("failed", "the worker died")
    assert ask(redis_source, lambda jobs: jobs.create("index")).id != job.id


def test_unknown_job(redis_source: RedisSource) -> None:
    for action in (lambda jobs: jobs.get("j1"), lambda jobs: jobs.cancel("j1")):
        with pytest.raises(Problem) as unknown:
            ask(redis_source, action)
        assert unknown.value.kind == "unknown-job"


def test_damaged_record_hides_itself_and_nothing_else(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    broken = create_job(redis_client, "index")
    redis_client.hset(keyspace.job(broken.id), "state", "nonsense")
    job = ask(redis_source, lambda jobs: jobs.create("index"))
    assert [listed.id for listed in ask(redis_source, lambda jobs: jobs.list())] == [job.id]


def test_no_redis_is_said_at_once() -> None:
    nowhere = RedisSource("unix:///nonexistent/redis.sock")
    for action in (
        lambda jobs: jobs.create("index"),
        lambda jobs: jobs.list(),
        lambda jobs: jobs.get("j1"),
        lambda jobs: jobs.cancel("j1"),
    ):
        with pytest.raises(StoreUnavailable):
            ask(nowhere, action)
