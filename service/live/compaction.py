"""Compaction: a delta made anew without its dead slots, with an index over those that are left.

It is made beside the one in use, without a lock, and takes seconds where there are many slots. What came meanwhile is
added at the end, while the writer waits; then one reference is swapped (catalogue.py). Readers that began with the
old delta finish with it.

Shape letters: D embedding width, K slots that are kept, S slots.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from model.index import AnnIndex, IndexParams
from service.live import delta
from service.live.delta import Delta
from service.live.failures import NotReady

if TYPE_CHECKING:
    from service.live.catalogue import Catalogue

logger = logging.getLogger(__name__)

CHUNK = 512  # slots put into the index between two looks whether to go on
LEAST_EF = 128  # that of the release was enough for its own vectors, and nobody tries it out here
PAUSE = 1.0  # seconds between two looks whether it is time
NICE = 10  # requests come first


class Stopped(Exception):
    """The compaction is not wanted any more."""


class Compaction:
    """One compaction. `index_like` says how the index is built; without it there is none."""

    def __init__(self, old: Delta, index_like: IndexParams | None, check: Callable[[], None] = lambda: None) -> None:
        """Copy what is alive now and build the index; `check` is called now and then, and may raise."""
        view = old.view()
        self.old = old
        self._num_seen = view.num_slots
        self._kept_K = np.flatnonzero(view.alive())
        self._fresh = old.copy_slots(self._kept_K)
        if index_like is not None and len(self._kept_K) >= delta.INDEX_FROM:
            self._fresh.index = _build(self._fresh, index_like, check)

    def finish(self) -> Delta:
        """The new delta, with what came meanwhile; for whoever holds the lock of the writer."""
        later = np.arange(self._num_seen, self.old.num_slots)
        self._fresh.append(self.old, later)
        self._fresh.take_rows(self.old, np.concatenate([self._kept_K, later]))
        return self._fresh


def _build(fresh: Delta, like: IndexParams, check: Callable[[], None]) -> AnnIndex:
    vectors_SD = fresh.view().vectors_SD
    ef = max(like.ef, LEAST_EF)
    params = IndexParams(vectors_SD.shape[1], len(vectors_SD), like.m, like.ef_construction, ef)
    return AnnIndex.build(vectors_SD, params, chunk=CHUNK, progress=lambda _: check())


class Compactor:
    """Compacts the catalogue that is served when it is time, in a thread of its own."""

    def __init__(self, served: Callable[[], Catalogue]) -> None:
        """`served` may raise NotReady."""
        self._served = served
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compaction", initializer=_step_back)
        self._closing = threading.Event()

    async def step(self) -> None:
        """Wait a little, and compact where it is time; to be repeated."""
        await asyncio.sleep(PAUSE)
        with suppress(NotReady):
            if self._served().delta.is_due():
                await self.compact()

    async def compact(self) -> None:
        """Compact what is served now. Raises NotReady."""
        catalogue = self._served()

        def check() -> None:
            if self._closing.is_set():
                raise Stopped

        def work() -> None:
            before = catalogue.delta.num_slots
            with suppress(Stopped):
                if catalogue.compact(check):
                    logger.info("compacted %d slots into %d", before, catalogue.delta.num_slots)

        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Stop what is under way, and wait for its end."""
        self._closing.set()
        self._thread.shutdown(cancel_futures=True)


def _step_back() -> None:
    """Let other threads go first, where the system can say so of one thread."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
