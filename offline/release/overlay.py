"""A release with the changes since: which pins and boards there are, in which order, and what is new about them.

Pins keep the order of the release, without the deleted ones, and new ones follow; boards keep their rows, since the
encoder knows them by row, and new ones follow.

Shape letters: P pins of the release, N pins now, E edges, H held-out edges, C rows of a chunk, V visual width, L pairs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model.changes import Change, EdgeRecord, PinRecord
from model.features import PinContent
from model.release import Release

CHUNK = 65_536
ROWS = NDArray[np.int32]


@dataclass
class _Pin:
    """A pin that changes said something about.

    old     its row in the release, -1 for a new one
    record  its new content, None where only its boards have changed
    boards  rows of its boards now, in order, and whether the edge is held out of the graph
    """

    old: int
    record: PinRecord | None
    boards: dict[int, bool]


@dataclass(frozen=True)
class Overlay:
    """The catalogue after the changes.

    old_N       int64  each pin's row in the release, -1 for a new pin
    records     new content by row
    boards      new boards by row: for every pin whose boards may have changed, and every new one
    held_out    boards by row, of pins in `boards`: edges that stay out of the graph, as pairs come from them
    new_boards  ids of boards that the release does not have
    """

    release: Release
    old_N: NDArray[np.int64]
    records: dict[int, PinRecord]
    boards: dict[int, list[int]]
    held_out: dict[int, list[int]]
    new_boards: list[str]

    @property
    def num_pins(self) -> int:
        return len(self.old_N)

    @property
    def num_boards(self) -> int:
        return self.release.manifest.num_boards + len(self.new_boards)

    @property
    def changed(self) -> NDArray[np.int64]:
        """Rows of pins that are new, or whose content or boards are."""
        return np.array(sorted({*self.records, *self.boards}), np.int64)

    def row_of_old(self) -> ROWS:
        """(P,) each old pin's row now, -1 for a deleted one."""
        rows_P = np.full(self.release.manifest.num_pins, -1, np.int32)
        kept_N = np.flatnonzero(self.old_N >= 0)
        rows_P[self.old_N[kept_N]] = kept_N
        return rows_P

    def pin_tables(self) -> Iterator[Any]:
        """The pins as Arrow tables, chunk by chunk, with the columns of the release's."""
        pins = self.release.pins
        for start in range(0, self.num_pins, CHUNK):
            old_C = self.old_N[start : start + CHUNK]
            known_C = old_C[old_C >= 0]
            first, stop = (int(known_C[0]), int(known_C[-1]) + 1) if len(known_C) else (0, 0)
            here = [row for row in range(start, start + len(old_C)) if row in self.records]
            values = [_pin_values(self.records[row]) for row in here]
            # Only a slice of the old pins: Arrow copies all of a table's chunks to take rows from it.
            near = pa.concat_tables([pins.slice(first, stop - first), pa.Table.from_pylist(values, pins.schema)])
            take_C = old_C - first
            take_C[np.array(here, np.int64) - start] = stop - first + np.arange(len(here))
            yield near.take(pa.array(take_C))

    def board_table(self) -> Any:
        """The boards as an Arrow table."""
        old = self.release.boards
        values = [{"board_id": board, "title": None} for board in self.new_boards]
        return pa.concat_tables([old, pa.Table.from_pylist(values, old.schema)])

    def edge_chunks(self) -> Iterator[tuple[ROWS, ROWS]]:
        """All edges of the graph as rows of pins and boards, chunk by chunk."""
        graph = self.release.graph
        untouched_N = self.old_N >= 0
        untouched_N[list(self.boards)] = False
        for start in range(0, self.num_pins, CHUNK):
            rows_C = start + np.flatnonzero(untouched_N[start : start + CHUNK])
            first_C, stop_C = graph.pin_ptr[self.old_N[rows_C]], graph.pin_ptr[self.old_N[rows_C] + 1]
            degrees_C = stop_C - first_C
            pins_E = np.repeat(rows_C, degrees_C).astype(np.int32)
            # Places of each pin's edges: its first one, counted on within the pin.
            within_E = np.arange(len(pins_E)) - np.repeat(np.cumsum(degrees_C) - degrees_C, degrees_C)
            yield pins_E, graph.pin_boards_E[np.repeat(first_C, degrees_C) + within_E]
        pins = [row for row, boards in self.boards.items() for _ in boards]
        yield np.array(pins, np.int32), np.array([b for boards in self.boards.values() for b in boards], np.int32)

    def held_out_edges(self) -> ROWS:
        """(H, 2) rows of pin and board, by pin: the edges that the graph lacks because pairs were made from them."""
        old_H2 = self.release.held_out_edges
        kept_H2 = np.stack([self.row_of_old()[old_H2[:, 0]], old_H2[:, 1]], axis=1)
        kept_H2 = kept_H2[(kept_H2[:, 0] >= 0) & ~np.isin(kept_H2[:, 0], list(self.boards))]
        touched = [(row, board) for row, boards in self.held_out.items() for board in boards]
        all_H2 = np.concatenate([kept_H2, np.array(touched, np.int32).reshape(-1, 2)])
        return all_H2[np.argsort(all_H2[:, 0], kind="stable")]

    def visual_chunks(self) -> Iterator[NDArray[np.float32]]:
        """Raw visual vectors, chunk by chunk, NaN where a pin has none; nothing where the release has none at all."""
        visual_PV = self.release.visual_PV
        if visual_PV is None:
            return
        for start in range(0, self.num_pins, CHUNK):
            old_C = self.old_N[start : start + CHUNK]
            visual_CV = np.full((len(old_C), visual_PV.shape[1]), np.nan, np.float32)
            visual_CV[old_C >= 0] = visual_PV[old_C[old_C >= 0]]
            for row in range(start, start + len(old_C)):
                record = self.records.get(row)
                if record is not None:
                    visual_CV[row - start] = _visual_or_nan(record, visual_PV.shape[1])
            yield visual_CV

    def pairs(self, split: str) -> ROWS:
        """(L, 2) the release's labelled pairs of a split, without those of deleted pins."""
        old_L2 = self.release.pairs(split)
        if old_L2 is None:
            return np.empty((0, 2), np.int32)
        pairs_L2 = self.row_of_old()[old_L2]
        return pairs_L2[(pairs_L2 >= 0).all(axis=1)]

    def content(self, row: int) -> PinContent:
        """What is known of a changed pin, for the encoder."""
        record = self.records[row]
        visual_PV = self.release.visual_PV
        vector_V = None if visual_PV is None else _visual_or_nan(record, visual_PV.shape[1])
        if vector_V is not None and not np.isfinite(vector_V).all():
            vector_V = None
        boards = self.boards[row]
        return PinContent(record.title, record.annotations, record.description, vector_V, boards)


