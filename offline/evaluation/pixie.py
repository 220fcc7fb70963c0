"""Pixie: related pins by random walks that stop early (Eksombatchai et al., WWW 2018), the baseline of table 1.

A walk goes pin -> board -> pin and starts over from the query after each hop with probability `restart`; visits are
counted. Three things make it Pixie: walks are biased to pins that share a label with the query (a language, a topic);
they end when enough pins were visited often enough; and with several query pins, a pin that several of them reach
counts for more than one that a single query reaches as often in all (multi-hit boosting).

Letters: P pins, E edges, Q queries, U users, V pins visited.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from model.graph import BipartiteGraph
from model.walk_kernels import splitmix
from offline.evaluation.evaluation_data import NUM_RECENT
from offline.evaluation.homefeed_eval import Feed
from offline.evaluation.ranking import Block, Method, ScoreBlock

Array = npt.NDArray[Any]

GAMMA = np.uint64(0x9E3779B97F4A7C15)
LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class PixieConfig:
    """How to walk.

    num_steps      N, hops of all walks of a question together
    restart        probability that a walk ends after a hop
    enough_pins    n_p: walks end when more pins than these …
    enough_visits  n_v: … were visited so often
    bias           probability that a hop keeps to pins of the query's label, where the board has any
    """

    num_steps: int = 100_000
    restart: float = 0.5
    enough_pins: int = 2000
    enough_visits: int = 4
    bias: float = 0.5


@dataclass(frozen=True)
class Visits:
    """Pins visited, how often, and how many hops that took."""

    rows_V: Array
    counts_V: Array
    num_steps: int


class Pixie:
    """Walks over one graph. Safe to share between threads; the same question has the same answer."""

    def __init__(
        self, graph: BipartiteGraph, labels_P: Array | None = None, config: PixieConfig | None = None, *, seed: int = 0
    ) -> None:
        """labels_P: a number per pin, -1 where it has no label; None where no pin has one."""
        self._config, self._key = config or PixieConfig(), np.uint64(splitmix(np.uint64(seed)))
        self._degrees_P = graph.pin_degrees()
        self._labels_P = np.full(graph.num_pins, -1, np.int32) if labels_P is None else labels_P.astype(np.int32)
        boards_E = np.repeat(np.arange(graph.num_boards), graph.board_degrees())
        pins_E = np.asarray(graph.board_pins_E)
        pins_E = pins_E[np.lexsort((self._labels_P[pins_E], boards_E))]
        self._pins = (np.asarray(graph.pin_ptr), np.asarray(graph.pin_boards_E))
        self._boards = (np.asarray(graph.board_ptr), pins_E, self._labels_P[pins_E])

    def visits(self, pin: int, num_steps: int | None = None, counts_P: Array | None = None) -> Visits:
        """Walks from one pin; the pin itself is not among the visited. counts_P: scratch of zeros, handed back so."""
        config = self._config
        counts_P = np.zeros(len(self._labels_P), np.int32) if counts_P is None else counts_P
        visited_V, steps = _walk(
            *self._pins,
            *self._boards,
            self._labels_P[pin],
            pin,
            self._key,
            config.num_steps if num_steps is None else num_steps,
            np.uint64(round(config.restart * 2**32)),
            np.uint64(round(config.bias * 2**32)),
            config.enough_pins,
            config.enough_visits,
            counts_P,
        )
        counts_V = counts_P[visited_V]
        counts_P[visited_V] = 0
        others_V = visited_V != pin
        return Visits(visited_V[others_V], counts_V[others_V], steps)

    def boosted(self, pins: Array) -> tuple[Array, Array]:
        """Rows and scores of what several query pins reach: (sum over queries of sqrt(visits))^2, as equation 3 has it.

        The hops are shared out by degree, since a pin on many boards needs more of them (equations 1 and 2).
        """
        scores_P = np.zeros(len(self._labels_P), np.float32)
        counts_P = np.zeros(len(self._labels_P), np.int32)
        for pin, share in zip(pins, self.shares(pins), strict=True):
            found = self.visits(int(pin), round(share * self._config.num_steps), counts_P)
            scores_P[found.rows_V] += np.sqrt(found.counts_V, dtype=np.float32)
        rows_V = np.flatnonzero(scores_P)
        return rows_V, scores_P[rows_V] ** 2

    def shares(self, pins: Array) -> Array:
        """Each query pin's share of the hops: s = degree * (C - log degree), C the largest degree, over their sum."""
        degrees = self._degrees_P[pins].astype(np.float64)
        scales = degrees * (self._degrees_P.max(initial=1) - np.log(np.maximum(degrees, 1)))
        shares: Array = scales / scales.sum() if scales.sum() else scales
        return shares

    def method(self) -> Method:
        """Pins ranked by visits, one query at a time."""

        def of(queries_Q: Array) -> ScoreBlock:
            counts_P = np.zeros(len(self._labels_P), np.int32)
            found = [self.visits(int(query), counts_P=counts_P) for query in queries_Q]
            return self._blocks((each.rows_V, each.counts_V) for each in found)

        return Method(of)

    def feed(self) -> Feed:
        """Pins ranked for users, by their last saved pins together."""
        return Feed(
            lambda histories: self._blocks(self.boosted(np.unique(h[-NUM_RECENT:])) for h in histories), is_dear=True
        )

    def _blocks(self, found: Iterable[tuple[Array, Array]]) -> ScoreBlock:
        rows, scores = zip(*found, strict=True)
        ptr = np.cumsum([0, *map(len, rows)])
        shape = (len(rows), len(self._labels_P))
        scores_QP = sp.csr_matrix((np.concatenate(scores).astype(np.float32), np.concatenate(rows), ptr), shape=shape)
        columns = scores_QP.tocsc()

        def score(block: Block) -> Array:
            scores_QC: Array = columns[:, block].toarray()
            return scores_QC

        return score


