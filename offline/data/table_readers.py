"""Reads a table as a stream of batches, from Parquet, CSV or JSON Lines: the same rows whatever the format.

Memory is bounded by a batch. Every batch carries the row numbers of its file in the column ROW. Whatever cannot be
read becomes a fault in the log that is passed in (which may raise), and the rest is read on.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from offline.data.faults import ROW, Fault, FaultLog
from offline.data.jsonl import jsonl_batches
from offline.data.table_values import cells_to_column, check_utf8, fits, strings_of
from offline.data.tables import POLARS_TYPES, WANTED, Column, Table, check_header

BATCH_ROWS = 1 << 20
CSV_BLOCK_BYTES = 1 << 24


def read_batches(
    table: Table, log: FaultLog, columns: Sequence[str] | None = None, *, size: int = BATCH_ROWS
) -> Iterator[pl.DataFrame]:
    """Stream a table as frames of at most `size` rows: ROW, then the columns asked for (all known ones by default).

    Columns that the file lacks are null. Unreadable rows are left out and reported to `log`.
    """
    wanted = [column for column in table.columns if columns is None or column.name in columns]
    reader = _READERS[table.format]
    for batch in reader(table, wanted, log, size):
        lacking = [
            pl.lit(None, dtype=POLARS_TYPES[column.kind]).alias(column.name)
            for column in wanted
            if column.name not in batch.columns
        ]
        frame = batch.with_columns(lacking).select(ROW, *(column.name for column in wanted))
        yield from frame.iter_slices(size)


def count_rows(table: Table, log: FaultLog) -> int:
    """Number of rows of a table; from the footer alone where the format has one."""
    if table.format == "parquet":
        file = _open_parquet(table, log)
        return int(file.metadata.num_rows) if file is not None else 0
    return sum(batch.height for batch in read_batches(table, log, [table.columns[0].name]))


def _parquet_batches(table: Table, wanted: Sequence[Column], log: FaultLog, size: int) -> Iterator[pl.DataFrame]:
    file = _open_parquet(table, log)
    if file is None or not check_header(table, file.schema_arrow.names, wanted, log):
        return
    present = _fitting(table, file.schema_arrow, wanted, log)
    if any(column.required and column not in present for column in wanted):
        return
    num_read = 0
    try:
        for batch in file.iter_batches(batch_size=size, columns=[column.name for column in present]):
            numbers = np.arange(num_read + 1, num_read + 1 + batch.num_rows)
            arrays = [check_utf8(batch.column(column.name), column, numbers, table.file, log) for column in present]
            yield _frame(arrays, present, numbers)
            num_read += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        log.add(Fault(table.file, None, None, f"damaged somewhere after row {num_read:,}: {_line(error)}"))


def _open_parquet(table: Table, log: FaultLog) -> pq.ParquetFile | None:
    try:
        return pq.ParquetFile(table.path, memory_map=True, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        log.add(Fault(table.file, None, None, f"not a readable Parquet file: {_line(error)}"))
        return None


def _fitting(table: Table, schema: pa.Schema, wanted: Sequence[Column], log: FaultLog) -> list[Column]:
    fitting = []
    for column in wanted:
        if column.name not in schema.names:
            continue
        found = schema.field(column.name).type
        if fits(column.kind, found):
            fitting.append(column)
        else:
            log.add(Fault(table.file, None, column.name, f"wanted {WANTED[column.kind]}, found {found}"))
    return fitting


def csv_batches(table: Table, wanted: Sequence[Column], log: FaultLog, size: int) -> Iterator[pl.DataFrame]:
    """Frames of ROW and the wanted columns that the file has; `size` is only a hint here: blocks are cut by bytes."""
    header = csv_header(table)
    if not header:
        log.add(Fault(table.file, None, None, "empty: wanted a first line with the names of the columns"))
        return
    if not check_header(table, header, wanted, log):
        return
    present = [column for column in wanted if column.name in header]
    malformed = _Malformed()
    num_read = 0
    try:
        for batch in _open_csv(table, present, malformed):
            malformed.report(table.file, log)
            numbers = _numbers(num_read, batch.num_rows, malformed.rows)
            arrays = []
            for column in present:
                cells = strings_of(batch.column(column.name), column, numbers, table.file, log)
                arrays.append(cells_to_column(cells, column, numbers, table.file, log))
            yield _frame(arrays, present, numbers)
            num_read += batch.num_rows
    except pa.ArrowException as error:
        log.add(Fault(table.file, None, None, f"not a readable CSV file after row {num_read:,}: {_line(error)}"))
    malformed.report(table.file, log)


class _Malformed:
    """Collects the malformed rows of a CSV file; Arrow calls it and must see no exception, so it reports later."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self._messages: list[str] = []
        self._num_reported = 0

    def __call__(self, row: pa_csv.InvalidRow) -> str:
        self.rows.append(row.number - 1)  # Arrow counts the header
        self._messages.append(f"malformed line: wanted {row.expected_columns} cells, found {row.actual_columns}")
        return "skip"

    def report(self, file: str, log: FaultLog) -> None:
        """Add to `log` what was not added before."""
        start, self._num_reported = self._num_reported, len(self.rows)
        for number, message in zip(self.rows[start:], self._messages[start:], strict=True):
            log.add(Fault(file, number, None, message), kind="malformed")


