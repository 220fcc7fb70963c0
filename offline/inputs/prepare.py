"""The prepare stage: a data set becomes arrays by row: graph, neighbourhoods, labelled pairs, features.

Letters: P pins, E edges, H held-out edges, V width of a raw visual vector.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from model.config import WalkConfig
from model.errors import DatasetError
from model.feature_groups import Floats
from model.features import FeatureEncoder
from model.files import create_array
from model.graph import BipartiteGraph, build_graph
from model.walks import build_neighborhoods
from offline.data.dataset import Dataset
from offline.inputs.encoder_config import EncoderConfig, PairsConfig
from offline.inputs.encoders import encode_all, fit_encoder
from offline.inputs.pairs import SPLITS, Splits, engagement_pairs, graph_pairs, separate
from offline.inputs.row_maps import (
    RowMap,
    engagement_rows,
    pair_rows,
    read_edge_rows,
    warm_row_map,
    write_edge_rows,
)
from offline.progress import Report, silent
from offline.run_folder import RunFolder

PINS_SCHEMA = pa.schema(
    {
        "pin_id": pa.string(),
        "title": pa.string(),
        "annotations": pa.list_(pa.string()),
        "description": pa.string(),
        "image_url": pa.string(),
        "category": pa.string(),
        "language": pa.string(),
        "created_at": pa.int64(),
    }
)
BOARDS_SCHEMA = pa.schema({"board_id": pa.string(), "title": pa.string()})
Walker = Callable[[RunFolder, WalkConfig, int], None]
TABLE_BATCH = 1 << 16  # rows of one batch of an Arrow file
NO_ENGAGEMENT = ("hide", "impression")  # actions that do not say that a user wanted the pin


@dataclass(frozen=True)
class Source:
    """A data set, and where its pins are found in the run.

    warm_P   which pins of the file stay in the run
    pins     those pins, in the order of rows
    rows     rows of pins by id
    """

    dataset: Dataset
    warm_P: npt.NDArray[np.bool_]
    pins: pl.DataFrame
    rows: RowMap


def prepare(
    dataset: Dataset,
    run: RunFolder,
    *,
    seed: int,
    walks: WalkConfig,
    encoder: EncoderConfig,
    pairs: PairsConfig,
    num_threads: int,
    reuse_encoder: Path | None = None,
    walk_elsewhere: Walker | None = None,
    progress: Report = silent,
) -> None:
    """Write everything under RUN/prepare; what an earlier try left there is replaced.

    reuse_encoder   folder of a release's encoder that is used as it is, instead of fitting one
    walk_elsewhere  writes the neighbourhoods, in place of this machine's threads

    Raises DatasetError where the data set cannot be used, naming the table.
    """
    shutil.rmtree(run.prepare, ignore_errors=True)
    run.prepare.mkdir(parents=True)
    progress("reading pins", 0.0)
    source = _read_source(dataset)
    _write_table(run.pins, source.pins, PINS_SCHEMA)
    progress("building the graph", 0.05)
    graph, boards = _write_graph(source, run)
    progress("making labelled pairs", 0.15)
    graph, about_pairs = _write_pairs(source, run, graph, boards, pairs, seed)
    walked = _Counter("walking", 0.2, 0.5, graph.num_pins, progress)
    if walk_elsewhere is not None:
        walk_elsewhere(run, walks, seed)
    else:
        build_neighborhoods(
            graph,
            walks,
            seed=seed,
            ids_path=run.neighbor_ids,
            weights_path=run.neighbor_weights,
            num_threads=num_threads,
            progress=walked,
        )
    progress("fitting the feature encoder", 0.5)
    visual_PV = _write_visual(source, run)
    asked_P = np.bincount(np.load(run.pairs("train"))[:, 1], minlength=graph.num_pins)
    if reuse_encoder is None:
        fitted = fit_encoder(source.pins, graph, visual_PV, encoder, seed=seed, asked_P=asked_P)
    else:
        fitted = FeatureEncoder.load(reuse_encoder)
    fitted.save(run.encoder)
    encoded = _Counter("encoding pins", 0.9, 1.0, graph.num_pins, progress)
    _check_visual(fitted, source, visual_PV)
    threads: dict[str, Any] = {"num_threads": num_threads, "progress": encoded}
    encode_all(fitted, source.pins, graph, visual_PV, run.features, asked_P=asked_P, **threads)
    about = {"pins": graph.num_pins, "boards": graph.num_boards, "edges": graph.num_edges, "pairs": about_pairs}
    (run.prepare / "summary.json").write_text(json.dumps(about, indent=1) + "\n")


def _read_source(dataset: Dataset) -> Source:
    pins = dataset.pins()
    warm_P = ~pins["pin_id"].is_in(dataset.coldstart_pins()).to_numpy()
    if not warm_P.any():
        raise DatasetError(f"{dataset.path}: table pins has no pin outside coldstart_pins")
    return Source(dataset, warm_P, pins.filter(warm_P), warm_row_map(pins["pin_id"], warm_P))


def _write_graph(source: Source, run: RunFolder) -> tuple[BipartiteGraph, RowMap]:
    """boards.arrow and the graph, by one pass over the edges' ids and two over their rows; and the boards' rows."""
    boards = source.dataset.boards()
    _write_table(run.boards, boards, BOARDS_SCHEMA)
    path = run.prepare / "edges.tmp"
    rows = RowMap(boards["board_id"])
    write_edge_rows(source.dataset, source.rows, rows, path)
    size = {"num_pins": source.pins.height, "num_boards": boards.height}
    graph = build_graph(run.graph, lambda: read_edge_rows(path), **size)
    path.unlink()
    return graph, rows


def _write_pairs(
    source: Source, run: RunFolder, graph: BipartiteGraph, boards: RowMap, config: PairsConfig, seed: int
) -> tuple[BipartiteGraph, dict[str, Any]]:
    """Labelled pairs from the first source there is; returns the graph, less the edges held out for them.

    Those go into held_out_edges.npy, (N, 2) rows of pin and board in that order, so that a later data set has them.
    """
    rng = np.random.default_rng(seed)
    about: dict[str, Any] = {"from": "pairs"}
    given, about["dropped"] = _given_pairs(source)
    splits: Splits = {}
    if "train" in given:
        graph = _without_edges(graph, _given_held_out(source, graph, boards), run)
    else:
        engagements = source.dataset.engagements()
        if engagements is not None:
            about["from"] = "engagements"
            splits = engagement_pairs(*engagement_rows(engagements, source.rows, NO_ENGAGEMENT), config, rng)
        else:
            about["from"] = "graph"
            splits, held_E = graph_pairs(graph, config, rng)
            graph = _without_edges(graph, held_E, run)
        # Pairs that the data set gives for validation or test are never trained on.
        splits = separate(splits | given, [*given, *(name for name in SPLITS if name not in given)])
    for name in SPLITS:
        pairs_N2 = (splits | given).get(name, np.empty((0, 2), np.int32))
        np.save(run.pairs(name), pairs_N2)
        about[name] = len(pairs_N2)
    return graph, about


def _given_pairs(source: Source) -> tuple[Splits, dict[str, int]]:
    """The data set's own pairs as rows, and how many of each split were dropped."""
    given, dropped = {}, {}
    for name in SPLITS:
        pairs = source.dataset.pairs(name)
        if pairs is not None:
            given[name], dropped[name] = pair_rows(pairs, source.rows)
    return given, dropped