def apply_changes(release: Release, changes: Iterable[Change]) -> Overlay:
    """The release after these changes, in the order of their numbers (model/changes.py says what each one does)."""
    pins: dict[str, _Pin] = {}
    new_boards: dict[str, int] = {}
    deleted: set[int] = set()
    for change in changes:
        pin = pins.get(change.pin_id) or _old_pin(release, change.pin_id, deleted)
        if isinstance(change, EdgeRecord):
            if pin is not None:
                _change_edge(release, pin, change, new_boards)
                pins[change.pin_id] = pin
        elif change.deleted:
            pins.pop(change.pin_id, None)
            if pin is not None and pin.old >= 0:
                deleted.add(pin.old)
        else:
            old = release.pin_ids.lookup(change.pin_id)
            deleted.discard(old)
            boards = {_board_row(release, board, new_boards): False for board in change.boards}
            pins[change.pin_id] = _Pin(old, change, boards)
    return _overlay(release, pins, new_boards, deleted)


def _overlay(release: Release, pins: dict[str, _Pin], new_boards: dict[str, int], deleted: set[int]) -> Overlay:
    kept_P = np.ones(release.manifest.num_pins, bool)
    kept_P[list(deleted)] = False
    num_new = sum(pin.old < 0 for pin in pins.values())
    old_N = np.concatenate([np.flatnonzero(kept_P), np.full(num_new, -1)]).astype(np.int64)
    row_of_old_P = np.cumsum(kept_P) - 1
    records, boards, held_out, next_row = {}, {}, {}, len(old_N) - num_new
    for pin in pins.values():
        if pin.old >= 0:
            row = int(row_of_old_P[pin.old])
        else:
            row, next_row = next_row, next_row + 1
        boards[row] = [board for board, is_held_out in pin.boards.items() if not is_held_out]
        held_out[row] = [board for board, is_held_out in pin.boards.items() if is_held_out]
        if pin.record is not None:
            records[row] = pin.record
    return Overlay(release, old_N, records, boards, held_out, list(new_boards))


def _old_pin(release: Release, pin_id: str, deleted: set[int]) -> _Pin | None:
    old = release.pin_ids.lookup(pin_id)
    if old < 0 or old in deleted:
        return None
    pins_H, boards_H = release.held_out_edges.T
    held_out = boards_H[bisect_left(pins_H, old) : bisect_right(pins_H, old)]
    boards = dict.fromkeys(held_out.tolist(), True) | dict.fromkeys(release.graph.boards_of(old).tolist(), False)
    return _Pin(old, None, boards)


def _change_edge(release: Release, pin: _Pin, change: EdgeRecord, new_boards: dict[str, int]) -> None:
    if change.present:
        pin.boards[_board_row(release, change.board_id, new_boards)] = False
        return
    row = new_boards.get(change.board_id, release.board_ids.lookup(change.board_id))
    pin.boards.pop(row, None)


def _board_row(release: Release, board_id: str, new_boards: dict[str, int]) -> int:
    row = release.board_ids.lookup(board_id)
    if row >= 0:
        return row
    return new_boards.setdefault(board_id, release.manifest.num_boards + len(new_boards))


def _pin_values(record: PinRecord) -> dict[str, Any]:
    return {
        "pin_id": record.pin_id,
        "title": record.title,
        "annotations": list(record.annotations),
        "description": record.description,
        "image_url": record.image_url,
        "category": record.category,
        "language": record.language,
        "created_at": record.created_at,
    }


def _visual_or_nan(record: PinRecord, width: int) -> NDArray[np.float32]:
    """A record's vector; NaN where it has none, or one of a release with another width."""
    if record.visual is None or len(record.visual) != width:
        return np.full(width, np.nan, np.float32)
    return np.array(record.visual, np.float32)
