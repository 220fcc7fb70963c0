"""Clients of Redis with timeouts of our own.

redis-py's defaults wait 5 seconds ten times over, so a frozen server would hang a read for a minute. The service needs
an answer or an error within a second; whoever waits in BLOCK needs a socket that waits longer than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import redis
import redis.asyncio as redis_async
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

DATA_TIMEOUT = 0.25  # seconds; requests of the service
TOOL_TIMEOUT = 10.0  # seconds; publishing and jobs, which send megabytes at once
POOL_WAIT = 0.1  # seconds that a request waits for a free connection
BLOCK_SECONDS = 5.0  # what a follower may ask Redis to wait
MAX_CONNECTIONS = 32


class Source(Protocol):
    """Where Redis is: a URL with scheme redis, rediss or unix."""

    @property
    def address(self) -> str: ...


def sync_client(source: Source, *, timeout: float = TOOL_TIMEOUT) -> redis.Redis:
    """A client for tools and jobs. Close it after use."""
    pool = redis.BlockingConnectionPool.from_url(
        source.address,
        max_connections=MAX_CONNECTIONS,
        timeout=POOL_WAIT,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 1),
    )
    return redis.Redis.from_pool(pool)


def async_client(source: Source, *, timeout: float = DATA_TIMEOUT) -> redis_async.Redis:
    """The service's client for data: fails fast, tries once more. Close it with `aclose`."""
    return _async_client(source, timeout, timeout, retries=1)


def follower_client(source: Source, *, block: float = BLOCK_SECONDS) -> redis_async.Redis:
    """A client for blocking reads of at most `block` seconds. Close it with `aclose`."""
    return _async_client(source, DATA_TIMEOUT, block + 2.0, retries=0)


def _async_client(source: Source, connect_timeout: float, timeout: float, *, retries: int) -> redis_async.Redis:
    pool: Any = redis_async.BlockingConnectionPool.from_url(
        source.address,
        max_connections=MAX_CONNECTIONS,
        timeout=POOL_WAIT,
        socket_timeout=timeout,
        socket_connect_timeout=connect_timeout,
        retry=AsyncRetry(NoBackoff(), retries),
    )
    pool.connection_class = type("Connection", (_Connection, pool.connection_class), {})  # a count for each client
    return redis_async.Redis.from_pool(pool)


def num_connects(client: redis_async.Redis) -> int:
    """How often a client of ours has connected: as long as it is the same, so is the server."""
    kind: Any = client.connection_pool.connection_class
    count: int = kind.num_connects
    return count


async def watch_and_read(pipe: Any, keys: Sequence[str]) -> list[Any]:
    """Watch keys for a transaction on this pipeline, and read them: one round trip, where redis-py takes two.

    Raises RedisError. Tries again once, as our other reads do: a connection may have died since its last use.
    """
    connection = pipe.connection = await pipe.connection_pool.get_connection()
    try:
        return await _watch_and_read(connection, keys, pipe)
    except (redis.ConnectionError, redis.TimeoutError):
        await connection.disconnect()
        return await _watch_and_read(connection, keys, pipe)


async def _watch_and_read(connection: Any, keys: Sequence[str], pipe: Any) -> list[Any]:
    pipe.watching = True
    await connection.send_packed_command(connection.pack_commands([("WATCH", *keys), ("MGET", *keys)]))
    await connection.read_response()  # where it raises, the pool sees that an answer is left, and connects anew
    values: list[Any] = await connection.read_response()
    return values


class _Connection:
    """Counts, and says that it is closed: uvloop raises RuntimeError where somebody writes to a connection that the
    other side has reset; redis-py lets go of it then, but takes the error for a fault of the program."""

    num_connects = 0

    async def _connect(self) -> None:
        parent: Any = super()
        await parent._connect()
        type(self).num_connects += 1

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        parent: Any = super()
        try:
            await parent.send_packed_command(*arguments, **options)
        except RuntimeError as error:
            raise redis.ConnectionError(str(error)) from error


def without_password(url: str) -> str:
    """The URL as it may be printed and logged."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    secret = "***@" if "@" in parts.netloc else ""
    return f"{parts.scheme}://{secret}{place}{parts.path}"