def labels_of(columns: Sequence[Sequence[str | None]]) -> Array | None:
    """Numbers of the first column that has two values at least, -1 where a pin has none; None where no column has."""
    for column in columns:
        known = sorted({value for value in column if value})
        if len(known) > 1:
            number = {value: n for n, value in enumerate(known)}
            return np.array([number.get(value or "", -1) for value in column], np.int32)
    return None


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _walk(
    pin_ptr: Array,
    pin_boards_E: Array,
    board_ptr: Array,
    board_pins_E: Array,
    labels_E: Array,
    label: int,
    query: int,
    key: Any,
    most_steps: int,
    ends_below: Any,
    keeps_below: Any,
    enough_pins: int,
    enough_visits: int,
    counts_P: Array,
) -> tuple[Array, int]:
    """Count visits until the steps are used up, or more than enough pins were visited enough.

    The pins of a board stand in the order of their labels, so those of one label are a range.
    """
    visited = np.empty(min(most_steps, len(counts_P)), np.int64)
    num_visited, num_high, steps = 0, 0, 0
    state = splitmix(key + np.uint64(query) * GAMMA)
    at = query
    if pin_ptr[query] == pin_ptr[query + 1]:
        most_steps = 0
    while steps < most_steps and num_high <= enough_pins:
        state += GAMMA
        random = splitmix(state)
        board = pin_boards_E[_choose(pin_ptr[at], pin_ptr[at + 1], random >> np.uint64(32))]
        low, high = board_ptr[board], board_ptr[board + 1]
        if label >= 0 and (random & LOW) < keeps_below:
            first = low + np.searchsorted(labels_E[low:high], label, side="left")
            last = low + np.searchsorted(labels_E[low:high], label, side="right")
            if first < last:
                low, high = first, last
        state += GAMMA
        random = splitmix(state)
        at = board_pins_E[_choose(low, high, random >> np.uint64(32))]
        if counts_P[at] == 0:
            visited[num_visited] = at
            num_visited += 1
        counts_P[at] += 1
        num_high += counts_P[at] == enough_visits
        steps += 1
        if (random & LOW) < ends_below:
            at = query
    return visited[:num_visited], steps


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _choose(low: int, high: int, random: Any) -> int:
    """A place from low to high - 1, by the upper half of a random number's product with their count."""
    return low + int(np.int64((random * np.uint64(high - low)) >> np.uint64(32)))
