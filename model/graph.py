"""The graph of pins and boards: who saved what where, in both directions.

Each direction is a CSR: the boards of pin p are pin_boards_E[pin_ptr[p]:pin_ptr[p + 1]], sorted and without duplicates.
Building is out of core: edges come in chunks, twice, and are placed into memory-mapped files, so memory holds
the row pointers and one chunk only.

Letters: P pins, B boards, E edges, C edges of one chunk.
"""

# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from model.errors import ReleaseError, UserError
from model.files import create_array

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Edges = tuple[Ints, Ints]
Allocate = Callable[[str, int], Ints]

_FILES = {"pin_ptr": np.int64, "pin_boards": np.int32, "board_ptr": np.int64, "board_pins": np.int32}
_COPY_ROWS = 1 << 22  # values copied at once from file to file


@dataclass(frozen=True, eq=False)
class BipartiteGraph:
    """Pins, boards and the edges between them; immutable, usually memory-mapped.

    pin_ptr       (P+1,) int64  where the boards of each pin start
    pin_boards_E  (E,)   int32  boards, by pin, ascending
    board_ptr     (B+1,) int64  where the pins of each board start
    board_pins_E  (E,)   int32  pins, by board, ascending
    """

    pin_ptr: Longs
    pin_boards_E: Ints
    board_ptr: Longs
    board_pins_E: Ints

    def __post_init__(self) -> None:
        # Plain read-only views: one array type for the kernels, whether the data lie in memory or in a file.
        for name in ("pin_ptr", "pin_boards_E", "board_ptr", "board_pins_E"):
            view = np.asarray(getattr(self, name)).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @property
    def arrays(self) -> tuple[Longs, Ints, Longs, Ints]:
        """All that there is of it."""
        return self.pin_ptr, self.pin_boards_E, self.board_ptr, self.board_pins_E

    @property
    def num_pins(self) -> int:
        return len(self.pin_ptr) - 1

    @property
    def num_boards(self) -> int:
        return len(self.board_ptr) - 1

    @property
    def num_edges(self) -> int:
        return len(self.pin_boards_E)

    def pin_degrees(self) -> Longs:
        """The number of boards of every pin, (P,) int64."""
        return np.diff(self.pin_ptr)

    def board_degrees(self) -> Longs:
        """The number of pins of every board, (B,) int64."""
        return np.diff(self.board_ptr)

    def boards_of(self, pin: int) -> Ints:
        """The boards of one pin, ascending."""
        return self.pin_boards_E[self.pin_ptr[pin] : self.pin_ptr[pin + 1]]

    def pins_of(self, board: int) -> Ints:
        """The pins of one board, ascending."""
        return self.board_pins_E[self.board_ptr[board] : self.board_ptr[board + 1]]

    @classmethod
    def from_edges(
        cls, pins_E: npt.ArrayLike, boards_E: npt.ArrayLike, *, num_pins: int, num_boards: int
    ) -> BipartiteGraph:
        """A graph in memory from two parallel arrays of rows; duplicates count once.

        Raises UserError when a row is outside the graph.
        """
        edges = (np.asarray(pins_E, dtype=np.int32), np.asarray(boards_E, dtype=np.int32))
        return _build(lambda: (edges,), num_pins, num_boards, lambda _, size: np.empty(size, np.int32))

    def save(self, folder: Path) -> None:
        """Write the four arrays as .npy files into the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            np.save(_file(folder, name), self._array(name))

    @classmethod
    def load(cls, folder: Path) -> BipartiteGraph:
        """Memory-map a saved graph.

        Raises ReleaseError, naming the file, when one is missing, of another type, or does not fit the others.
        """
        arrays = {name: _open(_file(folder, name), np.dtype(dtype)) for name, dtype in _FILES.items()}
        for ptr, values in (("pin_ptr", "pin_boards"), ("board_ptr", "board_pins")):
            _check_ptr(_file(folder, ptr), arrays[ptr], len(arrays[values]))
        if len(arrays["pin_boards"]) != len(arrays["board_pins"]):
            raise ReleaseError(
                f"{_file(folder, 'board_pins')}: {len(arrays['board_pins'])} edges, "
                f"but pin_boards.npy has {len(arrays['pin_boards'])}"
            )
        return cls(*(arrays[name] for name in _FILES))

    def _array(self, name: str) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = getattr(self, name if name.endswith("_ptr") else f"{name}_E")
        return array


def build_graph(
    folder: Path, edge_chunks: Callable[[], Iterator[Edges]], *, num_pins: int, num_boards: int
) -> BipartiteGraph:
    """Build a graph in files, from chunks of (pins_C, boards_C) int32; `edge_chunks` is called twice.

    Memory stays bounded by the row pointers and one chunk, whatever the number of edges; duplicates count once.
    Returns the graph memory-mapped. Raises UserError when a row is outside the graph, or when the second pass
    differs from the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    graph = _build(edge_chunks, num_pins, num_boards, lambda name, size: _create(folder, name, size))
    np.save(_file(folder, "pin_ptr"), graph.pin_ptr)
    np.save(_file(folder, "board_ptr"), graph.board_ptr)
    del graph
    _file(folder, "unsorted").unlink()
    return BipartiteGraph.load(folder)


