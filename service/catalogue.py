"""All pins as they are now: one immutable release and what changed since.

A row is a pin for as long as the catalogue lives; the release's pins have rows 0 … P-1, live ones follow. A pin that is
replaced, or whose boards change, is embedded again into a new slot of the delta (service.delta) under its old row; the
graph (model.live_graph) is changed in place. One writer at a time, behind a lock; readers take none.

When the delta is full, changed boards still change the graph, but a pin of the release keeps its vector until the next
reindex; new pins are refused by `check`.

Shape letters: D embedding, F features, N rows asked for, Q queries, T neighbours.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from model.changes import Change, EdgeRecord, PinRecord
from model.exact import Neighbors
from model.features import PinContent
from model.live_graph import LiveGraph
from model.release import Release
from service.delta import GONE, IN_RELEASE, Delta, DeltaShape, Entry
from service.directory import Directory
from service.embedder import Embedder, Made
from service.facets import Facets, Filter
from service.failures import DeltaFull, InvalidContent
from service.search import NO_FILTER, NOBODY, Searcher
from service.views import Item, PinContentIn

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Applied:
    """What a change did: the row it was about, whether the pin is new, seconds by step."""

    row: int
    created: bool = False
    timings: dict[str, float] = field(default_factory=dict)


class Catalogue:
    """Every pin that may be recommended; see the top of the file for how it changes."""

    def __init__(self, release: Release, *, max_live_pins: int) -> None:
        self.release = release
        self.num_base = release.manifest.num_pins
        self.max_live_pins = max_live_pins
        self.graph = LiveGraph(release.graph)
        self.facets = Facets(release.pins)
        self.directory = Directory(release.pins, release.pin_ids, release.board_ids)
        config = release.network.config
        widths = (config.embed_dim, config.hidden_dim, config.num_layers, config.num_features)
        self.delta = Delta(self.num_base, DeltaShape(*widths, release.walks.num_neighbors))
        self.embedder = Embedder(self)
        self._writing = threading.Lock()

    # --- reading ---

    def row(self, pin_id: str) -> int:
        """The row of a pin, -1 where there is none or it was deleted."""
        row = self.directory.pins.row(pin_id)
        return row if row >= 0 and self.delta.slot_of(row) != GONE else -1

    def rows(self, pin_ids: Sequence[str]) -> Ints:
        """The rows of those of the pins that exist, in their order."""
        found = (self.row(pin_id) for pin_id in pin_ids)
        return np.fromiter((row for row in found if row >= 0), np.int64)

    def vectors(self, rows_N: Ints) -> Floats:
        """(N, D) unit vectors; zeros for a live pin that is gone."""
        delta = self.delta
        slots_N = delta.slots_of(rows_N)
        live_N, base_N = slots_N >= 0, (slots_N < 0) & (rows_N < self.num_base)
        vectors_ND = np.zeros((len(rows_N), delta.shape.embed_dim), np.float32)
        vectors_ND[base_N] = self.release.embeddings_PD[rows_N[base_N]]
        vectors_ND[live_N] = delta.vectors(slots_N[live_N])
        return vectors_ND

    def search(self, queries_QD: Floats, k: int, *, exclude: Ints = NOBODY, wanted: Filter = NO_FILTER) -> Neighbors:
        """The k nearest pins of each query; see `Searcher.search`."""
        searcher = Searcher(self.release.index, self.release.embeddings_PD, self.delta.view(), self.facets)
        return searcher.search(queries_QD, k, exclude=exclude, wanted=wanted)

    def neighbors(self, row: int) -> tuple[Ints, Floats]:
        """The pins that a pin's vector is pooled from, and their weights, heaviest first.

        For a pin of the release whose boards never changed they are drawn anew from the live graph.
        """
        delta = self.delta
        slot = delta.slot_of(row)
        ids_T, weights_T = delta.neighbors(slot) if slot >= 0 else self.embedder.walk(row)
        known_T = delta.view().exists(ids_T)
        return ids_T[known_T], weights_T[known_T]

    def preview(self, content: PinContentIn) -> Floats:
        """The unit vector (D,) that a pin of this content would get; nothing is stored. Raises InvalidContent."""
        self._check_visual(content.visual)
        boards = [row for row in map(self.directory.boards.row, content.boards) if row >= 0]
        return self.embedder.preview(_content(content, boards), boards)

    def item(self, row: int, score: float, reason: str, source: int = -1) -> Item:
        """A pin as an item of a list; `source` is the row of the pin that it is there for."""
        name, value = self.directory.pins.name, self.directory.value
        because = name(source) if source >= 0 else None
        return Item(name(row), float(score), value(row, "title"), value(row, "image_url"), reason, because)

    def describe(self, row: int) -> dict[str, Any]:
        """All that clients may see of a pin."""
        boards = [self.directory.boards.name(board) for board in self.graph.boards_of(row).tolist()]
        return {**self.directory.describe(row), "boards": boards}

    def num_live_pins(self) -> int:
        """Pins that were put and are not in the release."""
        view = self.delta.view()
        return int(np.count_nonzero(view.alive() & (view.rows_S >= self.num_base)))

    def is_on(self, pin_id: str, board_id: str) -> bool:
        """Whether a pin is on a board."""
        row, board = self.row(pin_id), self.directory.boards.row(board_id)
        return row >= 0 and board >= 0 and board in self.graph.boards_of(row)

    # --- writing ---

    def check(self, record: PinRecord) -> None:
        """Whether `apply` would take this record. Raises InvalidContent or DeltaFull."""
        self._check_visual(record.visual)
        row = self.row(record.pin_id)
        in_delta = row >= 0 and self.delta.slot_of(row) >= 0
        if not in_delta and self.is_full():
            raise DeltaFull(f"{self.delta.num_alive} live pins is the most that are held; reindex to make room")

    def is_full(self) -> bool:
        """Whether there is no room for one more live pin."""
        return self.delta.num_alive >= self.max_live_pins

    def apply(self, record: Change) -> Applied | None:
        """Take in a change that is in the change log; None where it has no effect.

        Raises ValueError when no vector can be made from the record; the catalogue is then as before.
        """
        with self._writing:
            if isinstance(record, EdgeRecord):
                return self._apply_edge(record)
            if record.deleted:
                return self._delete(record.pin_id)
            return self._put(record)

    def _put(self, record: PinRecord) -> Applied:
        started = time.perf_counter()
        boards = [self._board(board_id) for board_id in dict.fromkeys(record.boards)]
        x_F = self.release.encoder.encode([_content(record, boards)])[0]
        before_F = self._features(self.directory.pins.row(record.pin_id))
        if before_F is not None:
            self.release.encoder.keep_asked(x_F, before_F)
        encoded = time.perf_counter()
        created = self.row(record.pin_id) < 0
        row = self._pin(record.pin_id)
        before = self.graph.boards_of(row)
        try:
            self._set_boards(row, boards)
            made = self.embedder.embed(row, x_F)
        except BaseException:
            self._set_boards(row, before.tolist())
            raise
        self.directory.keep(row, record)
        self._store(row, made, x_F)
        return Applied(row, created, {"encode": encoded - started, **made.timings})

    def _apply_edge(self, record: EdgeRecord) -> Applied | None:
        row = self.row(record.pin_id)
        if row < 0 or (not record.present and self.directory.boards.row(record.board_id) < 0):
            return None
        change = self.graph.add_edge if record.present else self.graph.remove_edge
        if not change(row, self._board(record.board_id)):
            return None
        before_F = self._features(row)
        if before_F is None or (self.delta.slot_of(row) == IN_RELEASE and self.is_full()):
            return Applied(row)
        x_F = self.release.encoder.with_graph(before_F, self.graph.boards_of(row))
        made = self.embedder.embed(row, x_F)
        self._store(row, made, x_F)
        return Applied(row, timings=made.timings)

    def _delete(self, pin_id: str) -> Applied | None:
        row = self.row(pin_id)
        if row < 0:
            return None
        self.delta.drop(row)
        self.graph.remove_pin(row)
        self.directory.forget(row)
        return Applied(row)

    def _store(self, row: int, made: Made, x_F: Floats) -> None:
        facets = self.facets.codes(self.directory.value(row, "category"), self.directory.value(row, "language"))
        self.delta.put(row, Entry(made.vector_D, made.messages_KM, x_F, made.ids_T, made.weights_T, *facets))
        if self.delta.is_wasteful():
            self.delta = self.delta.compacted()

    def _features(self, row: int) -> Floats | None:
        """The last known input of a pin, (F,); None for one that is new."""
        slot = self.delta.slot_of(row) if row >= 0 else GONE
        if slot >= 0:
            return self.delta.features(slot)
        return np.asarray(self.release.features_PF[row], np.float32) if 0 <= row < self.num_base else None

    def _pin(self, pin_id: str) -> int:
        """The row of a pin, deleted or not; a new row where nobody had this id."""
        row = self.directory.pins.row(pin_id)
        if row < 0:
            row = self.graph.add_pin()
            self.directory.pins.add(pin_id, self.delta.add_row())
        return row

    def _board(self, board_id: str) -> int:
        """The row of a board; a new one where nobody had this id."""
        row = self.directory.boards.row(board_id)
        if row < 0:
            row = self.graph.add_board()
            self.directory.boards.add(board_id, row)
        return row

    def _set_boards(self, row: int, boards: Sequence[int]) -> None:
        before = set(self.graph.boards_of(row).tolist())
        for board in before.difference(boards):
            self.graph.remove_edge(row, board)
        for board in set(boards).difference(before):
            self.graph.add_edge(row, board)

    def _check_visual(self, visual: Sequence[float] | None) -> None:
        if visual is None:
            return
        dim = self.release.encoder.visual_dim
        if dim is None:
            raise InvalidContent("visual", "the release has no visual features")
        if len(visual) != dim:
            raise InvalidContent("visual", f"{len(visual)} numbers, the release wants {dim}")
        # The encoder computes in single precision.
        if not all(math.isfinite(x) and abs(x) < 1e30 for x in visual):
            raise InvalidContent("visual", "a number is not finite or too large")


def _content(given: PinRecord | PinContentIn, boards: Sequence[int]) -> PinContent:
    visual_V = None if given.visual is None else np.array(given.visual, np.float32)
    return PinContent(given.title, given.annotations, given.description, visual_V, boards)
