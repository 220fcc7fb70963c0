"""Imports a plain CSV or TSV of who keeps what (pin, board, perhaps a time), perhaps with a second file of items.

Columns are found by common names, or by `columns`, which maps our name of a column to that of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from model.errors import DatasetError, UserError
from offline.data.dataset_writer import ImportSummary, TableWriters, arrow_schema, staged_folder
from offline.data.faults import ROW, FirstFault
from offline.data.table_readers import BATCH_ROWS, csv_batches, csv_header
from offline.data.tables import COLUMNS, POLARS_TYPES, Table
from offline.data.validation_rules import check_ids, check_timestamps, check_unique

ALIASES = {
    "pin_id": ("pin_id", "pin", "item_id", "item", "itemid", "product_id", "movieid", "movie_id", "track_id"),
    "board_id": ("board_id", "board", "user_id", "user", "userid", "playlist_id", "session_id", "list_id"),
    "timestamp": ("timestamp", "time", "ts", "unix_time"),
    "title": ("title", "name"),
    "annotations": ("annotations", "tags", "genres", "keywords"),
    "description": ("description", "abstract", "text"),
}


def import_csv(
    source: Path, out: Path, *, items: Path | None = None, columns: Mapping[str, str] | None = None
) -> ImportSummary:
    """Write the data set `out` from one file of edges and, where given, one of items; memory grows with pins only.

    `source` may be a folder that holds edges.csv (or .tsv) and perhaps items.csv (or .tsv). Repeated edges are kept.
    Raises DatasetError naming file, row and column, UserError where `out` is there already.
    """
    mapping = dict(columns or {})
    if source.is_dir():
        found = _find(source, "edges")
        if found is None:
            raise UserError(f"{source}: wanted edges.csv or edges.tsv in it, or name the file itself")
        source, items = found, items or _find(source, "items")
    with staged_folder(out) as folder, TableWriters(folder) as writers:
        pins = _items(items, mapping) if items is not None else _empty("pins")
        known, boards = pins.select("pin_id"), pl.DataFrame(schema={"board_id": pl.String})
        for edges in _edges(source, mapping):
            known = _with_new(known, edges, "pin_id")
            boards = _with_new(boards, edges, "board_id")
            writers.write("edges", edges.to_arrow().cast(arrow_schema("edges")))
        if not writers.num_rows:
            raise DatasetError(f"{source.name}: wanted a row per edge, found none")
        added = known[pins.height :].join(_empty("pins"), on="pin_id", how="left").select(pins.columns)
        writers.write("pins", pl.concat([pins, added]).to_arrow().cast(arrow_schema("pins")))
        boards = boards.with_columns(title=pl.lit(None, dtype=pl.String))
        writers.write("boards", boards.to_arrow().cast(arrow_schema("boards")))
        counts = writers.num_rows
    return ImportSummary(counts["pins"], counts["boards"], counts["edges"])


def _find(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}{suffix}" for suffix in (".csv", ".tsv"))
    return next((path for path in paths if path.is_file()), None)


def _edges(path: Path, mapping: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    for batch in _read(path, "edges", mapping):
        check_ids(batch, "pin_id", path.name, FirstFault())
        check_ids(batch, "board_id", path.name, FirstFault())
        check_timestamps(batch, "timestamp", path.name, FirstFault())
        yield batch.drop(ROW)


def _items(path: Path, mapping: Mapping[str, str]) -> pl.DataFrame:
    items = pl.concat([_empty("pins", ROW), *_read(path, "pins", mapping)])
    check_ids(items, "pin_id", path.name, FirstFault())
    check_unique(items, "pin_id", path.name, FirstFault())
    return items.drop(ROW)


def _empty(name: str, *numbers: str) -> pl.DataFrame:
    """A table of the data set without rows, and with further columns of whole numbers."""
    kinds = {column.name: POLARS_TYPES[column.kind] for column in COLUMNS[name] if column.name != "visual"}
    return pl.DataFrame(schema=kinds | dict.fromkeys(numbers, pl.Int64()))


def _with_new(known: pl.DataFrame, batch: pl.DataFrame, column: str) -> pl.DataFrame:
    found = batch.select(pl.col(column).unique(maintain_order=True))
    return pl.concat([known, found.join(known, on=column, how="anti", maintain_order="left")])


def _read(path: Path, name: str, mapping: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    """Batches of one file with our names of the columns; those that the file lacks are null."""
    table = Table(name, path, "csv", _delimiter(path))
    header = csv_header(table)
    theirs = _their_names(path, header, name, mapping)
    wanted = [replace(column, name=theirs[column.name]) for column in COLUMNS[name] if column.name in theirs]
    ours = {their: our for our, their in theirs.items()}
    empty = _empty(name, ROW)
    for batch in csv_batches(table, wanted, FirstFault(), BATCH_ROWS):
        yield pl.concat([empty, batch.rename(ours)], how="diagonal")


def _delimiter(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            first = lines.readline()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return max(("\t", ";", ","), key=first.count) if first.strip() else ","


def _their_names(path: Path, header: list[str], name: str, mapping: Mapping[str, str]) -> dict[str, str]:
    """Our name -> the file's name, of every column of the table that the file has."""
    lowered = {column.lower(): column for column in reversed(header)}
    theirs: dict[str, str] = {}
    for column in COLUMNS[name]:
        if column.name == "visual":
            continue
        candidates = ALIASES.get(column.name, (column.name,))
        found = next((lowered[alias] for alias in candidates if alias in lowered), None)
        if mapping.get(column.name) in header:
            theirs[column.name] = mapping[column.name]
        elif found is not None and found not in mapping.values():
            theirs[column.name] = found
        elif column.required:
            wanted = mapping.get(column.name) or " or ".join(candidates)
            shown = ", ".join(header) or "none"
            raise DatasetError(f"{path.name}, column {column.name}: wanted {wanted}, found the columns {shown}")
    return theirs
