"""A data set folder as the rest of the offline half sees it: pins, boards, edges as a stream, pairs, users."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from model.errors import DatasetError
from offline.data.faults import ROW, Fault, FirstFault
from offline.data.table_readers import BATCH_ROWS, count_rows, read_batches
from offline.data.tables import COLUMNS, POLARS_TYPES, Table, find_tables

# Legend of array names: P pins in file order, V numbers of a visual vector.

FEATURES = "features.npy"
PIN_COLUMNS = tuple(column.name for column in COLUMNS["pins"] if column.name != "visual")


def open_dataset(path: Path | str) -> Dataset:
    """The data set in a folder; nothing is read yet.

    Raises DatasetError where the folder, its pins or its edges are missing, or a table is there in two formats.
    """
    folder = Path(path)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise DatasetError(f"{folder}: wanted the folder of a data set, found {found}")
    return Dataset(folder, find_tables(folder, FirstFault()))


class Dataset:
    """Reads the tables of one folder. Every method reads anew and raises DatasetError naming file, row and column."""

    def __init__(self, path: Path, tables: dict[str, Table]) -> None:
        self.path = path
        self.tables = tables

    def pins(self) -> pl.DataFrame:
        """All pins in file order, with exactly PIN_COLUMNS; missing columns are null, missing annotations are empty."""
        pins = self._read("pins", PIN_COLUMNS, keep_rows=True)
        self._check_unique(pins, self.tables["pins"], "pin_id")
        annotations = pl.col("annotations").list.drop_nulls().fill_null([])
        return pins.drop(ROW).with_columns(annotations)

    def visual(self) -> np.ndarray | None:
        """Visual vectors (P, V) float32 of all pins in file order; None where the data set has none.

        From features.npy (memory-mapped when it is float32), else from the column `visual`; there a pin without a
        vector is a row of NaN.
        """
        if (self.path / FEATURES).exists():
            return self._visual_file()
        batches = [
            _stack(batch, self.tables["pins"].file)
            for batch in read_batches(self.tables["pins"], FirstFault(), ["pin_id", "visual"])
        ]
        dims = {vectors.shape[1] for vectors in batches if vectors.shape[1]}
        if not dims:
            return None
        if len(dims) > 1:
            message = f"wanted vectors of one length, found lengths {sorted(dims)}"
            raise DatasetError(str(Fault(self.tables["pins"].file, None, "visual", message)))
        dim = dims.pop()
        return np.concatenate([v if v.shape[1] else np.full((len(v), dim), np.nan, np.float32) for v in batches])

    def boards(self) -> pl.DataFrame:
        """board_id and title: the boards file in its order, then boards that only edges name, by first occurrence."""
        if "boards" in self.tables:
            boards = self._read("boards", ("board_id", "title"), keep_rows=True)
            self._check_unique(boards, self.tables["boards"], "board_id")
            parts = [boards.drop(ROW)]
        else:
            parts = [pl.DataFrame(schema={"board_id": pl.String, "title": pl.String})]
        known = parts[0].select("board_id")
        for batch in read_batches(self.tables["edges"], FirstFault(), ["board_id"]):
            found = batch.select(pl.col("board_id").drop_nulls().unique(maintain_order=True))
            new = found.join(known, on="board_id", how="anti", maintain_order="left")
            known = pl.concat([known, new])
            parts.append(new.with_columns(title=pl.lit(None, dtype=pl.String)))
        return pl.concat(parts)

    def edge_batches(self, size: int = BATCH_ROWS) -> Iterator[pl.DataFrame]:
        """Stream of pin_id, board_id, timestamp in file order, at most `size` rows at a time."""
        for batch in read_batches(self.tables["edges"], FirstFault(), size=size):
            yield batch.drop(ROW)

    def num_edges(self) -> int:
        """Rows of the edges table, repeated edges included."""
        return count_rows(self.tables["edges"], FirstFault())

    def pairs(self, split: str) -> pl.DataFrame | None:
        """query_pin_id, related_pin_id of split "train", "valid", "test" or "coldstart"; None where not given."""
        return self._read_optional(f"pairs_{split}")

    def held_out_edges(self) -> pl.DataFrame | None:
        """pin_id, board_id of the edges that the given pairs were made from; None where there is no table."""
        return self._read_optional("held_out_edges")

    def engagements(self) -> pl.DataFrame | None:
        """user_id, pin_id, timestamp, action (null where not given) in file order; None where there is no table."""
        return self._read_optional("engagements")

    def users_test(self) -> pl.DataFrame | None:
        """user_id, history, held_out (lists of pin ids); None where there is no table."""
        return self._read_optional("users_test")

    def coldstart_pins(self) -> list[str]:
        """Ids of the pins to keep out of training; none where there is no table."""
        table = self._read_optional("coldstart_pins")
        return table["pin_id"].to_list() if table is not None else []

    def coldstart_edges(self) -> pl.DataFrame | None:
        """pin_id, board_id, timestamp of the cold pins' edges; None where there is no table."""
        return self._read_optional("coldstart_edges")

    def _read_optional(self, name: str) -> pl.DataFrame | None:
        if name not in COLUMNS:
            raise DatasetError(f"{self.path}: no table is called {name}; there are {', '.join(COLUMNS)}")
        return self._read(name) if name in self.tables else None

    def _read(self, name: str, columns: Sequence[str] | None = None, *, keep_rows: bool = False) -> pl.DataFrame:
        schema = {ROW: pl.Int64(), **{c.name: POLARS_TYPES[c.kind] for c in COLUMNS[name]}}
        if columns is not None:
            schema = {key: kind for key, kind in schema.items() if key == ROW or key in columns}
        batches = list(read_batches(self.tables[name], FirstFault(), columns))
        table = pl.concat([pl.DataFrame(schema=schema), *batches])
        return table if keep_rows else table.drop(ROW)

    def _check_unique(self, table: pl.DataFrame, source: Table, column: str) -> None:
        """Rows are found by id from here on, so a missing or repeated one must not get past reading."""
        missing = table.filter(pl.col(column).is_null()).head(1)
        if missing.height:
            raise DatasetError(str(Fault(source.file, missing[ROW][0], column, "missing id")))
        if table[column].n_unique() < table.height:
            again = table.filter(~pl.col(column).is_first_distinct()).row(0, named=True)
            raise DatasetError(str(Fault(source.file, again[ROW], column, f'"{again[column]}" is there twice')))

    def _visual_file(self) -> np.ndarray:
        try:
            vectors: np.ndarray = np.load(self.path / FEATURES, mmap_mode="r")
        except (ValueError, OSError, EOFError) as error:
            raise DatasetError(f"{FEATURES}: not a readable array: {error}") from error
        num_pins = count_rows(self.tables["pins"], FirstFault())
        if vectors.ndim != 2 or vectors.shape[0] != num_pins or vectors.dtype.kind != "f":
            found = f"{vectors.dtype} of shape {vectors.shape}"
            raise DatasetError(f"{FEATURES}: wanted real numbers of shape ({num_pins}, V), found {found}")
        return vectors if vectors.dtype == np.float32 else vectors.astype(np.float32)


def _stack(batch: pl.DataFrame, file: str) -> np.ndarray:
    """Vectors of one batch as a matrix, NaN for missing ones; (rows, 0) where all are missing."""
    lengths = batch["visual"].list.len()
    dims = lengths.drop_nulls().unique().sort().to_list()
    if not dims:
        return np.empty((batch.height, 0), dtype=np.float32)
    if len(dims) > 1:
        usual = lengths.drop_nulls().mode().sort()[0]
        odd = batch.filter((lengths != usual).fill_null(value=False)).row(0, named=True)
        message = f"wanted {usual} numbers as in other rows, found {len(odd['visual'])}"
        raise DatasetError(str(Fault(file, odd[ROW], "visual", message)))
    result = np.full((batch.height, dims[0]), np.nan, dtype=np.float32)
    present = batch["visual"].is_not_null().to_numpy()
    result[present] = batch["visual"].drop_nulls().explode().to_numpy().reshape(-1, dims[0])
    return result
