"""How often a caller may call: a sliding window for each caller and scope, shared by all replicas through Redis.

A caller is a key, known by a hash of its digest, or where nobody showed one an address. One script in Redis decides;
asking it costs as much as answering a small request, so a hundredth of a limit is taken at a time and spent here.
While Redis is away each replica counts for itself; one request a second looks whether it is back. A caller that was
refused is refused from memory until its window has room again, so that insisting costs us little.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import math
import time
from collections.abc import Callable, Mapping

from limits import RateLimitItem, parse_many
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis import RedisError
from redis.asyncio import Redis

from model import keyspace
from service.http.errors import Problem
from service.http.security import Key, Scope
from service.online.recent import Recent

REDIS_SECONDS = 0.05  # that a request waits for Redis before it is counted here
AWAY_SECONDS = 1.0  # between two looks for a Redis that did not answer
SHARE = 100  # of a limit that is taken at a time
KEPT = 0.1  # of its window that what was taken may be spent in: who goes near the limit needs a tenth of that
MAX_CALLERS = 10_000  # counted here while Redis is away, and remembered as refused
IPV6_NETWORK = 64  # bits: what one customer of a provider gets, so it counts as one address

Window = SlidingWindowCounterRateLimiter
Limits = Mapping[Scope, RateLimitItem]


def parse_limits(given: str | None) -> Limits:
    """Limits from `600/minute`, for every scope, or from `read:600/minute,write:60/minute`; what is not named is free.

    Raises ValueError.
    """
    limits: dict[Scope, RateLimitItem] = {}
    for entry in (given or "").split(","):
        name, _, rate = entry.strip().rpartition(":")
        if name and name.upper() not in Scope.__members__:
            raise ValueError(f"{name} is not one of read, write, admin")
        if rate:
            limit = _parse_rate(rate)
            limits |= dict.fromkeys([Scope[name.upper()]] if name else Scope, limit)
    return limits


def _parse_rate(rate: str) -> RateLimitItem:
    try:
        [limit] = parse_many(rate)
    except ValueError:
        raise ValueError(f"{rate} is not a rate; write it as 600/minute or 5/second") from None
    if limit.amount < 1:
        raise ValueError(f"{rate} lets nobody in")
    return limit


def caller_of(key: Key | None, address: str | None) -> str:
    """What a caller is counted under; says neither the key nor its digest."""
    if key is not None:
        return "key-" + hashlib.blake2b(key.digest, digest_size=16).hexdigest()
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if parsed.version == 6:
        parsed = ipaddress.ip_network((parsed, IPV6_NETWORK), strict=False).network_address
    return str(parsed)


class Limiter:
    """Counts requests. Without a client, or while Redis is away, this process alone."""

    def __init__(self, limits: Limits, client: Redis | None, shed: Callable[[str], None]) -> None:
        self._limits, self._shed = limits, shed
        self._here = Window(MemoryStorage())
        self._shared = None if client is None else Window(_storage(client))
        self._look_at = 0.0  # when to ask Redis (again)
        self._refused: Recent[str, float] = Recent(MAX_CALLERS)
        self._taken: Recent[str, tuple[int, float]] = Recent(MAX_CALLERS)  # requests that are paid for, and until when

    def limits(self, scope: Scope) -> bool:
        """Whether calls of this scope are counted at all."""
        return scope in self._limits

    async def check(self, scope: Scope, caller: str) -> None:
        """Count a request. Raises Problem `rate-limited`, which says when to try again."""
        limit = self._limits.get(scope)
        if limit is None:
            return
        name = f"{scope.name.lower()}/{caller}"
        again_at = self._refused.get(name) or 0.0
        if again_at <= time.time():
            refused_until = await self._count(limit, name)
            if refused_until is None:
                return
            again_at = refused_until
            self._refused.put(name, again_at)
        self._shed("rate")
        raise _problem(scope, limit, again_at)

    async def _count(self, limit: RateLimitItem, name: str) -> float | None:
        """Count a request in Redis, else here: None, or when there will be room for it."""
        now = time.monotonic()
        if self._spend(name, now):
            return None
        if self._shared is not None and now >= self._look_at:
            self._look_at = now + AWAY_SECONDS if self._look_at else 0.0  # while it is away only one looks for it
            try:
                async with asyncio.timeout(REDIS_SECONDS):
                    again_at = await self._take(self._shared, limit, name)
            except (RedisError, OSError, TimeoutError):
                self._look_at = now + AWAY_SECONDS
            else:
                self._look_at = 0.0
                return again_at
        if len(self._storage_here.storage) > 2 * MAX_CALLERS:  # two windows a caller
            await self._storage_here.reset()
        return await _hit(self._here, limit, name)

    async def _take(self, window: Window, limit: RateLimitItem, name: str) -> float | None:
        """Take a share of the limit and spend one of it, or what little is left of the limit one by one."""
        share = limit.amount // SHARE
        if share < 2 or not await window.hit(limit, name, cost=share):
            return await _hit(window, limit, name)
        left, _ = self._taken.get(name) or (0, 0.0)
        self._taken.put(name, (left + share - 1, time.monotonic() + KEPT * limit.get_expiry()))
        return None

    def _spend(self, name: str, now: float) -> bool:
        """Whether the request is paid for already."""
        left, until = self._taken.get(name) or (0, 0.0)
        if now > until or not left:
            self._taken.put(name, (0, 0.0))
            return False
        self._taken.put(name, (left - 1, until))
        return True

    @property
    def _storage_here(self) -> MemoryStorage:
        storage = self._here.storage
        assert isinstance(storage, MemoryStorage)
        return storage


def _storage(client: Redis) -> RedisStorage:
    """The library's storage on our own client's connections, with our timeouts; it wants a well-formed address too."""
    return RedisStorage(
        "async+redis://localhost:6379",
        implementation="redispy",
        key_prefix=keyspace.RATE,
        connection_pool=client.connection_pool,  # type: ignore[arg-type]
    )


async def _hit(window: Window, limit: RateLimitItem, name: str) -> float | None:
    if await window.hit(limit, name):
        return None
    return (await window.get_window_stats(limit, name)).reset_time


def _problem(scope: Scope, limit: RateLimitItem, again_at: float) -> Problem:
    seconds = max(1, math.ceil(again_at - time.time()))
    policy = scope.name.lower()
    headers = {
        "retry-after": str(seconds),
        "ratelimit-policy": f'"{policy}";q={limit.amount};w={limit.get_expiry()}',
        "ratelimit": f'"{policy}";r=0;t={seconds}',
    }
    return Problem("rate-limited", f"{limit} for calls that need {policy}", headers=headers)
