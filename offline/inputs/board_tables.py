"""What is learned about boards: a vector for each, by truncated SVD of the pin-board matrix.

Letters: N pins that are fitted on, B boards, E edges of these pins.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from model.feature_groups import Ints, PooledTable
from model.graph import BipartiteGraph
from offline.inputs.spectral import fit_pooled_table, rarity_weights


def fit_board_table(graph: BipartiteGraph, pins_N: Ints, dim: int, *, max_boards: int, seed: int) -> PooledTable | None:
    """The table of the boards group, fitted on these pins; a board with none of them, or one pin only, stays unknown.

    A board of a single pin says nothing about other pins and would only tell pins apart.
    """
    degrees_B = graph.board_degrees()
    weights_B = rarity_weights(np.where(degrees_B > 1, degrees_B, 0))
    starts_N, lengths_N = graph.pin_ptr[pins_N], np.diff(graph.pin_ptr)[pins_N]
    ptr = np.concatenate([[0], np.cumsum(lengths_N)])
    positions_E = np.arange(ptr[-1]) + np.repeat(starts_N - ptr[:-1], lengths_N)
    boards_E = graph.pin_boards_E[positions_E]
    ones_E = np.ones(len(boards_E), np.float32)
    matrix_NB = sp.csr_array((ones_E, boards_E, ptr), shape=(len(pins_N), graph.num_boards))
    return fit_pooled_table(matrix_NB, weights_B, dim, max_columns=max_boards, seed=seed)
