"""The tables of a data set folder: their columns, the types wanted, and where each one lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from offline.data.faults import Fault, FaultLog, names

Kind = Literal["id", "text", "texts", "int", "vector"]
Format = Literal["parquet", "csv", "jsonl"]

SUFFIXES: dict[str, Format] = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}

POLARS_TYPES: dict[Kind, pl.DataType] = {
    "id": pl.String(),
    "text": pl.String(),
    "texts": pl.List(pl.String),
    "int": pl.Int64(),
    "vector": pl.List(pl.Float32),
}

WANTED: dict[Kind, str] = {
    "id": "a string",
    "text": "a string",
    "texts": "a list of strings",
    "int": "a whole number",
    "vector": "a list of numbers",
}


@dataclass(frozen=True)
class Column:
    """One column of a table: ids must always be there, whatever else is missing reads as null."""

    name: str
    kind: Kind
    required: bool = False


def _columns(required: dict[str, Kind], optional: dict[str, Kind]) -> tuple[Column, ...]:
    return (
        *(Column(name, kind, required=True) for name, kind in required.items()),
        *(Column(name, kind) for name, kind in optional.items()),
    )


_PAIRS = _columns({"query_pin_id": "id", "related_pin_id": "id"}, {})
_EDGES = _columns({"pin_id": "id", "board_id": "id"}, {"timestamp": "int"})

COLUMNS: dict[str, tuple[Column, ...]] = {
    "pins": _columns(
        {"pin_id": "id"},
        {
            "title": "text",
            "annotations": "texts",
            "description": "text",
            "image_url": "text",
            "category": "text",
            "language": "text",
            "created_at": "int",
            "visual": "vector",
        },
    ),
    "boards": _columns({"board_id": "id"}, {"title": "text"}),
    "edges": _EDGES,
    "engagements": _columns({"user_id": "id", "pin_id": "id", "timestamp": "int"}, {"action": "text"}),
    "pairs_train": _PAIRS,
    "pairs_valid": _PAIRS,
    "pairs_test": _PAIRS,
    "held_out_edges": _columns({"pin_id": "id", "board_id": "id"}, {}),
    "users_test": _columns({"user_id": "id", "history": "texts", "held_out": "texts"}, {}),
    "coldstart_pins": _columns({"pin_id": "id"}, {}),
    "coldstart_edges": _EDGES,
    "pairs_coldstart": _PAIRS,
}
REQUIRED_TABLES = ("pins", "edges")


@dataclass(frozen=True)
class Table:
    """One table that exists: its name, its file and the format of that file."""

    name: str
    path: Path
    format: Format
    delimiter: str = ","

    @property
    def file(self) -> str:
        """Name of the file, as faults show it."""
        return self.path.name

    @property
    def columns(self) -> tuple[Column, ...]:
        return COLUMNS[self.name]


def find_tables(folder: Path, log: FaultLog) -> dict[str, Table]:
    """The tables of a folder by name; tables missing, or there in two formats, are faults in `log`."""
    tables: dict[str, Table] = {}
    for name in COLUMNS:
        found = [folder / f"{name}{suffix}" for suffix in SUFFIXES if (folder / f"{name}{suffix}").exists()]
        if len(found) > 1:
            files = " and ".join(path.name for path in found)
            log.add(Fault(found[0].name, None, None, f"the table is there twice, as {files}: keep one"))
        elif found and not found[0].is_file():
            log.add(Fault(found[0].name, None, None, "wanted a file, found a folder"))
        elif found:
            tables[name] = Table(name, found[0], SUFFIXES[found[0].suffix])
        elif name in REQUIRED_TABLES:
            log.add(_missing(folder, name))
    return tables


def _missing(folder: Path, name: str) -> Fault:
    present = sorted(path.name for path in folder.iterdir())
    shown = names(present[:12]) + (", …" if len(present) > 12 else "")
    wanted = " or ".join(f"{name}{suffix}" for suffix in SUFFIXES)
    return Fault(f"{name}.parquet", None, None, f"missing: wanted {wanted}, found {shown} in {folder}")


def check_header(table: Table, header: Sequence[str], wanted: Sequence[Column], log: FaultLog) -> bool:
    """Whether a file with these column names can be read; each reason against it is a fault. Extra columns are fine."""
    sound = True
    for column in wanted:
        num_found = header.count(column.name)
        if num_found > 1:
            log.add(Fault(table.file, None, column.name, f"wanted one column of this name, found {num_found}"))
            sound = False
        elif not num_found and column.required:
            message = f"missing column: wanted {WANTED[column.kind]}, found the columns {names(header)}"
            log.add(Fault(table.file, None, column.name, message))
            sound = False
    return sound
