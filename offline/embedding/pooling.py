"""Importance pooling over whole arrays: weighted sums of message rows in half precision, without the GIL.

Letters: P pins, B pins of a block, T neighbours, M message width.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from model.halves import bits_of, float_of, to_floats
from model.inference import pool_messages

Array = npt.NDArray[Any]


def pool_rows(messages_PM: Array, ids_BT: Array, weights_BT: Array, pooling: str) -> Array:
    """(B, M) gamma of algorithm 1, float32, from the float16 messages of all pins.

    -1 or weight 0 stands for no neighbour.
    """
    if pooling == "max":
        neighbors_BTM = to_floats(messages_PM[np.maximum(ids_BT, 0)])
        return pool_messages(neighbors_BTM, np.where(ids_BT >= 0, weights_BT, 0), pooling)
    if pooling == "mean":
        known_BT = weights_BT > 0
        weights_BT = (known_BT / np.maximum(known_BT.sum(1, keepdims=True), 1)).astype(np.float32)
    pooled_BM = np.zeros((len(ids_BT), messages_PM.shape[1]), np.float32)
    _add_weighted_rows(bits_of(messages_PM), ids_BT, weights_BT, pooled_BM)
    return pooled_BM


@numba.njit(nogil=True, cache=True, fastmath=True)
def _add_weighted_rows(messages_PM: Array, ids_BT: Array, weights_BT: Array, out_BM: Array) -> None:
    """Four rows at a time: their loads overlap, and the sum is read and written once for all four."""
    num_neighbors = ids_BT.shape[1]
    ids_T, weights_T = np.zeros(num_neighbors + 3, np.int64), np.zeros(num_neighbors + 3, np.float32)
    for b in range(len(ids_BT)):
        num_known = 0
        for t in range(num_neighbors):
            if weights_BT[b, t] > 0:
                ids_T[num_known], weights_T[num_known] = ids_BT[b, t], weights_BT[b, t]
                num_known += 1
        weights_T[num_known : num_known + 3] = 0  # whatever rows fill up the last four count nothing
        for t in range(0, num_known, 4):
            i0, i1, i2, i3 = ids_T[t], ids_T[t + 1], ids_T[t + 2], ids_T[t + 3]
            w0, w1, w2, w3 = weights_T[t], weights_T[t + 1], weights_T[t + 2], weights_T[t + 3]
            for m in range(messages_PM.shape[1]):
                first = w0 * float_of(messages_PM[i0, m]) + w1 * float_of(messages_PM[i1, m])
                out_BM[b, m] += first + w2 * float_of(messages_PM[i2, m]) + w3 * float_of(messages_PM[i3, m])
