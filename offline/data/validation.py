"""Validates a data set: every fault of every file at once, each with its file, row and column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from offline.data.dataset import FEATURES
from offline.data.faults import MESSAGE, ROW, Fault, FaultLog
from offline.data.table_readers import read_batches
from offline.data.tables import Table, find_tables
from offline.data.validation_rules import (
    check_ids,
    check_known,
    check_leak,
    check_matrix,
    check_members,
    check_pairs,
    check_texts,
    check_timestamps,
    check_unique,
    check_vectors,
)

EDGE_ROWS = 1 << 22  # edges are looked up among all pins a batch at a time, so batches are large


def validate_dataset(path: Path | str) -> list[Fault]:
    """All faults of the data set in a folder; of each kind at most 100, then a count of the rest. Empty = sound.

    Looks at types, ids, repeated and unknown ids, times, vectors, and at leaks from the test splits into training.
    """
    folder, log = Path(path), FaultLog()
    if not folder.is_dir():
        return [Fault(str(folder), None, None, "wanted the folder of a data set, found no folder")]
    _Validator(folder, find_tables(folder, log), log).run()
    return log.faults()


@dataclass
class _Validator:
    """One pass over each table. `pins` and `cold` are None until read, and stay so where that is not possible."""

    folder: Path
    tables: dict[str, Table]
    log: FaultLog
    pins: pl.DataFrame | None = None
    cold: pl.DataFrame | None = None
    num_pins: int = 0
    splits: dict[str, pl.DataFrame] = field(default_factory=dict)

    def run(self) -> None:
        self._pins()
        self._features()
        self._boards()
        self._cold_pins()
        self._edges("edges")
        self._edges("coldstart_edges")
        self._edges("held_out_edges")
        self._engagements()
        self._users()
        for split in ("train", "valid", "test", "coldstart"):
            self._pairs(split)

    def _batches(self, name: str) -> Iterator[tuple[str, pl.DataFrame]]:
        if name not in self.tables:
            return
        table = self.tables[name]
        size = EDGE_ROWS if name.endswith("edges") else 1 << 18
        for batch in read_batches(table, self.log, size=size):
            yield table.file, batch

    def _pins(self) -> None:
        ids, dim, has_vectors, file = [], None, False, ""
        for file, batch in self._batches("pins"):
            check_ids(batch, "pin_id", file, self.log)
            check_timestamps(batch, "created_at", file, self.log)
            check_texts(batch, "annotations", file, self.log)
            dim = check_vectors(batch, "visual", dim, file, self.log)
            has_vectors = has_vectors or dim is not None
            ids.append(batch.select(ROW, "pin_id"))
        if not ids:
            self._wants_rows("pins")
            return
        pins = pl.concat(ids)
        check_unique(pins, "pin_id", file, self.log)
        self.num_pins = int(pins[ROW].max())  # type: ignore[arg-type]
        self.pins = pins.select(pl.col("pin_id").drop_nulls().unique())
        if has_vectors and (self.folder / FEATURES).exists():
            message = f"visual vectors are there twice, here and in {FEATURES}: keep one"
            self.log.add(Fault(file, None, "visual", message))

    def _wants_rows(self, name: str) -> None:
        """A table without a row is a fault, unless it could not be read, which is one already."""
        if name in self.tables and not self.log.has(self.tables[name].file):
            self.log.add(Fault(self.tables[name].file, None, None, f"empty graph: wanted {name}, found no row"))

    def _features(self) -> None:
        path = self.folder / FEATURES
        if not path.exists():
            return
        try:
            vectors: np.ndarray = np.load(path, mmap_mode="r")
        except (ValueError, OSError, EOFError) as error:
            self.log.add(Fault(FEATURES, None, None, f"not a readable array: {error}"))
            return
        if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.size:
            found = f"{vectors.dtype} of shape {vectors.shape}"
            self.log.add(Fault(FEATURES, None, None, f"wanted real numbers of shape (pins, V), found {found}"))
            return
        if self.pins is not None and len(vectors) != self.num_pins:
            message = f"wanted a row for each of {self.num_pins:,} pins, found {len(vectors):,} rows"
            self.log.add(Fault(FEATURES, None, None, message))
        check_matrix(vectors, FEATURES, self.log)

    def _boards(self) -> None:
        ids = []
        for file, batch in self._batches("boards"):
            check_ids(batch, "board_id", file, self.log)
            ids.append(batch.select(ROW, "board_id"))
        if ids:
            check_unique(pl.concat(ids), "board_id", self.tables["boards"].file, self.log)

    def _cold_pins(self) -> None:
        ids = []
        for file, batch in self._batches("coldstart_pins"):
            check_ids(batch, "pin_id", file, self.log)
            check_known(batch, "pin_id", self.pins, file, self.log)
            ids.append(batch)
        if ids:
            cold = pl.concat(ids)
            check_unique(cold, "pin_id", self.tables["coldstart_pins"].file, self.log)
            self.cold = cold.select(pl.col("pin_id").drop_nulls().unique())

    def _edges(self, name: str) -> None:
        empty = True
        for file, batch in self._batches(name):
            empty = False
            check_ids(batch, "pin_id", file, self.log)
            check_ids(batch, "board_id", file, self.log)
            if name != "held_out_edges":
                check_timestamps(batch, "timestamp", file, self.log)
            check_known(batch, "pin_id", self.pins, file, self.log)
            if self.cold is not None and name != "coldstart_edges":
                wrong = "is a coldstart pin: its edges belong into coldstart_edges (leak)"
                check_members(batch, "pin_id", self.cold, wrong, file, self.log, inside=True)
            elif self.cold is not None:
                check_members(batch, "pin_id", self.cold, "is not in coldstart_pins", file, self.log, inside=False)
        if empty and name == "edges":
            self._wants_rows(name)

    def _engagements(self) -> None:
        for file, batch in self._batches("engagements"):
            check_ids(batch, "user_id", file, self.log)
            check_ids(batch, "pin_id", file, self.log)
            check_known(batch, "pin_id", self.pins, file, self.log)
            check_timestamps(batch, "timestamp", file, self.log, required=True)

    def _users(self) -> None:
        ids = []
        for file, batch in self._batches("users_test"):
            check_ids(batch, "user_id", file, self.log)
            for column in ("history", "held_out"):
                check_texts(batch, column, file, self.log)
                members = batch.select(ROW, column).filter(pl.col(column).list.len() > 0).explode(column)
                check_known(members, column, self.pins, file, self.log)
            seen = pl.col("held_out").list.set_intersection("history").list.len() > 0
            leaked = batch.filter(seen.fill_null(value=False))
            message = pl.lit("a held-out pin is also in the history (leak)").alias(MESSAGE)
            self.log.add_rows(file, "held_out", "leak", leaked.with_columns(message))
            ids.append(batch.select(ROW, "user_id"))
        if ids:
            check_unique(pl.concat(ids), "user_id", self.tables["users_test"].file, self.log)

    def _pairs(self, split: str) -> None:
        name = f"pairs_{split}"
        batches = [batch for _, batch in self._batches(name)]
        if not batches:
            return
        pairs, file = pl.concat(batches), self.tables[name].file
        for column in ("query_pin_id", "related_pin_id"):
            check_ids(pairs, column, file, self.log)
            check_known(pairs, column, self.pins, file, self.log)
            if split != "coldstart" and self.cold is not None:
                wrong = "is a coldstart pin: its pairs belong into pairs_coldstart (leak)"
                check_members(pairs, column, self.cold, wrong, file, self.log, inside=True)
        check_pairs(pairs, file, self.log)
        for earlier, earlier_pairs in self.splits.items():
            check_leak(pairs, earlier_pairs, self.tables[earlier].file, file, self.log)
        if split != "coldstart":
            self.splits[name] = pairs
