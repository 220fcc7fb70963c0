"""What comes in takes bounded memory: long before the end it is said, at the end writes are refused until a reindex."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import weakref
from pathlib import Path

import httpx
import pytest
import redis
from http_service import kind_of, with_service
from live_service import WORLD, pin
from service_fixtures import make_release

from model.changes import EdgeRecord, PinRecord
from model.redis_server import RedisSource
from model.release import Release, open_release
from offline.progress import silent
from offline.release.reindex import reindex
from service.live.catalogue import Catalogue
from service.live.search import NO_FILTER
from service.live.shelves import Shelves
from service.live.views import PinContentIn
from service.recommend.related import related

LEAST = 2**20  # the smallest limit that may be set


@pytest.fixture
def release(home: Path) -> Release:
    return make_release(home / "releases", WORLD)


def test_a_catalogue_that_is_not_served_any_more_goes_at_once(home: Path) -> None:
    made = make_release(home / "releases", WORLD)
    release = open_release(home / "releases", made.id)
    catalogue = Catalogue(release, max_live_pins=100)
    related(catalogue, "p1", limit=5)
    catalogue.apply(PinRecord("new", "word1", boards=("b1",)))
    catalogue.preview(PinContentIn("word1"))
    Shelves(catalogue).popular(NO_FILTER)
    left = weakref.ref(catalogue), weakref.ref(release), weakref.ref(release.index)
    gc.disable()  # the collector comes late, and an index of a million pins takes a gigabyte
    try:
        del catalogue, release
        assert [each() for each in left] == [None, None, None]
    finally:
        gc.enable()


@pytest.mark.usefixtures("release")
def test_a_full_service_refuses_what_adds_and_a_reindex_makes_room(
    home: Path, redis_source: RedisSource, redis_client: redis.Redis
) -> None:
    long = {"title": "word1 word2", "description": "x" * 20_000}

    async def check(http: httpx.AsyncClient) -> None:
        advised, put = None, 0
        while (answer := await http.put(f"/v1/pins/new{put}", json=long)).status_code != 503:
            assert answer.status_code == 201
            put += 1
            advised = advised or (await http.get("/v1/status")).json()["advice"]
        assert put > 10
        assert kind_of(answer) == "live-full"
        assert int(answer.headers["retry-after"]) > 0
        assert "reindex" in answer.json()["detail"]
        assert advised is not None
        assert "reindex: 7" in advised  # at seven tenths, not at the end
        await refuses_only_what_adds(http)
        metrics = (await http.get("/metrics")).text
        assert "pinsage_live_fill_ratio 1." in metrics
        made = await asyncio.to_thread(reindex, home, redis_client, "index", silent)
        while (status := (await http.get("/v1/status")).json())["release"] != made.id:
            await asyncio.sleep(0.05)
        assert (status["live_fill_ratio"], status["advice"]) == (0.0, None)
        assert (await http.put("/v1/pins/late", json=long)).status_code == 201
        assert (await http.get("/v1/pins/new0")).json()["description"] == long["description"]

    with_service(home, redis_source, check, max_live_bytes=LEAST)


async def refuses_only_what_adds(http: httpx.AsyncClient) -> None:
    save = {"type": "save", "pin_id": "p2", "event_id": "1"}
    for answer in (
        await http.put("/v1/pins/p2", json={"title": "word1"}),
        await http.post("/v1/boards/mine/pins", json={"pin_id": "p1"}),
        await http.post("/v1/users/ana/events", json={**save, "board_id": "mine"}),
    ):
        assert kind_of(answer) == "live-full"
    assert (await http.post("/v1/users/ana/events", json=save)).status_code == 202
    assert (await http.delete("/v1/boards/b1/pins/p2")).status_code == 204
    assert (await http.delete("/v1/pins/p3")).status_code == 204
    assert (await http.get("/v1/pins/p1/related")).status_code == 200
    assert (await http.get("/readyz")).status_code == 200


def test_what_is_counted_is_near_what_is_used(release: Release) -> None:
    catalogue = Catalogue(release, max_live_pins=100_000)
    catalogue.apply(pin("first"))
    tracemalloc.start()
    try:
        before, used = catalogue.num_live_bytes, tracemalloc.get_traced_memory()[0]
        for i in range(500):
            catalogue.apply(
                PinRecord(f"new{i}", f"word1 {i}", (f"tag {i}",), "d" * (i % 900), boards=(f"mine{i}", f"b{i % 60}"))
            )
            catalogue.apply(EdgeRecord(f"mine{i // 2}", f"new{i}", True))
        counted = catalogue.num_live_bytes - before
        used = tracemalloc.get_traced_memory()[0] - used
    finally:
        tracemalloc.stop()
    print(f"{counted:,} bytes are counted, {used:,} used")
    assert 0.3 * used < counted < 2 * used


def test_what_is_taken_out_is_not_counted_any_more(release: Release) -> None:
    catalogue = Catalogue(release, max_live_pins=1_000)
    for i in range(50):
        catalogue.apply(PinRecord(f"new{i}", "word1", (), "d" * 20_000))
    full = catalogue.num_live_bytes
    assert full > 1_000_000
    for i in range(50):
        catalogue.apply(PinRecord(f"new{i}", "word1", (), "short"))
    assert catalogue.num_live_bytes < full - 900_000
    for i in range(50):
        catalogue.apply(PinRecord(f"new{i}", deleted=True))
    catalogue.compact()
    assert catalogue.delta.num_bytes == 0
    assert catalogue.directory.num_bytes < 50 * 300
