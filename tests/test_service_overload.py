"""More than can be done: what is let in is answered, the rest is turned away early and told when to come back, probes
answer throughout, and whoever stops in the middle of it finishes what it began."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest
from http_service import kind_of
from server_process import Server, serving
from service_fixtures import make_release

from service.http.threads import TIMED, Threads
from service.live.failures import Overloaded

HEAVY = {"queries": ["p1"] * 100, "limit": 500}
CLIENTS = 100


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    make_release(tmp_path / "releases")
    with serving(tmp_path, drain_seconds=0, max_inflight=20, queue_seconds=0.5) as server:
        yield server


async def flood(http: httpx.AsyncClient, ask: Callable[[], Awaitable[httpx.Response]], rounds: int) -> list[Timed]:
    """Many clients, each asking again and again without a pause."""

    async def one() -> list[Timed]:
        return [await timed(ask()) for _ in range(rounds)]

    return [answer for some in await asyncio.gather(*(one() for _ in range(CLIENTS))) for answer in some]


Timed = tuple[httpx.Response, float]


async def timed(asked: Awaitable[httpx.Response]) -> Timed:
    started = time.monotonic()
    return await asked, time.monotonic() - started


async def probe(url: str, ended: asyncio.Event) -> list[Timed]:
    """Ask all probes in turn until something has ended."""
    answers = []
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        while not ended.is_set():
            answers += [await timed(http.get(path)) for path in ("/livez", "/readyz", "/metrics")]
    return answers


async def flooded(
    server: Server, ask: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]], rounds: int
) -> tuple[list[Timed], list[Timed]]:
    """Answers to a flood, and to the probes beside it."""
    ended = asyncio.Event()
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as http:
        probing = asyncio.create_task(probe(server.url, ended))
        answers = await flood(http, lambda: ask(http), rounds)
        ended.set()
        return answers, await probing


def test_heavy_requests_are_answered_or_turned_away_and_probes_pass(server: Server) -> None:
    answers, probes = asyncio.run(flooded(server, lambda http: http.post("/v1/related", json=HEAVY), rounds=3))
    done = [seconds for answer, seconds in answers if answer.status_code == 200]
    shed = [(answer, seconds) for answer, seconds in answers if answer.status_code != 200]
    assert done, "nobody was answered"
    assert shed, "this was no overload"
    assert {kind_of(answer) for answer, _ in shed} == {"overloaded"}
    assert {int(answer.headers["retry-after"]) for answer, _ in shed} == {1}
    assert {answer.status_code for answer, _ in probes} == {200}
    # Turned away is quicker than done, and a probe quicker than both: measured in one run, by the same clock.
    assert statistics.median(seconds for _, seconds in probes) < statistics.median(done)
    assert statistics.median(seconds for _, seconds in shed) < statistics.median(done)
    numbers = httpx.get(f"{server.url}/metrics").text
    assert 'pinsage_shed_requests_total{reason="inflight"}' in numbers
    assert 'pinsage_shed_requests_total{reason="queue"}' in numbers
    assert httpx.get(f"{server.url}/v1/pins/p1/related").status_code == 200


def test_writes_to_a_redis_that_is_frozen_are_turned_away_and_probes_pass(server: Server) -> None:
    [redis] = [child for child in server.children() if "redis" in child.name()]
    redis.send_signal(signal.SIGSTOP)
    try:
        numbers = iter(range(10**6))
        ask = lambda http: http.put(f"/v1/pins/new-{next(numbers)}", json={"title": "word1"})  # noqa: E731
        answers, probes = asyncio.run(flooded(server, ask, rounds=5))
    finally:
        redis.send_signal(signal.SIGCONT)
    assert {kind_of(answer) for answer, _ in answers} <= {"store-unavailable", "overloaded"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer, _ in answers)
    assert {answer.status_code for answer, _ in probes} == {200}


@pytest.mark.slow
def test_sigterm_finishes_what_is_in_flight_and_keeps_it(tmp_path: Path) -> None:
    """Twenty uploads that began before the signal are answered after it, and are there when the next process starts."""
    make_release(tmp_path / "releases")
    body = b'{"title": "word1 word2"}'
    with serving(tmp_path, drain_seconds=1) as server, ExitStack() as stack:
        children = server.children()
        uploads = [stack.enter_context(server.connect()) for _ in range(20)]
        for number, upload in enumerate(uploads):
            head = f"PUT /v1/pins/new-{number} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
            upload.sendall(head.encode() + body[:5])
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)  # said so while it still listens
        wait_for(lambda: not listens(server))
        for upload in uploads:
            upload.sendall(body[5:])
        assert [upload.recv(4096)[:13] for upload in uploads] == [b"HTTP/1.1 201 "] * 20
        assert server.process.wait(60) == 0
        assert not psutil.wait_procs(children, timeout=20)[1]
    with serving(tmp_path, drain_seconds=0) as server, httpx.Client(base_url=server.url) as http:
        wait_for(lambda: http.get("/readyz").status_code == 200)
        assert [http.get(f"/v1/pins/new-{number}").status_code for number in range(20)] == [200] * 20


def listens(server: Server) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5):
            return True
    except OSError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- the queue ---


def test_a_read_whose_turn_comes_late_is_not_worked_on_and_a_write_waits_for_none() -> None:
    async def check() -> None:
        threads, go, worked = Threads(1, patience=0.05), threading.Event(), []
        first = asyncio.create_task(threads.read(go.wait, 60))
        late = asyncio.create_task(threads.read(worked.append, "late"))
        await threads.write(worked.append, "written")
        assert worked == ["written"], "a write does not wait behind reads"
        await asyncio.sleep(0.1)
        go.set()
        assert await first is True
        with pytest.raises(Overloaded):
            await late
        assert worked == ["written"]
        await threads.read(worked.append, "in time")
        assert worked == ["written", "in time"]
        threads.close()

    asyncio.run(check())


def test_writes_are_done_one_after_the_other_whoever_has_left() -> None:
    async def check() -> None:
        threads, done = Threads(4, patience=1), []

        def work(number: int) -> None:
            time.sleep(0.01)
            done.append(number)

        tasks = [asyncio.create_task(threads.write(work, number)) for number in range(10)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [number for number in done if number != 3] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
        threads.close()

    asyncio.run(check())


def test_light_reads_are_done_at_once_as_long_as_they_are_light() -> None:
    def burn(seconds: float) -> str:
        stop = time.thread_time() + seconds
        while time.thread_time() < stop:
            pass
        return threading.current_thread().name

    async def check() -> None:
        threads = Threads(1, patience=60)
        here = threading.current_thread().name
        assert [await threads.read_light(burn, 0) for _ in range(100)] == [here] * 100
        heavy = [await threads.read_light(burn, 0.005) for _ in range(2 * TIMED)]
        assert heavy[0] == here, "nobody could know"
        assert heavy[-1].startswith("catalogue")
        light = [await threads.read_light(burn, 0) for _ in range(20 * TIMED)]
        assert light[0].startswith("catalogue")
        assert light[-1] == here, "they have become light again"
        threads.close()

    asyncio.run(check())


def test_the_probe_of_a_stopped_process_is_no_answer(server: Server) -> None:
    """The control: what these tests take for an answer does not come from anywhere else."""
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(httpx.TimeoutException):
            httpx.get(f"{server.url}/livez", timeout=0.5)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert httpx.get(f"{server.url}/livez", timeout=60).status_code == 200
