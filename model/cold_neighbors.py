"""Neighbours for a pin that no walk can start from: the pins nearest to it by content.

Letters: B pins asked for, T neighbours, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from model.walks import Neighborhoods

if TYPE_CHECKING:
    from model.exact import Neighbors

Search = Callable[[npt.NDArray[np.float32], int], "Neighbors"]


def nearest_as_neighbors(vector_BD: npt.NDArray[np.float32], search: Search, num_neighbors: int) -> Neighborhoods:
    """The nearest known pins in the place of the most visited ones (our choice; the paper has no such pins).

    vector_BD      embeddings made without neighbours, unit rows
    search         (vectors, k) -> the nearest pins and their cosines
    num_neighbors  T, as in the walks

    Weights are the positive cosines divided by their sum; -1 and 0 where there is no pin with a positive one.
    """
    found = search(vector_BD, num_neighbors)
    ids_BT = np.full((len(vector_BD), num_neighbors), -1, np.int32)
    weights_BT = np.zeros(ids_BT.shape, np.float32)
    width = found.rows_QK.shape[1]
    near_BK = (found.scores_QK > 0) & (found.rows_QK >= 0)
    ids_BT[:, :width] = np.where(near_BK, found.rows_QK, -1)
    weights_BT[:, :width] = np.where(near_BK, found.scores_QK, 0)
    return Neighborhoods(ids_BT, _to_shares(weights_BT))


def _to_shares(weights_BT: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    totals_B = weights_BT.sum(1, keepdims=True)
    shares_BT: npt.NDArray[np.float32] = (weights_BT / np.where(totals_B > 0, totals_B, 1)).astype(np.float32)
    return shares_BT
