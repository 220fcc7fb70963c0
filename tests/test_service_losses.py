from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis
from live_service import (
    PATIENCE,
    WORLD,
    has,
    has_followed,
    has_heard_of,
    lacks,
    pin,
    related_ids,
    serving,
    takes_writes,
    until,
    with_live,
)
from redis.client import Pipeline
from service_fixtures import frozen, make_release

from model import keyspace
from model.changes import PinRecord, write_records
from model.redis_clients import sync_client
from model.redis_server import RedisSource, open_redis
from service.live.failures import StoreUnavailable
from service.live.live import Live
from service.live.views import Event


@pytest.fixture
def release_id(home: Path) -> str:
    return make_release(home / "releases", WORLD).id


@pytest.fixture
def own_redis(home: Path) -> Iterator[RedisSource]:
    """A Redis that a test may stop."""
    with open_redis(home) as source:
        yield source


def test_a_gap_in_the_stream_is_filled_from_the_log(
    home: Path, release_id: str, redis_source: RedisSource, redis_client: redis.Redis
) -> None:
    async def work(live: Live) -> None:
        await live.put_pin(pin("one"))
        # Written while the stream forgets: as if the follower had slept through a trim.
        lost = [pin(f"lost{i}") for i in range(5)]
        forget = partial(Pipeline.xtrim, name=keyspace.CHANGES, maxlen=1, approximate=False)
        numbers = write_records(redis_client, lost, also=forget)
        assert redis_client.xlen(keyspace.CHANGES) == 1
        await until(lambda: has(live, "lost4"))
        assert await has(live, "lost0")
        assert live._switch.position() >= numbers[-1]
        redis_client.delete(keyspace.CHANGES)
        write_records(redis_client, [pin("late")])
        redis_client.delete(keyspace.CHANGES)
        await until(lambda: has(live, "late"))

    with_live(home, redis_source, work)


def test_damaged_changes_are_counted_and_do_not_stop_others(
    home: Path, release_id: str, redis_source: RedisSource, redis_client: redis.Redis
) -> None:
    async def work(live: Live) -> None:
        await live.put_pin(pin("one"))
        first = await live._store.last_seq()
        await until(lambda: has_heard_of(live, first))
        write_records(redis_client, [pin("misfit", visual=(1.0, 2.0))])
        last = int(redis_client.get(keyspace.SEQ)) + 1
        redis_client.xadd(keyspace.CHANGES, {"seq": last, "record": b"rubbish"}, id=f"{last}-0")
        redis_client.set(keyspace.SEQ, last)
        write_records(redis_client, [pin("good")])
        await until(lambda: has(live, "good"))
        assert live.status()["quarantined_entries"] == 2
        assert not await has(live, "misfit")

    with_live(home, redis_source, work)


def test_when_redis_has_lost_everything_so_have_we(
    home: Path, release_id: str, redis_source: RedisSource, redis_client: redis.Redis
) -> None:
    async def work(live: Live) -> None:
        await live.put_pin(pin("old"))
        await live.delete_pin("p7")
        redis_client.flushall()
        await until(lambda: lacks(live, "old"))
        assert await has(live, "p7")
        await live.put_pin(pin("new"))
        assert await has(live, "new")

    with_live(home, redis_source, work)


def test_what_is_put_into_an_emptied_redis_is_there_after_a_restart(
    home: Path, redis_source: RedisSource, redis_client: redis.Redis
) -> None:
    [seq] = write_records(redis_client, [PinRecord("before")])
    make_release(home / "releases", WORLD, seq=seq + 10**9)  # more than a new database begins with
    make_release(home / "releases", WORLD, seq=seq + 5 * 10**8)  # and an older one is served
    redis_client.flushall()

    async def work(live: Live) -> None:
        await live.put_pin(pin("new"))

    async def again(live: Live) -> None:
        assert await has(live, "new")
        await until(lambda: has_followed(live))
        assert await has(live, "new")

    with_live(home, redis_source, work)
    assert int(redis_client.get(keyspace.SEQ)) > seq + 10**9
    with_live(home, redis_source, again)


def test_a_restored_redis_is_what_counts_and_takes_new_changes(
    home: Path, release_id: str, redis_source: RedisSource, redis_client: redis.Redis
) -> None:
    async def work(one: Live) -> None:
        async with serving(home, redis_source) as two:
            await one.put_pin(pin("kept"))
            backup = {key: redis_client.dump(key) for key in redis_client.scan_iter()}
            for i in range(5):
                await one.put_pin(pin(f"lost{i}"))
            await until(lambda: has(two, "lost4"))
            with redis_client.pipeline(transaction=True) as pipe:
                pipe.flushall()
                for key, value in backup.items():
                    pipe.restore(key, 0, value)
                pipe.execute()
            await one.put_pin(pin("new"))
            assert await has(one, "new")
            for live in (one, two):
                await until(lambda live=live: lacks(live, "lost4"))
                await until(lambda live=live: has(live, "new"))
                assert await has(live, "kept")
        async with serving(home, redis_source) as fresh:
            assert await has(fresh, "kept")
            assert await has(fresh, "new")
            assert not await has(fresh, "lost4")

    with_live(home, redis_source, work)


# --- Redis goes away ---


def test_reads_go_on_without_redis_and_writes_fail(home: Path, release_id: str, own_redis: RedisSource) -> None:
    async def work(live: Live) -> None:
        await live.put_pin(pin("new", 1))
        await live.record_events("u", [Event("save", "p1")])
        before = await related_ids(live, "new"), (await live.homefeed("u")).items
        with sync_client(own_redis) as client, frozen(client):
            async with asyncio.timeout(PATIENCE):
                for call in (
                    live.put_pin(pin("late")),
                    live.delete_pin("new"),
                    live.set_edge("b1", "new", True),
                    live.record_events("u", [Event("save", "p2")]),
                ):
                    with pytest.raises(StoreUnavailable):
                        await call
                assert (await related_ids(live, "new"), (await live.homefeed("u")).items) == before
                stranger = await live.homefeed("stranger")
                assert [item.pin_id for item in stranger.items][:1] == ["p1"]  # what was trending when we last heard
                assert live.ready() == (True, [])
                assert not live.status()["store_available"]
        await until(lambda: takes_writes(live))
        assert await has(live, "late")

    with_live(home, own_redis, work)


def test_a_process_that_starts_without_redis_serves_the_release_and_says_so(
    home: Path, release_id: str, tmp_path: Path
) -> None:
    async def work(live: Live) -> None:
        assert await has(live, "p1")
        assert (await live.homefeed("u")).items
        ready, reasons = live.ready()
        assert not ready
        assert "Redis" in reasons[0]

    with_live(home, RedisSource(f"unix://{tmp_path}/nobody.sock"), work)
