"""Every name in Redis, and nothing else.

All online state shares the cluster tag `{pinsage}`, so that one MULTI can write any of it; the vectors of a release
share `{pinsage:<release>}`, so that they spread over a cluster and are dropped together.
"""

from __future__ import annotations

import zlib

TAG = "{pinsage}"

# What tells one life of the database from the next.
EPOCH = f"{TAG}:epoch"  # random id; another value means that Redis was emptied, or restored to an older state
SEQ = f"{TAG}:seq"  # number of the last change

# The change log. STATE and LOG never lose anything: they are the online source of truth.
CHANGES = f"{TAG}:changes"  # stream: id `<seq>-0`, fields seq, key, record
STATE = f"{TAG}:state"  # hash: key of a pin or an edge -> record
LOG = f"{TAG}:log"  # sorted set: key -> seq of its last change
MAX_CHANGES = 1_000_000

# What people do.
EVENTS = f"{TAG}:events"  # stream: user, pin, type, board, timestamp
MAX_EVENTS = 1_000_000
MAX_RECENT = 200
MAX_SEEN = 500
EVENT_SECONDS = 86_400
POPULAR_SECONDS = 14 * 86_400

# Reindex jobs.
JOBS = f"{TAG}:jobs"  # sorted set: job id by time of creation
JOB_ACTIVE = f"{TAG}:job-active"  # string: the newest job; only when it has ended may there be another
JOB_QUEUE = f"{TAG}:job-queue"  # list: wakes a waiting worker; JOB_ACTIVE says what there is to do
JOB_LEASE = f"{TAG}:job-lease"  # string with a time to live: `<job id>/<worker id>`, held by who runs the job
JOB_LEASE_MS = 20_000
JOB_SECONDS = 30 * 86_400
JOB_LOG_LINES = 50
MAX_JOBS = 100
IDEMPOTENCY_SECONDS = 86_400

# Rate limits.
RATE = f"{TAG}:rate"  # prefix of strings: requests of a caller in a window, which expire with it

# Vectors of releases.
RELEASES = f"{TAG}:releases"  # set: releases that have vectors here
VECTORS_PER_BUCKET = 1_000


def pin_key(pin_id: str) -> str:
    """The field of a pin in STATE, and its member in LOG."""
    return f"p/{pin_id}"


def edge_key(board_id: str, pin_id: str) -> str:
    """The field of one membership in STATE, and its member in LOG."""
    return f"e/{board_id}/{pin_id}"


def recent(user_id: str) -> str:
    """Sorted set: `<type>/<pin_id>` by timestamp, the newest MAX_RECENT."""
    return f"{TAG}:user:{user_id}:recent"


def hides(user_id: str) -> str:
    """Sorted set: hidden pin ids by timestamp."""
    return f"{TAG}:user:{user_id}:hides"


def seen(user_id: str) -> str:
    """Sorted set: pin ids that were shown, by timestamp, the newest MAX_SEEN."""
    return f"{TAG}:user:{user_id}:seen"


def event(event_id: str) -> str:
    """A marker that lives EVENT_SECONDS: this event was counted."""
    return f"{TAG}:event:{event_id}"


def popular(day: str) -> str:
    """Sorted set: pin ids by weight of one day (`2026-01-31`), lives POPULAR_SECONDS."""
    return f"{TAG}:popular:{day}"


def job(job_id: str) -> str:
    """Hash: the record of a job (model/jobs.py)."""
    return f"{TAG}:job:{job_id}"


def job_log(job_id: str) -> str:
    """List: the last lines that a job logged."""
    return f"{TAG}:job:{job_id}:log"


def job_cancel(job_id: str) -> str:
    """A marker: somebody asked that this job stop."""
    return f"{TAG}:job:{job_id}:cancel"


def idempotency(key: str) -> str:
    """String: the job that this Idempotency-Key made; lives IDEMPOTENCY_SECONDS."""
    return f"{TAG}:idempotency:{key}"


def vectors(release: str, bucket: int) -> str:
    """Hash: pin id -> packed vector; one of `num_buckets` of a release."""
    return f"{{pinsage:{release}}}:vectors:{bucket}"


def vectors_meta(release: str) -> str:
    """Hash: dim, count, buckets, state (`writing` or `complete`) of a release's vectors."""
    return f"{{pinsage:{release}}}:meta"


def num_buckets(count: int) -> int:
    """How many hashes hold `count` vectors."""
    return max(1, -(-count // VECTORS_PER_BUCKET))


def bucket_of(pin_id: str, buckets: int) -> int:
    """The hash that holds a pin's vector."""
    return zlib.crc32(pin_id.encode()) % buckets
