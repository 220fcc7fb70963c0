"""Background tasks: one that fails is reported, one that is cancelled ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)


async def repeat(step: Callable[[], Awaitable[object]]) -> None:
    """Do a step again and again until the task is cancelled.

    The task looks for itself whether it is: `asyncio.wait_for` of Python 3.11, which the Redis client uses, loses a
    cancellation that comes at the moment when what it waits for is done. A step that raises is a fault of the program;
    it is logged and ends the task.
    """
    task = asyncio.current_task()
    try:
        while task is None or not task.cancelling():
            await step()
    except Exception:
        logger.exception("a background task has ended")
        raise
    raise asyncio.CancelledError
