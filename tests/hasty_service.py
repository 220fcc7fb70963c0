"""`pinsage` with a fault: a write is answered before Redis has it. The crash harness must see what that loses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from model.changes import Change, Plan
from offline.cli import main
from service.online.store import Store

DELAY = 1.0  # seconds until Redis gets it

write_at_once = Store._write
under_way: set[asyncio.Task[None]] = set()


async def write_later(store: Store, watch: Sequence[str], plan: Plan) -> list[Change]:
    """Number the changes as if they were written, and write them a while later."""

    async def write() -> None:
        await asyncio.sleep(DELAY)
        await write_at_once(store, watch, plan)

    task = asyncio.create_task(write())
    under_way.add(task)
    first = store._taken + 1
    changes = [replace(record, seq=first + i) for i, record in enumerate(plan([None] * len(watch))[0])]
    store.taken(first + len(changes) - 1)
    return changes


Store._write = write_later  # type: ignore[method-assign]
main()
