from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from live_service import (
    WORLD,
    has,
    has_followed,
    has_heard_of,
    is_on,
    is_ready,
    lacks,
    pin,
    related_ids,
    serves,
    serving,
    until,
    with_live,
)
from service_fixtures import cluster_of, make_release, make_world

from model import keyspace
from model.changes import PinRecord
from model.errors import ReleaseError
from model.redis_server import RedisSource
from model.release import current, set_current
from service.live.failures import DeltaFull, InvalidContent, NotReady, UnknownPin, UnknownRelease
from service.live.live import Live
from service.live.views import Event, PinContentIn
from service.online import tasks


@pytest.fixture
def release_id(home: Path) -> str:
    return make_release(home / "releases", WORLD).id


# --- writing and reading ---


def test_what_was_put_is_read_at_once(home: Path, release_id: str, redis_source: RedisSource) -> None:
    async def work(live: Live) -> None:
        result = await live.put_pin(pin("new", 2, category="toys", created_at=5))
        assert result.created
        assert result.release == release_id
        assert {cluster_of(neighbor) for neighbor, _ in result.neighbors} == {2}
        assert sum(weight for _, weight in result.neighbors) == pytest.approx(1)
        assert result.timings.keys() >= {"store", "encode", "walk", "embed", "total"}
        shown = await live.get_pin("new")
        assert (shown["category"], shown["created_at"]) == ("toys", 5)
        assert shown["boards"] == ["b20", "b21"]
        [again] = (await live.related_batch([PinContentIn(shown["title"])], limit=1)).results
        assert again is not None
        first = (await related_ids(live, "new"))[0]
        assert "new" in await related_ids(live, first)
        assert not (await live.put_pin(pin("new", 3))).created

    with_live(home, redis_source, work)


def test_a_deleted_pin_is_gone_at_once(home: Path, release_id: str, redis_source: RedisSource) -> None:
    async def work(live: Live) -> None:
        await live.put_pin(pin("new"))
        for gone in ("new", "p6"):
            await live.delete_pin(gone)
            assert gone not in await related_ids(live, "p0")
            calls = (live.get_pin(gone), live.related(gone), live.delete_pin(gone), live.set_edge("b1", gone, True))
            for call in calls:
                with pytest.raises(UnknownPin):
                    await call

    with_live(home, redis_source, work)


def test_boards_change_at_once_and_all_or_none(home: Path, release_id: str, redis_source: RedisSource) -> None:
    async def work(live: Live) -> None:
        await live.set_edges("mine", ["p1", "p8", "p1"], present=True)
        assert "mine" in (await live.get_pin("p1"))["boards"]
        assert "mine" in (await live.get_pin("p8"))["boards"]
        last = await live._store.last_seq()
        await until(lambda: has_heard_of(live, last))
        await live.set_edges("mine", ["p1", "p8"], present=True)
        assert await live._store.last_seq() == last  # nothing to change, nothing written
        with pytest.raises(UnknownPin):
            await live.set_edges("mine", ["p2", "nobody"], present=True)
        assert "mine" not in (await live.get_pin("p2"))["boards"]
        await live.set_edge("mine", "p1", False)
        assert "mine" not in (await live.get_pin("p1"))["boards"]

    with_live(home, redis_source, work)


def test_content_that_does_not_fit_is_refused_and_not_stored(
    home: Path, release_id: str, redis_source: RedisSource, redis_client: redis.Redis
) -> None:
    async def work(live: Live) -> None:
        with pytest.raises(InvalidContent):
            await live.put_pin(pin("new", visual=(1.0,)))
        assert not await has(live, "new")

    with_live(home, redis_source, work)
    assert redis_client.hlen(keyspace.STATE) == 0


def test_new_pins_are_refused_when_there_is_no_room(home: Path, release_id: str, redis_source: RedisSource) -> None:
    async def work(live: Live) -> None:
        for name in ("one", "two"):
            await live.put_pin(pin(name))
        with pytest.raises(DeltaFull):
            await live.put_pin(pin("three"))
        await live.put_pin(pin("two", 3))
        await live.delete_pin("one")
        await live.put_pin(pin("three"))

    with_live(home, redis_source, work, max_live_pins=2)


