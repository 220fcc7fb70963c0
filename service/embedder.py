"""From a new pin's input to its vector: neighbours, their stored messages, one small forward pass.

A pin without neighbours through its boards takes its nearest pins by content in their place: a vector is made without
neighbours first, and the pins nearest to it are weighted by their cosines (model.cold_neighbors).

Shape letters: D embedding, F features, K layers, M message width, N rows asked for, T neighbours.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from model.cold_neighbors import nearest_as_neighbors
from model.exact import Neighbors
from model.features import PinContent
from service.search import NOBODY

if TYPE_CHECKING:
    from service.catalogue import Catalogue

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float32]
Neighborhood = tuple[Ints, Floats]

NORM_TOLERANCE = 1e-3
MAX_BOARDS = 64  # of a pin that is only asked about
MAX_BOARD_PINS = 10_000


@dataclass(frozen=True)
class Made:
    """A vector and what it was made of; fields as in service.delta.Entry, seconds by step."""

    vector_D: Floats
    messages_KM: Floats
    ids_T: Ints
    weights_T: Floats
    timings: dict[str, float]


class Embedder:
    """Makes vectors of pins from a catalogue's graph and messages; changes nothing."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._network = catalogue.release.network
        self._num_neighbors = catalogue.release.walks.num_neighbors

    def embed(self, row: int, x_F: Floats) -> Made:
        """Embed the pin of a row from its input. Raises ValueError when the vector is not finite."""
        started = time.perf_counter()
        around = self.walk(row)
        if not (around[1] > 0).any():
            around = self._nearest_by_content(x_F, np.array([row]))
        walked = time.perf_counter()
        vector_D, messages_KM = self.forward(x_F, around)
        if np.linalg.norm(vector_D) < 1 - NORM_TOLERANCE:
            vector_D = _own_direction(self._seed(row), len(vector_D))
        seconds = {"walk": walked - started, "embed": time.perf_counter() - walked}
        return Made(vector_D, messages_KM, *around, seconds)

    def preview(self, content: PinContent, boards: Sequence[int]) -> Floats:
        """The vector of content that is not stored, on boards that exist; zeros where nothing of it is known."""
        x_F = self._catalogue.release.encoder.encode([content])[0]
        around = self._visits_from(boards)
        if not len(around[0]):
            around = self._nearest_by_content(x_F, NOBODY)
        return self.forward(x_F, around)[0]

    def walk(self, row: int) -> Neighborhood:
        """The importance neighbourhood of a pin in the graph as it is; the same for the same graph."""
        config = self._catalogue.release.walks
        ids_BT, weights_BT = self._catalogue.graph.neighbors(row, config, seed=self._seed(row))
        return self._existing(ids_BT[0], weights_BT[0])

    def forward(self, x_F: Floats, around: Neighborhood) -> tuple[Floats, Floats]:
        """Vector (D,) and messages (K, M) of an input with these neighbours. Raises ValueError when not finite."""
        ids_T, weights_T = around
        made = self._network.embed(x_F[None], ids_T[None], weights_T[None], self.gather)
        vector_D = made.vectors_BD[0]
        messages_KM = np.array([messages_BM[0] for messages_BM in made.messages_BM], np.float32)
        messages_KM = messages_KM.reshape(self._network.config.num_layers, self._network.config.hidden_dim)
        # Messages are kept in half precision: what is too large for that would spoil all who pool it.
        if not np.isfinite(vector_D).all() or not np.isfinite(messages_KM.astype(np.float16)).all():
            raise ValueError("the pin's vector is not finite")
        return vector_D, messages_KM

    def gather(self, layer: int, rows_N: Ints) -> Floats:
        """Messages (N, M) that pins tell their neighbours; zeros for a pin that is gone."""
        release, delta = self._catalogue.release, self._catalogue.delta
        slots_N = delta.slots_of(rows_N)
        live_N, base_N = slots_N >= 0, (slots_N < 0) & (rows_N < self._catalogue.num_base)
        messages_NM = np.zeros((len(rows_N), delta.shape.hidden_dim), np.float32)
        messages_NM[base_N] = release.messages[layer][rows_N[base_N]]
        messages_NM[live_N] = delta.messages(layer, slots_N[live_N])
        return messages_NM

    def _existing(self, ids_T: Ints, weights_T: Floats) -> Neighborhood:
        """Without pins that have no vector; the rest share the weight."""
        exists_T = self._catalogue.delta.view().exists(ids_T)
        if not exists_T.all():
            order = np.argsort(~exists_T, kind="stable")
            exists_T = exists_T[order]
            ids_T, weights_T = np.where(exists_T, ids_T[order], -1), np.where(exists_T, weights_T[order], 0)
            weights_T = (weights_T / max(weights_T.sum(), 1e-12)).astype(np.float32)
        return ids_T, weights_T

    def _nearest_by_content(self, x_F: Floats, exclude: Ints) -> Neighborhood:
        nobody = np.empty(0, np.int64), np.empty(0, np.float32)
        alone_D, _ = self.forward(x_F, nobody)

        def search(queries_QD: Floats, k: int) -> Neighbors:
            return self._catalogue.search(queries_QD, k, exclude=exclude)

        found = nearest_as_neighbors(alone_D[None], search, self._num_neighbors)
        return found.ids_BT[0], found.weights_BT[0]

    def _visits_from(self, boards: Sequence[int]) -> Neighborhood:
        """Where walks from a pin on these boards would go: the expected visits of their first hop."""
        rows, weights = [], []
        for board in list(boards)[:MAX_BOARDS]:
            pins = self._catalogue.graph.pins_of(board)
            pins = pins[:: 1 + len(pins) // MAX_BOARD_PINS]
            rows.append(pins)
            weights.append(np.full(len(pins), 1 / max(len(pins), 1)))
        if not rows:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        visited, where = np.unique(np.concatenate(rows), return_inverse=True)
        visits = np.bincount(where, np.concatenate(weights), len(visited))
        most = np.argsort(-visits, kind="stable")[: self._num_neighbors]
        shares = (visits[most] / max(visits[most].sum(), 1e-12)).astype(np.float32)
        return self._existing(visited[most], shares)

    def _seed(self, row: int) -> int:
        """Walks of a pin start from its id: a pin put again gets the neighbours it had."""
        name = self._catalogue.directory.pins.name(row)
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _own_direction(seed: int, dim: int) -> Floats:
    """A direction for a pin of which nothing is known: near nothing, but the pin finds itself."""
    vector_D = np.random.default_rng(seed).standard_normal(dim)
    own_D: Floats = (vector_D / np.linalg.norm(vector_D)).astype(np.float32)
    return own_D
