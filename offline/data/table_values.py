"""Values of a column: which Arrow types fit, whether text is UTF-8, and what the cells of a CSV file mean.

In CSV a list is either a JSON list (`["red","wool"]`, `[0.5,1]`) or items separated by `|` (`red|wool`, `0.5|1`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from offline.data.faults import MESSAGE, ROW, FaultLog, quoted, text_of
from offline.data.tables import WANTED, Column, Kind

ARROW_TYPES: dict[Kind, pa.DataType] = {
    "id": pa.string(),
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "int": pa.int64(),
    "vector": pa.list_(pa.float32()),
}


def fits(kind: Kind, found: pa.DataType) -> bool:
    """Whether an Arrow column of type `found` can stand for a column of this kind without loss."""
    if pa.types.is_null(found):
        return True
    if kind in ("id", "text"):
        return _is_text(found)
    if kind == "int":
        return bool(pa.types.is_integer(found)) and found != pa.uint64()
    is_list = pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found)
    if not is_list:
        return False
    if pa.types.is_null(found.value_type):
        return True
    if kind == "texts":
        return _is_text(found.value_type)
    return bool(pa.types.is_floating(found.value_type) or pa.types.is_integer(found.value_type))


def _is_text(found: pa.DataType) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found))


def check_utf8(array: pa.Array, column: Column, numbers: np.ndarray, file: str, log: FaultLog) -> pa.Array:
    """The array with text that is not UTF-8 replaced by null; each such row is a fault."""
    if column.kind not in ("id", "text", "texts"):
        return array
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    try:
        array.validate(full=True)
        return array
    except pa.ArrowInvalid:
        as_bytes = pa.binary() if column.kind != "texts" else pa.list_(pa.binary())
        values = array.cast(as_bytes).to_pylist()
        return _decode_each(values, column, numbers, file, log)


def strings_of(cells: pa.Array, column: Column, numbers: np.ndarray, file: str, log: FaultLog) -> pa.Array:
    """Bytes as strings; what is not UTF-8 becomes null and a fault."""
    try:
        return pc.cast(cells, pa.string())
    except pa.ArrowInvalid:
        text = Column(column.name, "text")
        return _decode_each(cells.to_pylist(), text, numbers, file, log)


def _decode_each(values: Sequence[Any], column: Column, numbers: np.ndarray, file: str, log: FaultLog) -> pa.Array:
    def decode(value: Any) -> Any:
        if isinstance(value, list):
            return [decode(item) for item in value]
        return value.decode("utf-8") if value is not None else None

    decoded, bad = _try_each(decode, values)
    _report(bad, numbers, column, "utf8", lambda value: f"not UTF-8: {text_of(value)}", file, log)
    return pa.array(decoded, type=ARROW_TYPES[column.kind])


def cells_to_column(cells: pa.Array, column: Column, numbers: np.ndarray, file: str, log: FaultLog) -> pa.Array:
    """CSV cells (strings) as values of the column's kind; a cell that is none becomes null and a fault."""
    if column.kind in ("id", "text"):
        return cells
    if column.kind == "int":
        return _whole_numbers(cells, column, numbers, file, log)
    parse = _texts if column.kind == "texts" else _vector
    values, bad = _try_each(parse, cells.to_pylist())
    wanted = f"wanted {WANTED[column.kind]} (JSON, or separated by |), found "
    _report(bad, numbers, column, "type", lambda cell: wanted + text_of(cell), file, log)
    return pa.array(values, type=ARROW_TYPES[column.kind])


def _whole_numbers(cells: pa.Array, column: Column, numbers: np.ndarray, file: str, log: FaultLog) -> pa.Array:
    frame = pl.DataFrame({ROW: numbers, "cell": pl.Series(cells, dtype=pl.String)})
    frame = frame.with_columns(value=pl.col("cell").str.to_integer(dtype=pl.Int64, strict=False))
    bad = frame.filter(pl.col("cell").is_not_null() & pl.col("value").is_null())
    message = pl.concat_str(pl.lit("wanted a whole number, found "), quoted("cell"))
    log.add_rows(file, column.name, "type", bad.with_columns(message.alias(MESSAGE)))
    return frame["value"].to_arrow()


def _texts(cell: str | None) -> list[str | None] | None:
    if cell is None:
        return None
    if not cell.startswith("["):
        return [part for part in cell.split("|") if part]
    items = orjson.loads(cell)
    if not isinstance(items, list) or not all(item is None or isinstance(item, str) for item in items):
        raise ValueError(cell)
    return items


def _vector(cell: str | None) -> list[float] | None:
    if cell is None:
        return None
    if not cell.startswith("["):
        return [float(part) for part in cell.split("|")]
    items = orjson.loads(cell)
    if not all(isinstance(item, int | float) and not isinstance(item, bool) for item in items):
        raise ValueError(cell)
    return [float(item) for item in items]


def _try_each(parse: Callable[[Any], Any], values: Sequence[Any]) -> tuple[list[Any], list[tuple[int, Any]]]:
    """Parsed values with None where `parse` raised ValueError, and (position, value) of those."""
    parsed, bad = [], []
    for position, value in enumerate(values):
        try:
            parsed.append(parse(value))
        except ValueError:
            parsed.append(None)
            bad.append((position, value))
    return parsed, bad


def _report(
    bad: Sequence[tuple[int, Any]],
    numbers: np.ndarray,
    column: Column,
    kind: str,
    message: Callable[[Any], str],
    file: str,
    log: FaultLog,
) -> None:
    rows = [int(numbers[position]) for position, _ in bad]
    frame = pl.DataFrame({ROW: rows, MESSAGE: [message(value) for _, value in bad]})
    log.add_rows(file, column.name, kind, frame)
