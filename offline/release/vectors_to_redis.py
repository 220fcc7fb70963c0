"""The vectors of a release in Redis: hashes of about a thousand, written in pipelines, counted afterwards.

Shape letters: P pins, D embedding width, C pins of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from redis import Redis

from model import keyspace
from model.codecs import pack_vectors, unpack_vector
from model.errors import PinsageError
from offline.progress import Report, silent

CHUNK = 2_000
FLOAT32_LIMIT = 2 << 30  # bytes; larger releases take half precision: two releases must fit into one machine's memory
SAMPLE = 100
TOLERANCE = {"f4": 0.0, "f2": 1e-3}


def write_vectors(
    client: Redis, release_id: str, ids: Sequence[str], vectors_PD: NDArray[np.float32], report: Report = silent
) -> None:
    """Write and verify all vectors of a release. Raises PinsageError when Redis does not hold them all afterwards."""
    buckets = keyspace.num_buckets(len(ids))
    dtype = "f4" if vectors_PD.nbytes <= FLOAT32_LIMIT else "f2"
    meta: dict[Any, Any] = {"dim": vectors_PD.shape[1], "count": len(ids), "buckets": buckets, "dtype": dtype}
    client.sadd(keyspace.RELEASES, release_id)
    client.hset(keyspace.vectors_meta(release_id), mapping={**meta, "state": "writing"})
    for start in range(0, len(ids), CHUNK):
        report("vectors into Redis", start / len(ids))
        some = ids[start : start + CHUNK]
        by_key: dict[str, dict[Any, Any]] = {}
        for pin_id, packed in zip(some, pack_vectors(vectors_PD[start : start + CHUNK], dtype), strict=True):
            key = keyspace.vectors(release_id, keyspace.bucket_of(pin_id, buckets))
            by_key.setdefault(key, {})[pin_id] = packed
        with client.pipeline(transaction=False) as pipe:
            for key, fields in by_key.items():
                pipe.hset(key, mapping=fields)
            pipe.execute()
    _verify(client, release_id, ids, vectors_PD, buckets, dtype)
    client.hset(keyspace.vectors_meta(release_id), "state", "complete")


def _verify(
    client: Redis, release_id: str, ids: Sequence[str], vectors_PD: NDArray[Any], buckets: int, dtype: str
) -> None:
    with client.pipeline(transaction=False) as pipe:
        for bucket in range(buckets):
            pipe.hlen(keyspace.vectors(release_id, bucket))
        found = sum(pipe.execute())
    if found != len(ids):
        raise PinsageError(f"Redis holds {found:,} vectors of release {release_id}, not {len(ids):,}")
    for row in np.unique(np.linspace(0, len(ids) - 1, SAMPLE).astype(int)):
        packed = client.hget(keyspace.vectors(release_id, keyspace.bucket_of(ids[row], buckets)), ids[row])
        vector_D = unpack_vector(cast(bytes, packed)) if packed is not None else np.zeros(0)
        if not np.allclose(vector_D, vectors_PD[row], rtol=0, atol=TOLERANCE[dtype]):
            raise PinsageError(f"Redis holds another vector of pin {ids[row]} than release {release_id}")


def drop_vectors(client: Redis, release_id: str) -> None:
    """Remove all vectors of a release; none need be there."""
    buckets = cast("bytes | None", client.hget(keyspace.vectors_meta(release_id), "buckets"))
    with client.pipeline(transaction=False) as pipe:
        for bucket in range(int(buckets or 0)):
            pipe.unlink(keyspace.vectors(release_id, bucket))
        pipe.unlink(keyspace.vectors_meta(release_id))
        pipe.srem(keyspace.RELEASES, release_id)
        pipe.execute()


def releases_with_vectors(client: Redis) -> set[str]:
    """Releases of which Redis holds vectors, or a part of them."""
    return {name.decode() for name in cast("set[bytes]", client.smembers(keyspace.RELEASES))}
