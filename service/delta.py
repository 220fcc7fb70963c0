"""What was put or changed since the release: append-only arrays that one writer fills and many readers scan.

A *row* is a pin, for as long as the catalogue lives: the release's pins first, then live ones. A *slot* is one vector
in the delta; a pin that is embedded again gets a new slot, its old one is dead. `slot_of` says for each row where its
vector is: a slot, IN_RELEASE or GONE.

Readers take no lock. The writer fills a slot, then publishes the count, then points the row at the slot; a reader
reads the count first and takes for alive what is pointed at, or what is replaced by a slot it does not know yet. So it
sees a pin that is just being replaced once, with its old vector or its new one, and never a deleted one.

Shape letters: N rows asked for, S slots, D embedding, M message and F feature width, T neighbours, Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.halves import to_floats

Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

IN_RELEASE = -1
GONE = -2
FEWEST_DEAD = 1_024  # below that compacting is not worth the copy


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
        if index >= len(self.data):
            capacity = max(index + 1, len(self.data) + len(self.data) // 2)
            grown = np.zeros((capacity, *self.data.shape[1:]), self.data.dtype)
            grown[: len(self.data)] = self.data
            self.data = grown
        self.data[index] = value


class Delta:
    """The slots, and for every row where its vector is. One writer at a time; readers use `view`."""

    def __init__(self, num_rows: int, shape: DeltaShape) -> None:
        self.shape = shape
        self.num_rows = num_rows
        self.num_slots = 0
        self.num_alive = 0
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
        self.num_slots = slot + 1
        self.num_alive += self.slot_of(row) < 0
        self._slot_of[row] = slot

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
        )

    def is_wasteful(self) -> bool:
        """Whether most slots are dead."""
        return self.num_slots - self.num_alive > max(FEWEST_DEAD, self.num_alive)

    def compacted(self) -> Delta:
        """A delta of the same rows without the dead slots; this one stays as it is, for its readers."""
        view = self.view()
        kept_S = np.flatnonzero(view.alive())
        fresh = Delta(0, self.shape)
        fresh.num_rows, fresh.num_slots, fresh.num_alive = self.num_rows, len(kept_S), len(kept_S)
        fresh._slot_of.data = self._slot_of.data.copy()
        fresh._slot_of.data[view.rows_S[kept_S]] = np.arange(len(kept_S))
        for name in ("_rows", "_vectors", "_messages", "_features", "_ids", "_weights", "_facets"):
            getattr(fresh, name).data = getattr(self, name).data[kept_S]
        return fresh


@dataclass(frozen=True)
class DeltaView:
    """What a reader sees of a delta: the first `num_slots` slots."""

    num_slots: int
    slot_of: Ints
    rows_S: Ints
    vectors_SD: Floats
    facets_S2: Ints

    def alive(self) -> Bools:
        """(S,): which slots count, one of each row."""
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
