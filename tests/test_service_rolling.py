"""A rolling restart: replicas on one Redis behind a balancer, each told to go and started again while clients work."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from crash_harness import wait_until
from live_service import PATIENCE, WORLD
from service_fixtures import make_release
from service_load import TIMEOUT, Load, sender
from service_process import RedisProcess, ServiceProcess

from model import keyspace
from model.redis_clients import sync_client

LOOK = 0.1  # seconds between two looks at /readyz


class Balancer:
    """Sends requests to the replicas in turn, as load balancers do: only to those whose /readyz says 200, and on to the
    next one where a replica has gone or says 503."""

    def __init__(self, services: Sequence[ServiceProcess]) -> None:
        self._services = services
        self._turns = itertools.count()
        self._http = httpx.Client(timeout=TIMEOUT)
        self._ready = {service: service.url for service in services}
        self.num_passed_on = 0

    @property
    def ready(self) -> list[str]:
        """Where requests are sent."""
        return [url for service in self._services if (url := self._ready[service])]

    def has_all(self) -> bool:
        """Whether it sends requests to every replica, where it is now."""
        return self.ready == [service.url for service in self._services]

    def ask(self, method: str, path: str, body: object) -> httpx.Response:
        """One request, at each ready replica once until one has answered it; 503 where there is none."""
        answer = httpx.Response(503, text="no replica is ready")
        urls, turn = self.ready, next(self._turns)
        for attempt in range(len(urls)):
            url = urls[(turn + attempt) % len(urls)]
            try:
                answer = self._http.request(method, url + path, json=body)
            except httpx.TransportError as error:
                answer = httpx.Response(502, text=f"{url}: {error!r}")
            if answer.status_code not in (502, 503):
                return answer
            self.num_passed_on += 1
        return answer

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Asks every replica again and again whether it is ready."""
        stop = threading.Event()

        def look(service: ServiceProcess) -> None:
            while not stop.wait(LOOK):
                url = service.url
                self._ready[service] = url if self._is_ready(url) else ""

        with self._http, ThreadPoolExecutor(len(self._services)) as threads:
            looks = [threads.submit(look, service) for service in self._services]
            try:
                yield
            finally:
                stop.set()
        for each in looks:
            each.result()

    def _is_ready(self, url: str) -> bool:
        try:
            return self._http.get(f"{url}/readyz").status_code == 200
        except httpx.TransportError:
            return False


@pytest.mark.slow
@pytest.mark.parametrize("num_replicas", [2, 3])
def test_nobody_notices_that_replicas_are_restarted_in_turn(tmp_path: Path, num_replicas: int) -> None:
    make_release(tmp_path / "home" / "releases", WORLD)
    with ExitStack() as stack:
        redis = stack.enter_context(RedisProcess(tmp_path / "redis", fsync="everysec"))
        services = [
            stack.enter_context(ServiceProcess(tmp_path / "home", redis, drain_seconds=2, queue_seconds=60))
            for _ in range(num_replicas)
        ]
        balancer = Balancer(services)
        load, seconds = Load(balancer.ask, "rolling", asks_once=False), []
        with balancer.looking(), load.running():
            for service in services:
                wait_until(balancer.has_all)
                seconds.append(restart(service, load))
            wait_until(balancer.has_all)
        print(f"{load}; {balancer.num_passed_on} passed on; ready after {', '.join(f'{s:.1f}' for s in seconds)} s")
        with sync_client(redis.source) as client:
            assert load.faults(client) == []
            last = int(client.get(keyspace.SEQ) or 0)
        assert load.pins
        for service in services:
            with httpx.Client(base_url=service.url, timeout=TIMEOUT) as http:
                wait_until(partial(has_heard_of, http, last))
                assert load.faults_of_reads(sender(http)) == []


def has_heard_of(http: httpx.Client, seq: int) -> bool:
    return int(http.get("/v1/status").json()["seq"]) >= seq


def restart(service: ServiceProcess, load: Load) -> float:
    """SIGTERM, and a start: when it says that it is ready, it has what was acknowledged before; seconds until then."""
    known = dict(load.pins)
    service.end()
    seconds = service.start()
    with httpx.Client(base_url=service.url, timeout=PATIENCE) as http:
        for pin_id, title in known.items():
            assert http.get(f"/v1/pins/{pin_id}").json()["title"] == title
    return seconds
