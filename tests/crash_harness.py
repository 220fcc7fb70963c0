"""Writers that remember what they were told, and a comparison of that with what is there after a crash.

A pin belongs to one writer, so what it was told last about the pin is what must be there. A request without an answer
may have been done or not: both are right, and the pin is left alone until we have seen which. One that was refused with
503 is sent again.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from live_service import PATIENCE
from service_fixtures import words_of
from service_process import RedisProcess, ServiceProcess

from model import keyspace
from model.redis_clients import sync_client

BOARDS = [f"b{row}" for row in range(0, 60, 7)] + [f"mine{row}" for row in range(6)]
NUM_WRITERS = 4
TIMEOUT = 10.0
FAULTS = ("missing", "phantoms", "wrong", "duplicates")


@dataclass(frozen=True)
class Pin:
    """What is compared of a pin."""

    title: str | None
    boards: frozenset[str]


Victim = Literal["service", "redis", "service by SIGTERM"]
State = Pin | None  # None: there is no such pin


@dataclass
class Report:
    """What a harness saw. The lists of what is wrong name pins or events, with what was found."""

    seed: int
    num_acknowledged: int = 0
    num_unanswered: int = 0
    num_refused: int = 0
    num_kills: int = 0
    num_reads: int = 0
    ready_seconds: list[float] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    phantoms: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        return [f"{name}: {what}" for name in FAULTS for what in getattr(self, name)]

    def __str__(self) -> str:
        ready = ", ".join(f"{seconds:.1f}" for seconds in self.ready_seconds)
        return (
            f"seed {self.seed}: {self.num_acknowledged} writes acknowledged, {self.num_unanswered} without an answer,"
            f" {self.num_refused} refused, {self.num_kills} kills, {self.num_reads} pins compared,"
            f" ready after {ready} s; {', '.join(f'{len(getattr(self, name))} {name}' for name in FAULTS)}"
        )


class Writer:
    """Writes about its own pins, one request after the other, and keeps what it was told.

    known   what was acknowledged last of each pin
    open    what a pin may be, too: the request about it had no answer
    events  acknowledged saves (pin, timestamp) by event id; open_events those without an answer
    """

    def __init__(self, name: str, pins: dict[str, State], seed: int) -> None:
        self.name = name
        self.known = pins
        self.open: dict[str, State] = {}
        self.events: dict[str, dict[str, Any]] = {}
        self.open_events: dict[str, dict[str, Any]] = {}
        self.num_acknowledged = self.num_unanswered = self.num_refused = 0
        self._random = random.Random(seed)
        self._count = 0
        self._first = int(time.time()) - 40_000

    def run(self, service: ServiceProcess, enough: int, stop: threading.Event) -> None:
        """Write until so many were acknowledged, or the service does not answer any more."""
        with httpx.Client(base_url=service.url, timeout=TIMEOUT) as http:
            while self.num_acknowledged < enough and not stop.is_set():
                try:
                    self._write(http)
                except httpx.TransportError:
                    return

    def _write(self, http: httpx.Client) -> None:
        free = [name for name in self.known if name not in self.open]
        there = [name for name in free if self.known[name] is not None]
        kinds = {"put": 5, "delete": 1, "add": 2, "remove": 1, "save": 2} if there else {"put": 1}
        kind = self._random.choices(list(kinds), list(kinds.values()))[0]
        self._count += 1
        name = self._random.choice(free if kind == "put" else there)
        before = self.known[name]
        board = self._random.choice(BOARDS)
        if kind == "put":
            self._put(http, name)
        elif kind == "delete":
            self._send(http, name, None, "DELETE", f"/v1/pins/{name}")
        elif before is not None and kind == "add":
            after = Pin(before.title, before.boards | {board})
            self._send(http, name, after, "POST", f"/v1/boards/{board}/pins", {"pin_id": name})
        elif before is not None and kind == "remove":
            board = self._random.choice([*before.boards, board])
            after = Pin(before.title, before.boards - {board})
            self._send(http, name, after, "DELETE", f"/v1/boards/{board}/pins/{name}")
        elif before is not None:
            self._save(http, name, Pin(before.title, before.boards | {board}), board)

    def _put(self, http: httpx.Client, name: str) -> None:
        words = " ".join(self._random.sample(words_of(self._random.randrange(6)), 3))
        boards = self._random.sample(BOARDS, self._random.randrange(4))
        body = {"title": f"{words} {self.name} {self._count}", "boards": boards}
        self._send(http, name, Pin(body["title"], frozenset(boards)), "PUT", f"/v1/pins/{name}", body)

    def _save(self, http: httpx.Client, name: str, after: Pin, board: str) -> None:
        event_id = f"{self.name}-{self._count}"
        when = self._first + self._count
        event = {"type": "save", "pin_id": name, "timestamp": when, "board_id": board, "event_id": event_id}
        self.open_events[event_id] = event
        if self._send(http, name, after, "POST", f"/v1/users/{self.name}/events", event):
            self.events[event_id] = self.open_events.pop(event_id)

    def _send(self, http: httpx.Client, name: str, after: State, method: str, path: str, body: object = None) -> bool:
        """Send a request, again and again while it is refused; whether it was acknowledged."""
        self.open[name] = after
        deadline, refused = time.monotonic() + PATIENCE, False
        while (answer := self._ask(http, method, path, body)).status_code == 503:
            assert time.monotonic() < deadline, answer.text
            self.num_refused += 1
            refused = True
            time.sleep(0.05)
        if answer.status_code == 404 and refused:  # perhaps taken out by what was refused before
            return False
        del self.open[name]
        if answer.status_code == 404:  # another service that has not heard of the pin yet: nothing was promised
            return False
        assert answer.is_success, answer.text
        self.known[name] = after
        self.num_acknowledged += 1
        return True

    def _ask(self, http: httpx.Client, method: str, path: str, body: object) -> httpx.Response:
        try:
            return http.request(method, path, json=body)
        except httpx.TransportError:
            self.num_unanswered += 1
            raise

    def settle(self, name: str, found: State) -> None:
        """What a pin was found to be is what is known of it from now on."""
        self.known[name] = found
        self.open.pop(name, None)

    def send_again(self, http: httpx.Client) -> None:
        """Repeat the events that had no answer, as a client does; each must count once."""
        for event_id, event in self.open_events.items():
            answer = http.post(f"/v1/users/{self.name}/events", json=event)
            assert answer.status_code == 202, answer.text
            self.events[event_id] = event
            pin = self.known[event["pin_id"]]
            if pin is not None:
                self.known[event["pin_id"]] = Pin(pin.title, pin.boards | {event["board_id"]})
        self.open_events = {}


class Harness:
    """Writers beside services on one Redis, any of which is killed; `report` says what came out.

    The first service is the one that is killed alone; it has to be started again before anything is compared.
    """

    def __init__(
        self, services: Sequence[ServiceProcess], redis: RedisProcess | None, *, seed: int, num_pins: int
    ) -> None:
        self.services, self.redis = services, redis
        self.report = Report(seed)
        self._random = random.Random(seed)
        with self._client(services[0]) as http:
            known = {f"p{row}": read_pin(http, f"p{row}") for row in range(num_pins)}
        known |= {f"new{row}": None for row in range(num_pins)}
        pools = [dict(list(known.items())[row::NUM_WRITERS]) for row in range(NUM_WRITERS)]
        self.writers = [Writer(f"w{row}", pool, seed + row) for row, pool in enumerate(pools)]

    def round(self, num_writes: int, *, what: Victim = "service", victim: int = 0) -> None:
        """So many writes, a kill at a random one of them, and a comparison after the restart.

        what    kill -9 of a service or of Redis, or SIGTERM to a service
        victim  which service
        """
        moment = self._random.randrange(num_writes)
        with self._writing(num_writes) as num_written:
            wait_until(lambda: num_written() >= moment, 10 * PATIENCE)
            time.sleep(self._random.random() * 0.02)
            if what == "redis":
                self._kill_redis()
            elif what == "service":
                self.services[victim].kill()
            else:
                self.services[victim].end()
        self.report.num_kills += 1
        if what == "redis":  # what only memory knows must not hide what Redis lost
            for service in self.services:
                service.kill()
                self.report.ready_seconds.append(service.start())
        else:
            self.report.ready_seconds.append(self.services[victim].start())
        self.compare()
        with self._writing(num_writes - num_written()):
            pass

    def compare(self) -> None:
        """Compare everything that the writers know with what every service and Redis say."""
        for turn, service in enumerate(self.services):
            self._wait_until_caught_up(service)
            with self._client(service) as http:
                for writer in self.writers:
                    for name in writer.known:
                        self._compare_pin(writer, name, read_pin(http, name))
                self._compare_list(http)
                if turn == 0:
                    for writer in self.writers:
                        writer.send_again(http)
        self._compare_events()
        self.report.num_acknowledged = self._num_acknowledged()
        self.report.num_unanswered = sum(writer.num_unanswered for writer in self.writers)
        self.report.num_refused = sum(writer.num_refused for writer in self.writers)

    def _kill_redis(self) -> None:
        assert self.redis is not None
        self.redis.kill()
        time.sleep(0.3)
        self.redis.start()

    @contextmanager
    def _writing(self, num_writes: int) -> Iterator[Callable[[], int]]:
        """All writers at work until so many writes were acknowledged, or nobody is there to write to."""
        before, stop = self._num_acknowledged(), threading.Event()
        share = -(-num_writes // NUM_WRITERS)
        with ThreadPoolExecutor(NUM_WRITERS) as threads:
            work = [threads.submit(self._work, row, share, stop) for row in range(NUM_WRITERS)]
            try:
                yield lambda: self._num_acknowledged() - before
            except BaseException:
                stop.set()
                raise
        for each in work:
            each.result()

    def _work(self, row: int, num_writes: int, stop: threading.Event) -> None:
        """One writer's: when its service is gone, it goes on with the next one."""
        enough = self.writers[row].num_acknowledged + num_writes
        for turn in range(len(self.services)):
            self.writers[row].run(self.services[(row + turn) % len(self.services)], enough, stop)

    def _num_acknowledged(self) -> int:
        return sum(writer.num_acknowledged for writer in self.writers)

    def _client(self, service: ServiceProcess) -> httpx.Client:
        return httpx.Client(base_url=service.url, timeout=TIMEOUT)

    def _wait_until_caught_up(self, service: ServiceProcess) -> None:
        with sync_client(service.source) as client, self._client(service) as http:
            last = int(client.get(keyspace.SEQ) or 0)
            wait_until(lambda: http.get("/v1/status").json()["seq"] >= last)

    def _compare_pin(self, writer: Writer, name: str, found: State) -> None:
        right = [writer.known[name], *([writer.open[name]] if name in writer.open else [])]
        self.report.num_reads += 1
        if found not in right:
            kind = self.report.wrong
            kind = self.report.missing if found is None else kind
            kind = self.report.phantoms if right == [None] else kind
            kind.append(f"{name} is {found}, and should be one of {right}")
        writer.settle(name, found)

    def _compare_list(self, http: httpx.Client) -> None:
        """All pages of a list hold each pin that there is once, and nothing else."""
        there = {name for writer in self.writers for name, pin in writer.known.items() if pin is not None}
        first = min(there)
        listed = Counter(list_related(http, first))
        self.report.duplicates += [f"{name} is listed {count} times" for name, count in listed.items() if count > 1]
        self.report.missing += [f"{name} is not listed" for name in there - {first} - listed.keys()]
        self.report.phantoms += [f"{name} is listed" for name in listed.keys() - there]

    def _compare_events(self) -> None:
        """Each acknowledged save is in Redis once, and counts once."""
        with sync_client(self.services[0].source) as client:
            entries: Any = client.xrange(keyspace.EVENTS)
            days: Any = list(client.scan_iter(keyspace.popular("*")))
            counted = sum(score for day in days for _, score in client.zrange(day, 0, -1, withscores=True))
        stored = Counter((entry[b"user"].decode(), int(entry[b"timestamp"])) for _, entry in entries)
        known = {(writer.name, event["timestamp"]) for writer in self.writers for event in writer.events.values()}
        self.report.missing += [f"event {event}" for event in known - stored.keys()]
        self.report.phantoms += [f"event {event}" for event in stored.keys() - known]
        self.report.duplicates += [f"event {event} {count} times" for event, count in stored.items() if count > 1]
        if counted != len(known):
            self.report.wrong.append(f"{counted} saves are counted, not {len(known)}")


def read_pin(http: httpx.Client, name: str) -> State:
    """A pin as the service says it is."""
    answer = http.get(f"/v1/pins/{name}")
    if answer.status_code == 404:
        return None
    assert answer.status_code == 200, answer.text
    document = answer.json()
    return Pin(document["title"], frozenset(document["boards"]))


def list_related(http: httpx.Client, name: str) -> Iterator[str]:
    """All pins but this one, page by page; scores must be numbers, best first."""
    cursor, last = None, math.inf
    while True:
        answer = http.get(f"/v1/pins/{name}/related", params={"limit": 100, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        document = answer.json()
        for item in document["items"]:
            assert -1.001 <= item["score"] <= last, item
            last = item["score"]
            yield item["pin_id"]
        cursor = document["next"]
        if cursor is None:
            return


def put_until_taken(http: httpx.Client, name: str, body: object) -> httpx.Response:
    """Put a new pin, again while it is refused; a busy machine refuses what it cannot write in time."""
    deadline = time.monotonic() + PATIENCE
    while (answer := http.put(f"/v1/pins/{name}", json=body)).status_code == 503:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)
    assert answer.status_code in (200, 201), answer.text
    return answer


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for something that must come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
