"""Writing: a change goes to Redis, then into the catalogue, and only then is it answered.

One write at a time, so that changes enter the catalogue in the order of their numbers. A write that has begun is
finished even when whoever asked for it has gone: a change that is in Redis would else be missing here until the
follower brings it.

What is not there may have come in elsewhere a moment ago, and what need not be changed may have been changed. So a pin
is unknown, and a change is left out, only where we have heard of every change that there is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext, suppress
from typing import Any, TypeVar

from model.changes import Change, EdgeRecord, PinRecord
from service.live.failures import InvalidContent, NotReady, UnknownPin
from service.live.switch import Switch
from service.live.views import Event, PutResult
from service.online.replay import Replay
from service.online.store import Store

T = TypeVar("T")
Run = Callable[..., Coroutine[Any, Any, Any]]


class Writer:
    """All that changes pins, boards and users. `run` does work in a thread."""

    def __init__(self, store: Store, switch: Switch, run: Run) -> None:
        self._store, self._switch, self._run = store, switch, run
        self._under_way: set[asyncio.Task[Any]] = set()

    async def finish(self) -> None:
        """Wait for the writes that are under way."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def put_pin(self, record: PinRecord) -> PutResult:
        """Put a pin in or replace it. Raises InvalidContent, DeltaFull, NotReady, StoreUnavailable."""
        return await self._whole(self._put_pin(record))

    async def delete_pin(self, pin_id: str) -> None:
        """Take a pin out. Raises UnknownPin, NotReady, StoreUnavailable."""
        await self._whole(self._delete_pin(pin_id))

    async def set_edges(self, board_id: str, pin_ids: Sequence[str], present: bool) -> None:
        """Put pins on a board or take them off, all or none. Raises UnknownPin, DeltaFull, NotReady,
        StoreUnavailable."""
        await self._whole(self._set_edges(board_id, pin_ids, present))

    async def record_events(self, user_id: str, events: Sequence[Event]) -> int:
        """Remember what a user did; the number of events that are new. Raises StoreUnavailable, DeltaFull."""
        return await self._whole(self._record_events(user_id, events))

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._end)
        return await asyncio.shield(task)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also where nobody waits for it any more

    async def _put_pin(self, record: PinRecord) -> PutResult:
        started = time.perf_counter()
        async with self._switch.writing:
            serving = self._switch.serving
            catalogue = serving.catalogue
            catalogue.check(record)
            created = catalogue.row(record.pin_id) < 0
            waited = time.perf_counter()
            [written] = await self._store.write([record])
            stored = time.perf_counter()
            try:
                applied = await self._run(serving.replay.own, written)
            except ValueError as error:
                serving.replay.quarantine(written.key, error)
                raise InvalidContent("content", str(error)) from error
        ids_T, weights_T = catalogue.neighbors(catalogue.directory.pins.row(record.pin_id))
        names = map(catalogue.directory.pins.name, ids_T.tolist())
        timings = {"store": stored - waited, **(applied.timings if applied else {})}
        timings["total"] = time.perf_counter() - started
        return PutResult(created, catalogue.release.id, list(zip(names, weights_T.tolist(), strict=True)), timings)

    async def _delete_pin(self, pin_id: str) -> None:
        await self._hear_of([pin_id])
        async with self._switch.writing:
            self._check_known([pin_id])
            await self._apply(await self._store.write([PinRecord(pin_id, deleted=True)]))

    async def _set_edges(self, board_id: str, pin_ids: Sequence[str], present: bool) -> None:
        await self._hear_of(pin_ids)
        async with self._switch.writing:
            self._check_known(pin_ids)
            serving = self._switch.serving
            if present:
                serving.catalogue.check_memory()
            wanted = [EdgeRecord(board_id, pin_id, present) for pin_id in dict.fromkeys(pin_ids)]

            def plan(last: int) -> list[EdgeRecord]:
                is_on, is_behind = serving.catalogue.is_on, last > serving.replay.seq
                return [edge for edge in wanted if is_behind or is_on(edge.pin_id, board_id) != present]

            await self._apply(await self._store.write_planned(plan))

    async def _hear_of(self, pin_ids: Sequence[str]) -> None:
        """Read the log where a pin is unknown and there are changes that we have not heard of."""
        serving = self._switch.serving
        unknown = any(serving.catalogue.row(pin_id) < 0 for pin_id in pin_ids)
        if unknown and await self._store.last_seq() > serving.replay.seq:
            await self._switch.catch_up()

    def _check_known(self, pin_ids: Sequence[str]) -> None:
        catalogue = self._switch.serving.catalogue
        for pin_id in pin_ids:
            if catalogue.row(pin_id) < 0:
                raise UnknownPin(pin_id)

    async def _record_events(self, user_id: str, events: Sequence[Event]) -> int:
        boards = any(event.board_id for event in events)
        async with self._switch.writing if boards else nullcontext():
            with suppress(NotReady):
                if boards:
                    self._switch.serving.catalogue.check_memory()
            accepted, changes = await self._store.record_events(user_id, events, self._wants_edge)
            with suppress(NotReady):
                await self._apply(changes)
        return accepted

    def _wants_edge(self, event: Event, last: int) -> bool:
        try:
            serving = self._switch.serving
        except NotReady:
            return True  # whoever serves will know whether there is such a pin
        if last > serving.replay.seq:
            return True
        catalogue, board_id = serving.catalogue, event.board_id
        return board_id is not None and catalogue.row(event.pin_id) >= 0 and not catalogue.is_on(event.pin_id, board_id)

    async def _apply(self, written: Sequence[Change]) -> None:
        """Take changes that are in Redis into the catalogue; `writing` is held."""
        if written:
            await self._run(_apply_all, self._switch.serving.replay, written)


def _apply_all(replay: Replay, written: Sequence[Change]) -> None:
    for record in written:
        try:
            replay.own(record)
        except ValueError as error:
            replay.quarantine(record.key, error)
