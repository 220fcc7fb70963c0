"""The loops of the random walks, compiled by numba; they hold no lock of the interpreter.

Walks are bound by memory latency, not by arithmetic. So all walks of a seed move together, stage by stage: all choose
a board, all read it, all choose a pin, all read it. The loads of one stage do not depend on each other, and many are
in flight at once.

Randomness is a counter put through splitmix64 (Steele et al. 2014), keyed by the seed and the pin's row. So a
neighbourhood depends on neither threads nor chunks nor the other pins of a call.

Letters: B seed pins, W walks, V visits, S slots of the hash table, T neighbours.
"""

# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_HASH = np.uint64(2654435769)  # Knuth's multiplicative hash, 2**32 / golden ratio
_LOW = np.uint64(0xFFFFFFFF)
_MAX_ROW = 0x7FFFFFFF


class Side(NamedTuple):
    """One direction of the graph, as the kernels read it: a CSR, and where the graph is live its changed rows.

    ptr, values  the base CSR
    where        (capacity,) int32: place of a node's own row in the pool, 0 for the row of the base; None: base only
    pool         int32: at each place the length of a row, its capacity, its values; pool[0] is -1, nowhere
    """

    ptr: npt.NDArray[np.int64]
    values: npt.NDArray[np.int32]
    where: npt.NDArray[np.int32] | None = None
    pool: npt.NDArray[np.int32] | None = None


@njit(nogil=True, cache=True)
def fill_neighborhoods(pins, boards, seeds_B, key, num_walks, num_hops, ends_below, ids_BT, weights_BT):
    at_W = np.empty(num_walks, np.int32)
    random_W = np.empty(num_walks, np.uint64)
    place_W = np.empty(num_walks, np.int64)
    visits_V = np.empty(num_walks * num_hops, np.int32)
    keys_V = np.empty(num_walks * num_hops, np.int64)
    size = 2
    while size < 2 * len(visits_V):
        size *= 2
    rows_S = np.full(size, -1, np.int32)
    counts_S = np.zeros(size, np.int32)
    slots_V = np.empty(len(visits_V), np.int32)
    key = _splitmix(key)
    for i in range(len(seeds_B)):
        seed = seeds_B[i]
        counter = _splitmix(key + np.uint64(seed) * _GAMMA)
        num_visits = _walk(pins, boards, seed, counter, num_hops, ends_below, at_W, random_W, place_W, visits_V)
        num_distinct = _count_visits(visits_V[:num_visits], seed, rows_S, counts_S, slots_V, keys_V)
        _keep_most_visited(keys_V[:num_distinct], ids_BT[i], weights_BT[i])


@njit(nogil=True, cache=True)
def _walk(pins, boards, seed, counter, num_hops, ends_below, at_W, random_W, place_W, visits_V):
    """All walks of one seed, side by side; fills visits_V and returns the number of visits."""
    _, degree = _row(pins.ptr, pins.where, pins.pool, seed)
    if degree == 0:
        return 0
    num_alive, num_visits = len(at_W), 0
    at_W[:] = seed
    for _ in range(num_hops):
        for w in range(num_alive):
            counter += _GAMMA
            random_W[w] = _splitmix(counter)
        _step(pins, at_W, random_W, place_W, num_alive)
        _step(boards, at_W, random_W, place_W, num_alive)
        still_alive = 0
        for w in range(num_alive):
            pin = at_W[w]
            visits_V[num_visits] = pin
            num_visits += pin >= 0
            # Survivors move together. Which walk takes which number is of no matter: draws are fresh in every hop.
            at_W[still_alive] = pin
            still_alive += pin >= 0 and (random_W[w] >> np.uint64(32)) >= ends_below
        num_alive = still_alive
    return num_visits


