"""Lists of pins that need no user: the ones on most boards, and the newest.

Made once per catalogue and filter, when first asked for, from the release; live pins are the newest of all.

Shape letters: N rows.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from service.live.catalogue import Catalogue
from service.live.delta import GONE, IN_RELEASE
from service.live.facets import Filter

Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]

SHELF = 2_000  # pins of a shelf: nobody scrolls further
FRESHEST = 200
BLOCK = 4_096
MAX_SHELVES = 64
FRESH_SECONDS = 30 * 86_400


class Shelves:
    """Popular and fresh pins of one catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._made: OrderedDict[tuple[str, Filter], Ints] = OrderedDict()
        self._lock = threading.Lock()
        self._trends: tuple[Sequence[str], Ints] = (), np.empty(0, np.int64)

    def trending(self, pin_ids: Sequence[str], wanted: Filter) -> Ints:
        """Those of these pins that exist and are let through; looked up once while it is the same list."""
        names, rows = self._trends
        if names is not pin_ids:
            found = np.array([self._catalogue.directory.pins.row(pin_id) for pin_id in pin_ids], np.int64)
            rows = found[found >= 0]
            self._trends = pin_ids, rows
        return self._still(rows, wanted)

    def popular(self, wanted: Filter) -> Ints:
        """Existing pins that a filter lets through: those of the release that are on most boards, then live ones."""
        from_release = self._shelf("popular", wanted, self._by_degree)
        return np.concatenate([self._still(from_release, wanted), self._live(wanted, SHELF)])

    def fresh(self, wanted: Filter) -> Ints:
        """Existing pins of the last 30 days that a filter lets through: live ones, newest first, then the release's."""
        from_release = self._shelf("fresh", wanted, self._by_date)
        return np.concatenate([self._live(wanted, FRESHEST), self._still(from_release, wanted)])

    def passes(self, rows_N: Ints, wanted: Filter) -> Bools:
        """Which of these rows exist and are let through by a filter."""
        delta, facets = self._catalogue.delta, self._catalogue.facets
        slots_N = delta.slots_of(rows_N)
        passed_N: Bools = slots_N != GONE
        if wanted:
            live_N, base_N = slots_N >= 0, slots_N == IN_RELEASE
            passed_N[live_N] = facets.passes_live(wanted, delta.facets(slots_N[live_N]))
            passed_N[base_N] = facets.passes(wanted, rows_N[base_N])
        return passed_N

    def _live(self, wanted: Filter, count: int) -> Ints:
        """Up to so many pins that were put and are not in the release; rows are in the order in which pins came."""
        found = [np.empty(0, np.int64)]
        for stop in range(self._catalogue.delta.num_rows, self._catalogue.num_base, -BLOCK):
            rows = np.arange(stop - 1, max(stop - BLOCK, self._catalogue.num_base) - 1, -1)
            found.append(rows[self.passes(rows, wanted)])
            if sum(map(len, found)) >= count:
                break
        return np.concatenate(found)[:count]

    def _still(self, rows_N: Ints, wanted: Filter) -> Ints:
        """Without those that were deleted since the shelf was made, or put again with another category."""
        return rows_N[self.passes(rows_N, wanted)]

    def _shelf(self, name: str, wanted: Filter, make: Callable[[Ints | None], Ints]) -> Ints:
        with self._lock:
            if (name, wanted) in self._made:
                self._made.move_to_end((name, wanted))
                return self._made[name, wanted]
        shelf = make(self._catalogue.facets.rows(wanted) if wanted else None)
        with self._lock:
            self._made[name, wanted] = shelf
            while len(self._made) > MAX_SHELVES:
                self._made.popitem(last=False)
        return shelf

    def _by_degree(self, rows: Ints | None) -> Ints:
        graph = self._catalogue.release.graph
        degrees = graph.pin_degrees() if rows is None else graph.pin_ptr[rows + 1] - graph.pin_ptr[rows]
        return _largest(degrees, rows)

    def _by_date(self, rows: Ints | None) -> Ints:
        column = self._catalogue.release.pins["created_at"]
        dates = pc.fill_null(column, -1).to_numpy() if column.null_count else column.to_numpy()
        dates = dates if rows is None else dates[rows]
        newest = np.flatnonzero(dates >= time.time() - FRESH_SECONDS)
        newest = newest[np.lexsort((newest, -dates[newest]))][:SHELF]
        return newest if rows is None else rows[newest].astype(np.int64)


def _largest(values_N: npt.NDArray[Any], rows_N: Ints | None) -> Ints:
    """The rows of the largest values, at most SHELF, largest first, ties by smaller row."""
    count = min(SHELF, len(values_N))
    if count == 0:
        return np.empty(0, np.int64)
    # Ties at the edge are cut by row, too, so that the shelf is the same every time.
    edge = np.partition(values_N, len(values_N) - count)[len(values_N) - count]
    above, at = np.flatnonzero(values_N > edge), np.flatnonzero(values_N == edge)
    chosen = np.concatenate([above, at[: count - len(above)]])
    chosen = chosen[np.lexsort((chosen, -values_N[chosen]))]
    return chosen.astype(np.int64) if rows_N is None else rows_N[chosen].astype(np.int64)
