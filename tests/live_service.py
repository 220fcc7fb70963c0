"""A Live of the planted world, and questions to it that tests wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from service_fixtures import make_world, words_of

from model.changes import PinRecord
from model.redis_server import RedisSource
from service.live.failures import StoreUnavailable, UnknownPin
from service.live.live import Live

PATIENCE = 20.0  # longest wait for something that should come soon, on a busy machine

WORLD = make_world(120)


@asynccontextmanager
async def serving(home: Path, source: RedisSource, **settings: Any) -> AsyncIterator[Live]:
    live = Live(home, source, native_threads=2, **settings)
    await live.start()
    try:
        yield live
    finally:
        await live.stop()


def with_live(home: Path, source: RedisSource, work: Callable[[Live], Awaitable[None]], **settings: Any) -> None:
    async def run() -> None:
        async with serving(home, source, **settings) as live:
            await work(live)

    asyncio.run(run())


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that must come true."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.01)


async def has(live: Live, pin_id: str) -> bool:
    try:
        await live.get_pin(pin_id)
    except UnknownPin:
        return False
    return True


def pin(pin_id: str, cluster: int = 0, **more: Any) -> PinRecord:
    words, boards = words_of(cluster), (f"b{10 * cluster}", f"b{10 * cluster + 1}")
    return PinRecord(pin_id, " ".join(words[:4]), (words[4],), boards=boards, **more)


async def related_ids(live: Live, pin_id: str, limit: int = 200) -> list[str]:
    return [item.pin_id for item in (await live.related(pin_id, limit=limit)).items]


async def lacks(live: Live, pin_id: str) -> bool:
    return not await has(live, pin_id)


async def is_on(live: Live, pin_id: str, board_id: str) -> bool:
    return board_id in (await live.get_pin(pin_id))["boards"]


async def is_ready(live: Live) -> bool:
    return live.ready()[0]


async def has_followed(live: Live) -> bool:
    return live._follower.last_contact is not None


async def has_heard_of(live: Live, seq: int) -> bool:
    return int(live.status()["seq"]) >= seq


async def serves(live: Live, release_id: str) -> bool:
    return live.status()["release"] == release_id


async def takes_writes(live: Live) -> bool:
    try:
        await live.put_pin(pin("late"))
    except StoreUnavailable:
        return False
    return True
