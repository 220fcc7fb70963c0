"""Which catalogue is served, and how another takes its place.

A release is opened, verified and brought up to date beside the one that is served; then one reference is swapped while
no write is under way. Requests keep the catalogue they began with. A release that cannot be opened leaves the old one
where it is. The pointer CURRENT is looked at twice a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from model.changes import Change
from model.errors import PinsageError
from model.release import Release, current, open_release, set_current
from model.walks import warm_up
from service.live.catalogue import Catalogue
from service.live.failures import NotReady, StoreUnavailable
from service.live.shelves import Shelves
from service.online.replay import Replay
from service.online.store import Store

T = TypeVar("T")

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
RETRY_SECONDS = 30.0  # until a release that could not be opened is tried again
CHUNK = 200  # changes applied between two looks at the event loop


@dataclass(frozen=True)
class Serving:
    """A catalogue and what belongs to it."""

    catalogue: Catalogue
    shelves: Shelves
    replay: Replay


class Switch:
    """Holds what is served. All methods are for the event loop's thread.

    limits   max_live_pins and max_live_bytes of a catalogue
    writing  held by whoever changes the served catalogue
    """

    def __init__(self, root: Path, store: Store, threads: Executor, **limits: int) -> None:
        self.writing = asyncio.Lock()
        self.loaded = asyncio.Event()
        self.looked = asyncio.Event()
        self.is_stale = True  # until the change log was read once
        self._root, self._store, self._threads, self._limits = root, store, threads, limits
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._loading = asyncio.Lock()
        self._serving: Serving | None = None
        self._trouble: tuple[str | None, str, float] | None = None  # release, what is wrong, when to try again

    @property
    def serving(self) -> Serving:
        """What is served now. Raises NotReady."""
        if self._serving is None:
            raise NotReady(self.trouble or "a release is being loaded")
        return self._serving

    @property
    def trouble(self) -> str | None:
        """Why what CURRENT names is not served."""
        return self._trouble[1] if self._trouble else None

    def close(self) -> None:
        """Wait for what is being loaded and let go of everything."""
        self._loader.shutdown(cancel_futures=True)
        self._serving = None

    async def watch(self) -> None:
        """Look at the pointer and follow it, then wait a little; to be repeated."""
        await self._look()
        self.looked.set()
        await asyncio.sleep(POLL_SECONDS)

    async def activate(self, release_id: str) -> None:
        """Serve a release and point CURRENT at it. Raises ReleaseError when it cannot be served."""
        async with self._loading:
            if self._serving is None or self._serving.catalogue.release.id != release_id:
                await self._load(release_id)
            await self._in_loader(set_current, self._root, release_id)
            self._trouble = None

    # --- what the follower needs ---

    def position(self) -> int:
        """Every change up to this number is in the served catalogue."""
        return self.serving.replay.seq

    def quarantine(self, what: str, why: object) -> None:
        """An entry of the log is damaged."""
        self.serving.replay.quarantine(what, why)

    async def apply(self, changes: Sequence[Change], last: int) -> None:
        """Take changes of the log, up to `last`, into the served catalogue."""
        async with self.writing:
            replay = self.serving.replay
            await self._run(self._threads, replay.follow, changes)
            replay.reached(last)

    async def catch_up(self) -> None:
        """Take what the log has into the served catalogue."""
        await self._catch_up(self.serving.replay, self._threads, self.writing)
        self.is_stale = False

    async def start_over(self) -> None:
        """Serve the same release as if nothing had been put online yet."""
        async with self._loading:
            await self._serve(self.serving.catalogue.release)

    # --- loading ---

    async def _look(self) -> None:
        async with self._loading:
            release_id: str | None = None
            try:
                release_id = await self._in_loader(current, self._root)
                if release_id is None:
                    self._note(None, "no release has been published")
                elif self._is_due(release_id):
                    await self._load(release_id)
            except StoreUnavailable as error:
                self._note(release_id, f"release {release_id} waits for Redis: {error}", retry=2.0)
            except (PinsageError, OSError, ValueError, MemoryError) as error:
                logger.error("release %s cannot be served: %s", release_id, error)
                self._note(release_id, f"release {release_id} cannot be served: {error}")

    def _is_due(self, release_id: str) -> bool:
        """Whether the release that CURRENT names should be loaded now."""
        if self._serving is not None and self._serving.catalogue.release.id == release_id:
            self._trouble = None
            return False
        return self._trouble is None or self._trouble[0] != release_id or time.monotonic() >= self._trouble[2]

    def _note(self, release_id: str | None, trouble: str, retry: float = RETRY_SECONDS) -> None:
        self._trouble = release_id, trouble, time.monotonic() + retry

    async def _load(self, release_id: str) -> None:
        if self._serving is not None:
            await self._store.last_seq()  # without Redis the new one could not take the old one's place
        await self._serve(await self._in_loader(_open, self._root, release_id))
        self._trouble = None

    async def _serve(self, release: Release) -> None:
        """Bring a catalogue of a release up to date and swap it in."""
        self._store.taken(release.manifest.seq)
        catalogue = await self._in_loader(partial(Catalogue, release, **self._limits))
        serving = Serving(catalogue, Shelves(catalogue), Replay(catalogue, release.manifest.seq))
        try:
            await self._catch_up(serving.replay, self._loader)
            async with self.writing:
                await self._catch_up(serving.replay, self._loader)
                self._serving, self.is_stale = serving, False
        except StoreUnavailable:
            if self._serving is not None:
                raise
            # Better the release alone than nothing; the follower brings the rest when Redis is back.
            self._serving = serving
        self.loaded.set()

    async def _catch_up(self, replay: Replay, threads: Executor, lock: asyncio.Lock | None = None) -> None:
        """Apply what the log has after the replay's position."""
        last = await self._store.last_seq()
        chunk: list[Change] = []
        async for change in self._store.changes(replay.seq, last, replay.quarantine):
            chunk.append(change)
            if len(chunk) == CHUNK:
                await self._follow(replay, chunk, threads, lock)
                chunk = []
        await self._follow(replay, chunk, threads, lock, last)

    async def _follow(
        self,
        replay: Replay,
        chunk: list[Change],
        threads: Executor,
        lock: asyncio.Lock | None,
        last: int = 0,
    ) -> None:
        async with lock or nullcontext():
            await self._run(threads, replay.follow, chunk)
            replay.reached(last)

    async def _in_loader(self, work: Callable[..., T], *args: object) -> T:
        return await self._run(self._loader, work, *args)

    async def _run(self, threads: Executor, work: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, work, *args)


def _open(root: Path, release_id: str) -> Release:
    release = open_release(root, release_id, verify=True).load()
    release.touch()
    warm_up()
    return release
