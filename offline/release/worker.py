"""`pinsage worker`: takes reindex jobs from Redis and runs them, one at a time.

While a job runs, a thread renews the lease that says so. When this process dies, the lease ends and anybody may see the
job as failed; when it lives but has lost the lease (it was frozen too long), it must not publish any more.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from redis import Redis, RedisError

from model import keyspace
from model.errors import PinsageError
from model.jobs import Job, State, end_job, expire_dead_job, renew_lease, take_job
from model.redis_clients import Source, sync_client
from model.redis_server import open_redis
from offline.release.reindex import reindex

logger = logging.getLogger(__name__)

WAIT_SECONDS = 1.0  # between two looks for a job
WRITE_SECONDS = 0.5  # between two writes of progress
LOG_PACKAGES = ("model", "offline", "pinsage")


class JobCancelled(BaseException):
    """Somebody asked that the job stop. No Exception: nobody on the way is to swallow it."""


class WorkerStopped(BaseException):
    """A signal came while a job ran."""


def run_worker(home: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Take jobs until SIGTERM or SIGINT; a job that runs then is cancelled."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    with _StopSignals() as signals, open_redis(home, environ) as source, sync_client(source) as client:
        worker = Worker(home, source, client, on_flip=signals.hold)
        logger.info("worker %s waits for jobs at %s", worker.name, source)
        while not signals.stopping:
            try:
                with signals.interrupting():
                    worker.step()
            except WorkerStopped:
                break
            except RedisError as error:
                logger.warning("Redis: %s", error)
                signals.wait(WAIT_SECONDS)
    logger.info("worker ended")


class Worker:
    """Runs the jobs of one home; `name` tells it from other workers. `on_flip` is called before a release goes live."""

    def __init__(
        self, home: Path, source: Source, client: Redis, *, on_flip: Callable[[], None] = lambda: None
    ) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"
        self._home, self._source, self._client = home, source, client
        self._on_flip = on_flip

    def step(self) -> Job | None:
        """Wait a while for a job and run it; the job, if there was one."""
        expire_dead_job(self._client)
        job = take_job(self._client, self.name)
        if job is None:
            # Only a wake-up: what there is to do is read from the job's record, so none is lost with a worker.
            self._client.blpop([keyspace.JOB_QUEUE], timeout=WAIT_SECONDS)
            return None
        logger.info("job %s: %s", job.id, job.mode)
        try:
            self._run(job)
        except JobCancelled as error:
            self._end(job, "cancelled", str(error))
        except Exception as error:
            expected = isinstance(error, PinsageError | OSError)
            logger.error("job %s failed: %s", job.id, error, exc_info=None if expected else error)
            self._end(job, "failed", str(error) if expected else f"{type(error).__name__}: {error}")
        except BaseException as error:
            self._end(job, "cancelled", str(error) or type(error).__name__)
            raise
        return job

    def _run(self, job: Job) -> None:
        with _Lease(self._source, job.id, self.name) as lease, _log_into(self._client, job.id):

            def before_flip() -> None:
                self._on_flip()
                lease.check()

            progress = _Progress(self._client, job, lease.check)
            manifest = reindex(self._home, self._client, job.mode, progress, before_flip=before_flip)
        end_job(self._client, job.id, self.name, "succeeded", release=manifest.id)
        logger.info("job %s: release %s is live", job.id, manifest.id)

    def _end(self, job: Job, state: State, reason: str) -> None:
        try:
            end_job(self._client, job.id, self.name, state, error=reason)
        except RedisError as error:  # its lease ends, and it is failed by whoever looks next
            logger.warning("job %s: its end could not be written: %s", job.id, error)


class _Lease:
    """Renews a job's lease in a thread of its own, with a client of its own; looks for a wish to cancel, too."""

    def __init__(self, source: Source, job_id: str, worker: str) -> None:
        self._source, self._job_id, self._worker = source, job_id, worker
        self._reason: str | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="job-lease", daemon=True)

    def check(self) -> None:
        """Raise JobCancelled or PinsageError when the job must not go on."""
        if self._reason == "cancelled":
            raise JobCancelled("cancelled on request")
        if self._reason is not None:
            raise PinsageError(self._reason)

    def __enter__(self) -> _Lease:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _renew(self) -> None:
        held_at = time.monotonic()
        with sync_client(self._source, timeout=2.0) as client:
            while not self._end.wait(min(WAIT_SECONDS, keyspace.JOB_LEASE_MS / 5000)):
                try:
                    if not renew_lease(client, self._job_id, self._worker):
                        self._reason = "the lease was lost: another worker may have taken over"
                        return
                    held_at = time.monotonic()
                    if client.exists(keyspace.job_cancel(self._job_id)):
                        self._reason = "cancelled"
                except RedisError:
                    if time.monotonic() - held_at > keyspace.JOB_LEASE_MS / 1000:
                        self._reason = "Redis was away for longer than the lease"
                        return


class _Progress:
    """A Report that writes into the job's record, at most twice a second; no news is lost to a Redis that is away."""

    def __init__(self, client: Redis, job: Job, check: Callable[[], None]) -> None:
        self._client, self._job, self._check = client, job, check
        self._started = time.monotonic()
        self._written, self._phase = 0.0, ""

    def __call__(self, phase: str, share: float) -> None:
        self._check()
        now = time.monotonic()
        if phase == self._phase and now - self._written < WRITE_SECONDS:
            return
        self._written, self._phase = now, phase
        seconds = now - self._started
        eta: float | str = round(seconds * (1 - share) / share, 1) if share > 0.02 else ""
        fields: dict[Any, Any] = {"phase": phase, "progress": round(share, 4), "eta_seconds": eta}
        try:
            self._client.hset(keyspace.job(self._job.id), mapping=fields)
        except RedisError as error:
            logger.warning("progress could not be written: %s", error)


@contextmanager
def _log_into(client: Redis, job_id: str) -> Iterator[None]:
    """What is logged meanwhile, as the job's last lines."""
    handler = _LogHandler(client, job_id)
    loggers = [logging.getLogger(name) for name in LOG_PACKAGES]
    for each in loggers:
        each.addHandler(handler)
    try:
        yield
    finally:
        for each in loggers:
            each.removeHandler(handler)


class _LogHandler(logging.Handler):
    def __init__(self, client: Redis, job_id: str) -> None:
        super().__init__(logging.INFO)
        self._client, self._key = client, keyspace.job_log(job_id)

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{time.strftime('%H:%M:%S', time.gmtime(record.created))} {record.levelname} {record.getMessage()}"
        try:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.rpush(self._key, line)
                pipe.ltrim(self._key, -keyspace.JOB_LOG_LINES, -1)
                pipe.expire(self._key, keyspace.JOB_SECONDS)
                pipe.execute()
        except RedisError:
            return


class _StopSignals:
    """SIGTERM and SIGINT: interrupt a step wherever it is, and are remembered between steps."""

    def __init__(self) -> None:
        self.stopping = False
        self._interrupt = False
        self._woken = threading.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _StopSignals:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within, a signal raises WorkerStopped in the main thread."""
        self._interrupt = True
        try:
            yield
        finally:
            self._interrupt = False

    def hold(self) -> None:
        """From here to the end of the step a signal is only remembered: what is nearly done gets done."""
        self._interrupt = False

    def wait(self, seconds: float) -> None:
        self._woken.wait(seconds)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self.stopping = not self.stopping, True
        self._woken.set()
        if self._interrupt and first:  # a second signal must not disturb the clearing up
            raise WorkerStopped("the worker was stopped")
