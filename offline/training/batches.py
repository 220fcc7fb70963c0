"""The producer: labelled pairs to ready training batches, made beside the running step (paper, section 3.3).

Letters: N pairs, B pairs of a batch, or of this process's share of one, C candidates of all processes, H hard
negatives of a pair, S pins read, F features, P pins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from model.graph import BipartiteGraph
from model.halves import floats_of
from model.walks import Neighborhoods
from offline.config import TrainSection
from offline.training.board_pairs import board_chances, count_pairs, pairs_of_epoch, shared_boards
from offline.training.minibatches import Forgetting, Minibatch, MinibatchBuilder
from offline.training.negatives import (
    Positives,
    hard_negatives,
    hard_ranks,
    inclusion_log_chance,
    num_hard_negatives,
    target_chances,
)
from offline.training.team import Team

Array = npt.NDArray[Any]
Ready = TypeVar("Ready")


@dataclass(frozen=True)
class TrainBatch:
    """One step's input.

    minibatch     pins to compute; its asked rows are the B queries, then this process's share of the C candidates,
                  then B x H hard negatives
    features_SF   features of the pins it reads
    target_B      which candidate is the query's positive
    log_chance_C  log of each candidate's chance to be one
    masked_BC     true where a candidate is in truth related to the query
    num_hard      H
    weight        B / the mean B of all processes
    """

    minibatch: Minibatch
    features_SF: Array
    target_B: Array
    log_chance_C: Array
    masked_BC: Array
    num_hard: int
    weight: float


@dataclass(frozen=True)
class Forgettable:
    """Columns of the features that boards decide, and what they hold for a pin on no board."""

    columns: Array
    values: Array


class BatchProducer:
    """Makes the batches of an epoch, the next ones while the current one is used."""

    def __init__(
        self,
        pairs_N2: Array,
        features_PF: Array,
        neighborhoods: Neighborhoods,
        graph: BipartiteGraph,
        config: TrainSection,
        *,
        num_layers: int,
        forgettable: Forgettable,
        board_pairs: float = 0.0,
        seed: int,
        num_threads: int,
        num_ahead: int = 1,
        team: Team | None = None,
    ) -> None:
        """
        board_pairs  share of pairs that boards give
        num_ahead    batches made at a time, each by a thread of its own
        team         those who share the batches
        """
        self._num_ahead, self._team = num_ahead, team or Team()
        self._pairs_N2, self._features_PF, self._graph = pairs_N2, features_PF, graph
        self._config, self._forgettable, self._seed, self._num_threads = config, forgettable, seed, num_threads
        self._num_pins = len(features_PF)
        self._builder = MinibatchBuilder(neighborhoods, num_layers, wires=True)
        self._positives = Positives(pairs_N2, self._num_pins)
        targets = pairs_N2 if config.both_directions else pairs_N2[:, 1]
        self._chance_P = target_chances(targets.ravel(), self._num_pins)
        self._boards = shared_boards(graph)
        self._board_pairs = board_pairs if len(self._boards) else 0.0
        if self._board_pairs:
            chance_P = board_chances(graph, self._boards)
            self._chance_P = (1 - self._board_pairs) * self._chance_P + self._board_pairs * chance_P
        self._ranks = hard_ranks(self._num_pins, config.hard_rank_low, config.hard_rank_high)

    @property
    def num_pairs(self) -> int:
        """Pairs of an epoch: the labelled ones, and those that boards give."""
        return sum(count_pairs(len(self._pairs_N2), self._board_pairs))

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""
        return -(-self.num_pairs // self._config.batch_size)

    def epoch(self, epoch: int, finish: Callable[[TrainBatch], Ready]) -> Iterator[Ready]:
        """The batches of an epoch (counted from 1): the same for the same seed, whatever came before.

        `finish` is what is still to be done beside the running step.
        """

        rng = np.random.default_rng([self._seed, epoch])
        pairs_N2 = pairs_of_epoch(self._pairs_N2, self._graph, self._boards, self._board_pairs, rng)

        def make(number: int, part_B2: Array) -> Ready:
            return finish(self._make(epoch, number, part_B2))

        waiting: deque[Future[Ready]] = deque()
        with ThreadPoolExecutor(self._num_ahead) as pool:
            for number, part_B2 in enumerate(np.array_split(pairs_N2, self.num_batches)):
                waiting.append(pool.submit(make, number, part_B2))
                if len(waiting) > self._num_ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _make(self, epoch: int, number: int, part_B2: Array) -> TrainBatch:
        config, rng = self._config, np.random.default_rng([self._seed, epoch, number])
        query_B, positive_B = part_B2.T
        if config.both_directions:
            turned_B = rng.random(len(part_B2)) < 0.5
            query_B, positive_B = np.where(turned_B, positive_B, query_B), np.where(turned_B, query_B, positive_B)
        shared_N = rng.integers(self._num_pins, size=config.num_negatives)
        candidate_C = np.unique(np.concatenate([positive_B, shared_N]))
        mine = self._team.share(len(part_B2))
        query_B, positive_B = query_B[mine], positive_B[mine]
        target_B = np.searchsorted(candidate_C, positive_B)
        masked_BC = self._positives.mask(query_B, candidate_C, target_B)
        if config.loss == "max_margin":  # its negatives are the shared ones alone, not other pairs' positives
            masked_BC |= ~np.isin(candidate_C, shared_N)
        hard_BH = self._hard(epoch, query_B, positive_B, candidate_C, rng)
        asked = np.concatenate([query_B, candidate_C[self._team.share(len(candidate_C))], hard_BH.ravel()])
        forgetting = Forgetting(config.num_neighbors, config.isolate)
        minibatch = self._builder.build(asked, forgetting, rng)
        return TrainBatch(
            minibatch,
            self._read_features(minibatch.frontier_S, rng),
            target_B,
            inclusion_log_chance(self._chance_P[candidate_C], len(part_B2), config.num_negatives, self._num_pins),
            masked_BC,
            hard_BH.shape[1],
            len(query_B) * self._team.size / len(part_B2),
        )

    def _hard(
        self, epoch: int, query_B: Array, positive_B: Array, candidate_C: Array, rng: np.random.Generator
    ) -> Array:
        num_hard = num_hard_negatives(epoch, self._config.max_hard_negatives)
        if num_hard == 0:
            return np.empty((len(query_B), 0), np.int64)
        seed = int(rng.integers(2**31))
        rows_BH = hard_negatives(self._graph, query_B, self._ranks, num_hard, seed, self._num_threads)
        # Where the walks reached too little, or hit the positive itself, a shared candidate stands in.
        unfit_BH = (rows_BH < 0) | (rows_BH == positive_B[:, None])
        return np.where(unfit_BH, rng.choice(candidate_C, rows_BH.shape), rows_BH)

    def _read_features(self, frontier_S: Array, rng: np.random.Generator) -> Array:
        """Features of the pins read; some lose what they know from boards, as a new pin without boards would."""
        features_SF = floats_of(self._features_PF[frontier_S])
        if self._config.isolate > 0 and len(self._forgettable.columns):
            chosen_S = np.flatnonzero(rng.random(len(frontier_S)) < self._config.isolate)
            features_SF[np.ix_(chosen_S, self._forgettable.columns)] = self._forgettable.values
        return features_SF
