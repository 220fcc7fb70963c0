from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from tiny_run import make_run

from model import keyspace
from model.changes import PinRecord, write_records
from model.jobs import WORKER_DIED, Job, cancel_job, create_job, expire_dead_job, read_job
from model.manifest import Manifest
from model.redis_clients import sync_client
from model.redis_server import RedisSource
from model.release import current, open_release
from offline.release import worker as worker_module
from offline.release.publish import publish_run
from offline.release.worker import Worker
from offline.run_folder import RunFolder

# A worker whose reindex says "working" until it is told to stop.
BUSY_WORKER = """
import sys, time
from pathlib import Path
from offline.release import worker

def busy(home, redis, mode, report, *, before_flip):
    while True:
        report("working", 0.5)
        time.sleep(0.01)

worker.reindex = busy
worker.run_worker(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("tiny") / "run")


@pytest.fixture
def worker(home: Path, redis_source: RedisSource, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(worker_module, "WAIT_SECONDS", 0.05)
    return Worker(home, redis_source, redis_client)


@pytest.fixture
def busy_worker(home: Path, redis_source: RedisSource) -> Iterator[subprocess.Popen[bytes]]:
    """Another process with a worker that never gets done."""
    paths = [*sys.path, str(Path(worker_module.__file__).parents[1])]
    environ = {**os.environ, "PINSAGE_REDIS_URL": redis_source.address, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen([sys.executable, "-c", BUSY_WORKER, str(home)], env=environ, stderr=subprocess.PIPE)
    with process:
        yield process
        process.kill()


def wait_for(condition: Callable[[], bool]) -> None:
    """Until the condition holds; the test's own time limit ends it otherwise."""
    while not condition():
        time.sleep(0.02)


def job_now(client: redis.Redis, job: Job) -> Job:
    found = read_job(client, job.id)
    assert found is not None
    return found


def test_a_job_becomes_a_release(made: RunFolder, home: Path, worker: Worker, redis_client: redis.Redis) -> None:
    first = publish_run(made, home, redis=redis_client)
    write_records(redis_client, [PinRecord("n0", visual=(1.0, 2.0, 3.0, 4.0), boards=("b1",))])
    redis_client.hset(keyspace.STATE, "p/damaged", b"junk")
    redis_client.zadd(keyspace.LOG, {"p/damaged": 10**15})
    redis_client.set(keyspace.SEQ, 10**15)
    job = create_job(redis_client, "index")
    logging.getLogger("offline").setLevel(logging.INFO)
    assert worker.step() is not None
    done = job_now(redis_client, job)
    live = current(home / "releases")
    assert (done.state, done.release, done.progress, done.phase, done.error) == ("succeeded", live, 1.0, "done", None)
    assert live != first.id
    assert open_release(home / "releases", live or "").pin_ids.lookup("n0") >= 0
    log = redis_client.lrange(keyspace.job_log(job.id), 0, -1)
    assert any(b"p/damaged" in line for line in log)
    assert redis_client.get(keyspace.JOB_LEASE) is None


def test_a_job_that_cannot_be_done_fails_with_its_reason(worker: Worker, redis_client: redis.Redis) -> None:
    job = create_job(redis_client, "index")
    worker.step()
    done = job_now(redis_client, job)
    assert done.state == "failed"
    assert "no release yet" in (done.error or "")
    create_job(redis_client, "index")  # and does not bar the next


def test_an_unexpected_error_fails_the_job_and_not_the_worker(
    worker: Worker, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **more: object) -> Manifest:
        raise RuntimeError("oops")

    monkeypatch.setattr(worker_module, "reindex", broken)
    job = create_job(redis_client, "index")
    worker.step()
    assert (job_now(redis_client, job).state, job_now(redis_client, job).error) == ("failed", "RuntimeError: oops")
    assert worker.step() is None


