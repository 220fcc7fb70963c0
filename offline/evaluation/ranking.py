"""Where the related pin stands among all pins (paper 4.2), exactly, in blocks, on several threads.

Letters: N labelled pairs, Q distinct queries of a batch, C candidates of a block, P all candidates, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

Array = npt.NDArray[Any]
Block = slice | Array
ScoreBlock = Callable[[Block], Array]
Scorer = Callable[[Array], ScoreBlock]
"""scorer(queries)(candidates) -> scores (Q, C) in a new array, high is near; the first call does what is shared."""

QUERIES = 512  # a block of scores takes QUERIES * CANDIDATES * 4 bytes = 64 MiB a thread
CANDIDATES = 32_768
TIE = 1e-6  # cosines nearer than this are equal: the order of a sum must not decide between duplicates

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Method:
    """A way to rank: how it scores, how near two scores are a tie, and whether a query costs a walk over the graph."""

    scorer: Scorer
    tie: float = 0.0
    is_dear: bool = False


def cosine_scorer(candidates_PD: Array, others_CD: Array | None = None) -> Scorer:
    """Inner products of unit rows, which may be memory-mapped. Queries from row P on are rows of `others`."""

    def of(queries: Array) -> ScoreBlock:
        if others_CD is None:
            chosen_QD = np.asarray(candidates_PD[queries])
        else:
            chosen_QD = np.asarray(others_CD[queries - len(candidates_PD)])
        return lambda block: chosen_QD @ np.asarray(candidates_PD[block]).T

    return of


def related_ranks(
    method: Method,
    queries_N: Array,
    related_N: Array,
    num_candidates: int,
    *,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """R of each pair: 1 + candidates with a higher score + half of the others with an equal one.

    Candidates are rows 0 to num_candidates - 1; a query among them is no candidate of its own. `progress` is called
    with the number of pairs just done.
    """
    ranks_N = np.empty(len(queries_N))
    distinct_Q, owner_N = np.unique(queries_N, return_inverse=True)
    order_N = np.argsort(owner_N, kind="stable")
    first_Q = np.searchsorted(owner_N[order_N], np.arange(len(distinct_Q) + 1))

    def work(start: int) -> int:
        stop = min(start + QUERIES, len(distinct_Q))
        pairs = order_N[first_Q[start] : first_Q[stop]]
        ranks_N[pairs] = _batch_ranks(
            method, distinct_Q[start:stop], owner_N[pairs] - start, related_N[pairs], num_candidates
        )
        return len(pairs)

    for done in on_threads(work, range(0, len(distinct_Q), QUERIES), threads):
        if progress:
            progress(done)
    return ranks_N


def _batch_ranks(
    method: Method, queries_Q: Array, owner_N: Array, related_N: Array, num_candidates: int
) -> npt.NDArray[np.float64]:
    score = method.scorer(queries_Q)
    targets, target_N = np.unique(related_N, return_inverse=True)
    value_N = score(targets)[owner_N, target_N]
    low_N, high_N = value_N - method.tie, value_N + method.tie
    above_N, not_below_N = np.zeros(len(owner_N), np.int64), np.zeros(len(owner_N), np.int64)
    for block in blocks(num_candidates):
        scores_QC = score(block)
        hide_own(scores_QC, queries_Q, block)
        for n, row in enumerate(owner_N):
            above_N[n] += np.count_nonzero(scores_QC[row] > high_N[n])
            not_below_N[n] += np.count_nonzero(scores_QC[row] >= low_N[n])
    others_equal_N = not_below_N - above_N - 1
    ranks_N: npt.NDArray[np.float64] = 1 + above_N + others_equal_N / 2
    return ranks_N


def hide_own(scores_QC: Array, queries_Q: Array, block: slice) -> None:
    """Put each query below everything in its own row."""
    inside = np.flatnonzero((queries_Q >= block.start) & (queries_Q < block.stop))
    scores_QC[inside, queries_Q[inside] - block.start] = -np.inf


def nearest(method: Method, query: int, num_candidates: int, k: int) -> Array:
    """The k best candidates of one query, itself left out, best first; ties by smaller row."""
    queries_Q = np.array([query])
    score = method.scorer(queries_Q)
    rows, values = np.zeros(0, np.int64), np.zeros(0, np.float32)
    for block in blocks(num_candidates):
        scores_QC = score(block)
        hide_own(scores_QC, queries_Q, block)
        rows = np.concatenate([rows, np.arange(block.start, block.stop)])
        values = np.concatenate([values, scores_QC[0]])
        best = np.lexsort((rows, -values))[:k]
        rows, values = rows[best], values[best]
    return rows[np.isfinite(values)]


def blocks(num_candidates: int) -> Iterator[slice]:
    """All candidates, block by block."""
    for start in range(0, num_candidates, CANDIDATES):
        yield slice(start, min(start + CANDIDATES, num_candidates))


def on_threads(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Iterator[Result]:
    """work(item) for all items, results in order. Libraries keep to one thread each, so that threads do not fight."""
    with one_native_thread(), ThreadPoolExecutor(max(1, threads)) as pool:
        yield from pool.map(work, items)


@contextmanager
def one_native_thread() -> Iterator[None]:
    """Inside, BLAS and OpenMP work on the thread that asks them: many of their threads on a busy machine only wait."""
    with threadpool_limits(1):
        yield
