from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from model import keyspace
from model.codecs import DamagedBytes
from model.jobs import (
    MODES,
    STATES,
    WORKER_DIED,
    Job,
    JobConflict,
    cancel_job,
    create_job,
    end_job,
    expire_dead_job,
    job_from_hash,
    job_to_hash,
    list_jobs,
    read_job,
    renew_lease,
    take_job,
)
from model.redis_clients import sync_client
from model.redis_server import RedisSource

SECONDS = st.none() | st.floats(0, 1e10)
WORDS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
JOBS = st.builds(
    Job,
    id=st.text("abc", min_size=1),
    mode=st.sampled_from(MODES),
    state=st.sampled_from(STATES),
    phase=st.text("abc "),
    progress=st.floats(0, 1),
    eta_seconds=SECONDS,
    release=WORDS,
    error=WORDS,
    created_at=st.floats(0, 1e10),
    started_at=SECONDS,
    finished_at=SECONDS,
)


@given(JOBS)
def test_a_job_comes_back_from_its_hash(job: Job) -> None:
    stored = {name.encode(): text.encode() for name, text in job_to_hash(job).items()}
    assert job_from_hash(stored) == job


@pytest.mark.parametrize("change", [{b"state": b"lost"}, {b"mode": b""}, {b"progress": b"x"}, {b"id": None}])
def test_a_damaged_record_is_noticed(change: dict[bytes, bytes | None]) -> None:
    whole = {name.encode(): text.encode() for name, text in job_to_hash(Job("a", "index")).items()} | change
    with pytest.raises(DamagedBytes):
        job_from_hash({name: text for name, text in whole.items() if text is not None})
    assert job_from_hash({}) is None


def test_a_job_goes_from_queued_through_running_to_its_end(redis_client: redis.Redis) -> None:
    job = create_job(redis_client, "embed")
    assert (job.state, read_job(redis_client, job.id)) == ("queued", job)
    taken = take_job(redis_client, "w")
    assert taken is not None
    assert (taken.id, taken.state, read_job(redis_client, job.id)) == (job.id, "running", taken)
    assert renew_lease(redis_client, job.id, "w")
    assert end_job(redis_client, job.id, "w", "succeeded", release="r1")
    done = read_job(redis_client, job.id)
    assert done is not None
    assert (done.state, done.progress, done.release, done.error, done.is_over) == ("succeeded", 1.0, "r1", None, True)
    assert done.finished_at is not None
    assert done.started_at is not None
    assert job.created_at <= done.started_at <= done.finished_at
    assert redis_client.get(keyspace.JOB_LEASE) is None
    assert take_job(redis_client, "w") is None


def test_there_is_one_job_at_a_time(redis_client: redis.Redis) -> None:
    first = create_job(redis_client, "index")
    with pytest.raises(JobConflict) as caught:
        create_job(redis_client, "index")
    assert caught.value.job.id == first.id
    take_job(redis_client, "w")
    with pytest.raises(JobConflict, match="running"):
        create_job(redis_client, "index")
    end_job(redis_client, first.id, "w", "failed", error="why")
    second = create_job(redis_client, "train")
    assert [job.id for job in list_jobs(redis_client)] == [second.id, first.id]


def test_of_many_at_once_one_creates_and_one_takes(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    def create(_: int) -> int:
        with sync_client(redis_source) as client:
            try:
                create_job(client, "index")
            except JobConflict:
                return 0
            return 1

    def take(number: int) -> int:
        with sync_client(redis_source) as client:
            return int(take_job(client, f"w{number}") is not None)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(create, range(8))) == 1
        assert sum(threads.map(take, range(8))) == 1
    assert len(list_jobs(redis_client)) == 1


def test_a_running_job_without_a_lease_is_failed_by_whoever_looks(redis_client: redis.Redis) -> None:
    job = create_job(redis_client, "index")
    assert expire_dead_job(redis_client) is None  # it only waits
    take_job(redis_client, "w")
    assert expire_dead_job(redis_client) is None
    redis_client.delete(keyspace.JOB_LEASE)  # its time is over
    expired = expire_dead_job(redis_client)
    assert expired is not None
    assert expired.id == job.id
    dead = read_job(redis_client, job.id)
    assert dead is not None
    assert (dead.state, dead.error) == ("failed", WORKER_DIED)
    assert not renew_lease(redis_client, job.id, "w")
    assert not end_job(redis_client, job.id, "w", "succeeded", release="r1")  # too late
    assert read_job(redis_client, job.id) == dead


def test_a_dead_job_does_not_bar_the_next(redis_client: redis.Redis) -> None:
    create_job(redis_client, "index")
    take_job(redis_client, "w")
    redis_client.delete(keyspace.JOB_LEASE)
    assert create_job(redis_client, "index").state == "queued"


def test_a_damaged_job_does_not_bar_the_next(redis_client: redis.Redis) -> None:
    job = create_job(redis_client, "index")
    redis_client.hset(keyspace.job(job.id), "state", "nonsense")
    assert take_job(redis_client, "w") is None
    create_job(redis_client, "index")
    assert take_job(redis_client, "w") is not None


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_is_asked(redis_client: redis.Redis) -> None:
    first = create_job(redis_client, "index")
    cancel_job(redis_client, first.id)
    was = read_job(redis_client, first.id)
    assert was is not None
    assert was.state == "cancelled"
    assert take_job(redis_client, "w") is None
    second = create_job(redis_client, "index")
    take_job(redis_client, "w")
    cancel_job(redis_client, second.id)
    asked = read_job(redis_client, second.id)
    assert asked is not None
    assert asked.state == "running"
    assert redis_client.exists(keyspace.job_cancel(second.id))
    assert cancel_job(redis_client, "unknown") is None


def test_only_the_newest_jobs_are_listed(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyspace, "MAX_JOBS", 2)
    ids = []
    for _ in range(4):
        ids.append(create_job(redis_client, "index").id)
        cancel_job(redis_client, ids[-1])
    assert [job.id for job in list_jobs(redis_client)] == ids[:1:-1]
