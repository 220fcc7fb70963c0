"""The data side of the service, behind one door: what HTTP routes call.

Reading needs no Redis: catalogue, and what was known of users and trends, are in memory. Writing does (writer.py in
online); other processes follow the log (follower.py there). Work on arrays runs in a few threads, so that the event
loop stays free. A page comes from one catalogue, whatever is swapped meanwhile (switch.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from model.changes import PinRecord
from model.manifest import Manifest
from model.redis_clients import Source, async_client, follower_client
from model.release import list_releases
from service.http.threads import Threads
from service.live.catalogue import MAX_LIVE_BYTES
from service.live.compaction import Compactor
from service.live.facets import Filter
from service.live.failures import NotReady, StoreUnavailable, UnknownPin, UnknownRelease
from service.live.switch import Serving, Switch
from service.live.text_search import search_text
from service.live.views import Batch, Event, Item, Page, PinContentIn, PutResult, UserState
from service.online.follower import Follower
from service.online.recent import Recent
from service.online.store import Store
from service.online.tasks import repeat
from service.online.writer import Writer
from service.recommend.homefeed import Asked, Feed
from service.recommend.related import related, related_batch

START_SECONDS = 10.0  # that `start` waits for the release; a large one goes on loading
MAX_LAG = 1_000  # changes behind: too stale to be sent requests
MAX_SILENCE = 30.0  # seconds without the change log though Redis answers: something is wrong here
TRENDS_SECONDS = 1.0
REINDEX_AT = 0.7  # share of the room for what comes in from which a reindex is advised
LIGHT = 100  # pins wanted, left out or passed over, up to which a search is quick
MAX_USERS = 10_000  # whose state is kept for when Redis is away
MAX_FEEDS = 1_000  # of which we know what was shown


class Live:
    """Catalogue, store and follower of one process. All methods are for one event loop.

    Unless it says so, a method raises NotReady before the first release is served. What reads raises Overloaded where
    its turn to compute does not come within `queue_seconds`.
    """

    def __init__(
        self,
        home: Path,
        source: Source,
        *,
        max_live_pins: int = 100_000,
        max_live_bytes: int = MAX_LIVE_BYTES,
        native_threads: int = 2,
        queue_seconds: float = 2.0,
    ) -> None:
        self._root = home / "releases"
        self._threads = Threads(native_threads, patience=queue_seconds)
        self._clients = async_client(source), follower_client(source)
        self._store = Store(self._clients[0])
        self._switch = Switch(
            self._root, self._store, self._threads.writer, max_live_pins=max_live_pins, max_live_bytes=max_live_bytes
        )
        self._follower = Follower(self._store, self._clients[1], self._switch)
        self._writer = Writer(self._store, self._switch, self._threads.write)
        self._compactor = Compactor(lambda: self._switch.serving.catalogue)
        self._tasks: list[asyncio.Task[None]] = []
        self._users: Recent[str, UserState] = Recent(MAX_USERS)
        self._shown: Recent[tuple[object, ...], list[str]] = Recent(MAX_FEEDS)
        self._trends: list[str] = []
        self._trends_at = -TRENDS_SECONDS

    # --- life ---

    async def start(self) -> None:
        """Begin to load, follow and watch; returns when a release is served, or cannot be, or takes long."""
        releases = await self._threads.write(list_releases, self._root)
        self._store.taken(max((manifest.seq for manifest in releases), default=0))
        for step in (self._switch.watch, self._store.watch, self._follow, self._compactor.step):
            self._tasks.append(asyncio.create_task(repeat(step)))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._switch.looked.wait(), START_SECONDS)

    async def stop(self) -> None:
        """End everything that `start` began."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._writer.finish()
        self._compactor.close()
        self._switch.close()
        self._threads.close()
        for client in self._clients:
            await client.aclose()

    def ready(self) -> tuple[bool, list[str]]:
        """Whether requests should come here, and why not. Never raises."""
        reasons = []
        try:
            lag = self._lag(self._switch.serving)
            if self._switch.is_stale:
                reasons.append("live changes have not been read yet: Redis does not answer")
            elif lag > MAX_LAG:
                reasons.append(f"{lag} changes behind")
            elif (silence := min(self._silence() or 0, self._store.available_seconds)) > MAX_SILENCE:
                reasons.append(f"the change log has not been read for {silence:.0f} s, though Redis answers")
        except NotReady as error:
            reasons.append(str(error))
        return not reasons, reasons

    @property
    def release_id(self) -> str:
        """The release that is served."""
        return self._switch.serving.catalogue.release.id

    def status(self) -> dict[str, Any]:
        """What is served, counts and lags. Never raises."""
        silence = self._silence()
        status: dict[str, Any] = {
            "release": None,
            "trouble": self._switch.trouble,
            "store_available": self._store.available,
            "changes_age_seconds": None if silence is None else round(silence, 3),
        }
        with suppress(NotReady):
            status |= self._status_of(self._switch.serving)
        return status

    def _status_of(self, serving: Serving) -> dict[str, Any]:
        catalogue, manifest = serving.catalogue, serving.catalogue.release.manifest
        return {
            "release": manifest.id,
            "release_age_seconds": round(time.time() - datetime.fromisoformat(manifest.created_at).timestamp(), 1),
            "index_vectors": manifest.num_pins,
            "delta_vectors": catalogue.delta.num_alive,
            "delta_vectors_indexed": catalogue.delta.num_indexed,
            "live_pins": catalogue.num_live_pins(),
            "live_boards": catalogue.graph.num_boards - manifest.num_boards,
            "max_live_pins": catalogue.max_live_pins,
            "live_bytes": catalogue.num_live_bytes,
            "max_live_bytes": catalogue.max_live_bytes,
            "live_fill_ratio": round(catalogue.fill, 4),
            "advice": _advice(catalogue.fill),
            "seq": serving.replay.seq,
            "follower_lag_entries": self._lag(serving),
            "quarantined_entries": serving.replay.num_quarantined,
        }

    def _lag(self, serving: Serving) -> int:
        """Changes that are known to be in Redis and are not in the catalogue."""
        return max(0, (self._follower.last_seq or 0) - serving.replay.seq)

    def _silence(self) -> float | None:
        """Seconds since the change log was read; None before the first time."""
        contact = self._follower.last_contact
        return None if contact is None else time.monotonic() - contact

    async def _follow(self) -> None:
        await self._switch.loaded.wait()
        await self._follower.step()

    # --- reading ---

    async def related(
        self,
        pin_id: str,
        *,
        limit: int = 20,
        offset: int = 0,
        exclude: Sequence[str] = (),
        category: str | None = None,
        language: str | None = None,
    ) -> Page:
        """Pins like a pin. Raises UnknownPin."""
        catalogue, wanted = self._switch.serving.catalogue, Filter(category, language)
        work = partial(related, limit=limit, offset=offset, exclude=exclude, wanted=wanted)
        is_light = not wanted and offset + limit + len(exclude) <= LIGHT
        run = self._threads.read_light if is_light else self._threads.read
        return await run(work, catalogue, pin_id)

    async def related_batch(self, queries: Sequence[str | PinContentIn], *, limit: int = 20) -> Batch:
        """Pins like each of several pins or contents. Raises InvalidContent."""
        catalogue = self._switch.serving.catalogue
        work = partial(related_batch, limit=limit)
        return Batch(catalogue.release.id, await self._threads.read(work, catalogue, queries))

    async def homefeed(
        self,
        user_id: str,
        *,
        limit: int = 20,
        offset: int = 0,
        exclude: Sequence[str] = (),
        category: str | None = None,
        language: str | None = None,
    ) -> Page:
        """A user's feed from `offset` on; continues what this process showed of it, so that nothing comes twice."""
        serving, wanted = self._switch.serving, Filter(category, language)
        asked = Asked(await self._user_state(user_id), await self._trending(), exclude, wanted)
        key = (user_id, wanted, *exclude)
        shown = (self._shown.get(key) or [])[:offset]

        def work() -> tuple[Page, list[str]]:
            feed = Feed(serving.catalogue, serving.shelves, asked)
            name = serving.catalogue.directory.pins.name
            before = shown if len(shown) == offset else [name(pick.row) for pick in feed.after([], offset)]
            # One more than wanted tells whether there is a next page.
            picks = feed.after(before, limit + 1)
            items = [serving.catalogue.item(*pick) for pick in picks[:limit]]
            following = offset + limit if len(picks) > limit else None
            return Page(serving.catalogue.release.id, items, following), before + [item.pin_id for item in items]

        page, all_shown = await self._threads.read(work)
        self._shown.put(key, all_shown)
        return page

    async def search_text(self, text: str, limit: int = 20) -> list[Item]:
        """Pins by the words of their titles and tags."""
        return await self._threads.read(search_text, self._switch.serving.catalogue, text, limit)

    async def get_pin(self, pin_id: str) -> dict[str, Any]:
        """All that is known of a pin. Raises UnknownPin."""
        catalogue = self._switch.serving.catalogue
        row = catalogue.row(pin_id)
        if row < 0:
            raise UnknownPin(pin_id)
        return catalogue.describe(row)

    async def _user_state(self, user_id: str) -> UserState:
        """What is remembered of a user; the last that we heard while Redis is away."""
        try:
            state = await self._store.user_state(user_id)
        except StoreUnavailable:
            return self._users.get(user_id) or UserState()
        self._users.put(user_id, state)
        return state

    async def _trending(self) -> list[str]:
        """What users do these days, at most a second old; the last that we heard while Redis is away."""
        if time.monotonic() - self._trends_at >= TRENDS_SECONDS:
            self._trends_at = time.monotonic()
            with suppress(StoreUnavailable):
                self._trends = await self._store.popular()
        return self._trends

    # --- writing ---

    async def put_pin(self, record: PinRecord) -> PutResult:
        """Put a pin in or replace it; it is found when this returns. Raises InvalidContent, DeltaFull,
        StoreUnavailable."""
        return await self._writer.put_pin(record)

    async def delete_pin(self, pin_id: str) -> None:
        """Take a pin out; it is found no more when this returns. Raises UnknownPin, StoreUnavailable."""
        await self._writer.delete_pin(pin_id)

    async def set_edge(self, board_id: str, pin_id: str, present: bool) -> None:
        """Put a pin on a board or take it off. Raises UnknownPin, DeltaFull, StoreUnavailable."""
        await self._writer.set_edges(board_id, [pin_id], present)

    async def set_edges(self, board_id: str, pin_ids: Sequence[str], *, present: bool) -> None:
        """Put pins on a board or take them off, all or none. Raises UnknownPin, DeltaFull, StoreUnavailable."""
        await self._writer.set_edges(board_id, pin_ids, present)

    async def record_events(self, user_id: str, events: Sequence[Event]) -> int:
        """Remember what a user did: the number of events that are new. A save with a board puts the pin on it.

        Raises StoreUnavailable, and for boards DeltaFull. Works before a release is served.
        """
        return await self._writer.record_events(user_id, events)

    # --- releases ---

    async def list_releases(self) -> list[dict[str, Any]]:
        """The releases on disk, the newest first; `live` is the one being served. Never raises NotReady."""
        manifests = await self._threads.write(list_releases, self._root)
        served = self.status()["release"]
        return [_describe(manifest, manifest.id == served) for manifest in reversed(manifests)]

    async def activate(self, release_id: str) -> None:
        """Serve another release, here at once and in other processes soon.

        Raises UnknownRelease, or ReleaseError when it cannot be served, and then nothing has changed.
        """
        known = await self._threads.write(list_releases, self._root)
        if release_id not in {manifest.id for manifest in known}:
            raise UnknownRelease(f"there is no release {release_id}")
        await self._switch.activate(release_id)


def _advice(fill: float) -> str | None:
    if fill < REINDEX_AT:
        return None
    return f"reindex: {fill:.0%} of the room for what comes in is taken; when it is full, new pins are refused"


def _describe(manifest: Manifest, live: bool) -> dict[str, Any]:
    names = ("id", "created_at", "num_pins", "num_boards", "num_edges", "embed_dim", "mode", "parent", "quality")
    return {"live": live, **{name: getattr(manifest, name) for name in names}}
