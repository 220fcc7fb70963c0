"""From ids to rows: the tables of a data set, joined chunk by chunk with the rows of pins and boards.

Letters: P pins, E edges, C edges of one chunk, N pairs or engagements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from model.errors import DatasetError
from offline.data.dataset import Dataset
from offline.data.faults import Fault

Rows = npt.NDArray[np.int32]
EdgeChunk = tuple[Rows, Rows]

CHUNK = 1 << 21  # edges in memory at a time, or as many as there are pins: every chunk is joined with all of them
OUTSIDE = -1  # row of a pin that is known but kept out of the run


class RowMap:
    """Finds the rows of ids in whole columns. A row of -1 marks an id that is known and kept out."""

    def __init__(self, ids: pl.Series, rows: npt.NDArray[np.integer[Any]] | None = None) -> None:
        rows = np.arange(len(ids)) if rows is None else rows
        self._rows = pl.DataFrame({"id": ids, "row": rows.astype(np.int32)})

    def __len__(self) -> int:
        return self._rows.height

    def find(self, ids: pl.Series) -> pl.Series:
        """The row of each id; null for an unknown one."""
        found = ids.to_frame("id").join(self._rows, on="id", how="left", maintain_order="left")
        return found["row"]


def warm_row_map(ids: pl.Series, warm_P: npt.NDArray[np.bool_]) -> RowMap:
    """Rows count the pins that stay in the run, in file order; the others are outside."""
    return RowMap(ids, np.where(warm_P, np.cumsum(warm_P) - 1, OUTSIDE))


def write_edge_rows(dataset: Dataset, pins: RowMap, boards: RowMap, path: Path) -> int:
    """Write (E, 2) int32 rows of pin and board, without edges of pins outside; returns E.

    Raises DatasetError naming the row of an edge whose pin is unknown, and where there is no edge at all.
    """
    file = dataset.tables["edges"].file
    num_read, num_edges = 0, 0
    with path.open("wb") as sink:
        for batch in dataset.edge_batches(max(CHUNK, len(pins))):
            pin_rows = pins.find(batch["pin_id"])
            _refuse_unknown(dataset, file, batch["pin_id"], pin_rows, num_read)
            edges_C2 = np.stack([pin_rows.to_numpy(), boards.find(batch["board_id"]).to_numpy()], axis=1)
            edges_C2 = edges_C2[edges_C2[:, 0] != OUTSIDE].astype(np.int32)
            sink.write(edges_C2.tobytes())
            num_read += batch.height
            num_edges += len(edges_C2)
    if not num_edges:
        raise DatasetError(f"{dataset.path}: table edges ({file}) has no edge of a pin; a run needs a graph")
    return num_edges


def read_edge_rows(path: Path) -> Iterator[EdgeChunk]:
    """The file that `write_edge_rows` wrote, chunk by chunk."""
    edges_E2 = np.memmap(path, np.int32, mode="r").reshape(-1, 2)
    for start in range(0, len(edges_E2), CHUNK):
        chunk_C2 = np.asarray(edges_E2[start : start + CHUNK])
        yield chunk_C2[:, 0].copy(), chunk_C2[:, 1].copy()


def pair_rows(pairs: pl.DataFrame, pins: RowMap) -> tuple[Rows, int]:
    """(N, 2) rows of query and related pin, and how many pairs were dropped: a pin unknown or outside, or one twice."""
    columns = [pins.find(pairs[name]).fill_null(OUTSIDE).to_numpy() for name in pairs.columns[:2]]
    pairs_N2 = np.stack(columns, axis=1).astype(np.int32)
    usable_N = (pairs_N2 != OUTSIDE).all(axis=1) & (pairs_N2[:, 0] != pairs_N2[:, 1])
    return pairs_N2[usable_N], int((~usable_N).sum())


def engagement_rows(
    engagements: pl.DataFrame, pins: RowMap, without: Sequence[str]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """User code, pin row (-1 for a pin unknown or outside) and time of each engagement, but for actions `without`."""
    wanted = engagements.filter(~pl.col("action").is_in(without).fill_null(value=False))
    users = wanted["user_id"].rank("dense").to_numpy()
    rows = pins.find(wanted["pin_id"]).fill_null(OUTSIDE).to_numpy()
    return users.astype(np.int64), rows, wanted["timestamp"].to_numpy()


def _refuse_unknown(dataset: Dataset, file: str, ids: pl.Series, rows: pl.Series, num_before: int) -> None:
    if rows.null_count():
        at = int(rows.is_null().arg_max() or 0)
        fault = Fault(file, num_before + at + 1, "pin_id", f'no pin is called "{ids[at]}"')
        raise DatasetError(f"{fault}; all faults: pinsage validate {dataset.path}")
