"""Exact nearest neighbours: the oracle of the index, and the answer where the index has none.

Shape letters: P items, D width, Q queries, K results, C one chunk of items.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.floating[Any]]
NORM_TOLERANCE = 1e-3


class Neighbors(NamedTuple):
    """The K best rows of each query, best first, and their cosines (queries and items have unit length)."""

    rows_QK: NDArray[np.int64]
    scores_QK: NDArray[np.float32]


def exact_neighbors(vectors_PD: Vectors, queries_QD: Vectors, k: int, *, chunk: int = 16_384) -> Neighbors:
    """The k items of largest inner product, of all items; k is cut to P."""
    k = min(k, len(vectors_PD))
    queries_QD = np.asarray(queries_QD, np.float32)
    best = Neighbors(np.empty((len(queries_QD), 0), np.int64), np.empty((len(queries_QD), 0), np.float32))
    for start in range(0, len(vectors_PD), chunk):
        scores_QC = queries_QD @ np.asarray(vectors_PD[start : start + chunk], np.float32).T
        rows_QC = np.broadcast_to(np.arange(start, start + scores_QC.shape[1]), scores_QC.shape)
        rows = np.concatenate([best.rows_QK, rows_QC], axis=1)
        scores = np.concatenate([best.scores_QK, scores_QC], axis=1)
        best = top_k(rows, scores, k)
    return best


def top_k(rows_QC: NDArray[np.integer[Any]], scores_QC: NDArray[np.floating[Any]], k: int) -> Neighbors:
    """The k best of each query's candidates, best first, equal scores by smaller row.

    Which of several candidates with the k-th best score are kept is left open.
    """
    if len(scores_QC) == 1:
        return _top_k_of_one(rows_QC[0], scores_QC[0], k)
    if k < scores_QC.shape[1]:
        keep = np.argpartition(-scores_QC, k - 1, axis=1)[:, :k] if k else np.empty((len(scores_QC), 0), np.intp)
        rows_QC = np.take_along_axis(rows_QC, keep, axis=1)
        scores_QC = np.take_along_axis(scores_QC, keep, axis=1)
    order = np.lexsort((rows_QC, -scores_QC), axis=1)
    return Neighbors(
        np.take_along_axis(rows_QC, order, axis=1).astype(np.int64),
        np.take_along_axis(scores_QC, order, axis=1).astype(np.float32),
    )


def _top_k_of_one(rows_C: NDArray[np.integer[Any]], scores_C: NDArray[np.floating[Any]], k: int) -> Neighbors:
    """`top_k` of a single query, in a quarter of the time."""
    if k < len(scores_C):
        keep = np.argpartition(-scores_C, k - 1)[:k] if k else np.empty(0, np.intp)
        rows_C, scores_C = rows_C[keep], scores_C[keep]
    order = np.lexsort((rows_C, -scores_C))
    return Neighbors(rows_C[order][None].astype(np.int64), scores_C[order][None].astype(np.float32))


def check_queries(queries_QD: Vectors, dim: int) -> NDArray[np.float32]:
    """The queries as contiguous float32 (Q, dim); ValueError for another shape or numbers that are not finite."""
    queries_QD = np.asarray(queries_QD)
    if queries_QD.ndim != 2 or queries_QD.shape[1] != dim or queries_QD.dtype.kind != "f":
        raise ValueError(f"queries must be floats (Q, {dim}), not {queries_QD.dtype} {queries_QD.shape}")
    checked_QD = np.ascontiguousarray(queries_QD, np.float32)
    if not np.isfinite(checked_QD).all():
        raise ValueError("a query holds numbers that are not finite")
    return checked_QD


def check_unit(vectors_PD: Vectors, first_row: int = 0) -> NDArray[np.float32]:
    """The items as contiguous float32; ValueError naming the first row that is not finite or not of unit length."""
    checked_PD = np.ascontiguousarray(vectors_PD, np.float32)
    norms_P = np.sqrt(np.einsum("pd,pd->p", checked_PD, checked_PD, dtype=np.float64))
    good_P = np.abs(norms_P - 1) <= NORM_TOLERANCE  # false for NaN, too
    if not good_P.all():
        row = int(np.argmin(good_P))
        raise ValueError(f"the vector of row {first_row + row} has length {norms_P[row]:.6g}, not 1")
    return checked_PD