def test_a_write_is_finished_when_whoever_asked_has_gone(
    home: Path, release_id: str, redis_source: RedisSource, redis_client: redis.Redis
) -> None:
    """A write that was cancelled at whatever moment is in Redis and in the catalogue, or in neither."""

    async def work(live: Live) -> None:
        for turn in range(60):
            asked = asyncio.create_task(live.put_pin(pin(f"new{turn}", turn % 6)))
            await asyncio.sleep(turn / 20_000)
            asked.cancel()
            await asyncio.wait([asked])
        await live.put_pin(pin("last"))
        stored = {key.decode().removeprefix("p/") for key in redis_client.hkeys(keyspace.STATE)}
        assert stored == {name for name in [f"new{turn}" for turn in range(60)] + ["last"] if await has(live, name)}
        assert live.status()["quarantined_entries"] == 0

    with_live(home, redis_source, work)


def test_events_shape_the_next_feed(home: Path, release_id: str, redis_source: RedisSource) -> None:
    async def work(live: Live) -> None:
        assert {item.reason for item in (await live.homefeed("u")).items} == {"popular"}
        assert await live.record_events("u", [Event("save", "p4", board_id="mine"), Event("hide", "p10")]) == 2
        page = await live.homefeed("u", limit=4)
        assert {item.reason for item in page.items} == {"because_you_saved"}
        assert {item.source_pin_id for item in page.items} == {"p4"}
        assert {cluster_of(item.pin_id) for item in page.items} == {4}
        assert "mine" in (await live.get_pin("p4"))["boards"]
        everything = (await live.homefeed("u", limit=200)).items
        assert not {"p4", "p10"} & {item.pin_id for item in everything}

    with_live(home, redis_source, work)


def test_feed_pages_never_repeat_a_pin(home: Path, release_id: str, redis_source: RedisSource) -> None:
    async def work(live: Live) -> None:
        await live.record_events("u", [Event("save", f"p{row}") for row in range(5)])
        seen: list[str] = []
        offset: int | None = 0
        while offset is not None:
            page = await live.homefeed("u", limit=15, offset=offset)
            shown = [item.pin_id for item in page.items]
            seen += shown
            offset = page.next_offset
            # What was shown is reported, as a client does, and trends change meanwhile.
            await live.record_events("u", [Event("impression", name) for name in shown])
            await live.record_events("v", [Event("save", name) for name in shown[:3]])
            live._trends_at = 0.0
        assert len(seen) == len(set(seen)) == 115

    with_live(home, redis_source, work)


def test_a_page_of_a_feed_that_another_process_began(home: Path, release_id: str, redis_source: RedisSource) -> None:
    async def work() -> None:
        async with serving(home, redis_source) as one, serving(home, redis_source) as two:
            await one.record_events("u", [Event("save", "p0")])
            whole = (await one.homefeed("u", limit=30)).items
            assert (await two.homefeed("u", limit=10, offset=20)).items == whole[20:]

    asyncio.run(work())


# --- several processes, restarts ---


def test_a_restart_brings_everything_back(home: Path, release_id: str, redis_source: RedisSource) -> None:
    async def work() -> None:
        async with serving(home, redis_source) as live:
            for i in range(30):
                await live.put_pin(pin(f"new{i}", i % 6))
            await live.set_edge("mine", "new3", True)
            await live.delete_pin("new4")
            await live.delete_pin("p5")
            before = [await related_ids(live, name) for name in ("new3", "p0")]
        async with serving(home, redis_source) as live:
            assert "mine" in (await live.get_pin("new3"))["boards"]
            assert not await has(live, "new4")
            assert not await has(live, "p5")
            after = [await related_ids(live, name) for name in ("new3", "p0")]
        for old, new in zip(before, after, strict=True):
            assert set(old) == set(new)
            assert len(set(old[:10]) & set(new[:10])) >= 9

    asyncio.run(work())