def csv_header(table: Table) -> list[str]:
    """Names of the columns as the first line has them; none where the file is empty."""
    with table.path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        return next(csv.reader(lines, delimiter=table.delimiter), [])


def _open_csv(table: Table, present: Sequence[Column], malformed: _Malformed) -> Iterator[pa.RecordBatch]:
    """All cells as bytes; an empty cell is null and a quoted empty one is empty text. Malformed rows are skipped."""
    names = [column.name for column in present]
    return pa_csv.open_csv(  # type: ignore[no-any-return]
        table.path,
        read_options=pa_csv.ReadOptions(block_size=CSV_BLOCK_BYTES, use_threads=False),
        parse_options=pa_csv.ParseOptions(
            delimiter=table.delimiter, newlines_in_values=True, invalid_row_handler=malformed
        ),
        convert_options=pa_csv.ConvertOptions(
            include_columns=names,
            column_types=dict.fromkeys(names, pa.binary()),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )


def _numbers(num_before: int, num_rows: int, invalid: Sequence[int]) -> np.ndarray:
    """Row numbers of the next `num_rows` rows read, where the rows in `invalid` (ascending) were skipped."""
    kept = np.arange(num_before + 1, num_before + 1 + num_rows)
    skipped_before = np.asarray(invalid, dtype=np.int64) - np.arange(len(invalid))
    return kept + np.searchsorted(skipped_before, kept, side="right")


def _jsonl_batches(table: Table, wanted: Sequence[Column], log: FaultLog, size: int) -> Iterator[pl.DataFrame]:
    for batch, numbers in jsonl_batches(table.path, wanted, log):
        arrays = [batch.column(column.name).combine_chunks() for column in wanted]
        yield _frame(arrays, wanted, numbers)


def _frame(arrays: Sequence[pa.Array], columns: Sequence[Column], numbers: np.ndarray) -> pl.DataFrame:
    frame = pl.DataFrame({ROW: numbers}, schema={ROW: pl.Int64})
    for column, array in zip(columns, arrays, strict=True):
        values = pl.Series(column.name, array)
        frame = frame.with_columns(values.cast(POLARS_TYPES[column.kind]))
    return frame


def _line(error: Exception) -> str:
    """First line of an error's text: Arrow adds stack-like detail after it."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


_Reader = Callable[[Table, Sequence[Column], FaultLog, int], Iterator[pl.DataFrame]]
_READERS: dict[str, _Reader] = {"parquet": _parquet_batches, "csv": csv_batches, "jsonl": _jsonl_batches}
