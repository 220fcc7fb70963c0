"""Background tasks: a step that fails is reported and tried again, and a task that is cancelled ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

FAULT_PAUSE = 5.0  # seconds until a step that failed is tried again


async def repeat(step: Callable[[], Awaitable[object]]) -> None:
    """Do a step again and again until the task is cancelled.

    The task looks for itself whether it is: `asyncio.wait_for` of Python 3.11, which the Redis client uses, loses a
    cancellation that comes at the moment when what it waits for is done. A step that raises is a fault of the program;
    it is logged and, after a pause, tried again: a service that silently stopped following would be worse.
    """
    task = asyncio.current_task()
    while task is None or not task.cancelling():
        try:
            await step()
        except Exception:
            logger.exception("a background task has failed and goes on in %.0f s", FAULT_PAUSE)
            await asyncio.sleep(FAULT_PAUSE)
    raise asyncio.CancelledError
