"""Writes data set folders: aside first and renamed when whole, so that no half data set is ever seen."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import UserError
from offline.data.table_values import ARROW_TYPES
from offline.data.tables import COLUMNS


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that is renamed to `out` when the block ends well, and removed when it does not.

    Raises UserError where `out` is there already and is not an empty folder.
    """
    _check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.parent / f".{out.name}.{os.getpid()}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        _check_free(out)
        aside.replace(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already; name a new folder, or remove it first")


def arrow_schema(name: str, columns: tuple[str, ...] | None = None) -> pa.Schema:
    """The Arrow schema of a table, of all its columns or of those named."""
    fields = [(column.name, ARROW_TYPES[column.kind]) for column in COLUMNS[name] if column.name != "visual"]
    return pa.schema([field for field in fields if columns is None or field[0] in columns])


class TableWriters:
    """Parquet files of one folder, each opened at its first batch and written as batches come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, pq.ParquetWriter] = {}
        self._open = ExitStack()
        self.num_rows: dict[str, int] = {}

    def __enter__(self) -> TableWriters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def write(self, name: str, batch: pa.Table) -> None:
        """Append a batch; all batches of a table have the schema of its first."""
        if name not in self._files:
            path = self._folder / f"{name}.parquet"
            writer = pq.ParquetWriter(path, batch.schema, compression="zstd")
            self._files[name] = self._open.enter_context(writer)
            self.num_rows[name] = 0
        self._files[name].write_table(batch)
        self.num_rows[name] += batch.num_rows


def write_tables(folder: Path, tables: dict[str, pl.DataFrame]) -> None:
    """Write each frame as one table of the data set, its columns in the table's order; those not given are null."""
    for name, frame in tables.items():
        schema = arrow_schema(name)
        given = {field.name: frame[field.name].to_arrow().cast(field.type) for field in schema if field.name in frame}
        columns = [given.get(field.name, pa.nulls(frame.height, field.type)) for field in schema]
        pq.write_table(pa.table(columns, schema=schema), folder / f"{name}.parquet", compression="zstd")


@dataclass(frozen=True)
class ImportSummary:
    """What an importer wrote."""

    num_pins: int
    num_boards: int
    num_edges: int
    num_pairs: int = 0
    num_users_test: int = 0
    num_coldstart_pins: int = 0

    def __str__(self) -> str:
        parts = [
            (self.num_pins, "pins"),
            (self.num_boards, "boards"),
            (self.num_edges, "edges"),
            (self.num_pairs, "pairs"),
            (self.num_users_test, "test users"),
            (self.num_coldstart_pins, "cold pins"),
        ]
        return ", ".join(f"{count:,} {what}" for count, what in parts if count)


def summarise(tables: dict[str, pl.DataFrame]) -> ImportSummary:
    """Counts of tables that are in memory."""

    def height(name: str) -> int:
        return tables[name].height if name in tables else 0

    return ImportSummary(
        num_pins=height("pins"),
        num_boards=height("boards"),
        num_edges=height("edges"),
        num_pairs=sum(height(f"pairs_{split}") for split in ("train", "valid", "test", "coldstart")),
        num_users_test=height("users_test"),
        num_coldstart_pins=height("coldstart_pins"),
    )
