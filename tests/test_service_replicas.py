"""Several services on one Redis: what one acknowledged counts, also where another has not heard of it yet."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from live_service import WORLD, has, has_followed, is_on, lacks, pin, serving, until
from service_fixtures import make_release
from service_process import RedisProcess

from model.redis_server import RedisSource
from service.live.failures import UnknownPin
from service.live.live import Live
from service.live.views import Event


@pytest.fixture
def release_id(home: Path) -> str:
    return make_release(home / "releases", WORLD).id


@asynccontextmanager
async def one_and_a_deaf_one(home: Path, source: RedisSource) -> AsyncIterator[tuple[Live, Live]]:
    """Two services; the second does not follow any more."""
    async with serving(home, source) as one, serving(home, source) as two:
        await until(lambda: has_followed(two))
        async with deaf(two):
            yield one, two


@asynccontextmanager
async def deaf(live: Live) -> AsyncIterator[None]:
    """It does not follow the log."""

    async def hear_nothing() -> None:
        await asyncio.sleep(0.01)

    step = live._follower.step
    live._follower.step = hear_nothing  # type: ignore[method-assign]
    await asyncio.sleep(1.2)  # the step that is under way ends
    yield
    live._follower.step = step  # type: ignore[method-assign]


async def as_a_fresh_one_sees_it(home: Path, source: RedisSource, pin_id: str, board_id: str) -> bool:
    async with serving(home, source) as fresh:
        return await has(fresh, pin_id) and await is_on(fresh, pin_id, board_id)


def test_a_board_is_left_although_this_service_has_not_heard_that_it_was_joined(
    home: Path, release_id: str, redis_source: RedisSource
) -> None:
    async def work() -> None:
        async with one_and_a_deaf_one(home, redis_source) as (one, two):
            await one.set_edge("mine", "p1", True)
            assert not await is_on(two, "p1", "mine")
            await two.set_edge("mine", "p1", False)
            await until(lambda: is_off(one, "p1", "mine"))
            assert not await as_a_fresh_one_sees_it(home, redis_source, "p1", "mine")

    asyncio.run(work())


def test_a_save_puts_a_pin_on_a_board_although_this_service_has_not_heard_of_the_pin(
    home: Path, release_id: str, redis_source: RedisSource
) -> None:
    async def work() -> None:
        async with one_and_a_deaf_one(home, redis_source) as (one, two):
            await one.put_pin(pin("new"))
            assert not await has(two, "new")
            assert await two.record_events("u", [Event("save", "new", board_id="mine")]) == 1
            await until(lambda: is_on(one, "new", "mine"))
            assert await as_a_fresh_one_sees_it(home, redis_source, "new", "mine")

    asyncio.run(work())


async def is_off(live: Live, pin_id: str, board_id: str) -> bool:
    return not await is_on(live, pin_id, board_id)


def test_a_pin_is_taken_out_although_this_service_has_not_heard_of_it(
    home: Path, release_id: str, redis_source: RedisSource
) -> None:
    async def work() -> None:
        async with one_and_a_deaf_one(home, redis_source) as (one, two):
            for name in ("new1", "new2"):
                await one.put_pin(pin(name))
            await two.set_edge("mine", "new1", True)
            await two.delete_pin("new2")
            with pytest.raises(UnknownPin):
                await two.delete_pin("nobody")
            await until(lambda: is_on(one, "new1", "mine"))
            await until(lambda: lacks(one, "new2"))

    asyncio.run(work())


def test_reading_the_log_does_not_move_on_while_somebody_writes(
    home: Path, release_id: str, redis_source: RedisSource
) -> None:
    """It would else change what is known of our own writes while a thread adds to it."""

    async def work() -> None:
        async with one_and_a_deaf_one(home, redis_source) as (one, two):
            await one.put_pin(pin("new"))
            async with two._switch.writing:
                before = two._switch.position()
                reading = asyncio.create_task(two._switch.catch_up())
                await asyncio.sleep(0.2)
                assert two._switch.position() == before
            await reading
            assert two._switch.position() > before

    asyncio.run(work())


def test_a_change_counts_as_heard_of_when_it_can_be_found(
    home: Path, release_id: str, redis_source: RedisSource
) -> None:
    seen: list[bool] = []

    async def work() -> None:
        async with serving(home, redis_source) as one, serving(home, redis_source) as two:
            await until(lambda: has_followed(two))
            replay, catalogue = two._switch.serving.replay, two._switch.serving.catalogue
            apply_all = catalogue.apply_all

            def look(*arguments: Any) -> None:
                before = replay.seq
                apply_all(*arguments)
                seen.append(replay.seq == before)

            catalogue.apply_all = look  # type: ignore[method-assign]
            for i in range(5):
                await one.put_pin(pin(f"new{i}"))
            await until(lambda: has(two, "new4"))
        assert seen
        assert all(seen)

    asyncio.run(work())


def test_a_service_notices_that_redis_lost_what_it_knows_and_goes_on_with_other_changes(
    home: Path, release_id: str, tmp_path: Path
) -> None:
    """A machine that lost power a second after the last sync; others have written on when we hear of it."""

    async def work(redis: RedisProcess) -> None:
        async with serving(home, redis.source) as one:
            await until(lambda: has_followed(one))
            await one.put_pin(pin("kept"))
            kept = shutil.copytree(redis.folder, tmp_path / "kept", ignore=shutil.ignore_patterns("*.sock"))
            for i in range(3):
                await one.put_pin(pin(f"lost{i}"))
            async with deaf(one):
                redis.kill()
                shutil.rmtree(redis.folder)
                kept.rename(redis.folder)
                redis.start()
                async with serving(home, redis.source) as two:
                    for i in range(5):
                        await two.put_pin(pin(f"new{i}"))
            await until(lambda: has(one, "new4"))
            await until(lambda: lacks(one, "lost2"))
            assert await has(one, "kept")
            assert await has(one, "new0")
            assert not await has(one, "lost0")
            await one.put_pin(pin("later"))
            assert await has(one, "later")

    with RedisProcess(tmp_path / "redis") as redis:
        asyncio.run(work(redis))
