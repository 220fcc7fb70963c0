"""Readers and writers of a service that fails in part, and a comparison of what writers were told with Redis.

Every value carries its key, so that an answer that went to the wrong question shows: a pin's title ends with its id.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import redis

from model import keyspace
from model.changes import PinRecord, unpack_record

NUM_WRITERS, NUM_READERS = 2, 4
PAUSE = 0.01  # seconds between two requests of one reader or writer
TIMEOUT = 30.0  # longer than anything should take: who waits so long hangs
HOMEFEED = "/v1/users/u{0}/homefeed"  # asks Redis where it can
READS = "/v1/pins/p{0}/related", HOMEFEED, "/v1/pins/p{0}", "/readyz"

Ask = Callable[[str, str, object], httpx.Response]


class Load:
    """Writers and readers at work through `ask` (method, path, body).

    name       begins the ids of all that is written, so that several loads may share a Redis
    reads      paths to read in turn, with a place for a number
    asks_once  `ask` sends a request once: an event that has no id is counted at most once, too
    """

    def __init__(self, ask: Ask, name: str, *, reads: Sequence[str] = READS, asks_once: bool = True) -> None:
        self._ask, self.name, self._reads, self._asks_once = ask, name, reads, asks_once
        self.pins: dict[str, str] = {}  # acknowledged: title by id
        self.users: set[str] = set()  # of acknowledged events; each event has a user of its own
        self.num_refused = 0
        self.wrong: list[str] = []  # answers that nobody should get
        self.longest = {"read": 0.0, "write": 0.0}
        self.num_reads = 0
        self._lock = threading.Lock()
        self._count = 0

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.num_reads} reads, longest {self.longest['read']:.2f} s; {len(self.pins)} pins and"
            f" {len(self.users)} events acknowledged, {self.num_refused} writes refused, longest"
            f" {self.longest['write']:.2f} s"
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """All of them at work."""
        stop = threading.Event()

        def repeat(step: Callable[[int], object], turn: int) -> None:
            while not stop.is_set():
                step(turn)
                turn += 1
                time.sleep(PAUSE)

        with ThreadPoolExecutor(NUM_WRITERS + NUM_READERS) as threads:
            steps: list[Callable[[int], object]] = [self.write] * NUM_WRITERS + [self.read] * NUM_READERS
            work = [threads.submit(repeat, step, row) for row, step in enumerate(steps)]
            try:
                yield
            finally:
                stop.set()
        for each in work:
            each.result()

    def read(self, turn: int) -> None:
        """Anything that needs no Redis."""
        answer = self._timed("read", "GET", self._reads[turn % len(self._reads)].format(turn % 100), None)
        self.num_reads += 1
        if answer.status_code != 200:
            self.wrong.append(f"a read: {answer.status_code} {answer.text}")

    def write(self, turn: int) -> bool:
        """A new pin or an event; whether it was acknowledged."""
        with self._lock:
            self._count += 1
            key = f"{self.name}-{self._count}"
        title = f"word{turn % 60} {key}"
        if turn % 2:
            event = {"type": "impression", "pin_id": f"p{turn % 100}"}
            if not self._asks_once or turn % 4 == 1:
                event["event_id"] = key
            answer = self._timed("write", "POST", f"/v1/users/{key}/events", event)
        else:
            body = {"title": title, "boards": [f"b{turn % 60}"]}
            answer = self._timed("write", "PUT", f"/v1/pins/{key}", body)
        if answer.status_code == 503 and int(answer.headers.get("retry-after", 0)) >= 1:
            self.num_refused += 1
        elif turn % 2 and answer.status_code == 202 and (answer.json()["accepted"] == 1 or not self._asks_once):
            self.users.add(key)
        elif not turn % 2 and answer.status_code in (200, 201):
            self.pins[key] = title
        else:
            self.wrong.append(f"a write: {answer.status_code} {answer.text}")
        return answer.is_success

    def _timed(self, kind: str, method: str, path: str, body: object) -> httpx.Response:
        started = time.monotonic()
        answer = self._ask(method, path, body)
        self.longest[kind] = max(self.longest[kind], time.monotonic() - started)
        return answer

    def faults(self, client: redis.Redis) -> list[str]:
        """Wrong answers, and what Redis has otherwise than it was acknowledged."""
        state: Any = client.hgetall(keyspace.STATE)
        prefix = keyspace.pin_key(f"{self.name}-")
        stored = {key.decode(): unpack_record(value) for key, value in state.items() if key.decode().startswith(prefix)}
        titles = {key: record.title for key, record in stored.items() if isinstance(record, PinRecord)}
        found = [
            f"{pin_id}: Redis has {titles.get(keyspace.pin_key(pin_id))}, and {title} was acknowledged"
            for pin_id, title in self.pins.items()
            if titles.get(keyspace.pin_key(pin_id)) != title
        ]
        found += [f"{key} has {title}" for key, title in titles.items() if not is_own(key, title)]
        entries: Any = client.xrange(keyspace.EVENTS)
        counts = Counter(entry[b"user"].decode() for _, entry in entries)
        found += [f"the event of {user} is not there" for user in self.users - counts.keys()]
        mine = {user: count for user, count in counts.items() if user.startswith(f"{self.name}-")}
        found += [f"the event of {user} is there {count} times" for user, count in mine.items() if count > 1]
        return self.wrong + found

    def faults_of_reads(self, ask: Ask) -> list[str]:
        """Acknowledged pins that are answered otherwise."""
        found = []
        for pin_id, title in list(self.pins.items()):
            answer = ask("GET", f"/v1/pins/{pin_id}", None)
            if answer.status_code != 200 or answer.json()["title"] != title:
                found.append(f"{pin_id}: {answer.text}, and not {title}")
        return found


def is_own(key: str, title: str | None) -> bool:
    """Whether a title is that of the pin with this key."""
    return title is not None and keyspace.pin_key(title.rpartition(" ")[2]) == key


def sender(http: httpx.Client) -> Ask:
    """Asks one service."""
    return lambda method, path, body: http.request(method, path, json=body)
