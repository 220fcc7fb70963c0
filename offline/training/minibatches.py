"""Minibatches: which pins a step needs, and the wiring between them (paper, algorithm 2, lines 1 to 7).

Letters: P pins of the catalogue, B pins asked for, S pins whose features are read, U pins that a layer outputs,
T neighbours, E wires: places in a (U, T) table that name a neighbour.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from model.walks import Neighborhoods

Array = npt.NDArray[Any]


class Wiring(NamedTuple):
    """One layer's wiring, as positions in the layer before it; the NumPy twin of model.network.Block.

    The pins' own positions are the first ones.
    """

    neighbors_UT: Array
    weights_UT: Array
    wires_E: Array | None = None
    starts_S: Array | None = None


@dataclass(frozen=True)
class Minibatch:
    """What a forward pass needs: pins to read, wiring from first to last layer, and where asked pins come out."""

    frontier_S: Array
    wirings: list[Wiring]
    places_B: Array


@dataclass(frozen=True)
class Forgetting:
    """What training leaves out, so that it meets pins with few boards, and no neighbour is leaned on alone.

    num_kept  neighbours looked at in this minibatch: the same random ranks for all pins
    isolate   chance of a pin to be left without any neighbour
    """

    num_kept: int
    isolate: float


class Scratch(threading.local):
    """A place for each pin, -1 between uses; every thread has its own."""

    def __init__(self, num_pins: int) -> None:
        self.place_P = np.full(num_pins, -1, np.int32)


class MinibatchBuilder:
    """Builds minibatches over one table of neighbourhoods; threads may share it."""

    def __init__(self, neighborhoods: Neighborhoods, num_layers: int, *, wires: bool = False) -> None:
        """With `wires`, which only gradients need, minibatches say which places name each position."""
        self._ids_PT, self._weights_PT = neighborhoods
        self._num_layers, self._wires = num_layers, wires
        self._scratch = Scratch(len(self._ids_PT))

    def build(
        self, rows_B: Array, forgetting: Forgetting | None = None, rng: np.random.Generator | None = None
    ) -> Minibatch:
        """The minibatch that embeds rows_B; repeated rows are computed once. Forgetting needs an rng."""
        wanted_U, places_B = np.unique(rows_B, return_inverse=True)
        wanted_U = wanted_U.astype(np.int32)
        wirings: list[Wiring] = []
        for _ in range(self._num_layers):
            ids_UT, weights_UT = self._ids_PT[wanted_U], self._weights_PT[wanted_U]
            if forgetting is not None:
                assert rng is not None
                ids_UT, weights_UT = forget(ids_UT, weights_UT, forgetting, rng)
            wanted_S, neighbors_UT = reindex(wanted_U, ids_UT, weights_UT, self._scratch.place_P)
            wires = sort_wires(neighbors_UT, weights_UT, len(wanted_S)) if self._wires else (None, None)
            wirings.insert(0, Wiring(neighbors_UT, weights_UT, *wires))
            wanted_U = wanted_S
        return Minibatch(wanted_U, wirings, places_B)


@numba.njit(nogil=True, cache=True)
def reindex(wanted_U: Array, ids_UT: Array, weights_UT: Array, place_P: Array) -> tuple[Array, Array]:
    """(S,) the wanted pins followed by their neighbours, each once, and (U, T) the neighbours' places among them.

    place_P is scratch of -1 and is handed back as such.
    """
    num_wanted, num_neighbors = ids_UT.shape
    found_S = np.empty(num_wanted * (num_neighbors + 1), np.int32)
    places_UT = np.zeros((num_wanted, num_neighbors), np.int32)
    for u in range(num_wanted):
        found_S[u] = wanted_U[u]
        place_P[wanted_U[u]] = u
    size = num_wanted
    for u in range(num_wanted):
        for t in range(num_neighbors):
            if weights_UT[u, t] <= 0:
                continue
            pin = ids_UT[u, t]
            if place_P[pin] < 0:
                place_P[pin] = size
                found_S[size] = pin
                size += 1
            places_UT[u, t] = place_P[pin]
    for s in range(size):
        place_P[found_S[s]] = -1
    return found_S[:size].copy(), places_UT


@numba.njit(nogil=True, cache=True)
def sort_wires(neighbors_UT: Array, weights_UT: Array, num_read: int) -> tuple[Array, Array]:
    """(E,) the places of neighbours in the flat table, ordered by the position they name, and (S,) where each begins.

    Places of weight 0 are left out.
    """
    neighbors_N, weights_N = neighbors_UT.ravel(), weights_UT.ravel()
    ends_S = np.zeros(num_read + 1, np.int32)
    for n in range(len(neighbors_N)):
        if weights_N[n] > 0:
            ends_S[neighbors_N[n] + 1] += 1
    ends_S = np.cumsum(ends_S).astype(np.int32)
    starts_S = ends_S[:-1].copy()
    wires_E = np.empty(ends_S[-1], np.int32)
    for n in range(len(neighbors_N)):
        if weights_N[n] > 0:
            wires_E[ends_S[neighbors_N[n]]] = n
            ends_S[neighbors_N[n]] += 1
    return wires_E, starts_S


def forget(ids_UT: Array, weights_UT: Array, forgetting: Forgetting, rng: np.random.Generator) -> tuple[Array, Array]:
    """Fewer neighbours (columns) and some pins without any, each row's weights summing to one again."""
    num_neighbors = ids_UT.shape[1]
    if forgetting.num_kept < num_neighbors:
        ranks = np.sort(rng.choice(num_neighbors, forgetting.num_kept, replace=False))
        ids_UT, weights_UT = ids_UT[:, ranks], weights_UT[:, ranks]
    kept_U1 = (rng.random(len(ids_UT), np.float32) >= forgetting.isolate)[:, None]
    total_U1 = weights_UT.sum(1, keepdims=True)
    return ids_UT, weights_UT * kept_U1 / np.where(total_U1 > 0, total_U1, 1)
