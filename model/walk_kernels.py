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


@njit(nogil=True, cache=True, error_model="numpy")
def fill_neighborhoods(pins, boards, seeds_B, key, num_walks, num_hops, ends_below, ids_BT, weights_BT):
    at_W = np.empty(num_walks, np.int32)
    random_W = np.empty(num_walks, np.uint64)
    place_W = np.empty(num_walks, np.int64)
    visits_V = np.empty(num_walks * num_hops, np.int32)
    keys_V = np.empty(num_walks * num_hops, np.int64)
    size = 2
    while size < 2 * len(visits_V):
        size *= 2
    table_S = np.zeros(size, np.int64)
    slots_V = np.empty(len(visits_V), np.uint64)
    key = splitmix(key)
    for i in range(len(seeds_B)):
        seed = seeds_B[i]
        counter = splitmix(key + np.uint64(seed) * _GAMMA)
        num_visits = _walk(pins, boards, seed, counter, num_hops, ends_below, at_W, random_W, place_W, visits_V)
        num_distinct = count_visits(visits_V[:num_visits], seed, table_S, slots_V, keys_V)
        keep_most_visited(keys_V[:num_distinct], ids_BT[i], weights_BT[i])


@njit(nogil=True, cache=True, error_model="numpy")
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
            random_W[w] = splitmix(counter)
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


@njit(nogil=True, cache=True, error_model="numpy")
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


@njit(nogil=True, cache=True, error_model="numpy")
def _row(ptr, where, pool, node):
    """Start and degree of a node's row; the start is negative, ~place, when the row lies in the pool."""
    if where is None:
        node = np.uint64(node)  # unsigned, so that numba need not ask whether to count from the end
        return ptr[node], ptr[node + np.uint64(1)] - ptr[node]
    else:
        if node < 0:
            return np.int64(0), np.int64(0)
        place = where[node]
        if place > 0:
            return np.int64(~(place + 2)), np.int64(pool[place])
        if node + 1 < len(ptr):
            return ptr[node], ptr[node + 1] - ptr[node]
        return np.int64(0), np.int64(0)


@njit(nogil=True, cache=True, error_model="numpy")
def _place(where, start, degree, choice):
    if where is None:
        return start + choice
    else:
        if degree == 0:
            return np.int64(-1)  # ~0: the place in the pool that says "nowhere"
        return start + choice if start >= 0 else start - choice


@njit(nogil=True, cache=True, error_model="numpy")
def _read(values, pool, place):
    if pool is None:
        return values[np.uint64(place)]
    else:
        return values[place] if place >= 0 else pool[~place]


@njit(nogil=True, cache=True, error_model="numpy")
def splitmix(state):
    """The output function of splitmix64: a bijection of 64 bits that leaves no visible pattern of a counter."""
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))


@njit(nogil=True, cache=True, error_model="numpy")
def count_visits(visits_V, seed, table_S, slots_V, keys_V):
    """Count the visits of each pin but the seed in a hash table (open addressing), and empty it again.

    Table and keys_V hold count << 32 | (largest row - row): greater is better. Returns the number of pins.
    """
    mask = np.uint64(len(table_S) - 1)
    num_slots = 0
    for row in visits_V:
        tag = np.int64(_MAX_ROW - row)
        slot = (np.uint64(row) * _HASH >> np.uint64(16)) & mask
        entry = table_S[slot]
        while entry & 0xFFFFFFFF != tag:
            if entry == 0:
                entry = tag
                slots_V[num_slots] = slot
                num_slots += 1
                break
            slot = (slot + np.uint64(1)) & mask
            entry = table_S[slot]
        table_S[slot] = entry + (1 << 32)
    num_keys = 0
    for i in range(num_slots):
        entry = table_S[slots_V[i]]
        table_S[slots_V[i]] = 0
        keys_V[num_keys] = entry
        num_keys += entry & 0xFFFFFFFF != _MAX_ROW - seed
    return num_keys


@njit(nogil=True, cache=True, error_model="numpy")
def keep_most_visited(keys, ids_T, weights_T):
    """Write the best keys as neighbours and weights, -1 and 0 where there are fewer than T.

    A key's place is the number of greater keys: all keys differ, and for some hundred of them counting, which has no
    branches, beats sorting.
    """
    num_kept = min(len(keys), len(ids_T))
    best_first(keys, num_kept)
    kept = keys[:num_kept]
    total = np.int64(0)
    for key in kept:
        total += key >> 32
    for key in kept:
        place = 0
        for other in kept:
            place += other > key
        ids_T[place] = _MAX_ROW - (key & 0xFFFFFFFF)
        weights_T[place] = np.float32(key >> 32) / np.float32(total)
    ids_T[num_kept:] = -1
    weights_T[num_kept:] = 0


@njit(nogil=True, cache=True, error_model="numpy")
def best_first(keys, num_best):
    """Quickselect: move the greatest keys to the front, in any order; partitions without branches (Lomuto)."""
    low, high = 0, len(keys)
    while low < num_best < high:
        middle = (low + high) >> 1
        pivot = keys[middle]
        keys[middle] = keys[low]
        end = low + 1  # of the keys greater than the pivot
        for i in range(low + 1, high):
            key = keys[i]
            keys[i] = keys[end]
            keys[end] = key
            end += key > pivot
        keys[low] = keys[end - 1]
        keys[end - 1] = pivot
        if num_best < end:
            high = end - 1
        else:
            low = end
