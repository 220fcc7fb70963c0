"""The graph while it is served: an immutable base, and copies of the rows that changed since.

One writer at a time, many readers, no locks. A changed row is copied into a pool; a reader finds it through `where`.
What makes this safe:

- Nothing that a reader may hold is written again, but for the length of a row and its place; each is one aligned
  word, written after the data it speaks of. The pool is zero before it is written, so a length read early is 0.
- When an array is full, the writer moves to a new generation: all four arrays are copied, garbage is left behind, and
  the pair of sides is swapped as one reference. Readers that hold the old generation finish on it undisturbed.

Rows stay sorted, as in the base. So a walk over the overlay equals the walk over a graph built anew from the same
edges.
"""

# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from model.config import WalkConfig
from model.graph import BipartiteGraph
from model.walk_kernels import Side
from model.walks import Neighborhoods, walk_one

Ints = npt.NDArray[np.int32]

_HEAD = 2  # before its values, a row in the pool keeps its length and its capacity
# Room from the start, so that moving to a new generation is rare: pages that nobody has touched cost nothing.
_MIN_NEW_NODES = 1 << 14
_MIN_POOL = 1 << 20


class LiveGraph:
    """A graph that changes while it is read. Rows of the base keep their numbers; new ones follow them.

    All methods that change it are for one writer at a time; all others may be called at any time from any thread.
    Rows outside the graph raise IndexError.
    """

    def __init__(self, base: BipartiteGraph) -> None:
        self._pins = _LiveSide(base.pin_ptr, base.pin_boards_E)
        self._boards = _LiveSide(base.board_ptr, base.board_pins_E)
        self._publish()

    @property
    def num_pins(self) -> int:
        return self._pins.num_nodes

    @property
    def num_boards(self) -> int:
        return self._boards.num_nodes

    @property
    def num_overlay_bytes(self) -> int:
        """Bytes reserved beyond the base; pages that were never touched cost no memory."""
        return self._pins.num_bytes + self._boards.num_bytes

    @property
    def num_used_bytes(self) -> int:
        """Bytes written beyond the base, those of rows that were copied again since included."""
        return self._pins.num_used_bytes + self._boards.num_used_bytes

    def boards_of(self, pin: int) -> Ints:
        """The boards of a pin, ascending; a view that does not change."""
        _check(pin, self.num_pins, "pin")
        return _read_row(self._view[0], pin)

    def pins_of(self, board: int) -> Ints:
        """The pins of a board, ascending; a view that does not change."""
        _check(board, self.num_boards, "board")
        return _read_row(self._view[1], board)

    def pin_degree(self, pin: int) -> int:
        """The number of boards of a pin."""
        return len(self.boards_of(pin))

    def neighbors(self, pin: int, config: WalkConfig, *, seed: int) -> Neighborhoods:
        """The neighbourhood of one pin in the graph as it is now, B = 1; see `importance_neighbors`."""
        _check(pin, self.num_pins, "pin")
        pins, boards = self._view
        return walk_one(pins, boards, pin, config, seed)

    def add_pin(self) -> int:
        """A new pin without boards; returns its row."""
        self._reserve(self._pins)
        return self._pins.add_node()

    def add_board(self) -> int:
        """A new board without pins; returns its row."""
        self._reserve(self._boards)
        return self._boards.add_node()

    def add_edge(self, pin: int, board: int) -> bool:
        """Put a pin on a board; False when it was there."""
        _check(board, self.num_boards, "board")
        if _contains(self.boards_of(pin), board):
            return False
        self._reserve(self._pins, pin)
        self._pins.insert(pin, board)
        self._reserve(self._boards, board)
        self._boards.insert(board, pin)
        return True

    def remove_edge(self, pin: int, board: int) -> bool:
        """Take a pin off a board; False when it was not there."""
        _check(board, self.num_boards, "board")
        if not _contains(self.boards_of(pin), board):
            return False
        self._reserve(self._boards, board)
        self._boards.delete(board, pin)
        self._reserve(self._pins, pin)
        self._pins.delete(pin, board)
        return True

    def remove_pin(self, pin: int) -> None:
        """Take a pin off all its boards: no walk that starts afterwards reaches it. Its row may be used again."""
        boards = self.boards_of(pin)
        for board in boards.tolist():
            self._reserve(self._boards, board)
            self._boards.delete(board, pin)
        self._reserve(self._pins, pin)
        self._pins.put(pin, boards[:0])

    def _reserve(self, side: _LiveSide, node: int | None = None) -> None:
        """Make room for one more node or for one more copy of a node's row."""
        if side.has_room(node):
            return
        self._pins = self._pins.next_generation(node if side is self._pins else None)
        self._boards = self._boards.next_generation(node if side is self._boards else None)
        self._publish()

    def _publish(self) -> None:
        self._view = (self._pins.side, self._boards.side)


