"""Importance pooling over whole arrays: weighted sums of message rows, many pins at a time.

Letters: P pins, C pins of a chunk, T neighbours, M message width.
"""

from __future__ import annotations

import itertools
from concurrent.futures import Executor
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from model.inference import pool_messages

Array = npt.NDArray[Any]


def pool_rows(
    messages_PM: Array, ids_CT: Array, weights_CT: Array, pooling: str, threads: Executor, num_parts: int
) -> Array:
    """(C, M) gamma of algorithm 1 for a chunk of pins; parts of it run side by side."""
    pooled_CM = np.zeros((len(ids_CT), messages_PM.shape[1]), np.float32)
    if pooling == "max":
        neighbors_CTM = messages_PM[np.maximum(ids_CT, 0)]
        return pool_messages(neighbors_CTM, np.where(ids_CT >= 0, weights_CT, 0), pooling)
    if pooling == "mean":
        known_CT = weights_CT > 0
        weights_CT = (known_CT / np.maximum(known_CT.sum(1, keepdims=True), 1)).astype(np.float32)
    bounds = np.linspace(0, len(ids_CT), num_parts + 1).astype(np.int64)
    jobs = [
        threads.submit(_weighted_rows, messages_PM, ids_CT[low:high], weights_CT[low:high], pooled_CM[low:high])
        for low, high in itertools.pairwise(bounds)
    ]
    for job in jobs:
        job.result()
    return pooled_CM


@numba.njit(nogil=True, cache=True, fastmath=True)
def _weighted_rows(messages_PM: Array, ids_CT: Array, weights_CT: Array, out_CM: Array) -> None:
    width = messages_PM.shape[1]
    for c in range(len(ids_CT)):
        for t in range(ids_CT.shape[1]):
            weight = weights_CT[c, t]
            if weight > 0:
                row = ids_CT[c, t]
                for m in range(width):
                    out_CM[c, m] += weight * messages_PM[row, m]
