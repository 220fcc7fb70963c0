"""Threads for work on arrays: some that read, one that writes, so that a write never waits behind a queue of reads.

Reads wait for their turn, but not for ever: one whose turn comes later than it is worth is turned away then, unworked.
So when more comes than can be done, those that are done are still answered in time, and the rest hears it early.

A light read is done at once, on the event loop, as long as those before it took little: handing a third of a
millisecond of work to a thread and taking it back costs half as much again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

from service.live.failures import Overloaded

T = TypeVar("T")

AT_ONCE_SECONDS = 0.001  # of processor; more would hold up the probes and the other requests
WEIGHT = 0.25  # of the latest light read that was timed in what they usually take
TIMED = 16  # one of so many is: looking at the clock of a thread may take longer than the middleware does


class Threads:
    """The threads of one process; `patience` is how many seconds a read may wait for its turn."""

    def __init__(self, num_readers: int, *, patience: float) -> None:
        self.readers: Executor = ThreadPoolExecutor(num_readers, thread_name_prefix="catalogue")
        self.writer: Executor = ThreadPoolExecutor(1, thread_name_prefix="catalogue-writer")
        self._patience = patience
        self._usual = 0.0  # seconds of processor that light reads took of late
        self._num_light = 0

    async def read(self, work: Callable[..., T], *args: object) -> T:
        """Run work that changes nothing. Raises Overloaded when its turn does not come in time."""
        latest = time.monotonic() + self._patience

        def in_turn() -> T:
            if time.monotonic() > latest:
                raise Overloaded(f"waited longer than {self._patience:g} seconds for its turn")
            return work(*args)

        return await asyncio.get_running_loop().run_in_executor(self.readers, in_turn)

    async def read_light(self, work: Callable[..., T], *args: object) -> T:
        """Run work that changes nothing and should take a fraction of a millisecond. Raises Overloaded as `read`."""
        if self._usual < AT_ONCE_SECONDS:
            return self._timed(work, *args)
        return await self.read(self._timed, work, *args)

    def _timed(self, work: Callable[..., T], *args: object) -> T:
        self._num_light += 1
        if self._num_light % TIMED:
            return work(*args)
        started = time.thread_time()
        try:
            return work(*args)
        finally:
            self._usual += WEIGHT * (time.thread_time() - started - self._usual)

    async def write(self, work: Callable[..., T], *args: object) -> T:
        """Run work that must be done, one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self.writer, work, *args)

    def close(self) -> None:
        """Wait for all work."""
        self.readers.shutdown()
        self.writer.shutdown()
