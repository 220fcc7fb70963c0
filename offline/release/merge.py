"""A release and the changes since as a data set folder, for a new run from the beginning."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from offline.data.dataset_writer import TableWriters, arrow_schema, staged_folder
from offline.release.overlay import Overlay

SPLITS = ("train", "valid", "test")


def write_dataset(
    overlay: Overlay, out: Path, *, new_pairs: NDArray[np.int32] | None = None, empty_pairs: bool = False
) -> None:
    """Write pins, boards, edges, pairs and, where the release has them, visual vectors.

    Edges are all that there are, also those that the release's graph lacks because its pairs were made from them; a
    table names these, so that they stay out of the next graph, too.

    new_pairs    (L, 2) rows of query and related pin, more pairs to train on; those of valid and test are left out
    empty_pairs  write tables of pairs also where there are none, so that none are made from the graph

    Raises UserError where `out` is there already.
    """
    with staged_folder(out) as folder, TableWriters(folder) as tables:
        ids = _write_pins(overlay, tables)
        boards = overlay.board_table()
        tables.write("boards", boards.cast(arrow_schema("boards")))
        board_ids = boards["board_id"].combine_chunks()
        held_H2 = overlay.held_out_edges()
        for pins_E, boards_E in chain(overlay.edge_chunks(), [(held_H2[:, 0], held_H2[:, 1])]):
            columns = [_take(ids, pins_E), _take(board_ids, boards_E), pa.nulls(len(pins_E), pa.int64())]
            tables.write("edges", pa.table(columns, names=["pin_id", "board_id", "timestamp"]))
        if len(held_H2):
            columns = [_take(ids, held_H2[:, 0]), _take(board_ids, held_H2[:, 1])]
            tables.write("held_out_edges", pa.table(columns, names=["pin_id", "board_id"]))
        for split, pairs_L2 in _pairs(overlay, new_pairs).items():
            if len(pairs_L2) or empty_pairs:
                columns = [_take(ids, pairs_L2[:, 0]), _take(ids, pairs_L2[:, 1])]
                tables.write(f"pairs_{split}", pa.table(columns, names=["query_pin_id", "related_pin_id"]))
        if overlay.release.visual_PV is not None:
            shape = (overlay.num_pins, overlay.release.visual_PV.shape[1])
            write_npy(folder / "features.npy", shape, overlay.visual_chunks())


def write_npy(path: Path, shape: tuple[int, ...], chunks: Iterable[NDArray[np.float32]]) -> None:
    """Write float32 rows that come in chunks as one .npy file."""
    with path.open("wb") as file:
        form = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, form)
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, "<f4").tobytes())


def _write_pins(overlay: Overlay, tables: TableWriters) -> Any:
    """Write the pins; their ids in row order."""
    ids = []
    for table in overlay.pin_tables():
        tables.write("pins", table.cast(arrow_schema("pins")))
        ids.append(table["pin_id"].combine_chunks())
    return pa.concat_arrays([part.cast(pa.large_string()) for part in ids])


def _pairs(overlay: Overlay, new_pairs: NDArray[np.int32] | None) -> dict[str, NDArray[np.int32]]:
    splits = {split: overlay.pairs(split) for split in SPLITS}
    # Where the release has none to add to, a few online ones must not stand for all: pairs are made from the graph.
    if new_pairs is not None and len(new_pairs) and len(splits["train"]):
        held_out = {tuple(pair) for split in ("valid", "test") for pair in splits[split].tolist()}
        fresh = [pair for pair in new_pairs.tolist() if tuple(pair) not in held_out]
        splits["train"] = np.concatenate([splits["train"], np.array(fresh, np.int32).reshape(-1, 2)])
    return splits


def _take(ids: Any, rows: NDArray[np.int32]) -> Any:
    return ids.take(pa.array(rows)).cast(pa.string())
