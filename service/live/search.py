"""Nearest pins of a catalogue: the release's index and the delta, merged, and never fewer than there are.

The index knows nothing of filters, exclusions and pins that changed since. So more is asked of it than is wanted and
what does not count is left out; when too little remains, more is asked, and in the end all rows that may count are
compared exactly. A filter that few pins pass is answered exactly from the start. The delta is compared exactly (20,000
x 256 take 3 ms), so a new pin cannot be missed; of a large one, the slots that have an index go through it.

Shape letters: P pins of the release, Q queries, K results, N rows, S slots of the delta, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.exact import Neighbors, check_queries, top_k
from model.index import AnnIndex
from service.live.delta import DeltaView
from service.live.facets import Facets, Filter

Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

NOBODY = np.empty(0, np.int64)
NO_FILTER = Filter()
EXACT_ROWS = 20_000  # up to so many rows comparing all of them is as fast as the index
MAX_FETCH = 4_096  # more than that asked of the index costs more than comparing
MARGIN, MAX_MARGIN = 16, 128
CHUNK = 8_192
FEW = 8


@dataclass(frozen=True)
class Searcher:
    """What is searched: the release's index and vectors, and one view of the delta."""

    index: AnnIndex
    vectors_PD: npt.NDArray[np.floating[Any]]
    delta: DeltaView
    facets: Facets

    def search(
        self,
        queries_QD: Floats,
        k: int,
        *,
        exclude: Ints = NOBODY,
        wanted: Filter = NO_FILTER,
        listed: Neighbors | None = None,
    ) -> Neighbors:
        """The k nearest pins of each query that a filter lets through, best first; scores are cosines.

        `exclude` holds rows that must not come; `listed` the nearest pins of the release to a single query, where they
        were found beforehand. Rows of -1 fill up where fewer than k pins exist. Raises ValueError for queries of
        another width or with numbers that are not finite.
        """
        queries_QD = check_queries(queries_QD, self.vectors_PD.shape[1])
        base = None if listed is None or wanted else self._take_listed(listed, k, exclude)
        base = base or self._search_release(queries_QD, k, exclude, wanted)
        is_full = len(queries_QD) == 1 and base.rows_QK.shape[1] >= k
        worst = float(base.scores_QK[0, k - 1]) if is_full else -np.inf  # what a live pin has to be nearer than
        live = self._search_delta(queries_QD, k, exclude, wanted, worst)
        return _finished(_merge(base, live, k), k)

    def _search_delta(self, queries_QD: Floats, k: int, exclude: Ints, wanted: Filter, worst: float) -> Neighbors:
        view = self.delta
        if not view.num_slots:
            return _nothing(len(queries_QD))

        def counts(slots: Ints) -> Bools:
            kept = view.alive(slots) & self.facets.passes_live(wanted, view.facets_S2[slots])
            return kept & not_among(view.rows_S[slots], exclude) if len(exclude) else kept

        found = None
        if view.index is not None:
            num_counting = int(np.count_nonzero(counts(np.arange(view.num_indexed))))
            if not (wanted and num_counting <= EXACT_ROWS):
                fetch = _fetch(k, 0, view.num_indexed, num_counting)
                found = through_index(view.index, queries_QD, k, fetch, counts)
        compared = _compare(queries_QD, view.vectors_SD, 0 if found is None else view.num_indexed, k, counts, worst)
        best = compared if found is None else _merge(found, compared, k)
        return Neighbors(view.rows_S[best.rows_QK].astype(np.int64), best.scores_QK)

    def _take_listed(self, listed: Neighbors, k: int, exclude: Ints) -> Neighbors | None:
        """The k first of a list that still count; None where too few do."""
        length = listed.rows_QK.shape[1]
        for num_looked_at in (min(k + FEW, length), length):  # where pins have changed is far from each other in memory
            rows_K = listed.rows_QK[0, :num_looked_at]
            places = np.flatnonzero(self.delta.in_release(rows_K) & not_among(rows_K, exclude) & (rows_K >= 0))[:k]
            if len(places) == k:
                return Neighbors(rows_K[None, places].astype(np.int64), listed.scores_QK[:, places])
        return None

    def _search_release(self, queries_QD: Floats, k: int, exclude: Ints, wanted: Filter) -> Neighbors:
        num_pins = len(self.vectors_PD)
        num_passing = len(self.facets.rows(wanted)) if wanted else num_pins

        def counts(rows: Ints) -> Bools:
            kept = self.delta.in_release(rows)
            if len(exclude):
                kept &= not_among(rows, exclude)
            return kept & self.facets.passes(wanted, rows) if wanted else kept

        if num_passing == 0:
            return _nothing(len(queries_QD))
        if not (wanted and num_passing <= EXACT_ROWS):
            found = through_index(self.index, queries_QD, k, _fetch(k, len(exclude), num_pins, num_passing), counts)
            if found is not None:
                return found
        rows = self.facets.rows(wanted) if wanted else np.arange(num_pins)
        return exact_over(self.vectors_PD, queries_QD, rows, k, counts)


