"""How changes get into a catalogue: the graph at once, the vectors in waves.

One pin's vector costs a few products of a matrix with one row, and those cost hardly less than with fifty. So when a
log is read, pins wait for each other and are embedded together. What comes out is what one after the other gives: a
change that needs the vector of a pin that waits, or takes a pin away, lets the wave go first.

Shape letters: B pins of a wave, D embedding, F features, K layers, M message width, T neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from model.changes import Change, EdgeRecord, PinRecord
from model.features import PinContent
from service.live.delta import GONE, IN_RELEASE, Entry
from service.live.views import PinContentIn

if TYPE_CHECKING:
    from service.live.catalogue import Catalogue

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float32]
OnFault = Callable[[Change, ValueError], None]

MAX_WAVE = 64


@dataclass(frozen=True)
class Applied:
    """What a change did: the row it was about, whether the pin is new, seconds by step once its wave has gone."""

    row: int
    created: bool = False
    timings: dict[str, float] = field(default_factory=dict)


@dataclass
class Waiting:
    """A pin that waits for its vector: what it is made from, and the boards to go back to when it cannot be made.

    known_F is the last input of a pin; with `content` a new input is made and only part of the last one kept.
    """

    record: Change
    applied: Applied
    boards: list[int]
    boards_before: list[int]
    content: PinContent | None
    known_F: Floats | None
    around: tuple[Ints, Floats]


class Wave:
    """Takes changes into a catalogue; whoever holds the catalogue's lock calls `add`, and `go` at the end.

    `on_fault` is told of a change from which no vector can be made; the catalogue is as before it then.
    """

    def __init__(self, catalogue: Catalogue, on_fault: OnFault) -> None:
        self._catalogue, self._on_fault = catalogue, on_fault
        self._waiting: dict[int, Waiting] = {}

    def add(self, record: Change) -> Applied | None:
        """Take in a change; None where it has no effect."""
        row = self._catalogue.directory.pins.row(record.pin_id)
        deletes = isinstance(record, PinRecord) and record.deleted
        if deletes or row in self._waiting or len(self._waiting) == MAX_WAVE:
            self.go()
        if isinstance(record, EdgeRecord):
            return self._add_edge(record, row)
        return self._delete(row) if deletes else self._add_pin(record)

    def go(self) -> None:
        """Embed the pins that wait."""
        wave, self._waiting = list(self._waiting.values()), {}
        try:
            self._embed(wave)
        except ValueError as error:
            if len(wave) > 1:  # one of them is to blame
                for each in wave:
                    self._waiting = {each.applied.row: each}
                    self.go()
                return
            [bad] = wave
            self._set_boards(bad.applied.row, bad.boards_before)
            self._on_fault(bad.record, error)

    def _add_pin(self, record: PinRecord) -> Applied:
        catalogue = self._catalogue
        boards = [self._board(board_id) for board_id in dict.fromkeys(record.boards)]
        created = catalogue.row(record.pin_id) < 0
        row = self._pin(record.pin_id)
        before = catalogue.graph.boards_of(row).tolist()
        self._set_boards(row, boards)
        applied = Applied(row, created)
        self._wait(record, applied, boards, before, content_of(record, boards))
        return applied

    def _add_edge(self, record: EdgeRecord, row: int) -> Applied | None:
        catalogue = self._catalogue
        exists = row >= 0 and catalogue.delta.slot_of(row) != GONE
        if not exists or (not record.present and catalogue.directory.boards.row(record.board_id) < 0):
            return None
        before = catalogue.graph.boards_of(row).tolist()
        change = catalogue.graph.add_edge if record.present else catalogue.graph.remove_edge
        if not change(row, self._board(record.board_id)):
            return None
        applied = Applied(row)
        if catalogue.delta.slot_of(row) != IN_RELEASE or not catalogue.is_full():
            self._wait(record, applied, catalogue.graph.boards_of(row).tolist(), before, None)
        return applied

    def _delete(self, row: int) -> Applied | None:
        if row < 0 or self._catalogue.delta.slot_of(row) == GONE:
            return None
        self._catalogue.delta.drop(row)
        self._catalogue.graph.remove_pin(row)
        self._catalogue.directory.forget(row)
        return Applied(row)

    def _wait(
        self, record: Change, applied: Applied, boards: list[int], before: list[int], content: PinContent | None
    ) -> None:
        """Find the pin's neighbours and let it wait for its vector."""
        started = time.perf_counter()
        embedder, row = self._catalogue.embedder, applied.row
        visits = embedder.visits(row)
        if not self._waiting.keys().isdisjoint(visits[0].tolist()):
            self.go()
        waiting = Waiting(record, applied, boards, before, content, self._features(row), embedder.existing(*visits))
        if not (waiting.around[1] > 0).any():
            self.go()
            waiting.around = embedder.nearest_by_content(self._inputs([waiting])[0], np.array([row]))
        applied.timings["walk"] = time.perf_counter() - started
        self._waiting[row] = waiting

    def _embed(self, wave: Sequence[Waiting]) -> None:
        if not wave:
            return
        started = time.perf_counter()
        x_BF = self._inputs(wave)
        encoded = time.perf_counter()
        ids_BT, weights_BT = (np.stack(parts) for parts in zip(*(each.around for each in wave), strict=True))
        vectors_BD, messages_BKM = self._catalogue.embedder.forward(x_BF, ids_BT, weights_BT)
        done = time.perf_counter()
        for each, x_F, vector_D, messages_KM in zip(wave, x_BF, vectors_BD, messages_BKM, strict=True):
            each.applied.timings.update(encode=encoded - started, embed=done - encoded)
            row = each.applied.row
            if isinstance(each.record, PinRecord):
                self._catalogue.directory.keep(row, each.record)
            vector_D = self._catalogue.embedder.unit(row, vector_D)
            facets = self._catalogue.facets_of(row)
            self._catalogue.delta.put(row, Entry(vector_D, messages_KM, x_F, *each.around, *facets))
        self._catalogue.squeeze()

    def _inputs(self, wave: Sequence[Waiting]) -> Floats:
        """(B, F) inputs of the network."""
        encoder = self._catalogue.release.encoder
        new = [each for each in wave if each.content is not None]
        encoded = iter(encoder.encode([each.content for each in new if each.content is not None]))
        x_BF = np.empty((len(wave), encoder.num_features), np.float32)
        for b, each in enumerate(wave):
            if each.content is not None:
                x_BF[b] = next(encoded)
                if each.known_F is not None:
                    encoder.keep_asked(x_BF[b], each.known_F)
            elif each.known_F is not None:
                x_BF[b] = encoder.with_graph(each.known_F, each.boards)
        return x_BF

    def _features(self, row: int) -> Floats | None:
        """The last known input of a pin, (F,); None for one that is new."""
        slot = self._catalogue.delta.slot_of(row)
        if slot >= 0:
            return self._catalogue.delta.features(slot)
        in_release = row < self._catalogue.num_base
        return np.asarray(self._catalogue.release.features_PF[row], np.float32) if in_release else None

    def _pin(self, pin_id: str) -> int:
        """The row of a pin, deleted or not; a new row where nobody had this id."""
        catalogue = self._catalogue
        row = catalogue.directory.pins.row(pin_id)
        if row < 0:
            row = catalogue.graph.add_pin()
            catalogue.directory.pins.add(pin_id, catalogue.delta.add_row())
        return row

    def _board(self, board_id: str) -> int:
        """The row of a board; a new one where nobody had this id."""
        catalogue = self._catalogue
        row = catalogue.directory.boards.row(board_id)
        if row < 0:
            row = catalogue.graph.add_board()
            catalogue.directory.boards.add(board_id, row)
        return row

    def _set_boards(self, row: int, boards: Sequence[int]) -> None:
        graph = self._catalogue.graph
        before = set(graph.boards_of(row).tolist())
        for board in before.difference(boards):
            graph.remove_edge(row, board)
        for board in set(boards).difference(before):
            graph.add_edge(row, board)


def content_of(given: PinRecord | PinContentIn, boards: Sequence[int]) -> PinContent:
    """What the encoder looks at; `boards` are rows."""
    visual_V = None if given.visual is None else np.array(given.visual, np.float32)
    return PinContent(given.title, given.annotations, given.description, visual_V, boards)
