"""Truncated SVD of a rarity-weighted sparse matrix: how the tables of tokens and of boards are fitted.

A column counts by 1 / sqrt(number of its rows), rows have length one, and the table is the right singular vectors: so a
row of the matrix times the table is U S, and a new pin is folded in by the same weighted sum. Of the weights tried (log
idf, its square, frequency to the power -0.35 to -1) this one finds the best neighbours by text and by boards on five
real data sets, and singular values kept as they are find better ones than U alone.

Letters: N rows, C columns, D singular vectors kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd

from model.feature_groups import Floats, Ints, PooledTable

RANK_TOLERANCE = 1e-3  # singular values below this share of the first are noise
COLUMN_BLOCK = 1 << 20
MOST_DECOMPOSED = 200_000  # rows, and columns; time and memory of a decomposition grow with both, times D


def rarity_weights(counts_C: Ints) -> Floats:
    """1 / sqrt(count); 0 for a column with no rows."""
    weights: Floats = np.where(counts_C > 0, 1 / np.sqrt(np.maximum(counts_C, 1)), 0).astype(np.float32)
    return weights


def fit_pooled_table(
    matrix_NC: sp.csr_array, weights_C: Floats, dim: int, *, max_columns: int, seed: int
) -> PooledTable | None:
    """The table (C, D) for a matrix of counts; D is cut to the rank, and there is no table where D would be 0.

    The decomposition sees the `max_columns` most frequent columns only, MOST_DECOMPOSED of them and of rows at most;
    every row is folded in by U = A V / S, and then every column gets its vector by V = A' U / S.
    """
    matrix_NC = normalize(matrix_NC @ sp.diags_array(weights_C))
    left_ND, values_D = _decompose(matrix_NC, dim, max_columns, seed)
    if not len(values_D):
        return None
    num_columns = matrix_NC.shape[1]
    # V has entries near 1 / sqrt(C); pooling does not see the scale, but float16 does.
    projection_ND = left_ND / values_D * np.sqrt(num_columns)
    table_CD = np.empty((num_columns, len(values_D)), np.float16)
    columns = matrix_NC.tocsc()
    for start in range(0, num_columns, COLUMN_BLOCK):
        block = slice(start, start + COLUMN_BLOCK)
        table_CD[block] = columns[:, block].T @ projection_ND
    return PooledTable(weights_C, table_CD)


def _decompose(
    matrix_NC: sp.csr_array, dim: int, max_columns: int, seed: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """U (N, D) and S (D,) of the most frequent columns, from a sample of rows where there are many."""
    max_columns = min(max_columns, MOST_DECOMPOSED)
    counts_C = np.bincount(matrix_NC.indices, minlength=matrix_NC.shape[1])
    if len(counts_C) > max_columns:
        matrix_NC = matrix_NC[:, np.sort(np.argsort(-counts_C, kind="stable")[:max_columns])]
    dim = min(dim, *matrix_NC.shape)
    if dim == 0 or matrix_NC.nnz == 0:
        return np.zeros((matrix_NC.shape[0], 0), np.float32), np.zeros(0, np.float32)
    num_rows = matrix_NC.shape[0]
    sampled = num_rows > MOST_DECOMPOSED
    rows = np.random.default_rng(seed).choice(num_rows, MOST_DECOMPOSED, replace=False) if sampled else slice(None)
    left_ND, values_D, right_DC = randomized_svd(matrix_NC[rows], dim, n_iter=4, random_state=seed)
    kept = values_D > RANK_TOLERANCE * values_D[0]
    if sampled:
        return matrix_NC @ (right_DC[kept].T / values_D[kept]), values_D[kept]
    return left_ND[:, kept], values_D[kept]
