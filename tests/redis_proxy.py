"""A proxy in front of a Redis that delays, breaks or swallows what goes through it, as a test says, while it runs."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from model.redis_server import RedisSource

PIECE = 0.02  # seconds between two pieces of a reply that trickles
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


@dataclass(frozen=True)
class Fault:
    """What happens to connections; by default nothing.

    delay    seconds that each reply is held back
    reset    connections are reset, those that are open at once and those that come
    swallow  half-open: connections are accepted, and nothing that is sent on them arrives; they stay dead afterwards
    rate     bytes per second of a connection's replies; 0 for as fast as it goes
    cut      share of the replies that end in the middle, and their connections with them
    to       which replies are delayed or cut: those to a command that holds these bytes
    """

    delay: float = 0.0
    reset: bool = False
    swallow: bool = False
    rate: float = 0.0
    cut: float = 0.0
    to: bytes = b""


NO_FAULT = Fault()


class RedisProxy:
    """Listens at a free TCP port, in a thread of its own, and goes on to the unix socket of a Redis.

    num_struck  replies and connections that a fault has struck
    """

    def __init__(self, upstream: Path, seed: int = 0) -> None:
        self._upstream = upstream
        self._random = random.Random(seed)
        self._fault = NO_FAULT
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._ready: Future[int] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="redis-proxy")
        self.num_struck = 0
        self.port = 0

    @property
    def source(self) -> RedisSource:
        """The way to Redis through the proxy."""
        return RedisSource(f"redis://127.0.0.1:{self.port}")

    @property
    def num_open(self) -> int:
        """Connections that clients have."""
        return len(self._links)

    @property
    def fault(self) -> Fault:
        """What happens now; may be set from any thread."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        done: Future[None] = Future()
        self._loop.call_soon_threadsafe(self._begin, fault, done)
        done.result()

    def __enter__(self) -> RedisProxy:
        self._thread.start()
        self.port = self._ready.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._ready.set_result(server.sockets[0].getsockname()[1])
        await self._stop.wait()
        server.close()
        for link in list(self._links):
            link.break_off()
        await asyncio.gather(*self._links.values(), return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link, task = _Link(self, reader, writer), asyncio.current_task()
        assert task is not None
        self._links[link] = task
        try:
            with suppress(OSError):
                await link.run(self._upstream)
        finally:
            link.break_off()
            del self._links[link]

    def _begin(self, fault: Fault, done: Future[None]) -> None:
        self._fault = fault
        if fault.reset:
            for link in list(self._links):
                self.num_struck += 1
                link.break_off()
        done.set_result(None)

    def cuts_now(self) -> bool:
        """Whether this reply is one of those that are cut."""
        return self._random.random() < self._fault.cut


class _Link:
    """One connection of a client, and ours to Redis for it."""

    def __init__(self, proxy: RedisProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy, self._reader, self._writer = proxy, reader, writer
        self._upstream: asyncio.StreamWriter | None = None
        self._last = b""  # what the client sent last
        self._is_dead = False  # something on it was swallowed

    def break_off(self) -> None:
        """Reset it; what waits for it sees its end."""
        with suppress(OSError):
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._writer.transport.abort()
        if self._upstream is not None:
            self._upstream.transport.abort()

    async def run(self, upstream: Path) -> None:
        """Until one of both sides has gone, or a fault ends it."""
        if self._proxy.fault.reset:
            self._proxy.num_struck += 1
            return
        replies, self._upstream = await asyncio.open_unix_connection(upstream)
        sides = [asyncio.create_task(self._send()), asyncio.create_task(self._answer(replies))]
        try:
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.break_off()
            await asyncio.gather(*sides, return_exceptions=True)

    async def _send(self) -> None:
        assert self._upstream is not None
        while data := await self._reader.read(2**16):
            if self._swallows():
                continue
            self._last = data
            self._upstream.write(data)
            await self._upstream.drain()

    async def _answer(self, replies: asyncio.StreamReader) -> None:
        while data := await replies.read(2**16):
            fault = self._proxy.fault
            if self._swallows():
                continue
            if fault.to in self._last:
                if fault.delay:
                    self._proxy.num_struck += 1
                    await asyncio.sleep(fault.delay)
                if fault.cut and self._proxy.cuts_now():
                    self._proxy.num_struck += 1
                    await self._pass(data[: len(data) // 2])
                    return
            if fault.rate:
                self._proxy.num_struck += 1
                await self._trickle(data, fault.rate)
            else:
                await self._pass(data)

    def _swallows(self) -> bool:
        if self._proxy.fault.swallow:
            self._is_dead = True
            self._proxy.num_struck += 1
        return self._is_dead

    async def _trickle(self, data: bytes, rate: float) -> None:
        """Slowly while the fault lasts, the rest at once."""
        size, sent = max(1, round(rate * PIECE)), 0
        while sent < len(data) and self._proxy.fault.rate:
            await self._pass(data[sent : sent + size])
            sent += size
            await asyncio.sleep(PIECE)
        await self._pass(data[sent:])

    async def _pass(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
