"""Importance pooling over whole arrays: weighted sums of message rows, without the GIL.

Letters: P pins, B pins of a block, T neighbours, M message width.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from model.inference import pool_messages

Array = npt.NDArray[Any]


def pool_rows(messages_PM: Array, ids_BT: Array, weights_BT: Array, pooling: str) -> Array:
    """(B, M) gamma of algorithm 1 from the messages of all pins; -1 or weight 0 stands for no neighbour."""
    if pooling == "max":
        neighbors_BTM = messages_PM[np.maximum(ids_BT, 0)]
        return pool_messages(neighbors_BTM, np.where(ids_BT >= 0, weights_BT, 0), pooling)
    if pooling == "mean":
        known_BT = weights_BT > 0
        weights_BT = (known_BT / np.maximum(known_BT.sum(1, keepdims=True), 1)).astype(np.float32)
    pooled_BM = np.zeros((len(ids_BT), messages_PM.shape[1]), np.float32)
    _add_weighted_rows(messages_PM, ids_BT, weights_BT, pooled_BM)
    return pooled_BM


@numba.njit(nogil=True, cache=True, fastmath=True)
def _add_weighted_rows(messages_PM: Array, ids_BT: Array, weights_BT: Array, out_BM: Array) -> None:
    width = messages_PM.shape[1]
    for b in range(len(ids_BT)):
        for t in range(ids_BT.shape[1]):
            weight = weights_BT[b, t]
            if weight > 0:
                row = ids_BT[b, t]
                for m in range(width):
                    out_BM[b, m] += weight * messages_PM[row, m]
