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

from offline.data.faults import Fault, FaultLog, text_of
from offline.data.table_values import ARROW_TYPES
from offline.data.tables import WANTED, Column, Kind

BLOCK_BYTES = 1 << 24


def jsonl_batches(path: Path, columns: Sequence[Column], log: FaultLog) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Tables of the columns wanted, with the line numbers of their rows; blank lines are passed over.

    A line that is no JSON object is left out, a value of the wrong type reads as null: both are faults in `log`.
    A column that no line of the file has is a fault when it is required.
    """
    schema = pa.schema([(column.name, ARROW_TYPES[column.kind]) for column in columns])
    unseen = {column.name for column in columns if column.required}
    num_before = num_rows = 0
    for block in _blocks(path):
        lines = [(number, line) for number, line in enumerate(block.split(b"\n"), num_before + 1) if line.strip()]
        num_before += block.count(b"\n")
        table, numbers = _parse(block, schema), [number for number, _ in lines]
        if table is None or table.num_rows != len(lines):  # two objects on a line, or one over two lines
            table, numbers = _parse_lines(lines, columns, schema, path.name, log)
        unseen = {name for name in unseen if table[name].null_count == len(table)}
        num_rows += len(table)
        yield table, np.array(numbers, dtype=np.int64)
    if num_rows:
        for name in sorted(unseen):
            log.add(Fault(path.name, None, name, "missing: no line has this field"))


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
    lines: Sequence[tuple[int, bytes]], columns: Sequence[Column], schema: pa.Schema, file: str, log: FaultLog
) -> tuple[pa.Table, list[int]]:
    records = [(number, _record(line, number, columns, file, log)) for number, line in lines]
    kept = [(number, record) for number, record in records if record is not None]
    return pa.Table.from_pylist([record for _, record in kept], schema=schema), [number for number, _ in kept]


def _record(line: bytes, number: int, columns: Sequence[Column], file: str, log: FaultLog) -> dict[str, Any] | None:
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
