"""From a new pin's input to its vector: neighbours, their stored messages, one small forward pass.

A pin without neighbours through its boards takes its nearest pins by content in their place: a vector is made without
neighbours first, and the pins nearest to it are weighted by their cosines (model.cold_neighbors).

Shape letters: B batch rows, D embedding, F features, K layers, M message width, N rows asked for, T neighbours.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from model.cold_neighbors import nearest_as_neighbors
from model.exact import Neighbors
from model.features import PinContent
from model.halves import finite_rows, to_floats, to_halves
from service.live.search import NOBODY

if TYPE_CHECKING:
    from service.live.catalogue import Catalogue

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float32]
Neighborhood = tuple[Ints, Floats]

NORM_TOLERANCE = 1e-3
MAX_BOARDS = 64  # of a pin that is only asked about
MAX_BOARD_PINS = 10_000


class Embedder:
    """Makes vectors of pins from a catalogue's graph and messages; changes nothing."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue: Catalogue = weakref.proxy(catalogue)  # or the two would outlive a switch to the next release
        self._network = catalogue.release.network
        self._num_neighbors = catalogue.release.walks.num_neighbors

    def preview(self, content: PinContent, boards: Sequence[int]) -> Floats:
        """The vector of content that is not stored, on boards that exist; zeros where nothing of it is known."""
        x_F = self._catalogue.release.encoder.encode([content])[0]
        around = self._visits_from(boards)
        if not len(around[0]):
            around = self.nearest_by_content(x_F, NOBODY)
        return self._forward_one(x_F, *around)

    def visits(self, row: int) -> Neighborhood:
        """The importance neighbourhood of a pin in the graph as it is; the same for the same graph."""
        config = self._catalogue.release.walks
        ids_BT, weights_BT = self._catalogue.graph.neighbors(row, config, seed=self._seed(row))
        return ids_BT[0], weights_BT[0]

    def existing(self, ids_T: Ints, weights_T: Floats) -> Neighborhood:
        """A neighbourhood without pins that have no vector; the rest share the weight."""
        exists_T = self._catalogue.delta.view().exists(ids_T)
        if not exists_T.all():
            order = np.argsort(~exists_T, kind="stable")
            exists_T = exists_T[order]
            ids_T, weights_T = np.where(exists_T, ids_T[order], -1), np.where(exists_T, weights_T[order], 0)
            weights_T = (weights_T / max(weights_T.sum(), 1e-12)).astype(np.float32)
        return ids_T, weights_T

    def nearest_by_content(self, x_F: Floats, exclude: Ints) -> Neighborhood:
        """The neighbourhood of a pin that no walk can start from."""
        alone_D = self._forward_one(x_F, np.empty(0, np.int64), np.empty(0, np.float32))

        def search(queries_QD: Floats, k: int) -> Neighbors:
            return self._catalogue.search(queries_QD, k, exclude=exclude)

        found = nearest_as_neighbors(alone_D[None], search, self._num_neighbors)
        return found.ids_BT[0], found.weights_BT[0]

    def forward(self, x_BF: Floats, ids_BT: Ints, weights_BT: Floats) -> tuple[Floats, Floats]:
        """Vectors (B, D) and messages (B, K, M) of inputs with these neighbours.

        Raises ValueError when any is not finite.
        """
        config = self._network.config
        made = self._network.embed(x_BF, ids_BT, weights_BT, self.gather)
        messages_BKM = np.empty((len(x_BF), config.num_layers, config.hidden_dim), np.float32)
        for layer, messages_BM in enumerate(made.messages_BM):
            messages_BKM[:, layer] = messages_BM
        # Messages are kept in half precision: what is too large for that would spoil all who pool it.
        finite = np.isfinite(made.vectors_BD).all() and finite_rows(to_halves(messages_BKM)).all()
        if not finite:
            raise ValueError("a pin's vector is not finite")
        return made.vectors_BD, messages_BKM

    def unit(self, row: int, vector_D: Floats) -> Floats:
        """The vector, or where it says nothing a direction of the pin's own: near nothing, but the pin finds itself."""
        if np.linalg.norm(vector_D) >= 1 - NORM_TOLERANCE:
            return vector_D
        random_D = np.random.default_rng(self._seed(row)).standard_normal(len(vector_D))
        own_D: Floats = (random_D / np.linalg.norm(random_D)).astype(np.float32)
        return own_D

    def gather(self, layer: int, rows_N: Ints) -> Floats:
        """Messages (N, M) that pins tell their neighbours; zeros for a pin that is gone."""
        release, delta = self._catalogue.release, self._catalogue.delta
        slots_N = delta.slots_of(rows_N)
        live_N, base_N = slots_N >= 0, (slots_N < 0) & (rows_N < self._catalogue.num_base)
        messages_NM = np.zeros((len(rows_N), delta.shape.hidden_dim), np.float32)
        messages_NM[base_N] = to_floats(release.messages[layer][rows_N[base_N]])
        messages_NM[live_N] = delta.messages(layer, slots_N[live_N])
        return messages_NM

    def _forward_one(self, x_F: Floats, ids_T: Ints, weights_T: Floats) -> Floats:
        vector_D: Floats = self.forward(x_F[None], ids_T[None], weights_T[None])[0][0]
        return vector_D

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
        return self.existing(visited[most], shares)

    def _seed(self, row: int) -> int:
        """Walks of a pin start from its id: a pin put again gets the neighbours it had."""
        name = self._catalogue.directory.pins.name(row)
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
