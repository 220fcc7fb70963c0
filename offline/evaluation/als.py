"""Matrix factorisation of the graph by implicit's ALS (Hu, Koren & Volinsky 2008): a baseline that learns ids alone.

Boards are its users and pins its items; related pins have near factors. It needs the optional extra `als`.

Letters: P pins, B boards, D factors.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from model.inference import unit_rows
from offline.evaluation.ranking import one_native_thread

Array = npt.NDArray[Any]

# Best on the validation pairs of three public sets, of 64 and 128 factors, alpha 1, 10, 40, regularization 0.1, 1, 10.
FACTORS, ALPHA, REGULARIZATION, ITERATIONS = 128, 40.0, 10.0, 15
MOST_EDGES = 20_000_000  # more than these would take longer than all the rest of an evaluation
NOT_INSTALLED = "implicit is not installed: pip install 'pinsage[als]'"


def reason_against_als(graph_PB: sp.csr_matrix) -> str | None:
    """Why there is no matrix factorisation of this graph, or None where there can be one."""
    if importlib.util.find_spec("implicit") is None:
        return NOT_INSTALLED
    if graph_PB.nnz > MOST_EDGES:
        return f"{graph_PB.nnz:,} edges are too many for a matrix factorisation; it takes up to {MOST_EDGES:,}"
    return None


def als_vectors(graph_PB: sp.csr_matrix, *, seed: int, threads: int = 1, factors: int = FACTORS) -> Array:
    """(P, D) factors of the pins as unit rows; a pin on no board has a row of zeros."""
    from implicit.cpu.als import AlternatingLeastSquares

    with one_native_thread():  # its own threads share the rows; those of BLAS would only fight them
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=REGULARIZATION,
            alpha=ALPHA,
            iterations=ITERATIONS,
            num_threads=threads,
            random_state=seed,
        )
        model.fit(graph_PB.T.tocsr(), show_progress=False)
    vectors_PD: Array = np.asarray(model.item_factors, np.float32)
    vectors_PD[np.diff(graph_PB.indptr) == 0] = 0
    return unit_rows(vectors_PD)
