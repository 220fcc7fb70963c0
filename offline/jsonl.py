"""JSON Lines by blocks of whole lines: Arrow parses a block; when it balks, the lines are looked at one by one."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.json as pa_json

from offline.faults import Fault, FaultLog, text_of
from offline.table_values import ARROW_TYPES
from offline.tables import WANTED, Column, Kind

BLOCK_BYTES = 1 << 24


def jsonl_batches(
    path: Path, columns: Sequence[Column], log: FaultLog
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Tables of the columns wanted, with the line numbers of their rows; blank lines are passed over.

    A line that is no JSON object is left out, a value of the wrong type reads as null: both are faults in `log`.
    A column that no line of the file has is a fault when it is required.
    """
    schema = pa.schema([(column.name, ARROW_TYPES[column.kind]) for column in columns])
    seen = {column.name for column in columns if not column.required}
    num_before = 0
    for block in _blocks(path):
        lines = block.split(b"\n")
        numbers = np.array([n for n, line in enumerate(lines, num_before + 1) if line.strip()], dtype=np.int64)
        num_before += block.count(b"\n")
        table = _parse(block, schema)
        if table is None or table.num_rows != len(numbers):  # two objects on a line, or one over two lines
            table, numbers = _parse_lines(lines, numbers, num_before, columns, schema, path.name, log)
        seen.update(name for name in schema.names if name not in seen and table[name].null_count < len(table))
        yield table, numbers
    for column in columns:
        if column.name not in seen and num_before:
            message = f"missing: no line has this field; wanted {WANTED[column.kind]} in each"
            log.add(Fault(path.name, None, column.name, message))


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block if block.endswith(b"\n") else block + file.readline()


def _parse(block: bytes, schema: pa.Schema) -> pa.Table | None:
    """The block as a table, or None where any line of it is at fault."""
    try:
        block.decode("utf-8")  # Arrow does not look inside strings
        return pa_json.read_json(
            io.BytesIO(block),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except (UnicodeDecodeError, pa.ArrowException):
        return None


def _parse_lines(
    lines: Sequence[bytes],
    numbers: np.ndarray,
    num_before: int,
    columns: Sequence[Column],
    schema: pa.Schema,
    file: str,
    log: FaultLog,
) -> tuple[pa.Table, np.ndarray]:
    records, kept = [], []
    first = num_before - (len(lines) - 1)
    for number in numbers.tolist():
        record = _record(lines[number - first - 1], number, columns, file, log)
        if record is not None:
            records.append(record)
            kept.append(number)
    return pa.Table.from_pylist(records, schema=schema), np.array(kept, dtype=np.int64)


def _record(
    line: bytes, number: int, columns: Sequence[Column], file: str, log: FaultLog
) -> dict[str, Any] | None:
    """The wanted fields of one line, checked; None where the line is no JSON object."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        log.add(Fault(file, number, None, f"malformed line: {error.msg} at byte {error.pos}"), kind="malformed")
        return None
    if not isinstance(found, dict):
        message = f"malformed line: wanted an object, found {text_of(found)}"
        log.add(Fault(file, number, None, message), kind="malformed")
        return None
    record: dict[str, Any] = {}
    for column in columns:
        value = found.get(column.name)
        if value is None or is_of_kind(column.kind, value):
            record[column.name] = value
        else:
            message = f"wanted {WANTED[column.kind]}, found {text_of(value)}"
            log.add(Fault(file, number, column.name, message), kind="type")
    return record


def is_of_kind(kind: Kind, value: object) -> bool:
    """Whether a value parsed from JSON fits a column of this kind; None inside of lists is left to validation."""
    if kind in ("id", "text"):
        return isinstance(value, str)
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    if not isinstance(value, list):
        return False
    if kind == "texts":
        return all(item is None or isinstance(item, str) for item in value)
    return all(item is None or (isinstance(item, int | float) and not isinstance(item, bool)) for item in value)
