"""The online store: what the service writes to Redis and reads from it.

Every write is one MULTI: when it returns, all of it is in Redis, and when it fails, nothing is promised. Everything
here answers or raises StoreUnavailable within about a second. While Redis is away all requests fail at once, so that
nobody queues for a dead server; `watch` finds out when it is back.

An event counts once. It is known by its `event_id`, or by user, type, pin and time where a time is given; an event with
neither is always new.

Redis may have been emptied, or restored to an older state than a release or this process knows of. Changes would then
get numbers that count as read already; so the store remembers which are taken, and Redis goes on above them.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from redis import DataError, RedisError, ResponseError, WatchError
from redis.asyncio import Redis

from model import keyspace
from model.changes import (
    Change,
    EdgeRecord,
    OnDamage,
    Plan,
    ensure_epoch_async,
    read_changes_async,
    write_planned_async,
)
from service.live.failures import StoreUnavailable
from service.live.views import Action, Event, UserState

T = TypeVar("T")

WRITE_SECONDS = 0.7
READ_SECONDS = 0.4
PING_SECONDS = 0.2
REPLAY_SECONDS = 10.0  # for a thousand changes
PAUSE = 0.25  # seconds between two looks for Redis while it is away
MAX_HIDES = 1_000
POPULARITY = {"save": 1.0, "click": 0.3}  # an impression is our doing, and a hide is about one user's taste
POPULAR_DAYS = 7
POPULAR_HALF_LIFE = 2.0  # days
POPULAR_DEPTH = 300  # pins of a day, and of all days together


class Store:
    """Reads and writes of one process. The client is the caller's to close."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._since: float | None = time.monotonic()  # when Redis began to answer; None while it does not
        self._taken = 0

    @property
    def available(self) -> bool:
        """Whether Redis answered the last time."""
        return self._since is not None

    @property
    def available_seconds(self) -> float:
        """For how long Redis has answered; 0 while it does not."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def taken(self, seq: int) -> None:
        """Say that numbers up to this one are taken: changes get higher ones, whatever Redis says."""
        self._taken = max(self._taken, seq)

    async def write(self, records: Sequence[Change]) -> list[Change]:
        """Write changes; they come back with their numbers."""
        return await self.write_planned(lambda _: records)

    async def write_planned(self, plan: Callable[[int], Sequence[Change]]) -> list[Change]:
        """Write the changes that are wanted when the last one has this number; no other comes between."""
        return await self._write((keyspace.SEQ,), lambda values: (plan(int(values[0] or 0)), None))

    async def record_events(
        self, user_id: str, events: Sequence[Event], wants_edge: Callable[[Event, int], bool]
    ) -> tuple[int, list[Change]]:
        """Write what a user did: the number of events that are new, and the changes of boards among them.

        Where `wants_edge` says so of an event and the number of the last change, a save with a board puts the pin on
        it.
        """
        now = int(time.time())
        given = [(_marker(user_id, event), _dated(event, now)) for event in events]
        marked = dict.fromkeys(marker for marker, _ in given if marker)
        accepted: list[Event] = []

        def plan(values: Sequence[bytes | None]) -> tuple[Sequence[Change], Callable[[Any], None]]:
            last = int(values[0] or 0)
            known = {marker for marker, value in zip(marked, values[1:], strict=True) if value is not None}
            fresh = [(marker, event) for marker, event in _without_repeats(given) if marker not in known]
            accepted[:] = [event for _, event in fresh]
            saves = [event for event in accepted if event.type == "save" and event.board_id is not None]
            edges = [EdgeRecord(str(event.board_id), event.pin_id, True) for event in saves if wants_edge(event, last)]
            return list(dict.fromkeys(edges)), lambda pipe: _queue_events(pipe, user_id, fresh)

        changes = await self._write((keyspace.SEQ, *marked), plan)
        return len(accepted), changes

    async def _write(self, watch: Sequence[str], plan: Plan) -> list[Change]:
        def write() -> Awaitable[list[Change]]:
            return write_planned_async(self._client, watch, plan, after=self._taken)

        written = await self._ask(write, WRITE_SECONDS)
        self.taken(max((record.seq for record in written), default=0))
        return written

    async def user_state(self, user_id: str) -> UserState:
        """What is remembered of a user; empty for one that nobody heard of."""

        async def read() -> list[Any]:
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.zrevrange(keyspace.recent(user_id), 0, keyspace.MAX_RECENT - 1, withscores=True)
                pipe.zrevrange(keyspace.hides(user_id), 0, MAX_HIDES - 1)
                pipe.zrevrange(keyspace.seen(user_id), 0, keyspace.MAX_SEEN - 1)
                return await pipe.execute()

        recent, hides, seen = await self._ask(read, READ_SECONDS)
        parts = [(*member.decode().partition("/"), timestamp) for member, timestamp in recent]
        actions = tuple(Action(type, pin_id, timestamp) for type, _, pin_id, timestamp in parts)
        return UserState(actions, tuple(pin.decode() for pin in hides), tuple(pin.decode() for pin in seen))

    async def popular(self, now: float | None = None) -> list[str]:
        """Pins that users save and click these days, the most popular first; a day counts half of two days later."""
        today = time.time() if now is None else now

        async def read() -> list[Any]:
            async with self._client.pipeline(transaction=False) as pipe:
                for age in range(POPULAR_DAYS):
                    pipe.zrevrange(keyspace.popular(_day(today - 86_400 * age)), 0, POPULAR_DEPTH - 1, withscores=True)
                return await pipe.execute()

        weights: dict[str, float] = {}
        for age, pins in enumerate(await self._ask(read, READ_SECONDS)):
            for pin, weight in pins:
                name = pin.decode()
                weights[name] = weights.get(name, 0.0) + weight * 0.5 ** (age / POPULAR_HALF_LIFE)
        return sorted(weights, key=lambda pin: (-weights[pin], pin))[:POPULAR_DEPTH]

    async def epoch(self) -> str:
        """The id of this life of the database; a new one begins here when there is none, or numbers are behind."""
        return await self._ask(lambda: ensure_epoch_async(self._client, after=self._taken), READ_SECONDS)

    async def last_seq(self) -> int:
        """The number of the last change."""
        value = await self._ask(lambda: self._client.get(keyspace.SEQ), READ_SECONDS)
        self.taken(int(value or 0))
        return int(value or 0)

    async def changes(self, after: int, up_to: int, on_damage: OnDamage) -> AsyncIterator[Change]:
        """The last change of each thing with number in (after, up_to], by number."""
        reader = read_changes_async(self._client, after, up_to=up_to, on_damage=on_damage)
        while True:
            try:
                yield await self._ask(lambda: anext(reader), REPLAY_SECONDS)
            except StopAsyncIteration:
                return

    async def watch(self) -> None:
        """Wait a little, then look for Redis if it was away; to be repeated."""
        await asyncio.sleep(PAUSE)
        if not self.available:
            with suppress(StoreUnavailable):
                await self.look()

    async def look(self) -> None:
        """Ask Redis whether it is there, also when it was not a moment ago. A connection that is made anew takes some
        round trips more than a question."""
        self._note(await self._answers(WRITE_SECONDS))
        if not self.available:
            raise StoreUnavailable("Redis does not answer")

    async def _ask(self, work: Callable[[], Awaitable[T]], seconds: float) -> T:
        if not self.available:
            raise StoreUnavailable("Redis did not answer a moment ago")
        return await self._try(work, seconds)

    async def _try(self, work: Callable[[], Awaitable[T]], seconds: float) -> T:
        try:
            async with asyncio.timeout(seconds):
                answer = await work()
        except DataError:
            raise  # we tried to store what Redis has no type for: a fault of ours
        except (RedisError, OSError, TimeoutError) as error:
            # What it refuses to one (out of memory, wrong type, too many writers) it may well give to another; and a
            # slow answer is no outage when the next one comes.
            self._note(isinstance(error, ResponseError | WatchError) or await self._answers(PING_SECONDS))
            raise StoreUnavailable(f"Redis: {error or type(error).__name__}") from error
        self._note(True)
        return answer

    def _note(self, answers: bool) -> None:
        if answers != self.available:
            self._since = time.monotonic() if answers else None

    async def _answers(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._client.ping()
        except (RedisError, OSError, TimeoutError):
            return False
        return True


def _marker(user_id: str, event: Event) -> str | None:
    """The key that says that an event was counted."""
    if event.event_id is not None:
        return keyspace.event(f"{user_id}/{event.event_id}")
    if event.timestamp is None:
        return None
    text = "/".join((user_id, event.type, event.pin_id, str(event.timestamp)))
    return keyspace.event(hashlib.blake2b(text.encode(), digest_size=16).hexdigest())


def _dated(event: Event, now: int) -> Event:
    if event.timestamp is not None:
        return event
    return Event(event.type, event.pin_id, now, event.board_id, event.event_id)


def _without_repeats(given: Sequence[tuple[str | None, Event]]) -> list[tuple[str | None, Event]]:
    """Each marker once; events without one all stay."""
    seen: set[str] = set()
    kept = []
    for marker, event in given:
        if marker is None or marker not in seen:
            kept.append((marker, event))
        if marker is not None:
            seen.add(marker)
    return kept


def _queue_events(pipe: Any, user_id: str, fresh: Sequence[tuple[str | None, Event]]) -> None:
    """Queue everything that these events change, but for the boards."""
    for marker, event in fresh:
        if marker is not None:
            pipe.set(marker, b"1", ex=keyspace.EVENT_SECONDS)
        _queue_event(pipe, user_id, event)
    for key, size in (
        (keyspace.recent(user_id), keyspace.MAX_RECENT),
        (keyspace.hides(user_id), MAX_HIDES),
        (keyspace.seen(user_id), keyspace.MAX_SEEN),
    ):
        pipe.zremrangebyrank(key, 0, -size - 1)


def _queue_event(pipe: Any, user_id: str, event: Event) -> None:
    assert event.timestamp is not None
    when = {event.pin_id: event.timestamp}
    if event.type in ("save", "click"):
        pipe.zadd(keyspace.recent(user_id), {f"{event.type}/{event.pin_id}": event.timestamp}, gt=True)
        day = keyspace.popular(_day(event.timestamp))
        pipe.zincrby(day, POPULARITY[event.type], event.pin_id)
        pipe.expire(day, keyspace.POPULAR_SECONDS)
    if event.type == "save":
        pipe.zrem(keyspace.hides(user_id), event.pin_id)  # a change of mind
    if event.type == "hide":
        pipe.zadd(keyspace.hides(user_id), when, gt=True)
    if event.type == "impression":
        pipe.zadd(keyspace.seen(user_id), when, gt=True)
    entry = {
        "user": user_id,
        "pin": event.pin_id,
        "type": event.type,
        "board": event.board_id or "",
        "timestamp": event.timestamp,
    }
    pipe.xadd(keyspace.EVENTS, entry, maxlen=keyspace.MAX_EVENTS, approximate=True)


def _day(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d")