def run_busily(worker: Worker, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> None:
    """A step with a reindex that reports until it is stopped; `meanwhile` is called once after the first report."""

    def busy(home: Path, client: redis.Redis, mode: str, report: Callable[[str, float], None], **more: object) -> None:
        report("working", 0.25)
        meanwhile()
        while True:
            report("working", 0.5)
            time.sleep(0.01)

    monkeypatch.setattr(worker_module, "reindex", busy)
    worker.step()


def test_a_running_job_can_be_cancelled(
    worker: Worker, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = create_job(redis_client, "index")
    run_busily(worker, monkeypatch, lambda: [cancel_job(redis_client, job.id)].clear())
    done = job_now(redis_client, job)
    assert (done.state, done.error, done.phase) == ("cancelled", "cancelled on request", "working")
    assert not redis_client.exists(keyspace.job_cancel(job.id))


def test_a_worker_that_lost_its_lease_stops_and_says_nothing(
    worker: Worker, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose() -> None:
        redis_client.delete(keyspace.JOB_LEASE)
        expire_dead_job(redis_client)

    job = create_job(redis_client, "index")
    run_busily(worker, monkeypatch, lose)
    assert (job_now(redis_client, job).state, job_now(redis_client, job).error) == ("failed", WORKER_DIED)


def test_the_lease_is_renewed_while_the_job_runs(
    worker: Worker, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyspace, "JOB_LEASE_MS", 1000)
    job = create_job(redis_client, "index")

    def outlast() -> None:
        time.sleep(2.2)
        assert redis_client.get(keyspace.JOB_LEASE) is not None
        cancel_job(redis_client, job.id)

    run_busily(worker, monkeypatch, outlast)
    assert not [thread for thread in threading.enumerate() if thread.name == "job-lease"]


def test_sigterm_cancels_the_job_and_ends_the_worker(
    busy_worker: subprocess.Popen[bytes], redis_client: redis.Redis
) -> None:
    job = create_job(redis_client, "index")
    wait_for(lambda: job_now(redis_client, job).phase == "working")
    busy_worker.send_signal(signal.SIGTERM)
    assert busy_worker.wait() == 0
    done = job_now(redis_client, job)
    assert (done.state, done.error) == ("cancelled", "the worker was stopped")
    assert redis_client.get(keyspace.JOB_LEASE) is None


def test_a_worker_goes_on_after_a_cancelled_job(
    busy_worker: subprocess.Popen[bytes], redis_client: redis.Redis
) -> None:
    for _ in range(2):
        job = create_job(redis_client, "index")
        wait_for(lambda job=job: job_now(redis_client, job).phase == "working")  # type: ignore[misc]
        cancel_job(redis_client, job.id)
        wait_for(lambda job=job: job_now(redis_client, job).state == "cancelled")  # type: ignore[misc]
    assert busy_worker.poll() is None


def test_sigterm_ends_a_worker_that_waits(busy_worker: subprocess.Popen[bytes], redis_client: redis.Redis) -> None:
    assert busy_worker.stderr is not None
    assert b"waits for jobs" in busy_worker.stderr.readline()
    busy_worker.send_signal(signal.SIGTERM)
    assert busy_worker.wait() == 0


def test_a_killed_workers_job_is_failed_when_its_lease_ends(
    busy_worker: subprocess.Popen[bytes], worker: Worker, redis_client: redis.Redis
) -> None:
    job = create_job(redis_client, "index")
    wait_for(lambda: job_now(redis_client, job).phase == "working")
    busy_worker.kill()
    busy_worker.wait()
    assert worker.step() is None  # the lease still holds
    assert job_now(redis_client, job).state == "running"
    assert redis_client.pttl(keyspace.JOB_LEASE) > 0
    redis_client.pexpire(keyspace.JOB_LEASE, 1)
    wait_for(lambda: worker.step() is None and job_now(redis_client, job).is_over)
    assert (job_now(redis_client, job).state, job_now(redis_client, job).error) == ("failed", WORKER_DIED)


def test_a_job_that_was_queued_before_the_worker_came_is_found(
    redis_source: RedisSource, worker: Worker, redis_client: redis.Redis
) -> None:
    job = create_job(redis_client, "index")
    redis_client.delete(keyspace.JOB_QUEUE)  # another worker was woken by it, and died at once
    with sync_client(redis_source) as client:
        assert client.llen(keyspace.JOB_QUEUE) == 0
    worker.step()
    assert job_now(redis_client, job).is_over
