"""What PinSage has to beat: popularity, content, boards, boards with content, and Pixie's walks.

Rows 0 to P-1 are the pins of the run; rows from P on are cold pins, which only ask and are never candidates.

Letters: A all pins (run, then cold), P pins of the run, B boards, Q queries, C candidates of a block, V visual numbers.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from model.graph import BipartiteGraph
from offline.evaluation.ranking import TIE, Block, Method, ScoreBlock, Scorer

Array = npt.NDArray[Any]
WORD = re.compile(r"[a-z0-9]+")
CHUNK = 65_536
MAX_KEPT = 30_000_000  # entries of a matrix whose transpose is kept beside it
Text = tuple[str | None, Sequence[str], str | None]
"""title, annotations, description"""


def popularity(degrees_P: Array) -> Method:
    """Pins on many boards first, whatever is asked."""
    scores_P = degrees_P.astype(np.float32)
    return Method(lambda queries_Q: lambda block: np.repeat(scores_P[block][None], len(queries_Q), axis=0))


def boards(graph_AB: sp.csr_matrix) -> Method:
    """Cosine of the pins' sets of boards."""
    return Method(_sparse_products(unit_rows(graph_AB)))


def text(texts: Iterable[Text]) -> Method | None:
    """Cosine of tf-idf vectors; None where no pin has a word. Texts of all pins, the run's first."""
    words_AW = tf_idf(texts)
    return None if words_AW is None else Method(_sparse_products(unit_rows(words_AW)))


def visual(visual_FV: Array, file_rows_A: Array) -> Method:
    """Cosine of standardised visual vectors; a pin without one (NaN) has zeros. visual_FV lies in the file's order."""
    mean_V, deviation_V = _moments(visual_FV)

    def rows(which: Block) -> Array:
        scaled: Array = (np.asarray(visual_FV[file_rows_A[which]], np.float32) - mean_V) / (deviation_V + 1e-6)
        scaled = np.where(np.isfinite(scaled), scaled, 0)
        scaled /= np.linalg.norm(scaled, axis=1, keepdims=True) + 1e-9
        return scaled

    def of(queries_Q: Array) -> ScoreBlock:
        asked_QV = rows(queries_Q)
        return lambda block: asked_QV @ rows(block).T

    return Method(of, tie=TIE)


def both(first: Method, second: Method) -> Method:
    """The sum of two methods' scores."""

    def of(queries_Q: Array) -> ScoreBlock:
        one, two = first.scorer(queries_Q), second.scorer(queries_Q)
        return lambda block: one(block) + two(block)

    return Method(of, tie=max(first.tie, second.tie))


def pixie(graph_AB: sp.csr_matrix) -> Method:
    """Expected visits of walks of one hop, going on to a second with probability 1/2, exact (after Pixie, WWW 2018)."""
    out_AB, back_BA = _stochastic(graph_AB), _stochastic(graph_AB.T.tocsr())
    back = Columns(back_BA.T.tocsr())

    def of(queries_Q: Array) -> ScoreBlock:
        first_QB = out_AB[queries_Q]
        second_QB = (first_QB @ back_BA) @ out_AB

        def score(block: Block) -> Array:
            back_BC = back(block)
            scores: Array = (first_QB @ back_BC + 0.5 * (second_QB @ back_BC)).toarray()
            return scores

        return score

    return Method(of, is_dear=True)


def graph_matrix(graph: BipartiteGraph, cold_pins_E: Array, cold_boards_E: Array, num_cold: int) -> sp.csr_matrix:
    """(A, B) ones where a pin is on a board. Cold pins count from 0; boards from graph.num_boards on are new ones."""
    num_boards = max(graph.num_boards, int(cold_boards_E.max(initial=-1)) + 1)
    ones_E = np.ones(graph.num_edges, np.float32)
    known = sp.csr_matrix(
        (ones_E, np.asarray(graph.pin_boards_E), np.asarray(graph.pin_ptr)), shape=(graph.num_pins, num_boards)
    )
    ones_E = np.ones(len(cold_pins_E), np.float32)
    cold = sp.csr_matrix((ones_E, (cold_pins_E, cold_boards_E)), shape=(num_cold, num_boards))
    cold.data[:] = 1  # an edge that is given twice is one edge
    return sp.vstack([known, cold], format="csr")


class Columns:
    """Blocks of rows of a matrix, transposed; those of a small matrix are kept, since every batch asks for them."""

    def __init__(self, rows: sp.csr_matrix) -> None:
        self._rows = rows
        self._kept: dict[tuple[int, int], sp.csr_matrix] = {}

    def __call__(self, block: Block) -> sp.spmatrix:
        if not isinstance(block, slice) or self._rows.nnz > MAX_KEPT:
            return self._rows[block].T
        found = self._kept.get((block.start, block.stop))
        if found is None:
            found = self._kept[block.start, block.stop] = self._rows[block].T.tocsr()
        return found


def tf_idf(texts: Iterable[Text]) -> sp.csr_matrix | None:
    """(A, words): (1 + log tf) * log(A / (1 + pins with the word)), the log not below 0; None where there are no words.

    Words are those of title and description; an annotation is one word, marked with "#".
    """
    vocabulary: dict[str, int] = {}
    ptr, columns, values = array("q", [0]), array("i"), array("f")
    for title, tags, description in texts:
        found = WORD.findall(f"{title or ''} {description or ''}".lower()) + [f"#{tag.lower()}" for tag in tags]
        for token, count in Counter(found).items():
            columns.append(vocabulary.setdefault(token, len(vocabulary)))
            values.append(1 + np.log(count))
        ptr.append(len(columns))
    if not vocabulary:
        return None
    shape = (len(ptr) - 1, len(vocabulary))
    counted = sp.csr_matrix((np.array(values), np.array(columns), np.array(ptr)), shape=shape)
    idf_W = np.log(shape[0] / (1 + np.bincount(counted.indices, minlength=shape[1]))).clip(0)
    return (counted @ sp.diags(idf_W.astype(np.float32))).tocsr()


def unit_rows(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Rows scaled to length one; empty rows stay empty."""
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    return _scaled_rows(matrix, lengths)


def _stochastic(matrix: sp.csr_matrix) -> sp.csr_matrix:
    return _scaled_rows(matrix, np.asarray(matrix.sum(1)).ravel())


def _scaled_rows(matrix: sp.csr_matrix, divisors: Array) -> sp.csr_matrix:
    divisors[divisors == 0] = 1
    return (sp.diags((1 / divisors).astype(np.float32)) @ matrix).tocsr()


def _sparse_products(rows: sp.csr_matrix) -> Scorer:
    columns = Columns(rows)

    def of(queries_Q: Array) -> ScoreBlock:
        asked = rows[queries_Q]
        return lambda block: (asked @ columns(block)).toarray()

    return of


def _moments(visual_FV: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each column over the rows that are finite, in chunks."""
    count, total_V, squares_V = 0, np.zeros(visual_FV.shape[1]), np.zeros(visual_FV.shape[1])
    for start in range(0, len(visual_FV), CHUNK):
        part = np.asarray(visual_FV[start : start + CHUNK], np.float64)
        part = part[np.isfinite(part).all(axis=1)]
        count += len(part)
        total_V += part.sum(0)
        squares_V += (part**2).sum(0)
    mean_V = total_V / max(count, 1)
    deviation_V = np.sqrt(np.maximum(squares_V / max(count, 1) - mean_V**2, 0))
    return mean_V.astype(np.float32), deviation_V.astype(np.float32)