@njit(nogil=True, cache=True)
def _step(side, at_W, random_W, place_W, num_alive):
    """Every walk goes on to a random neighbour of its node, -1 where there is none.

    A 64-bit draw serves both steps and the end of a hop. Multiply-shift takes the upper half for the choice, and the
    lower half of the product is again uniform (in steps of degree / 2**32); it replaces the half that was used, and
    the halves change places.
    """
    for w in range(num_alive):
        start, degree = _row(side.ptr, side.where, side.pool, at_W[w])
        product = (random_W[w] >> np.uint64(32)) * np.uint64(degree)
        random_W[w] = (random_W[w] << np.uint64(32)) | (product & _LOW)
        place_W[w] = _place(side.where, start, degree, np.int64(product >> np.uint64(32)))
    for w in range(num_alive):
        at_W[w] = _read(side.values, side.pool, place_W[w])


@njit(nogil=True, cache=True)
def _row(ptr, where, pool, node):
    """Start and degree of a node's row; the start is negative, ~place, when the row lies in the pool."""
    if where is None:
        return ptr[node], ptr[node + 1] - ptr[node]
    else:
        if node < 0:
            return np.int64(0), np.int64(0)
        place = where[node]
        if place > 0:
            return np.int64(~(place + 2)), np.int64(pool[place])
        if node + 1 < len(ptr):
            return ptr[node], ptr[node + 1] - ptr[node]
        return np.int64(0), np.int64(0)


@njit(nogil=True, cache=True)
def _place(where, start, degree, choice):
    if where is None:
        return start + choice
    else:
        if degree == 0:
            return np.int64(-1)  # ~0: the place in the pool that says "nowhere"
        return start + choice if start >= 0 else start - choice


@njit(nogil=True, cache=True)
def _read(values, pool, place):
    if pool is None:
        return values[place]
    else:
        return values[place] if place >= 0 else pool[~place]


@njit(nogil=True, cache=True)
def _splitmix(state):
    """The output function of splitmix64: a bijection of 64 bits that leaves no visible pattern of a counter."""
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))


@njit(nogil=True, cache=True)
def _count_visits(visits_V, seed, rows_S, counts_S, slots_V, keys_V):
    """Count the visits of each pin but the seed in a hash table (open addressing), and empty it again.

    Fills keys_V with count << 32 | (largest row - row): greater is better. Returns the number of pins.
    """
    mask = len(rows_S) - 1
    num_slots = 0
    for row in visits_V:
        slot = np.int64(((np.uint64(row) * _HASH) & _LOW) >> np.uint64(8)) & mask
        while rows_S[slot] != row:
            if rows_S[slot] < 0:
                rows_S[slot] = row
                slots_V[num_slots] = slot
                num_slots += 1
                break
            slot = (slot + 1) & mask
        counts_S[slot] += 1
    num_keys = 0
    for i in range(num_slots):
        slot = slots_V[i]
        row = rows_S[slot]
        keys_V[num_keys] = np.int64(counts_S[slot]) << 32 | (_MAX_ROW - row)
        num_keys += row != seed
        rows_S[slot] = -1
        counts_S[slot] = 0
    return num_keys


@njit(nogil=True, cache=True)
def _keep_most_visited(keys, ids_T, weights_T):
    """Write the best keys as neighbours and weights, -1 and 0 where there are fewer than T."""
    num_kept = min(len(keys), len(ids_T))
    if num_kept < len(keys):
        _best_first(keys, num_kept)
    kept = keys[:num_kept]
    kept.sort()
    total = np.float32((kept >> 32).sum())
    for i in range(num_kept):
        key = kept[num_kept - 1 - i]
        ids_T[i] = _MAX_ROW - (key & 0xFFFFFFFF)
        weights_T[i] = np.float32(key >> 32) / total
    ids_T[num_kept:] = -1
    weights_T[num_kept:] = 0


@njit(nogil=True, cache=True)
def _best_first(keys, num_best):
    """Quickselect (Hoare): move the greatest keys to the front, in any order."""
    low, high = 0, len(keys) - 1
    while low < high:
        pivot = keys[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if num_best <= j + 1:
            high = j
        elif num_best > i:
            low = i
        else:
            return