def test_others_follow_every_write(home: Path, release_id: str, redis_source: RedisSource) -> None:
    async def work() -> None:
        async with serving(home, redis_source) as one, serving(home, redis_source) as two:
            await one.put_pin(pin("new", 1))
            await until(lambda: has(two, "new"))
            assert (await two.related("new", limit=1)).items
            await two.set_edge("mine", "new", True)
            await until(lambda: is_on(one, "new", "mine"))
            await one.delete_pin("new")
            await until(lambda: lacks(two, "new"))
            assert one.status()["quarantined_entries"] == two.status()["quarantined_entries"] == 0

    asyncio.run(work())


def test_processes_that_write_the_same_pins_agree_in_the_end(
    home: Path, release_id: str, redis_source: RedisSource
) -> None:
    async def write(live: Live, mark: str) -> None:
        for turn in range(40):
            name = f"new{turn % 3}"
            try:
                if turn % 5 == 4:
                    await live.delete_pin(name)
                elif turn % 2:
                    await live.set_edge(f"{mark}{turn % 4}", name, turn % 3 > 0)
                else:
                    await live.put_pin(PinRecord(name, f"{mark} {turn}", boards=(mark,)))
            except UnknownPin:
                pass

    async def work() -> None:
        async with serving(home, redis_source) as one, serving(home, redis_source) as two:
            await asyncio.gather(write(one, "x"), write(two, "y"))
            last = await one._store.last_seq()

            async def caught_up() -> bool:
                return one._switch.position() == two._switch.position() == last

            await until(caught_up)
            for name in ("new0", "new1", "new2"):
                assert await has(one, name) == await has(two, name)
                if await has(one, name):
                    mine, theirs = await one.get_pin(name), await two.get_pin(name)
                    assert {**mine, "boards": sorted(mine["boards"])} == {**theirs, "boards": sorted(theirs["boards"])}
            async with serving(home, redis_source) as fresh:
                for name in ("new0", "new1", "new2"):
                    assert await has(one, name) == await has(fresh, name)

    asyncio.run(work())


# --- releases ---


def test_without_a_release_nothing_is_ready(home: Path, redis_source: RedisSource) -> None:
    async def work(live: Live) -> None:
        assert live.ready() == (False, ["no release has been published"])
        assert live.status()["release"] is None
        assert await live.list_releases() == []
        reads = live.related("p1"), live.homefeed("u"), live.search_text("a", 5), live.get_pin("p1")
        for call in (*reads, live.put_pin(pin("x"))):
            with pytest.raises(NotReady):
                await call
        assert await live.record_events("u", [Event("save", "p0", board_id="mine")]) == 1
        await asyncio.to_thread(make_release, home / "releases", WORLD)
        await until(lambda: is_ready(live))
        assert "mine" in (await live.get_pin("p0"))["boards"]

    with_live(home, redis_source, work)


def test_a_new_release_takes_over_with_every_live_change(
    home: Path, release_id: str, redis_source: RedisSource
) -> None:
    async def work(live: Live) -> None:
        await live.put_pin(pin("early"))
        await live.set_edge("mine", "p3", True)
        seq = await live._store.last_seq()
        await live.put_pin(pin("late"))
        # It says that it includes "early" and the edge, but its data do not: what is below `seq` is not replayed.
        newer = await asyncio.to_thread(make_release, home / "releases", make_world(150), seq=seq, seed=1)
        await until(lambda: serves(live, newer.id))
        assert await has(live, "p140")
        assert await has(live, "late")
        assert not await has(live, "early")
        assert (await live.related("late", limit=3)).release == newer.id
        releases = await live.list_releases()
        assert [(entry["id"], entry["live"]) for entry in releases] == [(newer.id, True), (release_id, False)]

    with_live(home, redis_source, work)


