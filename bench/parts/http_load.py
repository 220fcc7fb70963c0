"""A load of HTTP requests from a process of its own: a plan comes in as JSON, what was seen goes out as JSON.

closed  every connection asks again as soon as it is answered: how much goes through
open    requests are due at fixed rates, whether or not the ones before are answered; latency counts from when one was
        due, so that a slow server cannot slow down its own measurement

Bytes are written as they were planned and answers are only cut at their length: some ten microseconds a request.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter, deque
from itertools import cycle
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import uvloop

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Stream:
    """Requests of one kind, and what became of them."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.rate = float(plan["rate"])
        self._requests = cycle([text.encode() for text in plan["requests"]])
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []

    def next(self) -> bytes:
        return next(self._requests)

    def answered(self, status: int, due: float) -> None:
        self.statuses[status] += 1
        self.seconds.append(time.perf_counter() - due)

    def result(self, wall: float) -> dict[str, Any]:
        quantiles = np.quantile(self.seconds, [0.5, 0.99, 1]) * 1e3 if self.seconds else np.zeros(3)
        return {
            "count": len(self.seconds),
            "per_s": len(self.seconds) / wall,
            "statuses": {str(status): count for status, count in self.statuses.items()},
            **{name: round(float(value), 2) for name, value in zip(("p50", "p99", "max"), quantiles, strict=True)},
        }


class Connection(asyncio.Protocol):
    """One connection with at most one request under way; `on_idle` is told when it has been answered."""

    def __init__(self, on_idle: Any) -> None:
        self._on_idle, self._buffer = on_idle, b""
        self._transport: Any = None
        self._stream: Stream | None = None
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self, stream: Stream, due: float) -> None:
        self._stream, self._due = stream, due
        self._transport.write(stream.next())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        found = LENGTH.search(head) if separator else None
        if not separator or (found and len(body) < int(found[1])):
            return
        stream, self._stream, self._buffer = self._stream, None, b""
        assert stream is not None, "an answer that nobody asked for"
        stream.answered(int(head[9:12]), self._due)
        self._on_idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stream is not None:
            sys.exit(f"the server closed a connection: {exc}")


async def run(plan: dict[str, Any]) -> dict[str, Any]:
    """Carry out a plan: url, kind, seconds, connections, and streams of rate and requests by name."""
    streams = {name: Stream(each) for name, each in plan["streams"].items()}
    place = urlsplit(plan["url"])
    idle: deque[Connection] = deque()
    waiting: deque[tuple[Stream, float]] = deque()
    loop, stop = asyncio.get_running_loop(), time.perf_counter() + 3600

    def on_idle(connection: Connection) -> None:
        if plan["kind"] == "closed" and time.perf_counter() < stop:
            connection.ask(next(iter(streams.values())), time.perf_counter())
        elif waiting:
            connection.ask(*waiting.popleft())
        else:
            idle.append(connection)

    for _ in range(plan["connections"]):
        _, connection = await loop.create_connection(lambda: Connection(on_idle), place.hostname, place.port)
        idle.append(connection)
    started, busy = time.perf_counter(), time.process_time()
    stop = started + plan["seconds"]
    if plan["kind"] == "closed":
        for connection in [idle.popleft() for _ in range(len(idle))]:
            on_idle(connection)
        await asyncio.sleep(plan["seconds"])
    else:
        await asyncio.gather(*(_keep_asking(each, started, stop, idle, waiting) for each in streams.values()))
    while len(idle) < plan["connections"]:
        await asyncio.sleep(0.005)
    wall = time.perf_counter() - started
    results = {name: each.result(wall) for name, each in streams.items()}
    return {**results, "client": {"busy": (time.process_time() - busy) / wall}}


async def _keep_asking(
    stream: Stream,
    started: float,
    stop: float,
    idle: deque[Connection],
    waiting: deque[tuple[Stream, float]],
) -> None:
    """Ask at a fixed rate; what no connection is free for waits, and its time counts."""
    due = started
    while due < stop:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        while due <= time.perf_counter() and due < stop:
            if idle:
                idle.popleft().ask(stream, due)
            else:
                waiting.append((stream, due))
            due += 1 / stream.rate


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.load(sys.stdin)))))