def through_index(
    index: AnnIndex, queries_QD: Floats, k: int, fetch: int, counts: Callable[[Ints], Bools]
) -> Neighbors | None:
    """The k nearest items of an index that count, `fetch` being asked for at first; None where too few turn up."""
    num_items = index.params.num_items
    while fetch <= MAX_FETCH:
        found = index.query(queries_QD, fetch)
        kept = counts(found.rows_QK)
        if fetch >= num_items or kept.sum(axis=1).min(initial=k) >= k:
            if len(kept) == 1:  # in order already
                return Neighbors(found.rows_QK[:, kept[0]][:, :k], found.scores_QK[:, kept[0]][:, :k])
            return top_k(found.rows_QK, np.where(kept, found.scores_QK, -np.inf), k)
        fetch *= 4
    return None


def not_among(rows: Ints, exclude: Ints) -> Bools:
    """Which rows are none of these. A few are compared one by one: np.isin takes longer to begin."""
    if len(exclude) > FEW:
        return np.isin(rows, exclude, invert=True)
    others = np.ones(rows.shape, bool)
    for row in exclude.tolist():
        others &= rows != row
    return others


def _fetch(k: int, num_excluded: int, num_items: int, num_counting: int) -> int:
    """How many items to ask an index for, so that k that count are likely among them."""
    fetch = k + min(num_excluded, MAX_MARGIN) + MARGIN
    return fetch if 10 * num_counting > 9 * num_items else 2 * fetch * num_items // max(num_counting, 1)


def _compare(
    queries_QD: Floats, vectors_SD: Floats, start: int, k: int, counts: Callable[[Ints], Bools], worst: float
) -> Neighbors:
    """The k nearest of the slots from `start` on that count and are nearer than `worst`, by comparing each."""
    scores_QS = queries_QD @ vectors_SD[start:].T
    near = np.flatnonzero((scores_QS > worst).any(axis=0))  # few as a rule, and only they are looked at closely
    near = near[counts(start + near)]
    if not len(near):
        return _nothing(len(queries_QD))
    scores = scores_QS[:, near]
    return top_k(np.broadcast_to(start + near, scores.shape), scores, min(k, len(near)))


def exact_over(
    vectors_PD: npt.NDArray[np.floating[Any]], queries_QD: Floats, rows_N: Ints, k: int, counts: Callable[[Ints], Bools]
) -> Neighbors:
    """The k nearest of some rows, as far as they count, by comparing each."""
    best = _nothing(len(queries_QD))
    for start in range(0, len(rows_N), CHUNK):
        rows = rows_N[start : start + CHUNK]
        rows = rows[counts(rows)]
        scores = queries_QD @ np.asarray(vectors_PD[rows], np.float32).T
        best = _merge(best, Neighbors(np.broadcast_to(rows, scores.shape), scores), k)
    return best


def _merge(some: Neighbors, others: Neighbors, k: int) -> Neighbors:
    """The k best of two answers, each of them in order."""
    if not others.rows_QK.shape[1]:
        return Neighbors(some.rows_QK[:, :k], some.scores_QK[:, :k])
    rows = np.concatenate([some.rows_QK, others.rows_QK], axis=1)
    return top_k(rows, np.concatenate([some.scores_QK, others.scores_QK], axis=1), min(k, rows.shape[1]))


def _nothing(num_queries: int) -> Neighbors:
    return Neighbors(np.empty((num_queries, 0), np.int64), np.empty((num_queries, 0), np.float32))


def _finished(best: Neighbors, k: int) -> Neighbors:
    """K columns; rows of -1 where nothing is."""
    rows_QK, scores_QK = best
    missing = k - rows_QK.shape[1]
    if not missing and scores_QK.min(initial=0) > -np.inf:
        return Neighbors(rows_QK, np.minimum(scores_QK, 1))
    if missing:
        scores_QK = np.pad(scores_QK, ((0, 0), (0, missing)), constant_values=-np.inf)
        rows_QK = np.pad(rows_QK, ((0, 0), (0, missing)), constant_values=-1)
    return Neighbors(np.where(scores_QK == -np.inf, -1, rows_QK), np.minimum(scores_QK, 1))
