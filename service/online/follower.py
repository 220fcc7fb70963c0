"""Following the change log: what other processes write arrives here within a second.

The stream is read from the last number that is in the catalogue. Numbers must come without a gap; where one is missing
(the stream was trimmed, an entry is lost) all changes since are read from the compacted log. When the database has
begun a new life, because it was emptied or is behind what we know of it, what it lost must not be served any more: the
catalogue is made anew from the release and what the database has. So it is when another server answers, restarted or
promoted: it may have lost the last changes, and have new ones under their numbers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

from redis import RedisError
from redis.asyncio import Redis

from model import keyspace
from model.changes import Change, unpack_entry
from model.codecs import DamagedBytes
from model.redis_clients import num_connects
from service.live.failures import StoreUnavailable
from service.online.store import Store

logger = logging.getLogger(__name__)

BLOCK_MS = 1_000
MAX_ENTRIES = 200
ECHO_PAUSE = 0.02  # seconds that others' changes may wait where we write much
PAUSE = 0.25  # seconds before another try when Redis is away

Life = tuple[bytes | None, str]  # epoch of the database, id of the server's process


class Target(Protocol):
    """What follows the log."""

    def position(self) -> int:
        """Every change up to this number is in."""

    async def apply(self, changes: Sequence[Change], last: int) -> None:
        """Take in the changes of the log from the position to `last`, ascending."""

    async def catch_up(self) -> None:
        """Take in what the compacted log has after the position."""

    async def start_over(self) -> None:
        """The database is a new one."""

    def quarantine(self, what: str, why: object) -> None:
        """An entry is damaged."""


class Follower:
    """Follows the log step by step; whatever Redis does, it goes on when Redis is back."""

    def __init__(self, store: Store, client: Redis, target: Target) -> None:
        self._store, self._client, self._target = store, client, target
        self._life: Life | None = None
        self._server, self._connects = "", 0
        self._entered = False
        self.last_seq: int | None = None
        self.last_contact: float | None = None

    async def step(self) -> None:
        """Wait for changes and take them in, or, at first and after a gap, all that we have missed; to be repeated."""
        try:
            if not self._entered:
                await self._enter()
            self._entered = await self._advance()
        except (StoreUnavailable, RedisError, OSError) as error:
            logger.info("the change log cannot be read: %s", error)
            self._entered = False
            await asyncio.sleep(PAUSE)

    async def _enter(self) -> None:
        """Find out which life of the database it is, and read all that we have missed."""
        await self._store.epoch()  # where there is none, or numbers are behind, a new one begins
        epoch: Any = await self._client.get(keyspace.EPOCH)
        life = await self._life_of(epoch)
        if self._life not in (None, life):
            logger.warning("Redis is another one, or has lost data; going on from the release and what is there")
            await self._target.start_over()
        self._life = life
        await self._target.catch_up()
        self._touch(self._target.position())

    async def _advance(self) -> bool:
        """Wait for changes and take them in; False when all must be read anew."""
        position = self._target.position()
        answer, epoch, last = await self._wait(position)
        if last < position or await self._life_of(epoch) != self._life:
            return False
        entries = _entries(answer)
        numbers = [int(name.split(b"-")[0]) for name, _ in entries]
        # Our own writes may have moved the position while we waited.
        if numbers and numbers != list(range(position + 1, numbers[-1] + 1)):
            return False
        if not numbers and last > self._target.position() and await self._newest() < last:
            return False
        if numbers:
            reached = self._target.position()
            new = [entry for entry, number in zip(entries, numbers, strict=True) if number > reached]
            await self._target.apply(self._decode(new), numbers[-1])
        self._touch(last)
        if numbers and not new:  # only what we wrote ourselves: the next write goes first
            await asyncio.sleep(ECHO_PAUSE)
        return True

    async def _wait(self, position: int) -> tuple[Any, bytes | None, int]:
        """Wait for changes; the answer, and in the same round trip the epoch and the number of the last change."""
        streams: Any = {keyspace.CHANGES: f"{position}-0"}
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.xread(streams, count=MAX_ENTRIES, block=BLOCK_MS)
            pipe.mget(keyspace.EPOCH, keyspace.SEQ)
            answer, (epoch, last) = await pipe.execute()
        self._store.taken(int(last or 0))
        return answer, epoch, int(last or 0)

    async def _life_of(self, epoch: bytes | None) -> Life:
        """Which life of which server has this epoch."""
        connects = num_connects(self._client)
        if connects != self._connects:  # over one connection it is always the same server
            server = await self._client.info("server")
            self._server, self._connects = server["run_id"], connects
        return epoch, self._server

    async def _newest(self) -> int:
        """The number of the last entry of the stream."""
        newest: Any = await self._client.xrevrange(keyspace.CHANGES, count=1)
        return int(newest[0][0].split(b"-")[0]) if newest else 0

    def _decode(self, entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[Change]:
        changes = []
        for name, fields in entries:
            try:
                changes.append(unpack_entry(fields))
            except DamagedBytes as error:
                self._target.quarantine(f"entry {name.decode()}", error)
        return changes

    def _touch(self, last_seq: int) -> None:
        self.last_seq, self.last_contact = last_seq, time.monotonic()


def _entries(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of one stream, of RESP3's dict of lists or RESP2's list of pairs."""
    if not answer:
        return []
    entries = next(iter(answer.values())) if isinstance(answer, dict) else answer[0][1]
    # RESP3 nests one list more.
    if entries and isinstance(entries[0], list) and entries[0] and isinstance(entries[0][0], tuple | list):
        entries = entries[0]
    return [(name, fields) for name, fields in entries]