class _LiveSide:
    """One direction of the graph with its changes, as the writer sees it."""

    def __init__(
        self, ptr: npt.NDArray[np.int64], values: Ints, num_nodes: int | None = None, num_pool: int | None = None
    ) -> None:
        num_base = len(ptr) - 1
        self.num_nodes = num_base if num_nodes is None else num_nodes
        num_new = max(_MIN_NEW_NODES, 2 * (self.num_nodes - num_base))
        where = np.zeros(num_base + num_new, np.int32)
        pool = np.zeros(_MIN_POOL if num_pool is None else num_pool, np.int32)
        pool[0] = -1
        self.side = Side(ptr, values, where, pool)
        self._where, self._pool = where, pool
        self._num_used = 1

    @property
    def num_bytes(self) -> int:
        return self._where.nbytes + self._pool.nbytes

    @property
    def num_used_bytes(self) -> int:
        num_new = self.num_nodes - (len(self.side.ptr) - 1)
        return (self._num_used + num_new) * self._pool.itemsize

    def has_room(self, node: int | None) -> bool:
        """Room for a new node (None), or for a new copy of a node's row."""
        if node is None:
            return self.num_nodes < len(self._where)
        return self._num_used + _room(len(_read_row(self.side, node))) <= len(self._pool)

    def next_generation(self, node: int | None) -> _LiveSide:
        """A copy that has room for twice of what is in use."""
        num_needed = 0 if node is None else _room(len(_read_row(self.side, node)))
        num_live = int(_live_entries(self._where, self._pool))
        num_pool = max(_MIN_POOL, 2 * (num_live + num_needed))
        fresh = _LiveSide(self.side.ptr, self.side.values, self.num_nodes, num_pool)
        fresh._num_used = int(_copy_rows(self._where, self._pool, fresh._where, fresh._pool))
        return fresh

    def add_node(self) -> int:
        self.num_nodes += 1
        return self.num_nodes - 1

    def insert(self, node: int, value: int) -> None:
        row = _read_row(self.side, node)
        at = _position(row, value)
        place = int(self._where[node])
        if place and at == len(row) < self._pool[place + 1]:
            # The usual case, a new pin on a board: it goes behind the values that readers know of.
            self._pool[place + _HEAD + at] = value
            self._pool[place] = at + 1
        else:
            grown = np.empty(len(row) + 1, row.dtype)  # np.insert takes ten times as long
            grown[:at], grown[at], grown[at + 1 :] = row[:at], value, row[at:]
            self.put(node, grown)

    def delete(self, node: int, value: int) -> None:
        row = _read_row(self.side, node)
        self.put(node, np.delete(row, _position(row, value)))

    def put(self, node: int, row: Ints) -> None:
        """Write a row where nobody reads yet, then say where it is."""
        place = self._num_used
        self._num_used += _room(len(row) - 1)
        self._pool[place + _HEAD : place + _HEAD + len(row)] = row
        self._pool[place + 1] = self._num_used - place - _HEAD
        self._pool[place] = len(row)
        self._where[node] = place


def _room(length: int) -> int:
    """Entries that a row takes after it gained one value; some to spare, so that a growing board is copied seldom."""
    return _HEAD + length + 1 + (length + 1) // 4


def _read_row(side: Side, node: int) -> Ints:
    assert side.where is not None
    assert side.pool is not None
    place = int(side.where[node])
    if place > 0:
        row = side.pool[place + _HEAD : place + _HEAD + int(side.pool[place])]
        row.flags.writeable = False
        return row
    if node + 1 < len(side.ptr):
        return side.values[side.ptr[node] : side.ptr[node + 1]]
    return side.pool[:0]


def _position(row: Ints, value: int) -> int:
    return int(row.searchsorted(np.int32(value)))  # of the row's own type, or NumPy would convert the row


def _contains(row: Ints, value: int) -> bool:
    at = _position(row, value)
    return at < len(row) and int(row[at]) == value


def _check(row: int, num_rows: int, what: str) -> None:
    if not 0 <= row < num_rows:
        raise IndexError(f"{what} row {row} outside the {num_rows} rows of the graph")


@njit(nogil=True, cache=True)
def _live_entries(where, pool):
    """The entries of the pool that rows in use take."""
    total = 1
    for place in where:
        if place > 0:
            total += _HEAD + pool[place + 1]
    return total


@njit(nogil=True, cache=True)
def _copy_rows(where, pool, new_where, new_pool):
    """Copy the rows in use, one behind the other; returns the number of entries used."""
    used = 1
    for node in range(len(where)):
        place = where[node]
        if place > 0:
            num_entries = _HEAD + pool[place + 1]
            new_pool[used : used + num_entries] = pool[place : place + num_entries]
            new_where[node] = used
            used += num_entries
    return used
