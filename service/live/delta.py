"""What was put or changed since the release: append-only arrays that one writer fills and many readers scan.

The first slots may have an index (compaction.py); those after them are compared one by one.

A *row* is a pin, for as long as the catalogue lives: the release's pins first, then live ones. A *slot* is one vector
in the delta; a pin that is embedded again gets a new slot, its old one is dead. `slot_of` says for each row where its
vector is: a slot, IN_RELEASE or GONE.

Readers take no lock. The writer fills a slot, then points the row at it, then publishes the count; a reader reads the
count first and takes for alive what is pointed at, or what is replaced by a slot it does not know yet. So it sees a pin
that is just being replaced once, with its old vector or its new one, and never a deleted one.

Shape letters: N rows asked for, S slots, D embedding, M message and F feature width, T neighbours, Q queries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.halves import to_floats
from model.index import AnnIndex

Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

IN_RELEASE = -1
GONE = -2
FEWEST_DEAD = 1_024  # below that compacting is not worth the copy
INDEX_FROM = 20_000  # up to so many slots comparing all of them is as fast as an index
BLOCK = 4_096  # slots copied between two chances for other threads
ARRAYS = ("_rows", "_vectors", "_messages", "_features", "_ids", "_weights", "_facets")  # one entry a slot


@dataclass(frozen=True)
class DeltaShape:
    """Widths of what a slot holds."""

    embed_dim: int
    hidden_dim: int
    num_layers: int
    num_features: int
    num_neighbors: int


@dataclass(frozen=True)
class Entry:
    """What a slot holds of its pin.

    vector_D, messages_KM  as the network made them; messages one a layer
    features_F             its input, so that a changed graph needs no new look at its content
    ids_T, weights_T       the neighbours it was pooled from, -1 and 0 where there is none
    category, language     codes of service.facets
    """

    vector_D: Floats
    messages_KM: Floats
    features_F: Floats
    ids_T: Ints
    weights_T: Floats
    category: int
    language: int


class Growable:
    """An array that grows at its end by half; `data` may be longer than what is filled."""

    def __init__(self, tail: tuple[int, ...], dtype: npt.DTypeLike, capacity: int = 64) -> None:
        self.data: npt.NDArray[Any] = np.zeros((capacity, *tail), dtype)

    def __setitem__(self, index: int, value: npt.ArrayLike) -> None:
        self.reserve(index + 1)
        self.data[index] = value

    @property
    def entry_bytes(self) -> int:
        """Bytes of one entry."""
        return self.data.itemsize * math.prod(self.data.shape[1:])

    def reserve(self, count: int) -> None:
        """Make room for so many entries."""
        if count > len(self.data):
            capacity = max(count, len(self.data) + len(self.data) // 2)
            grown = np.zeros((capacity, *self.data.shape[1:]), self.data.dtype)
            grown[: len(self.data)] = self.data
            self.data = grown


class Delta:
    """The slots, and for every row where its vector is. One writer at a time; readers use `view`."""

    def __init__(self, num_rows: int, shape: DeltaShape) -> None:
        self.shape = shape
        self.num_rows = num_rows
        self.num_slots = 0
        self.num_alive = 0
        self.index: AnnIndex | None = None
        self._slot_of = Growable((), np.int32, num_rows + 64)
        self._slot_of.data[:num_rows] = IN_RELEASE
        self._rows = Growable((), np.int32)
        self._vectors = Growable((shape.embed_dim,), np.float32)
        # Half precision, as in the release: a neighbour's message is the same whether it lies there or here.
        self._messages = Growable((shape.num_layers, shape.hidden_dim), np.float16)
        self._features = Growable((shape.num_features,), np.float16)
        self._ids = Growable((shape.num_neighbors,), np.int32)
        self._weights = Growable((shape.num_neighbors,), np.float32)
        self._facets = Growable((2,), np.int32)

    def add_row(self) -> int:
        """A row for a new pin, GONE until something is put there."""
        row = self.num_rows
        self._slot_of[row] = GONE
        self.num_rows = row + 1
        return row

    def put(self, row: int, entry: Entry) -> None:
        """Give a row a new vector; its old one is dead from then on."""
        slot = self.num_slots
        self._rows[slot] = row
        self._vectors[slot] = entry.vector_D
        self._messages[slot] = entry.messages_KM
        self._features[slot] = entry.features_F
        self._ids[slot] = entry.ids_T
        self._weights[slot] = entry.weights_T
        self._facets[slot] = (entry.category, entry.language)
        self.num_alive += self.slot_of(row) < 0
        self._slot_of[row] = slot
        self.num_slots = slot + 1

    def drop(self, row: int) -> None:
        """The pin is gone; `put` may bring it back."""
        self.num_alive -= self.slot_of(row) >= 0
        self._slot_of[row] = GONE

    def slot_of(self, row: int) -> int:
        """Where the row's vector is."""
        return int(self._slot_of.data[row])

    def features(self, slot: int) -> Floats:
        """The input that a slot's pin was embedded from, float32 (F,)."""
        features_F: Floats = self._features.data[slot].astype(np.float32)
        return features_F

    def neighbors(self, slot: int) -> tuple[Ints, Floats]:
        """Rows and weights, (T,), that a slot's pin was pooled from."""
        return self._ids.data[slot], self._weights.data[slot]

    def slots_of(self, rows_N: Ints) -> Ints:
        """Where each row's vector is. What a slot read here holds may be asked for at any later time."""
        slots_N: Ints = self._slot_of.data[rows_N]
        return slots_N

    def vectors(self, slots_N: Ints) -> Floats:
        """(N, D) of these slots."""
        vectors_ND: Floats = self._vectors.data[slots_N]
        return vectors_ND

    def messages(self, layer: int, slots_N: Ints) -> Floats:
        """(N, M) of these slots, float32."""
        return to_floats(self._messages.data[slots_N, layer])

    def facets(self, slots_N: Ints) -> Ints:
        """(N, 2) codes of category and language of these slots."""
        facets_N2: Ints = self._facets.data[slots_N]
        return facets_N2

    def view(self) -> DeltaView:
        """The slots as they are now."""
        num_slots = self.num_slots  # before all else: see the top of the file
        return DeltaView(
            num_slots,
            self._slot_of.data,
            self._rows.data[:num_slots],
            self._vectors.data[:num_slots],
            self._facets.data[:num_slots],
            self.index,
        )

    @property
    def num_indexed(self) -> int:
        """The first so many slots are in the index."""
        return 0 if self.index is None else self.index.params.num_items

    @property
    def num_bytes(self) -> int:
        """Bytes of what is in the slots, those of the index not counted."""
        return self.num_slots * sum(int(getattr(self, name).entry_bytes) for name in ARRAYS)

    def is_due(self) -> bool:
        """Whether it is time for a compaction: many slots are dead, or many are not in the index."""
        num_dead = self.num_slots - self.num_alive
        num_compared = self.num_slots - self.num_indexed
        return num_dead > max(FEWEST_DEAD, self.num_alive) // 2 or num_compared > max(INDEX_FROM, self.num_indexed // 2)

    def is_wasteful(self) -> bool:
        """Whether most slots are dead, and no compaction came in time."""
        return self.num_slots - self.num_alive > max(FEWEST_DEAD, self.num_alive)

    def copy_slots(self, slots_N: Ints) -> Delta:
        """A delta of just these slots, in this order, with room for more; no row points at them yet."""
        fresh = Delta(0, self.shape)
        for name in ARRAYS:
            getattr(fresh, name).reserve(len(slots_N) + len(slots_N) // 4)
        fresh.append(self, slots_N)
        return fresh

    def append(self, other: Delta, slots_N: Ints) -> None:
        """Copy slots of another delta behind our own."""
        first = self.num_slots
        for name in ARRAYS:
            ours, theirs = getattr(self, name), getattr(other, name).data
            ours.reserve(first + len(slots_N))
            for start in range(0, len(slots_N), BLOCK):
                some = slots_N[start : start + BLOCK]
                ours.data[first + start : first + start + len(some)] = theirs[some]
        self.num_slots = first + len(slots_N)

    def take_rows(self, other: Delta, slots_S: Ints) -> None:
        """Have the rows of another delta, whose slots `slots_S` are ours."""
        rows_S = self._rows.data[: self.num_slots]
        current_S = other._slot_of.data[rows_S] == slots_S
        self._slot_of.data = other._slot_of.data.copy()
        self._slot_of.data[rows_S[current_S]] = np.flatnonzero(current_S)
        self.num_rows, self.num_alive = other.num_rows, other.num_alive


@dataclass(frozen=True)
class DeltaView:
    """What a reader sees of a delta: the first `num_slots` slots."""

    num_slots: int
    slot_of: Ints
    rows_S: Ints
    vectors_SD: Floats
    facets_S2: Ints
    index: AnnIndex | None

    @property
    def num_indexed(self) -> int:
        """The first so many slots are in the index."""
        return 0 if self.index is None else self.index.params.num_items

    def alive(self, slots: Ints | None = None) -> Bools:
        """Which slots count, one of each row: all of them (S,), or those asked about."""
        if slots is not None:
            current = self.slot_of[self.rows_S[slots]]
            some: Bools = current == slots
            return self.alive()[slots] if (current >= self.num_slots).any() else some
        current_S = self.slot_of[self.rows_S]
        alive_S: Bools = current_S == np.arange(self.num_slots)
        late = np.flatnonzero(current_S >= self.num_slots)[::-1]
        if len(late):  # of a row that is replaced while we look, the newest slot that we know
            alive_S[late[np.unique(self.rows_S[late], return_index=True)[1]]] = True
        return alive_S

    def in_release(self, rows: Ints) -> Bools:
        """Which of these rows of the release count with the vector that the release has of them."""
        current = self.slot_of[rows]
        counts: Bools = current == IN_RELEASE
        late = current >= self.num_slots
        if late.any():
            counts |= late & ~np.isin(rows, self.rows_S)
        return counts

    def exists(self, rows: Ints) -> Bools:
        """Which of these rows have a vector anywhere; -1 stands for none."""
        found: Bools = (rows >= 0) & (self.slot_of[rows] != GONE)
        return found