def test_queries_and_writes_go_on_while_releases_change(home: Path, release_id: str, redis_source: RedisSource) -> None:
    worlds = {release_id: 120}
    for num_pins in (126, 132):
        worlds[make_release(home / "releases", make_world(num_pins), seed=num_pins).id] = num_pins

    async def read(live: Live, stop: asyncio.Event) -> int:
        pages = 0
        while not stop.is_set():
            page = await live.related("p0", limit=2_000)
            base = [item for item in page.items if item.pin_id.startswith("p")]
            assert len(base) == worlds[page.release] - 1  # a page of one release only
            pages += 1
        return pages

    async def write(live: Live, stop: asyncio.Event) -> int:
        count = 0
        while not stop.is_set():
            await live.put_pin(pin(f"new{count}", count % 6))
            assert await has(live, f"new{count}")
            count += 1
        return count

    async def work(live: Live) -> None:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            readers = [tasks.create_task(read(live, stop)) for _ in range(2)]
            writer = tasks.create_task(write(live, stop))
            for name in (*worlds, *worlds):
                set_current(home / "releases", name)
                await until(lambda name=name: serves(live, name))
            stop.set()
        assert all(reader.result() for reader in readers)
        for i in range(writer.result()):
            assert await has(live, f"new{i}")

    with_live(home, redis_source, work)


def test_a_damaged_release_does_not_replace_a_good_one(home: Path, release_id: str, redis_source: RedisSource) -> None:
    async def work(live: Live) -> None:
        await until(lambda: serves(live, release_id))
        bad = await asyncio.to_thread(make_release, home / "releases", WORLD, seed=2, live=False)
        _flip(bad.folder / "embeddings.npy")
        set_current(home / "releases", bad.id)

        async def is_noticed(wanted: bool) -> bool:
            return ("embeddings.npy" in (live.status()["trouble"] or "")) == wanted

        await until(lambda: is_noticed(True))
        assert live.release_id == release_id
        assert live.ready() == (True, [])
        with pytest.raises(ReleaseError, match=r"embeddings\.npy"):
            await live.activate(bad.id)
        set_current(home / "releases", release_id)
        await until(lambda: is_noticed(False))

    with_live(home, redis_source, work)


def test_activate_goes_back_to_an_older_release(home: Path, release_id: str, redis_source: RedisSource) -> None:
    newer = make_release(home / "releases", make_world(150), seed=1)

    async def work(live: Live) -> None:
        assert live.release_id == newer.id
        await live.put_pin(pin("new"))
        await live.activate(release_id)
        assert live.release_id == release_id == current(home / "releases")
        assert await has(live, "new")
        await live.activate(release_id)
        for unknown in ("r20200101-000000-abcd", "../etc"):
            with pytest.raises(UnknownRelease):
                await live.activate(unknown)

    with_live(home, redis_source, work)


def test_too_far_behind_is_not_ready(home: Path, release_id: str, redis_source: RedisSource) -> None:
    async def work(live: Live) -> None:
        assert live.ready() == (True, [])
        await until(lambda: has_followed(live))
        assert live._follower.last_seq is not None
        live._follower.last_seq = live._switch.position() + 5_000
        ready, reasons = live.ready()
        assert (ready, reasons) == (False, ["5000 changes behind"])

    with_live(home, redis_source, work)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_who_does_not_read_the_log_though_it_could_is_not_ready(
    home: Path, release_id: str, redis_source: RedisSource
) -> None:
    async def work(live: Live) -> None:
        await until(lambda: has_followed(live))
        live._follower.last_contact = time.monotonic() - 60
        assert live.ready() == (True, [])  # for all that we know, Redis was away until now
        live._store._since = time.monotonic() - 60
        assert live.ready() == (False, ["the change log has not been read for 60 s, though Redis answers"])
        await until(lambda: is_ready(live))

    with_live(home, redis_source, work)


def test_a_background_task_goes_on_after_a_fault(
    home: Path, release_id: str, redis_source: RedisSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "FAULT_PAUSE", 0.05)
    faults = [RuntimeError("a fault of the program")]

    async def work() -> None:
        async with serving(home, redis_source) as one, serving(home, redis_source) as two:
            await until(lambda: has_followed(two))
            step = two._follower.step

            async def fail_once() -> None:
                if faults:
                    raise faults.pop()
                await step()

            two._follower.step = fail_once  # type: ignore[method-assign]
            await until(lambda: is_empty(faults))
            await one.put_pin(pin("new"))
            await until(lambda: has(two, "new"))

    asyncio.run(work())


async def is_empty(things: list[Any]) -> bool:
    return not things
