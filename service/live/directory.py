"""Who is who: ids of pins and boards, and what clients may see of a pin.

The release's columns are memory-mapped Arrow, read value by value: taking several rows of a column in many chunks at
once copies the whole column (45 ms for 3 million titles, against 0.1 ms).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import pyarrow as pa

from model.changes import PinRecord
from model.ids import IdTable

NAME_BYTES = 200  # of an id in a list and a dict, beside its letters
RECORD_BYTES = 1_000  # of a record, beside its texts
CARDS = 50_000  # of the release's pins, whose ids and texts are kept for the next list: some 30 MB
TEXTS = ("title", "description", "image_url", "category", "language", "created_at")

Card = tuple[str, str | None, str | None]


class Names:
    """Ids and rows: those of the release by its table, later ones by a dict. One writer, many readers."""

    def __init__(self, base: IdTable) -> None:
        self._base = base
        self._base_name = lru_cache(CARDS)(base.id_of)
        self._num_base = len(base)
        self._rows: dict[str, int] = {}
        self._ids: list[str] = []
        self.num_bytes = 0

    def row(self, name: str) -> int:
        """The row of an id, -1 where nobody has it."""
        row = self._rows.get(name)
        return self._base.lookup(name) if row is None else row

    def name(self, row: int) -> str:
        """The id of a row."""
        return self._base_name(row) if row < self._num_base else self._ids[row - self._num_base]

    def add(self, name: str, row: int) -> None:
        """Name the next row."""
        assert row == self._num_base + len(self._ids), "rows are named in their order"
        self._ids.append(name)
        self._rows[name] = row
        self.num_bytes += NAME_BYTES + len(name)


class Directory:
    """Ids, texts and pictures of all pins; of a pin that was put the record, else the release's row."""

    def __init__(self, pins: pa.Table, pin_ids: IdTable, board_ids: IdTable) -> None:
        self.pins = Names(pin_ids)
        self.boards = Names(board_ids)
        self.num_base = len(pin_ids)
        # Kept apart: finding a column in a table by its name takes longer than reading a value of it.
        self._columns = {name: pins[name] for name in (*TEXTS, "annotations")}
        # A few pins are in most lists. Not a method of ours, which would keep us in memory after the next release came.
        self._base_card = lru_cache(CARDS)(partial(_read_card, self.pins, self._columns))
        self._records: dict[int, PinRecord] = {}
        self._record_bytes = 0

    @property
    def num_bytes(self) -> int:
        """About how many bytes the ids and records take that came since the release."""
        return self._record_bytes + self.pins.num_bytes + self.boards.num_bytes

    def keep(self, row: int, record: PinRecord) -> None:
        """From now on this is what is known of the pin."""
        self.forget(row)
        # Nobody asks for these again: what was made of the visual vector lies in the delta, the boards in the graph.
        record = replace(record, visual=None, boards=())
        self._records[row] = record
        self._record_bytes += _num_bytes(record)

    def forget(self, row: int) -> None:
        """The pin was deleted."""
        record = self._records.pop(row, None)
        if record is not None:
            self._record_bytes -= _num_bytes(record)

    def value(self, row: int, column: str) -> Any:
        """One of TEXTS of a pin; None where it has none."""
        record = self._records.get(row)
        if record is not None:
            return getattr(record, column)
        return self._columns[column][row].as_py() if row < self.num_base else None

    def card(self, row: int) -> Card:
        """What a list shows of a pin: id, title, picture."""
        if row >= self.num_base or row in self._records:
            return self.pins.name(row), self.value(row, "title"), self.value(row, "image_url")
        return self._base_card(row)

    def annotations(self, row: int) -> list[str]:
        """The tags of a pin."""
        record = self._records.get(row)
        if record is not None:
            return list(record.annotations)
        return (self._columns["annotations"][row].as_py() or []) if row < self.num_base else []

    def describe(self, row: int) -> dict[str, Any]:
        """All that clients may see of a pin but its boards."""
        texts = {column: self.value(row, column) for column in TEXTS}
        return {"pin_id": self.pins.name(row), **texts, "annotations": self.annotations(row)}

    def records(self) -> list[tuple[int, PinRecord]]:
        """Row and record of all pins that were put, in the order in which they were first put."""
        return list(self._records.items())


def _read_card(pins: Names, columns: Mapping[str, Any], row: int) -> Card:
    return pins.name(row), columns["title"][row].as_py(), columns["image_url"][row].as_py()


def _num_bytes(record: PinRecord) -> int:
    texts = (record.title, record.description, record.image_url, record.category, record.language)
    return RECORD_BYTES + sum(map(sys.getsizeof, (*texts, *record.annotations)))
