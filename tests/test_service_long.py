"""What shows only after a while: reindexes under load, a large log at the start, a log on which nothing comes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from crash_harness import put_until_taken, wait_until
from live_service import WORLD, has_followed, serving
from service_fixtures import make_release, make_world
from service_process import RedisProcess, ServiceProcess

from model.redis_server import RedisSource

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NUM_REINDEXES = 10
JOB_SECONDS = 120.0


@pytest.fixture
def redis_process(tmp_path: Path) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path / "redis") as process:
        yield process


def test_ten_reindexes_under_load(tmp_path: Path, redis_process: RedisProcess) -> None:
    """Every answer is a 200 of one release; every pin that was put stays; memory comes back."""
    make_release(tmp_path / "releases", make_world(3_000))
    with ServiceProcess(tmp_path, redis_process, worker="child") as service:
        assert service.process is not None
        process, stop, pages = psutil.Process(service.process.pid), threading.Event(), [0, 0]

        def read(seed: int) -> None:
            with httpx.Client(base_url=service.url, timeout=60) as http:
                while not stop.is_set():
                    pages[seed] += 1
                    answer = http.get(f"/v1/pins/p{7 * pages[seed] % 3_000}/related?limit=50")
                    assert answer.status_code == 200, answer.text
                    assert len({item["pin_id"] for item in answer.json()["items"]}) == 50

        memory, releases = [], []
        with ThreadPoolExecutor(2) as threads, httpx.Client(base_url=service.url, timeout=60) as http:
            work = [threads.submit(read, seed) for seed in (0, 1)]
            try:
                for turn in range(NUM_REINDEXES):
                    for i in range(30):
                        put_until_taken(http, f"new{turn}-{i}", {"title": f"word{i} word{i + 1}"})
                    releases.append(reindexed(http))
                    memory.append(process.memory_info().rss)
            finally:
                stop.set()
            for each in work:
                each.result()
            status = http.get("/v1/status").json()
            for turn in range(NUM_REINDEXES):
                assert http.get(f"/v1/pins/new{turn}-7").status_code == 200
        mebibytes = [round(size / 2**20) for size in memory]
        print(f"{sum(pages)} pages, all 200; memory after each reindex {mebibytes} MiB")
        assert len(set(releases)) == NUM_REINDEXES
        assert status["index_vectors"] == 3_000 + 30 * NUM_REINDEXES
        assert memory[-1] < 1.15 * memory[1]


def reindexed(http: httpx.Client) -> str:
    """Reindex and wait until the new release is served; its name."""
    started = http.post("/v1/admin/reindex", json={"mode": "index"})
    assert started.status_code == 202, started.text
    path = started.headers["location"]
    wait_until(lambda: http.get(path).json()["state"] not in ("queued", "running"), JOB_SECONDS)
    job = http.get(path).json()
    assert job["state"] == "succeeded", job
    wait_until(lambda: http.get("/v1/status").json()["release"] == job["release"])
    return str(job["release"])


def test_ready_again_with_a_large_release_and_many_changes(tmp_path: Path, redis_process: RedisProcess) -> None:
    make_release(tmp_path / "releases", make_world(20_000))
    with ServiceProcess(tmp_path, redis_process) as service, ThreadPoolExecutor(4) as threads:
        with httpx.Client(base_url=service.url, timeout=60) as http:

            def put(i: int) -> int:
                body = {"title": f"word{i % 60} {i}", "boards": [f"b{i % 60}"]}
                return put_until_taken(http, f"new{i}", body).status_code

            assert set(threads.map(put, range(2_000))) <= {200, 201}
        service.kill()
        seconds = service.start()
        status = httpx.get(f"{service.url}/v1/status").json()
    print(f"ready after {seconds:.1f} s with {status['index_vectors']} pins and {status['live_pins']} live ones")
    assert (status["index_vectors"], status["live_pins"]) == (20_000, 2_000)


def test_a_log_on_which_nothing_comes_is_no_fault(
    home: Path, redis_source: RedisSource, caplog: pytest.LogCaptureFixture
) -> None:
    """redis-py's own timeouts would end a wait of a minute with an error."""
    make_release(home / "releases", WORLD)

    async def work() -> None:
        async with serving(home, redis_source) as live:
            while not await has_followed(live):
                await asyncio.sleep(0.1)
            until = time.monotonic() + 60
            while time.monotonic() < until:
                await asyncio.sleep(1)
                assert live.ready() == (True, [])
            assert live.status()["changes_age_seconds"] < 30

    with caplog.at_level(logging.INFO, "service"):
        asyncio.run(work())
    assert [record.getMessage() for record in caplog.records if "log cannot be read" in record.getMessage()] == []
