"""Labelled pairs from what users do online: a pin saved right after another (paper 4.1).

Letters: N events, L pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from redis import Redis

from model import keyspace

CHUNK = 5_000
SAVE = b"save"


def pairs_from_events(client: Redis, find_rows: Callable[[list[str]], NDArray[Any]], gap: float) -> NDArray[np.int32]:
    """(L, 2) rows of a pin and the one that the same user saved next, at most `gap` seconds later.

    find_rows  ids -> rows, -1 for an unknown pin: it makes no pair, and stands between its neighbours
    """
    users, pins, times = [], [], []
    for user, pin, time in _saves(client):
        users.append(user)
        pins.append(pin)
        times.append(time)
    if not users:
        return np.empty((0, 2), np.int32)
    _, users_N = np.unique(np.array(users), return_inverse=True)
    times_N, rows_N = np.array(times), np.asarray(find_rows(pins))
    order_N = np.lexsort((times_N, users_N))  # stable: equal times keep the order of the stream
    users_N, times_N, rows_N = users_N[order_N], times_N[order_N], rows_N[order_N]
    good = (users_N[1:] == users_N[:-1]) & (np.diff(times_N) <= gap)
    good &= (rows_N[1:] >= 0) & (rows_N[:-1] >= 0) & (rows_N[1:] != rows_N[:-1])
    return np.unique(np.stack([rows_N[:-1][good], rows_N[1:][good]], axis=1).astype(np.int32), axis=0)


def _saves(client: Redis) -> Iterator[tuple[str, str, float]]:
    """User, pin and time of each save in the stream; entries that make no sense are left out."""
    start = "-"
    while True:
        page = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(keyspace.EVENTS, min=start, count=CHUNK))
        for _, entry in page:
            try:
                if entry[b"type"] == SAVE:
                    yield entry[b"user"].decode(), entry[b"pin"].decode(), float(entry[b"timestamp"])
            except (KeyError, ValueError):
                continue
        if len(page) < CHUNK:
            return
        start = f"({page[-1][0].decode()}"
