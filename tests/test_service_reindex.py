"""Reindexing a real service with a real worker while it is read and written: nobody notices, nothing is lost."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
from server_process import Server, serving
from service_fixtures import make_release, make_world

from model.release import list_releases

MAX_GROWTH = 1.15  # of resident memory, after all of it


@dataclass
class Seen:
    """What the clients of a service saw."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    releases: set[str] = field(default_factory=set)
    put: list[str] = field(default_factory=list)
    problems: list[object] = field(default_factory=list)


@contextmanager
def traffic(server: Server, num_pins: int) -> Iterator[Seen]:
    """Two readers and a writer, until the end of the block."""
    seen, stop = Seen(), threading.Event()

    def read(kind: str) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for number in itertools.count():
                if stop.is_set():
                    return
                pin = f"p{number % num_pins}"
                path = f"/v1/pins/{pin}/related?limit=50" if kind == "related" else f"/v1/users/u{pin}/homefeed"
                answer = http.get(path)
                seen.statuses[kind, answer.status_code] += 1
                if answer.status_code != 200:
                    seen.problems.append((path, answer.status_code, answer.text))
                    continue
                page = answer.json()
                seen.releases.add(page["release"])
                ids = [item["pin_id"] for item in page["items"]]
                if not ids or len(set(ids)) < len(ids):
                    seen.problems.append((path, ids))

    def write() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for number in itertools.count():
                if stop.wait(0.03):  # or the catalogue would be many times as large after ten reindexes
                    return
                pin = f"new-{number}"
                # All different, however many: a catalogue of pins that are all alike is no release.
                content = {"title": f"word{number % 60} word{7 * number % 60}", "boards": [f"b{number % 60}"]}
                answer = http.put(f"/v1/pins/{pin}", json=content)
                seen.statuses["put", answer.status_code] += 1
                # On a busy machine Redis itself may have no time; a client does as it is told.
                while answer.status_code == 503 and "retry-after" in answer.headers:
                    answer = http.put(f"/v1/pins/{pin}", json=content)
                    seen.statuses["again", answer.status_code] += 1
                if answer.status_code in (200, 201):
                    seen.put.append(pin)
                else:
                    seen.problems.append((pin, answer.status_code, answer.text))

    threads = [threading.Thread(target=read, args=(kind,)) for kind in ("related", "homefeed")]
    threads.append(threading.Thread(target=write))
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def reindex(http: httpx.Client, mode: str) -> str:
    """Reindex and wait until the new release is served; its id."""
    started = http.post("/v1/admin/reindex", json={"mode": mode})
    assert started.status_code == 202, started.text
    place = started.headers["location"]
    wait_for(lambda: http.get(place).json()["state"] not in ("queued", "running"))
    job = http.get(place).json()
    assert (job["state"], job["error"]) == ("succeeded", None)
    wait_for(lambda: http.get("/v1/status").json()["release"] == job["release"])
    return str(job["release"])


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 280
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def all_there(http: httpx.Client, pins: list[str]) -> bool:
    return all(http.get(f"/v1/pins/{pin}").status_code == 200 for pin in pins)


def run_reindexes(home: Path, num_pins: int, count: int) -> None:
    make_release(home / "releases", make_world(num_pins))
    with (
        serving(home, worker="child", drain_seconds=0) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        process = psutil.Process(server.process.pid)
        with traffic(server, num_pins) as seen:
            wait_for(lambda: len(seen.put) > 20)
            before = process.memory_info().rss
            releases = []
            for _ in range(count):
                releases.append(reindex(http, "index"))
                put = list(seen.put)
                assert all_there(http, put), "what was put before and during the reindex is there after it"
                assert http.get(f"/v1/pins/{put[-1]}/related").status_code == 200
            wait_for(lambda: releases[-1] in seen.releases)
        assert seen.problems == []
        assert {status for kind, status in seen.statuses if kind in ("related", "homefeed")} == {200}
        assert seen.statuses["put", 201] >= 0.98 * len(seen.put)
        assert set(releases) <= seen.releases
        after = process.memory_info().rss
        print(f"{dict(seen.statuses)}; memory {before / 2**20:.0f} MiB before, {after / 2**20:.0f} MiB after")
        assert after <= MAX_GROWTH * before
        status = http.get("/v1/status").json()
        assert status["index_vectors"] + status["live_pins"] == num_pins + len(seen.put)
        roll_back(http, home, seen.put)
        assert server.stop(signal.SIGTERM) == 0


def roll_back(http: httpx.Client, home: Path, put: list[str]) -> None:
    """One call, and every pin is still there."""
    older = list_releases(home / "releases")[-2].id
    assert http.post(f"/v1/admin/releases/{older}/activate").json() == {"release": older}
    assert http.get("/v1/pins/p1/related").json()["release"] == older
    assert all_there(http, put)


def test_two_reindexes_under_load_are_not_noticed(tmp_path: Path) -> None:
    run_reindexes(tmp_path, num_pins=300, count=2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_reindexes_under_load_are_not_noticed(tmp_path: Path) -> None:
    run_reindexes(tmp_path, num_pins=5_000, count=10)


def test_a_worker_that_is_killed_is_replaced_and_the_service_goes_on(tmp_path: Path) -> None:
    """The child worker dies in the middle of a job: the job is failed, the next is done by the next worker."""
    old = make_release(tmp_path / "releases").id
    with serving(tmp_path, worker="child", drain_seconds=0) as server, httpx.Client(base_url=server.url) as http:
        place = http.post("/v1/admin/reindex").headers["location"]
        wait_for(lambda: http.get(place).json()["state"] == "running")
        [worker] = [child for child in server.children() if "worker" in child.cmdline()]
        worker.kill()
        wait_for(lambda: http.get(place).json()["state"] == "failed")
        assert "worker died" in http.get(place).json()["error"]
        assert http.get("/v1/status").json()["release"] == old
        assert http.get("/v1/pins/p1/related").status_code == 200
        assert reindex(http, "index") != old
        assert server.stop(signal.SIGTERM) == 0
