"""Training on a part of the boards and the pins they touch; the embeddings are of all pins (paper, section 4.1).

What is learned has no parameter of a single pin, so a part of the graph can teach it. Inside, rows are counted anew:
neighbourhoods are walked on the part alone, negatives come from its pins, and pairs that reach outside are dropped.
Its features are copied: minibatches read rows in random order, and what is read must fit into memory. Validation looks
at the part, too: to embed ten million pins after each epoch would take longer than the epochs.

Letters: P pins of the whole graph, S pins of the part, B boards, E edges, N pairs, T neighbours, F features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import UserError
from model.files import create_array
from model.graph import BipartiteGraph
from model.walks import Neighborhoods, build_neighborhoods
from offline.config import RunConfig
from offline.run_folder import RunFolder

Array = npt.NDArray[Any]

CHUNK = 65_536  # rows read at a time


@dataclass(frozen=True)
class TrainingInputs:
    """What is trained and validated on: labelled pairs (N, 2), features, neighbourhoods and the graph.

    place_P  for every pin of the catalogue its row here, -1 where it is left out; None where all are here
    """

    pairs_N2: Array
    features_PF: Array
    neighborhoods: Neighborhoods
    graph: BipartiteGraph
    place_P: Array | None = None

    def inside(self, pairs_N2: Array) -> Array:
        """Those of the catalogue's pairs that have both of their pins here, as rows here."""
        if self.place_P is None:
            return pairs_N2
        places_N2: Array = self.place_P[pairs_N2]
        return places_N2[(places_N2 >= 0).all(axis=1)]


def training_inputs(
    run: RunFolder,
    config: RunConfig,
    features_PF: Array,
    neighborhoods: Neighborhoods,
    *,
    num_threads: int,
    folder: Path,
) -> TrainingInputs:
    """What a prepared run is trained on: everything, or what `train.board_share` of the boards touches.

    folder  for the part's arrays; each process that trains needs its own

    Raises UserError where there are no labelled pairs, or none of them is left.
    """
    pairs_N2 = np.load(run.pairs("train"))
    if not len(pairs_N2):
        raise UserError(f"{run.pairs('train')}: no labelled pairs to train on")
    whole = TrainingInputs(pairs_N2, features_PF, neighborhoods, BipartiteGraph.load(run.graph))
    return whole if config.train.board_share == 1 else _restrict(whole, config, num_threads, folder)


def _restrict(whole: TrainingInputs, config: RunConfig, num_threads: int, folder: Path) -> TrainingInputs:
    share = config.train.board_share
    pins_S, part = part_of(whole.graph, choose_boards(whole.graph.num_boards, share, config.seed))
    place_P = np.full(whole.graph.num_pins, -1, np.int32)
    place_P[pins_S] = np.arange(len(pins_S))
    pairs_N2 = replace(whole, place_P=place_P).inside(whole.pairs_N2)
    if not len(pairs_N2):
        raise UserError(
            f"train.board_share = {share}: none of the {len(whole.pairs_N2):,} training pairs has both of its pins on "
            f"the {part.num_boards:,} boards drawn ({len(pins_S):,} pins); take a larger share"
        )
    folder.mkdir(parents=True, exist_ok=True)
    neighborhoods = build_neighborhoods(
        part,
        config.walks.to_walk_config(),
        seed=config.seed,
        ids_path=folder / "neighbors_ids.npy",
        weights_path=folder / "neighbors_weights.npy",
        num_threads=num_threads,
    )
    features_SF = _copy_rows(whole.features_PF, pins_S, folder / "features.npy")
    return TrainingInputs(pairs_N2, features_SF, neighborhoods, part, place_P)


def _copy_rows(features_PF: Array, rows_S: Array, path: Path) -> Array:
    """A file of just these rows, ascending, mapped."""
    features_SF = create_array(path, features_PF.dtype, (len(rows_S), features_PF.shape[1]))
    for start in range(0, len(rows_S), CHUNK):
        features_SF[start : start + CHUNK] = features_PF[rows_S[start : start + CHUNK]]
    return features_SF


def choose_boards(num_boards: int, share: float, seed: int) -> Array:
    """(B,) true for a random share of the boards, one at least."""
    chosen_B = np.zeros(num_boards, bool)
    chosen_B[np.random.default_rng(seed).permutation(num_boards)[: max(1, round(share * num_boards))]] = True
    return chosen_B


def part_of(graph: BipartiteGraph, chosen_B: Array) -> tuple[Array, BipartiteGraph]:
    """(S,) rows of the pins that the chosen boards touch, in their order, and the graph of those pins and boards."""
    boards_E = np.repeat(np.arange(graph.num_boards, dtype=np.int32), graph.board_degrees())
    kept_E = chosen_B[boards_E]
    pins_S, pins_E = np.unique(graph.board_pins_E[kept_E], return_inverse=True)
    place_B = np.cumsum(chosen_B) - 1
    part = BipartiteGraph.from_edges(
        pins_E.astype(np.int32),
        place_B[boards_E[kept_E]].astype(np.int32),
        num_pins=len(pins_S),
        num_boards=int(chosen_B.sum()),
    )
    return pins_S, part