def _build(
    edge_chunks: Callable[[], Iterable[Edges]], num_pins: int, num_boards: int, allocate: Allocate
) -> BipartiteGraph:
    """Count, place, sort and deduplicate the boards of each pin; then transpose. The arrays come from `allocate`."""
    ptr = _count(edge_chunks(), num_pins, num_boards)
    unsorted = allocate("unsorted", int(ptr[-1]))
    _place(edge_chunks(), ptr, unsorted)
    pin_ptr = np.empty(num_pins + 1, np.int64)
    num_edges = int(_sort_rows(ptr, unsorted, pin_ptr))
    pin_boards_E = allocate("pin_boards", num_edges)
    for start in range(0, num_edges, _COPY_ROWS):
        stop = min(start + _COPY_ROWS, num_edges)
        pin_boards_E[start:stop] = unsorted[start:stop]
    board_ptr = np.zeros(num_boards + 1, np.int64)
    board_pins_E = allocate("board_pins", num_edges)
    _transpose(pin_ptr, pin_boards_E, board_ptr, board_pins_E)
    return BipartiteGraph(pin_ptr, pin_boards_E, board_ptr, board_pins_E)


def _count(chunks: Iterable[Edges], num_pins: int, num_boards: int) -> Longs:
    """First pass: row pointers of the boards of each pin, duplicates included, (P+1,)."""
    ptr = np.zeros(num_pins + 1, np.int64)
    done = 0
    for pins_C, boards_C in chunks:
        bad = _count_chunk(pins_C, boards_C, num_boards, ptr)
        if bad >= 0:
            raise UserError(
                f"edge {done + bad}: pin row {pins_C[bad]}, board row {boards_C[bad]} outside the graph "
                f"of {num_pins} pins and {num_boards} boards"
            )
        done += len(pins_C)
    return np.cumsum(ptr, out=ptr)


def _place(chunks: Iterable[Edges], ptr: Longs, unsorted: Ints) -> None:
    """Second pass: put each board into the next free place of its pin."""
    cursor = ptr[:-1].copy()
    fits = all(_place_chunk(pins_C, boards_C, ptr, cursor, unsorted) for pins_C, boards_C in chunks)
    if not fits or (cursor != ptr[1:]).any():
        raise UserError("the edges of the second pass differ from those of the first")


@njit(nogil=True, cache=True)
def _count_chunk(pins_C, boards_C, num_boards, ptr):
    """Add 1 to ptr[pin + 1] per edge; returns the position of an edge outside the graph, or -1."""
    num_pins = len(ptr) - 1
    for i in range(len(pins_C)):
        pin, board = pins_C[i], boards_C[i]
        if pin < 0 or pin >= num_pins or board < 0 or board >= num_boards:
            return i
        ptr[pin + 1] += 1
    return -1


@njit(nogil=True, cache=True)
def _place_chunk(pins_C, boards_C, ptr, cursor, unsorted):
    """Place a chunk of edges; False when a pin has more edges than were counted."""
    for i in range(len(pins_C)):
        pin = pins_C[i]
        if pin < 0 or pin >= len(cursor) or cursor[pin] == ptr[pin + 1]:
            return False
        unsorted[cursor[pin]] = boards_C[i]
        cursor[pin] += 1
    return True


@njit(nogil=True, cache=True)
def _sort_rows(ptr, values, new_ptr):
    """Sort each row, drop repeated values, move the rows together (never ahead of what is read); returns E."""
    end = 0
    for row in range(len(ptr) - 1):
        new_ptr[row] = end
        start, stop = ptr[row], ptr[row + 1]
        values[start:stop].sort()
        for i in range(start, stop):
            value = values[i]
            if end == new_ptr[row] or values[end - 1] != value:
                values[end] = value
                end += 1
    new_ptr[-1] = end
    return end


@njit(nogil=True, cache=True)
def _transpose(pin_ptr, pin_boards_E, board_ptr, board_pins_E):
    """Fill the other direction; pins are met in ascending order, so the rows come out sorted."""
    for board in pin_boards_E:
        board_ptr[board + 1] += 1
    for board in range(len(board_ptr) - 1):
        board_ptr[board + 1] += board_ptr[board]
    cursor = board_ptr[:-1].copy()
    for pin in range(len(pin_ptr) - 1):
        for i in range(pin_ptr[pin], pin_ptr[pin + 1]):
            board = pin_boards_E[i]
            board_pins_E[cursor[board]] = pin
            cursor[board] += 1


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _create(folder: Path, name: str, size: int) -> Ints:
    array: Ints = create_array(_file(folder, name), np.int32, (size,))
    return array.view(np.ndarray)  # the kernels take plain arrays; the view keeps the file mapped


def _open(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{path}: cannot be read: {error}") from error
    if array.dtype != dtype or array.ndim != 1:
        raise ReleaseError(f"{path}: wanted one row of {dtype}, found {array.dtype} of shape {array.shape}")
    return array


def _check_ptr(path: Path, ptr: Longs, num_edges: int) -> None:
    if len(ptr) == 0 or ptr[0] != 0 or ptr[-1] != num_edges or (ptr[1:] < ptr[:-1]).any():
        raise ReleaseError(f"{path}: the row pointers do not rise from 0 to the {num_edges} edges")
