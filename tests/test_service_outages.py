"""Redis freezes, a service is told to go, a pin comes in at another service: what clients see meanwhile.

Times are printed, not judged: they are the machine's.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from crash_harness import put_until_taken, wait_until
from live_service import WORLD, has, is_on, pin, serving
from service_fixtures import make_release
from service_process import RedisProcess, ServiceProcess

from model.changes import read_changes
from model.redis_clients import sync_client

NUM_READERS = 4


@pytest.fixture
def redis_process(tmp_path: Path) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path / "redis") as process:
        yield process


@pytest.fixture
def services(tmp_path: Path, redis_process: RedisProcess) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    make_release(tmp_path / "home" / "releases", WORLD)
    with ExitStack() as stack:
        one, two = (stack.enter_context(ServiceProcess(tmp_path / "home", redis_process)) for _ in range(2))
        yield one, two


@dataclass
class Answers:
    """What clients were answered: status and seconds, in order."""

    found: list[tuple[int, float]] = field(default_factory=list)

    def add(self, ask: Callable[[], httpx.Response]) -> httpx.Response:
        started = time.monotonic()
        answer = ask()
        self.found.append((answer.status_code, time.monotonic() - started))
        return answer

    def seconds(self, *statuses: int) -> str:
        times = [seconds for status, seconds in self.found if status in statuses]
        if not times:
            return "none"
        middle, late = np.percentile(times, [50, 99])
        return f"{len(times)}, p50 {1e3 * middle:.1f} ms, p99 {1e3 * late:.1f} ms, longest {1e3 * max(times):.1f} ms"


@contextmanager
def reading(url: str, answers: Answers) -> Iterator[None]:
    """Readers at work."""
    stop = threading.Event()

    def read(seed: int) -> None:
        turn = seed
        with httpx.Client(base_url=url, timeout=30) as http:
            while not stop.is_set():
                turn += 1
                paths = f"/v1/pins/p{turn % 100}/related", f"/v1/users/u{turn % 5}/homefeed", "/readyz"
                answers.add(lambda path=paths[turn % 3]: http.get(path))
                time.sleep(0.01)

    with ThreadPoolExecutor(NUM_READERS) as threads:
        work = [threads.submit(read, 7 * seed) for seed in range(NUM_READERS)]
        try:
            yield
        finally:
            stop.set()
    for each in work:
        each.result()


@pytest.mark.parametrize("seconds", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_frozen_redis_stops_writes_and_not_reads(
    services: tuple[ServiceProcess, ServiceProcess], redis_process: RedisProcess, seconds: float
) -> None:
    reads, refused, again, numbers = Answers(), Answers(), Answers(), itertools.count()
    with httpx.Client(base_url=services[0].url, timeout=30) as http, reading(services[0].url, reads):

        def put() -> httpx.Response:
            number = next(numbers)
            return http.put(f"/v1/pins/new{number}", json={"title": f"word1 {number}", "boards": ["b1"]})

        for _ in range(20):
            assert put().status_code in (201, 503)  # a busy machine may be too slow, too
        with redis_process.frozen():
            thawed = time.monotonic() + seconds
            while time.monotonic() < thawed:
                answer = refused.add(put)
                assert answer.status_code == 503
                assert answer.json()["type"].endswith("store-unavailable")
                assert int(answer.headers["retry-after"]) >= 1
                time.sleep(0.05)
            assert http.get("/v1/status").json()["changes_age_seconds"] > 1  # how old answers may be is said
        started = time.monotonic()
        while again.add(put).status_code == 503:
            time.sleep(0.02)
        recovered = time.monotonic() - started
    print(f"reads {reads.seconds(200)}; refused writes {refused.seconds(503)}; a write again after {recovered:.2f} s")
    num_good = sum(status == 200 for status, _ in reads.found)
    assert num_good >= 0.999 * len(reads.found)
    assert again.found[-1][0] == 201
    last = next(numbers) - 1
    with httpx.Client(base_url=services[1].url, timeout=30) as other:
        wait_until(lambda: other.get(f"/v1/pins/new{last}").status_code == 200)


@pytest.mark.parametrize("num_pins", [60, pytest.param(1_000, marks=pytest.mark.slow)])
def test_a_pin_is_found_at_once_and_soon_at_the_other_service(
    services: tuple[ServiceProcess, ServiceProcess], num_pins: int
) -> None:
    puts, waits = Answers(), []
    with httpx.Client(base_url=services[0].url) as one, httpx.Client(base_url=services[1].url) as two:
        for i in range(num_pins):
            name, body = f"new{i}", {"title": f"word{i % 60} word{(i + 1) % 60}", "boards": [f"b{i % 60}"]}
            puts.add(lambda name=name, body=body: put_until_taken(one, name, body))
            started = time.monotonic()
            first = one.get(f"/v1/pins/{name}/related?limit=1").json()["items"][0]["pin_id"]
            assert is_related(one, first, name)
            wait_until(lambda name=name: two.get(f"/v1/pins/{name}/related").status_code == 200)
            waits.append(time.monotonic() - started)
            assert is_related(two, first, name)
    print(
        f"puts {puts.seconds(200, 201)}; found at the other service {Answers([(200, w) for w in waits]).seconds(200)}"
    )


def is_related(http: httpx.Client, pin_id: str, other: str) -> bool:
    """Whether a pin is among those that are like its nearest pin."""
    return other in {item["pin_id"] for item in http.get(f"/v1/pins/{pin_id}/related?limit=500").json()["items"]}


def test_twenty_requests_in_flight_finish_after_sigterm(tmp_path: Path) -> None:
    make_release(tmp_path / "releases", WORLD)
    body = b'{"title": "word1 word2"}'
    head = f"host: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
    with ExitStack() as stack:
        service = stack.enter_context(ServiceProcess(tmp_path, drain_seconds=1.0))
        port = int(service.url.rpartition(":")[2])
        uploads = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(20)]
        for i, upload in enumerate(uploads):
            upload.sendall(f"PUT /v1/pins/new{i} HTTP/1.1\r\n{head}".encode() + body[:5])
        http = stack.enter_context(httpx.Client(base_url=service.url, timeout=30))
        assert http.get("/readyz").status_code == 200
        assert service.process is not None
        service.process.terminate()
        wait_until(lambda: http.get("/readyz").status_code == 503)
        assert http.get("/v1/pins/p1/related").status_code == 200  # the listener is still open
        for upload in uploads:
            upload.sendall(body[5:])
        assert {upload.recv(4096)[:13] for upload in uploads} == {b"HTTP/1.1 201 "}
        assert service.process.wait(30) == 0
        service.start()
        with httpx.Client(base_url=service.url) as http:
            assert {http.get(f"/v1/pins/new{i}").status_code for i in range(20)} == {200}


@pytest.mark.parametrize("num_cuts", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_a_redis_whose_file_was_cut_is_served_as_it_is(tmp_path: Path, home: Path, num_cuts: int) -> None:
    """A machine that lost power: whatever Redis still has is served, nothing else, and it takes new pins."""
    make_release(home / "releases", WORLD)
    with RedisProcess(tmp_path / "redis") as redis_process:
        asyncio.run(write_some(home, redis_process))
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    for turn in range(num_cuts):
        folder = tmp_path / f"cut{turn}"
        shutil.copytree(tmp_path / "redis", folder, ignore=shutil.ignore_patterns("*.sock"))
        [path] = [path for path in folder.rglob("*.aof") if path.stat().st_size]
        with path.open("rb+") as file:
            file.truncate(random.Random(seed + turn).randrange(path.stat().st_size))
        with RedisProcess(folder) as redis_process:
            asyncio.run(compare_with_redis(home, redis_process))


async def write_some(home: Path, redis_process: RedisProcess) -> None:
    async with serving(home, redis_process.source) as live:
        for i in range(60):
            await live.put_pin(pin(f"new{i}", i % 6))
            await live.set_edge("mine", f"p{i}", True)
            if i % 3 == 0:
                await live.delete_pin(f"new{i}")
            if i % 5 == 0:
                await live.delete_pin(f"p{i}")


async def compare_with_redis(home: Path, redis_process: RedisProcess) -> None:
    """A pin is there when Redis says so, or when it is in the release and Redis does not say that it is gone."""
    with sync_client(redis_process.source) as client:
        changes = {change.key: change for change in read_changes(client, 0)}
    async with serving(home, redis_process.source) as live:
        assert live.ready() == (True, [])
        for name in [f"p{row}" for row in range(WORLD.num_pins)] + [f"new{i}" for i in range(60)]:
            change = changes.get(f"p/{name}")
            there = name.startswith("p") if change is None else not change.deleted
            assert await has(live, name) == there, name
            edge = changes.get(f"e/mine/{name}")
            assert not there or await is_on(live, name, "mine") == (edge is not None)
        await live.put_pin(pin("later"))
        assert await has(live, "later")
