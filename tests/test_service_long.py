"""What shows only after a while: a large log at the start, and a log on which nothing comes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from crash_harness import put_until_taken
from live_service import WORLD, has_followed, serving
from service_fixtures import make_release, make_world
from service_process import RedisProcess, ServiceProcess

from model.redis_server import RedisSource

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def redis_process(tmp_path: Path) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path / "redis") as process:
        yield process


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
