"""All pins as they are now: one immutable release and what changed since.

A row is a pin for as long as the catalogue lives; the release's pins have rows 0 … P-1, live ones follow. A pin that is
replaced, or whose boards change, is embedded again into a new slot of the delta (delta.py) under its old row; the
graph (model.live_graph) is changed in place (wave.py). One writer at a time, behind a lock; readers take none. A
compaction (compaction.py) puts another delta in the place of one with many slots.

Memory is bounded: new pins above `max_live_pins`, and whatever adds to more than `max_live_bytes`, are refused by the
checks that come before a write, until a reindex makes room. What is in the change log is taken in all the same; above
`max_live_pins` changed boards still change the graph, but a pin of the release keeps its vector.

Shape letters: D embedding, F features, N rows asked for, Q queries, T neighbours.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model.changes import Change, PinRecord
from model.exact import Neighbors
from model.live_graph import LiveGraph
from model.related_lists import Listed
from model.release import Release
from service.live.compaction import Compaction
from service.live.delta import GONE, IN_RELEASE, Delta, DeltaShape
from service.live.directory import Directory
from service.live.embedder import Embedder
from service.live.facets import Facets, Filter
from service.live.failures import DeltaFull, InvalidContent
from service.live.search import NO_FILTER, NOBODY, Searcher
from service.live.views import Item, PinContentIn
from service.live.wave import Applied, OnFault, Wave, content_of

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float32]

MAX_LIVE_BYTES = 2**31


class Catalogue:
    """Every pin that may be recommended; see the top of the file for how it changes."""

    def __init__(self, release: Release, *, max_live_pins: int, max_live_bytes: int = MAX_LIVE_BYTES) -> None:
        self.release = release
        self.num_base = release.manifest.num_pins
        self.max_live_pins, self.max_live_bytes = max_live_pins, max_live_bytes
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
        if len(rows_N) == 1 and slots_N[0] == IN_RELEASE and rows_N[0] < self.num_base:
            return np.asarray(self.release.embeddings_PD[rows_N], np.float32)
        live_N, base_N = slots_N >= 0, (slots_N < 0) & (rows_N < self.num_base)
        vectors_ND = np.zeros((len(rows_N), delta.shape.embed_dim), np.float32)
        vectors_ND[base_N] = self.release.embeddings_PD[rows_N[base_N]]
        vectors_ND[live_N] = delta.vectors(slots_N[live_N])
        return vectors_ND

    def search(
        self,
        queries_QD: Floats,
        k: int,
        *,
        exclude: Ints = NOBODY,
        wanted: Filter = NO_FILTER,
        listed: Neighbors | None = None,
    ) -> Neighbors:
        """The k nearest pins of each query; see `Searcher.search`."""
        searcher = Searcher(self.release.index, self.release.embeddings_PD, self.delta.view(), self.facets)
        return searcher.search(queries_QD, k, exclude=exclude, wanted=wanted, listed=listed)

    def listed(self, row: int) -> Listed | None:
        """What was found beforehand for a pin that has the release's vector; None where nothing was."""
        lists = self.release.related_lists
        is_new = lists is None or row >= self.num_base or self.delta.slot_of(row) != IN_RELEASE
        return None if lists is None or is_new else lists.of(row)

    def neighbors(self, row: int) -> tuple[Ints, Floats]:
        """The pins that a pin's vector is pooled from, and their weights, heaviest first.

        For a pin of the release whose boards never changed they are drawn anew from the live graph.
        """
        delta = self.delta
        slot = delta.slot_of(row)
        ids_T, weights_T = delta.neighbors(slot) if slot >= 0 else self.embedder.visits(row)
        known_T = delta.view().exists(ids_T)
        return ids_T[known_T], weights_T[known_T]

    def preview(self, content: PinContentIn) -> Floats:
        """The unit vector (D,) that a pin of this content would get; nothing is stored. Raises InvalidContent."""
        self._check_visual(content.visual)
        boards = [row for row in map(self.directory.boards.row, content.boards) if row >= 0]
        return self.embedder.preview(content_of(content, boards), boards)

    def item(self, row: int, score: float, reason: str, source: int = -1) -> Item:
        """A pin as an item of a list; `source` is the row of the pin that it is there for."""
        pin_id, title, image_url = self.directory.card(row)
        because = self.directory.pins.name(source) if source >= 0 else None
        return Item(pin_id, float(score), title, image_url, reason, because)

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
        self.check_memory()

    def check_memory(self) -> None:
        """Whether anything may be added. Raises DeltaFull."""
        if self.num_live_bytes >= self.max_live_bytes:
            raise DeltaFull(f"{self.num_live_bytes:,} bytes came since the release; reindex to make room")

    def is_full(self) -> bool:
        """Whether there is no room for one more live pin."""
        return self.delta.num_alive >= self.max_live_pins

    @property
    def num_live_bytes(self) -> int:
        """About how many bytes what came since the release takes; while it is compacted, up to twice as many."""
        return self.delta.num_bytes + self.graph.num_used_bytes + self.directory.num_bytes

    @property
    def fill(self) -> float:
        """The share of the room that is taken; from 1 on, new pins are refused."""
        return max(self.delta.num_alive / self.max_live_pins, self.num_live_bytes / self.max_live_bytes)

    def apply(self, record: Change) -> Applied | None:
        """Take in a change that is in the change log; None where it has no effect.

        Raises ValueError when no vector can be made from the record; the catalogue is then as before.
        """
        faults: list[ValueError] = []
        with self._writing:
            wave = Wave(self, lambda _, error: faults.append(error))
            applied = wave.add(record)
            wave.go()
        if faults:
            raise faults[0]
        return applied

    def apply_all(self, records: Sequence[Change], on_fault: OnFault) -> None:
        """Take in many changes, in their order, faster than one by one.

        `on_fault` is told of those from which no vector can be made; they are left out.
        """
        with self._writing:
            wave = Wave(self, on_fault)
            for record in records:
                wave.add(record)
            wave.go()

    def facets_of(self, row: int) -> tuple[int, int]:
        """The codes of a pin's category and language."""
        return self.facets.codes(self.directory.value(row, "category"), self.directory.value(row, "language"))

    def compact(self, check: Callable[[], None] = lambda: None) -> bool:
        """Make the delta anew, beside reads and writes but not beside itself; False where `squeeze` came first.

        `check` is called now and then, and may raise to stop it.
        """
        work = Compaction(self.delta, self.release.index.params, check)
        with self._writing:
            if self.delta is not work.old:
                return False
            self.delta = work.finish()
            return True

    def squeeze(self) -> None:
        """Let go of dead slots at once when they are too many; for the writer."""
        if self.delta.is_wasteful():
            self.delta = Compaction(self.delta, None).finish()

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