def _given_held_out(source: Source, graph: BipartiteGraph, boards: RowMap) -> npt.NDArray[np.bool_]:
    """Which edges (in the order of board_pins_E) the data set says its pairs were made from."""
    held_out = source.dataset.held_out_edges()
    if held_out is None:
        return np.zeros(graph.num_edges, bool)
    pins_H, boards_H = source.rows.find(held_out["pin_id"]), boards.find(held_out["board_id"])
    keys_H = (boards_H.cast(pl.Int64) * graph.num_pins + pins_H).filter(pins_H >= 0).drop_nulls().to_numpy()
    boards_E = np.repeat(np.arange(graph.num_boards, dtype=np.int64), graph.board_degrees())
    return np.isin(boards_E * graph.num_pins + graph.board_pins_E, keys_H)


def _without_edges(graph: BipartiteGraph, held_E: npt.NDArray[np.bool_], run: RunFolder) -> BipartiteGraph:
    """Write the graph again without the edges that are held out (in the order of board_pins_E), and those aside."""
    if not held_E.any():
        return graph
    boards_E = np.repeat(np.arange(graph.num_boards, dtype=np.int32), graph.board_degrees())
    held_H2 = np.stack([graph.board_pins_E[held_E], boards_E[held_E]], axis=1).astype(np.int32)
    np.save(run.held_out_edges, held_H2[np.argsort(held_H2[:, 0], kind="stable")])
    boards_E, pins_E = boards_E[~held_E], graph.board_pins_E[~held_E]
    size = {"num_pins": graph.num_pins, "num_boards": graph.num_boards}
    shutil.rmtree(run.graph)
    return build_graph(run.graph, lambda: iter([(pins_E, boards_E)]), **size)


def _write_visual(source: Source, run: RunFolder) -> Floats | None:
    """visual.npy, memory-mapped; a pin without a vector is a row of NaN."""
    visual = source.dataset.visual()
    if visual is None:
        return None
    rows_P = np.flatnonzero(source.warm_P)
    shape = (len(rows_P), visual.shape[1])
    visual_PV = create_array(run.visual, np.float32, shape)
    for start in range(0, len(rows_P), TABLE_BATCH):
        visual_PV[start : start + TABLE_BATCH] = visual[rows_P[start : start + TABLE_BATCH]]
    visual_PV.flush()
    return visual_PV


def _check_visual(encoder: FeatureEncoder, source: Source, visual_PV: Floats | None) -> None:
    """Raise DatasetError where an encoder of an earlier data set wants visual vectors of another width."""
    if visual_PV is not None and encoder.visual_dim not in (None, visual_PV.shape[1]):
        found = f"visual vectors of length {visual_PV.shape[1]}"
        raise DatasetError(f"{source.dataset.path}: {found}; the encoder wants {encoder.visual_dim}")


def _write_table(path: Path, table: pl.DataFrame, schema: pa.Schema) -> None:
    """An Arrow file of just these columns, uncompressed so that it can be memory-mapped."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, table.height, TABLE_BATCH):
            batch = table[start : start + TABLE_BATCH].select(schema.names)
            writer.write_table(batch.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema))


class _Counter:
    """Turns numbers of finished pins into the share of the stage that is done."""

    def __init__(self, text: str, start: float, stop: float, total: int, report: Report) -> None:
        self._text, self._start, self._stop, self._total, self._report = text, start, stop, total, report
        self._done = 0
        report(text, start)

    def __call__(self, num_pins: int) -> None:
        self._done += num_pins
        self._report(self._text, self._start + (self._stop - self._start) * self._done / max(self._total, 1))
