"""Reindex without training or bulk embedding: pins that did not change keep their vectors, the others get new ones.

What comes out is a finished run, made by the same functions that the service uses for a new pin.

Shape letters: N pins now, B changed pins of a chunk, F features, M message width, D embedding width.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model.cold_neighbors import nearest_as_neighbors
from model.exact import Neighbors
from model.files import create_array
from model.graph import BipartiteGraph, build_graph
from model.halves import to_floats, to_halves
from model.inference import Inference, pool_messages
from model.walks import Neighborhoods, importance_neighbors
from offline.config import RunConfig
from offline.progress import Report, silent
from offline.release.index_stage import index_run
from offline.release.merge import SPLITS, write_npy
from offline.release.overlay import Overlay
from offline.run_folder import RunFolder
from offline.stages import num_threads

CHUNK = 1_024
COPY_CHUNK = 16_384

Floats = NDArray[np.float32]


def build_partial_run(
    overlay: Overlay, run: RunFolder, config: RunConfig, *, progress: Report = silent
) -> NDArray[np.int64]:
    """Write everything that a release needs into a new run folder; the rows that got new vectors."""
    run.prepare.mkdir(parents=True)
    run.train.mkdir()
    run.messages(0).parent.mkdir()
    progress("merging", 0.0)
    _copy_unchanged(overlay, run)
    _write_tables(overlay, run)
    graph = build_graph(run.graph, overlay.edge_chunks, num_pins=overlay.num_pins, num_boards=overlay.num_boards)
    for split in SPLITS:
        np.save(run.pairs(split), overlay.pairs(split))
    held_H2 = overlay.held_out_edges()
    if len(held_H2):
        np.save(run.held_out_edges, held_H2)
    progress("copying vectors", 0.2)
    arrays = _Arrays(overlay, run)
    progress("embedding changed pins", 0.4)
    _Embedder(overlay, graph, arrays, config).embed(overlay.changed, lambda share: progress("embedding", share))
    arrays.flush()
    index_run(
        run,
        config.index,
        overlay.release.walks,
        seed=config.seed,
        num_threads=num_threads(config),
        progress=lambda text, share: progress(text, 0.6 + 0.4 * share),
    )
    return overlay.changed


def _copy_unchanged(overlay: Overlay, run: RunFolder) -> None:
    folder = overlay.release.folder
    shutil.copyfile(folder / "config.json", run.config)
    shutil.copyfile(folder / "weights.safetensors", run.weights)
    shutil.copyfile(folder / "network.json", run.network)
    shutil.copytree(folder / "encoder", run.encoder)


def _write_tables(overlay: Overlay, run: RunFolder) -> None:
    release = overlay.release
    with pa.OSFile(str(run.pins), "wb") as sink, pa.ipc.new_file(sink, release.pins.schema) as writer:
        for table in overlay.pin_tables():
            writer.write_table(table)
    with pa.OSFile(str(run.boards), "wb") as sink, pa.ipc.new_file(sink, release.boards.schema) as writer:
        writer.write_table(overlay.board_table())
    if release.visual_PV is not None:
        write_npy(run.visual, (overlay.num_pins, release.visual_PV.shape[1]), overlay.visual_chunks())


class _Arrays:
    """Features, messages and vectors of all pins now, in files; rows of unchanged pins are already right."""

    def __init__(self, overlay: Overlay, run: RunFolder) -> None:
        release = overlay.release
        self.features_NF = _moved(run.features, release.features_PF, overlay.old_N)
        self.vectors_ND = _moved(run.embeddings, release.embeddings_PD, overlay.old_N)
        self.messages = [
            _moved(run.messages(layer), messages_PM, overlay.old_N)
            for layer, messages_PM in enumerate(release.messages)
        ]

    def flush(self) -> None:
        for array in (self.features_NF, self.vectors_ND, *self.messages):
            array.flush()


def _moved(path: Path, old: NDArray[Any], old_N: NDArray[np.int64]) -> Any:
    """A new file of the same type with the old rows at their new places, and zeros for new pins."""
    new = create_array(path, old.dtype, (len(old_N), old.shape[1]))
    for start in range(0, len(old_N), COPY_CHUNK):
        part = old_N[start : start + COPY_CHUNK]
        known = np.flatnonzero(part >= 0)
        new[start + known] = old[part[known]]
    return new


class _Embedder:
    """Gives changed pins their features, messages and vectors, layer by layer, so that they see each other's."""

    def __init__(self, overlay: Overlay, graph: BipartiteGraph, arrays: _Arrays, config: RunConfig) -> None:
        self._overlay, self._graph, self._arrays, self._config = overlay, graph, arrays, config
        self._network: Inference = overlay.release.network
        self._row_of_old_P = overlay.row_of_old()

    def embed(self, rows: NDArray[np.int64], report: Callable[[float], None]) -> None:
        """Write everything about these rows."""
        if not len(rows):
            return
        x_BF = self._encode(rows)
        self._arrays.features_NF[rows] = to_halves(x_BF)
        found = importance_neighbors(
            self._graph,
            rows,
            self._overlay.release.walks,
            seed=self._config.seed,
            num_threads=num_threads(self._config),
        )
        self._convolve(rows, x_BF, found)
        alone_B = (found.ids_BT < 0).all(axis=1)
        if alone_B.any():
            # As the service does with a pin without boards: its nearest pins by content stand in for neighbours.
            near = nearest_as_neighbors(self._arrays.vectors_ND[rows[alone_B]], self._search, found.ids_BT.shape[1])
            self._convolve(rows[alone_B], x_BF[alone_B], near)
        report(0.6)

    def _encode(self, rows: NDArray[np.int64]) -> Floats:
        overlay, encoder = self._overlay, self._overlay.release.encoder
        x_BF = np.zeros((len(rows), encoder.num_features), np.float32)
        has_content_B = np.isin(rows, list(overlay.records))
        for part in _parts(len(rows)):
            places = part.start + np.flatnonzero(has_content_B[part])
            x_BF[places] = encoder.encode([overlay.content(int(row)) for row in rows[places]])
        for place in np.flatnonzero(~has_content_B):  # only their boards have changed
            old_F = np.asarray(overlay.release.features_PF[overlay.old_N[rows[place]]], np.float32)
            x_BF[place] = encoder.with_graph(old_F, overlay.boards[int(rows[place])])
        return x_BF

    def _convolve(self, rows: NDArray[np.int64], x_BF: Floats, near: Neighborhoods) -> None:
        """Algorithm 2 for these rows: all messages of a layer before anybody pools them."""
        latents_BH = x_BF
        for layer, messages_NM in enumerate(self._arrays.messages):
            messages_NM[rows] = to_halves(self._network.message(layer, latents_BH))
            pooled = [self._pool(messages_NM, near.ids_BT[part], near.weights_BT[part]) for part in _parts(len(rows))]
            latents_BH = self._network.combine(layer, latents_BH, np.concatenate(pooled))
        self._arrays.vectors_ND[rows] = self._network.head(latents_BH, x_BF)

    def _pool(self, messages_NM: Any, ids_BT: NDArray[np.int32], weights_BT: Floats) -> Floats:
        neighbors_BTM = to_floats(messages_NM[np.maximum(ids_BT, 0)])
        return pool_messages(neighbors_BTM, np.where(ids_BT >= 0, weights_BT, 0), self._network.config.pooling)

    def _search(self, vectors_BD: Floats, k: int) -> Neighbors:
        found = self._overlay.release.index.query(vectors_BD, k)
        return Neighbors(self._row_of_old_P[found.rows_QK].astype(np.int64), found.scores_QK)


def _parts(num_rows: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, num_rows, CHUNK)]
