from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from service_fixtures import frozen

from model import keyspace
from model.changes import EdgeRecord, PinRecord, read_changes
from model.redis_clients import async_client, sync_client
from model.redis_server import RedisSource, open_redis
from service.live.failures import StoreUnavailable
from service.live.views import Action, Event
from service.online.store import Store
from service.online.tasks import repeat

NOW = int(time.time())
PATIENCE = 5.0  # a store must answer, or say that it cannot, well within this


@asynccontextmanager
async def open_store(source: RedisSource) -> AsyncIterator[Store]:
    client = async_client(source)
    try:
        yield Store(client)
    finally:
        await client.aclose()


def with_store(source: RedisSource, work: Callable[[Store], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with open_store(source) as store:
            return await work(store)

    return asyncio.run(run())


def always(_: Event, last: int) -> bool:
    return True


async def record(store: Store, *events: Event, user: str = "u") -> int:
    accepted, _ = await store.record_events(user, events, always)
    return accepted


# --- changes ---


def test_a_write_comes_back_with_its_numbers(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    written = with_store(redis_source, lambda store: store.write([PinRecord("a"), EdgeRecord("b", "a", True)]))
    assert written[1].seq == written[0].seq + 1
    assert list(read_changes(redis_client, 0)) == written


def test_changes_are_read_after_and_up_to_a_number(redis_source: RedisSource) -> None:
    async def work(store: Store) -> None:
        written = await store.write([PinRecord(f"p{i}") for i in range(10)])
        first = written[0].seq
        found = [change async for change in store.changes(first + 2, first + 5, lambda *_: None)]
        assert found == written[3:6]
        assert await store.last_seq() == first + 9

    with_store(redis_source, work)


def test_damaged_records_are_reported_and_left_out(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    async def work(store: Store) -> None:
        [good, _] = await store.write([PinRecord("good"), PinRecord("bad")])
        redis_client.hset(keyspace.STATE, keyspace.pin_key("bad"), b"rubbish")
        damaged: list[str] = []
        found = [change async for change in store.changes(0, 2**52, lambda key, _: damaged.append(key))]
        assert found == [good]
        assert damaged == ["p/bad"]

    with_store(redis_source, work)


def test_the_epoch_stays_until_everything_is_lost(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    async def work(store: Store) -> None:
        epoch = await store.epoch()
        assert await store.epoch() == epoch
        redis_client.flushall()
        assert await store.epoch() != epoch

    with_store(redis_source, work)


# --- users ---


def test_actions_are_remembered_newest_first(redis_source: RedisSource) -> None:
    async def work(store: Store) -> None:
        events = [Event("save", "a", NOW - 5), Event("click", "b", NOW - 1), Event("save", "c", NOW - 9)]
        assert await record(store, *events, Event("hide", "h", NOW), Event("impression", "i", NOW)) == 5
        state = await store.user_state("u")
        times = {"b": NOW - 1, "a": NOW - 5, "c": NOW - 9}
        assert state.recent == tuple(Action("click" if pin == "b" else "save", pin, times[pin]) for pin in times)
        assert (state.hides, state.seen) == (("h",), ("i",))
        assert await store.user_state("somebody else") == type(state)()

    with_store(redis_source, work)


def test_only_the_newest_actions_are_kept(redis_source: RedisSource) -> None:
    async def work(store: Store) -> None:
        for start in range(0, 600, 100):
            numbers = range(start, start + 100)
            await record(store, *(Event("save", f"s{i}", NOW + i) for i in numbers))
            await record(store, *(Event("impression", f"i{i}", NOW + i) for i in numbers))
        state = await store.user_state("u")
        assert [action.pin_id for action in state.recent] == [f"s{i}" for i in range(599, 399, -1)]
        assert list(state.seen) == [f"i{i}" for i in range(599, 99, -1)]

    with_store(redis_source, work)


def test_an_event_that_comes_late_does_not_undo_a_later_one(redis_source: RedisSource) -> None:
    async def work(store: Store) -> None:
        await record(store, Event("save", "a", NOW), Event("save", "b", NOW - 5))
        await record(store, Event("save", "a", NOW - 60))
        assert [action.pin_id for action in (await store.user_state("u")).recent] == ["a", "b"]

    with_store(redis_source, work)


def test_saving_a_hidden_pin_shows_it_again(redis_source: RedisSource) -> None:
    async def work(store: Store) -> None:
        await record(store, Event("hide", "a"), Event("hide", "b"))
        await record(store, Event("save", "a"))
        assert (await store.user_state("u")).hides == ("b",)

    with_store(redis_source, work)


# --- an event counts once ---


def test_an_event_with_an_id_counts_once(redis_source: RedisSource) -> None:
    async def work(store: Store) -> None:
        event = Event("save", "a", event_id="e1")
        assert await record(store, event, event) == 1
        assert await record(store, event, Event("save", "a", event_id="e2")) == 1
        assert await record(store, event, user="another") == 1
        assert await store.popular() == ["a"]

    with_store(redis_source, work)


def test_an_event_with_a_time_counts_once(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    async def work(store: Store) -> None:
        event = Event("click", "a", NOW)
        assert await record(store, event) == 1
        assert await record(store, event, Event("click", "a", NOW + 1), Event("save", "a", NOW)) == 2

    with_store(redis_source, work)
    assert redis_client.xlen(keyspace.EVENTS) == 3


def test_an_event_with_neither_counts_every_time(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    async def work(store: Store) -> None:
        assert await record(store, Event("click", "a"), Event("click", "a")) == 2

    with_store(redis_source, work)
    [(_, score)] = redis_client.zrange(_today(), 0, -1, withscores=True)
    assert score == pytest.approx(0.6)


def test_the_same_event_sent_to_several_processes_counts_once(
    redis_source: RedisSource, redis_client: redis.Redis
) -> None:
    async def work() -> None:
        async with open_store(redis_source) as one, open_store(redis_source) as two:
            for i in range(30):
                event = Event("save", f"p{i}", event_id=str(i))
                assert sum(await asyncio.gather(record(one, event), record(two, event))) == 1

    asyncio.run(work())
    assert redis_client.xlen(keyspace.EVENTS) == 30


def test_events_are_in_the_stream_as_they_came(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    with_store(redis_source, lambda store: record(store, Event("save", "a", NOW, "board"), Event("hide", "b", NOW + 1)))
    entries = [entry for _, entry in redis_client.xrange(keyspace.EVENTS)]
    assert entries[0] == {
        b"user": b"u",
        b"pin": b"a",
        b"type": b"save",
        b"board": b"board",
        b"timestamp": str(NOW).encode(),
    }
    assert entries[1][b"board"] == b""


# --- boards and popularity ---


def test_a_save_with_a_board_changes_the_board_once(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    async def work(store: Store) -> None:
        events = [
            Event("save", "a", NOW, "x", "e1"),
            Event("save", "a", NOW + 1, "x", "e2"),
            Event("click", "b", NOW, "x"),
            Event("save", "not wanted", NOW, "x"),
        ]
        accepted, changes = await store.record_events("u", events, lambda event, _: event.pin_id == "a")
        assert accepted == 4
        assert [(c.board_id, c.pin_id, c.present) for c in changes if isinstance(c, EdgeRecord)] == [("x", "a", True)]
        assert await store.record_events("u", events, always) == (0, [])

    with_store(redis_source, work)
    assert len(list(read_changes(redis_client, 0))) == 1


def test_popularity_weighs_saves_and_recent_days(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    async def work(store: Store) -> None:
        day = 86_400
        clicks = [Event("click", "clicked", NOW, event_id=f"c{i}") for i in range(3)]
        saves = [Event("save", "lately", NOW - 3 * day, event_id=f"s{i}") for i in range(2)]
        others = [Event("hide", "hidden", NOW), Event("impression", "shown", NOW)]
        old = Event("save", "forgotten", NOW - 9 * day)
        await record(store, Event("save", "saved", NOW), *clicks, *saves, *others, old)
        # 1, 3 x 0.3, and 2 x 0.5 ** 1.5
        assert await store.popular(NOW) == ["saved", "clicked", "lately"]

    with_store(redis_source, work)
    assert 0 < redis_client.ttl(_today()) <= keyspace.POPULAR_SECONDS


# --- Redis goes away ---


@pytest.fixture
def own_redis(home: Path) -> Iterator[RedisSource]:
    """A Redis that a test may stop."""
    with open_redis(home) as source:
        yield source


def test_a_frozen_redis_is_reported_soon_and_then_at_once(own_redis: RedisSource) -> None:
    async def work(store: Store, client: redis.Redis) -> None:
        await record(store, Event("save", "a"))
        with frozen(client):
            async with asyncio.timeout(PATIENCE):
                for _ in range(3):
                    with pytest.raises(StoreUnavailable):
                        await store.write([PinRecord("p")])
                for _ in range(1_000):  # nobody waits for what is known to be away
                    with pytest.raises(StoreUnavailable):
                        await store.user_state("u")
                with pytest.raises(StoreUnavailable):
                    await store.look()
            assert not store.available
        await store.look()
        assert store.available
        assert await record(store, Event("save", "b")) == 1

    async def run() -> None:
        with sync_client(own_redis) as client:
            async with open_store(own_redis) as store:
                await work(store, client)

    asyncio.run(run())


def test_many_waiting_writers_all_hear_soon(own_redis: RedisSource) -> None:
    async def run() -> None:
        with sync_client(own_redis) as client:
            async with open_store(own_redis) as store:
                await store.epoch()
                with frozen(client):
                    async with asyncio.timeout(PATIENCE):
                        writes = (store.write([PinRecord(f"p{i}")]) for i in range(50))
                        answers = await asyncio.gather(*writes, return_exceptions=True)
                assert all(isinstance(answer, StoreUnavailable) for answer in answers)

    asyncio.run(run())


def test_the_watch_finds_redis_when_it_is_back(own_redis: RedisSource) -> None:
    async def run() -> None:
        with sync_client(own_redis) as client:
            async with open_store(own_redis) as store:
                watch = asyncio.create_task(repeat(store.watch))
                with frozen(client), pytest.raises(StoreUnavailable):
                    await store.epoch()
                async with asyncio.timeout(PATIENCE):
                    while not store.available:
                        await asyncio.sleep(0.05)
                watch.cancel()

    asyncio.run(run())


def test_what_redis_refuses_to_one_does_not_close_the_store(
    redis_source: RedisSource, redis_client: redis.Redis
) -> None:
    async def work(store: Store) -> None:
        redis_client.set(keyspace.recent("broken"), "not a sorted set")
        for call in (store.user_state("broken"), record(store, Event("save", "a"), user="broken")):
            with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
                await call
        assert await record(store, Event("save", "a")) == 1

    with_store(redis_source, work)


def test_no_server_at_all_is_reported(tmp_path: Path) -> None:
    nowhere = RedisSource(f"unix://{tmp_path}/nobody.sock")

    async def work(store: Store) -> None:
        with pytest.raises(StoreUnavailable):
            await store.epoch()

    with_store(nowhere, work)


def _today() -> str:
    return keyspace.popular(time.strftime("%Y-%m-%d", time.gmtime(NOW)))
