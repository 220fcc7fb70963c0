"""Negatives, and which candidates are in truth positives (paper, section 3.3).

Letters: P pins, N pairs, B pairs of a batch, C candidates, H hard negatives of a pair.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from model.config import WalkConfig
from model.graph import BipartiteGraph
from model.walks import importance_neighbors
from offline.training.minibatches import Scratch

Array = npt.NDArray[Any]


class Positives:
    """The known related pins of each pin, both ways, and how often each pin is asked for as a positive."""

    def __init__(self, pairs_N2: Array, num_pins: int) -> None:
        both = np.concatenate([pairs_N2, pairs_N2[:, ::-1]])
        both = both[np.argsort(both[:, 0], kind="stable")]
        self.ptr_P1 = np.searchsorted(both[:, 0], np.arange(num_pins + 1))
        self.related_N = np.ascontiguousarray(both[:, 1], np.int32)
        self._scratch = Scratch(num_pins)

    def mask(self, query_B: Array, candidate_C: Array, target_B: Array) -> Array:
        """(B, C) true for accidental hits: candidates that are the query or related to it, but not its target."""
        return _accidental_hits(query_B, candidate_C, target_B, self.ptr_P1, self.related_N, self._scratch.place_P)


@numba.njit(nogil=True, cache=True)
def _accidental_hits(
    query_B: Array, candidate_C: Array, target_B: Array, ptr_P1: Array, related_N: Array, place_P: Array
) -> Array:
    mask_BC = np.zeros((len(query_B), len(candidate_C)), np.bool_)
    for c in range(len(candidate_C)):
        place_P[candidate_C[c]] = c
    for b in range(len(query_B)):
        query = query_B[b]
        if place_P[query] >= 0:
            mask_BC[b, place_P[query]] = True
        for n in range(ptr_P1[query], ptr_P1[query + 1]):
            if place_P[related_N[n]] >= 0:
                mask_BC[b, place_P[related_N[n]]] = True
        if target_B[b] >= 0:
            mask_BC[b, target_B[b]] = False
    for c in range(len(candidate_C)):
        place_P[candidate_C[c]] = -1
    return mask_BC


def target_chances(targets_N: Array, num_pins: int) -> Array:
    """(P,) how likely each pin is the positive of a pair drawn at random."""
    counts = np.bincount(targets_N, minlength=num_pins)
    chance_P: Array = counts / max(counts.sum(), 1)
    return chance_P


def inclusion_log_chance(chance_C: Array, batch_size: int, num_shared: int, num_pins: int) -> Array:
    """log of the chance that a pin is among the candidates: by being some pair's positive, or by uniform draw.

    P(in) = 1 - (1 - chance)^B (1 - 1/P)^N; this is the Q of the logQ correction, for candidates without repeats.
    """
    log_out = batch_size * np.log1p(-np.minimum(chance_C, 1 - 1e-9)) + num_shared * np.log1p(-1 / max(num_pins, 2))
    log_chance_C: Array = np.log(np.maximum(-np.expm1(log_out), 1e-12))
    return log_chance_C


def num_hard_negatives(epoch: int, most: int) -> int:
    """The curriculum: none in the first epoch, n-1 in the n-th (counted from 1), at most `most`."""
    return min(max(epoch - 1, 0), most)


def hard_ranks(num_pins: int, low_share: float, high_share: float) -> tuple[int, int]:
    """First and last personalised-PageRank rank that counts as hard.

    The paper takes ranks 2000 to 5000 of a catalogue of billions; smaller ones take shares of their size, up to these.
    """
    low = max(1, min(2000, round(low_share * num_pins)))
    high = max(low + 1, min(5000, round(high_share * num_pins)))
    return low, min(high, max(num_pins - 1, low + 1))


HARD_WALKS = WalkConfig(num_walks=2000, num_hops=6, restart=0.15, num_neighbors=0)


def hard_negatives(
    graph: BipartiteGraph, queries_B: Array, ranks: tuple[int, int], num_hard: int, seed: int, num_threads: int
) -> Array:
    """(B, H) rows drawn from each query's personalised-PageRank ranks, -1 where the walks reached too few pins.

    PageRank is estimated by the visit counts of long random walks with restarts.
    """
    low, high = ranks
    config = WalkConfig(HARD_WALKS.num_walks, HARD_WALKS.num_hops, HARD_WALKS.restart, high)
    ranked_BT = importance_neighbors(graph, queries_B, config, seed=seed, num_threads=num_threads).ids_BT
    rng = np.random.default_rng(seed)
    reached_B = (ranked_BT >= 0).sum(1)
    first_B = np.minimum(low, reached_B)
    draw_BH = first_B[:, None] + rng.random((len(queries_B), num_hard)) * (reached_B - first_B)[:, None]
    rows_BH = np.take_along_axis(ranked_BT, np.minimum(draw_BH.astype(np.int64), ranked_BT.shape[1] - 1), 1)
    return np.where((reached_B > first_B)[:, None], rows_BH, -1)
