"""Cold pins through the inductive path: what the service does with a pin that was posted a second ago.

Letters: B pins of a chunk, T neighbours, F features, M message width, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from model.cold_neighbors import Search, nearest_as_neighbors
from model.config import WalkConfig
from model.exact import Neighbors, exact_neighbors
from model.features import FeatureEncoder, PinContent
from model.graph import BipartiteGraph
from model.halves import to_floats
from model.index import AnnIndex
from model.inference import Inference
from model.live_graph import LiveGraph
from model.walks import Neighborhoods
from offline.evaluation.evaluation_data import EvaluationData
from offline.run_folder import RunFolder

Array = npt.NDArray[Any]
CHUNK = 256


class ColdEmbedder:
    """Embeds pins that the run has never seen, one apart from the other."""

    def __init__(self, run: RunFolder, graph: BipartiteGraph, vectors_PD: Array, walks: WalkConfig, seed: int) -> None:
        self._inference = Inference.load(run.train)
        self._encoder = FeatureEncoder.load(run.encoder)
        self._messages = [
            np.load(run.messages(layer), mmap_mode="r") for layer in range(self._inference.config.num_layers)
        ]
        self._walks, self._seed = walks, seed
        self._live = LiveGraph(graph)
        self._row = self._live.add_pin()
        self._search = _search(run, vectors_PD)

    def embed(self, contents: Iterable[PinContent]) -> Array:
        """Unit vectors (number of contents, D); boards of a content are rows, new boards follow the known ones."""
        remaining = iter(contents)
        parts = [np.zeros((0, self._inference.config.embed_dim), np.float32)]
        while chunk := list(islice(remaining, CHUNK)):
            parts.append(self._embed_chunk(chunk))
        return np.concatenate(parts)

    def _embed_chunk(self, contents: Sequence[PinContent]) -> Array:
        x_BF = self._encoder.encode(contents)
        walked = [self._walk(content.boards) for content in contents]
        ids_BT = np.concatenate([found.ids_BT for found in walked])
        weights_BT = np.concatenate([found.weights_BT for found in walked])
        vectors_BD: Array = self._inference.embed(x_BF, ids_BT, weights_BT, self._gather).vectors_BD
        alone = np.flatnonzero((ids_BT < 0).all(axis=1))
        if len(alone) and self._messages:
            found = nearest_as_neighbors(vectors_BD[alone], self._search, self._walks.num_neighbors)
            vectors_BD[alone] = self._inference.embed(x_BF[alone], *found, self._gather).vectors_BD
        return vectors_BD

    def _walk(self, boards: Sequence[int] | Array) -> Neighborhoods:
        """Neighbours of a pin on these boards; it has left the graph when this returns, so no other meets it."""
        for board in boards:
            while board >= self._live.num_boards:
                self._live.add_board()
            self._live.add_edge(self._row, int(board))
        found = self._live.neighbors(self._row, self._walks, seed=self._seed)
        self._live.remove_pin(self._row)
        return found

    def _gather(self, layer: int, rows: npt.NDArray[np.integer[Any]]) -> Array:
        return to_floats(self._messages[layer][rows])


def cold_contents(data: EvaluationData, *, with_boards: bool) -> Iterator[PinContent]:
    """What a client would post for each cold pin, in the order of their rows."""
    order_E = np.argsort(data.cold.pins_E, kind="stable")
    first = np.searchsorted(data.cold.pins_E[order_E], np.arange(len(data.cold.ids) + 1))
    boards_E = data.cold.boards_E[order_E]
    texts = data.pins_A[data.num_pins :].select("title", "annotations", "description").iter_rows()
    for cold, (title, tags, description) in enumerate(texts):
        boards = boards_E[first[cold] : first[cold + 1]] if with_boards else boards_E[:0]
        yield PinContent(title, tags or (), description, _visual(data, data.num_pins + cold), boards)


def write_cold_embeddings(run: RunFolder, ids: Sequence[str], vectors_CD: Array) -> None:
    """Write RUN/coldstart_embeddings.npy and RUN/coldstart_pin_ids.txt."""
    np.save(run.path / "coldstart_embeddings.npy", vectors_CD)
    (run.path / "coldstart_pin_ids.txt").write_text("".join(f"{pin_id}\n" for pin_id in ids))


def _search(run: RunFolder, vectors_PD: Array) -> Search:
    """Through the run's index, as the service searches; exactly where there is none."""
    if (run.index / "index.json").exists():
        return AnnIndex.load(run.index, vectors_PD).query

    def search(vectors_QD: Array, k: int) -> Neighbors:
        return exact_neighbors(vectors_PD, vectors_QD, k)

    return search


def _visual(data: EvaluationData, row: int) -> Array | None:
    if data.visual_FV is None:
        return None
    vector_V = np.asarray(data.visual_FV[data.file_rows_A[row]])
    return vector_V if np.isfinite(vector_V).all() else None
