"""Labelled pairs of query and related pin, for training, validation and test.

Three sources, the first that a data set has: its own pairs; consecutive engagements of one user (paper 4.1); the graph,
from edges that are held out of it. All functions are pure: arrays and a seeded generator in, arrays out.

Letters: N engagements or pairs, E edges, H held-out edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model.graph import BipartiteGraph
from offline.inputs.encoder_config import PairsConfig

Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]
Splits = dict[str, npt.NDArray[np.int32]]

SPLITS = ("train", "valid", "test")
TRAIN_QUERIES = 5  # queries of a held-out edge of the training split; one in the other splits
KEPT_PINS = 2  # pins of a board whose edges are never held out


def engagement_pairs(
    users_N: Ints, pins_N: Ints, times_N: Ints, config: PairsConfig, rng: np.random.Generator
) -> Splits:
    """Pairs (q, i) where a user engaged with i right after q and within the session gap.

    A user's pairs all go to one split. pins_N: rows, -1 for a pin that is not in the run; it makes no pair, and it
    stands between its neighbours. Equal times keep the order of the input.
    """
    order_N = np.lexsort((times_N, users_N))
    users_N, pins_N, times_N = users_N[order_N], pins_N[order_N], times_N[order_N]
    same_user = users_N[1:] == users_N[:-1]
    near = times_N[1:] - times_N[:-1] <= config.session_gap
    known = (pins_N[1:] >= 0) & (pins_N[:-1] >= 0) & (pins_N[1:] != pins_N[:-1])
    first = np.flatnonzero(same_user & near & known)
    pairs_N2 = np.stack([pins_N[first], pins_N[first + 1]], axis=1).astype(np.int32)
    _, user_codes = np.unique(users_N[first], return_inverse=True)
    split_of_user = draw_splits(int(user_codes.max(initial=-1)) + 1, config, rng)
    splits = {name: pairs_N2[split_of_user[user_codes] == code] for code, name in enumerate(SPLITS)}
    return limit_pairs(separate(splits), config.max_pairs, rng)


def graph_pairs(
    graph: BipartiteGraph, config: PairsConfig, rng: np.random.Generator
) -> tuple[Splits, npt.NDArray[np.bool_]]:
    """Pairs of two pins of one board, and which edges (in the order of board_pins_E) leave the graph for them.

    The related pin's edge to the board is held out and the query's stays, in training as in the test: so the model
    learns to find what the graph does not yet say, and no pair follows from an edge of its own. Each held-out edge
    belongs to one split.
    """
    held_E = choose_held_out(graph, config, rng)
    boards_E = np.repeat(np.arange(graph.num_boards, dtype=np.int32), graph.board_degrees())
    kept_ptr = np.concatenate([[0], np.cumsum(np.bincount(boards_E[~held_E], minlength=graph.num_boards))])
    kept_pins = graph.board_pins_E[~held_E]
    boards_H, related_H = boards_E[held_E], graph.board_pins_E[held_E]
    split_H = draw_splits(len(boards_H), config, rng)
    splits = {}
    for code, name in enumerate(SPLITS):
        queries = TRAIN_QUERIES if name == "train" else 1
        boards, related = (np.repeat(part[split_H == code], queries) for part in (boards_H, related_H))
        degrees = kept_ptr[boards + 1] - kept_ptr[boards]
        query = kept_pins[kept_ptr[boards] + (rng.random(len(boards)) * degrees).astype(np.int64)]
        splits[name] = np.stack([query, related], axis=1).astype(np.int32)
    return limit_pairs(separate(splits), config.max_pairs, rng), held_E


def choose_held_out(graph: BipartiteGraph, config: PairsConfig, rng: np.random.Generator) -> Bools:
    """Which edges (E,), in the order of board_pins_E, are held out.

    A random share of all edges, but at most `max_per_board` of a board; of each board two edges stay, so that there are
    queries, and of each pin one, so that it keeps a place in the graph.
    """
    num_edges = graph.num_edges
    shuffle_E = rng.permutation(num_edges)
    boards_E = np.repeat(np.arange(graph.num_boards, dtype=np.int32), graph.board_degrees())
    by_board_E = np.lexsort((shuffle_E, boards_E))
    rank_E = np.empty(num_edges, np.int64)
    rank_E[by_board_E] = np.arange(num_edges) - graph.board_ptr[boards_E]
    stays = np.zeros(num_edges, bool)
    last_of_pin = np.full(graph.num_pins, -1)
    last_of_pin[graph.board_pins_E[shuffle_E]] = shuffle_E
    stays[last_of_pin[last_of_pin >= 0]] = True
    free = np.flatnonzero(~stays & (rank_E >= KEPT_PINS) & (rank_E < KEPT_PINS + config.max_per_board))
    wanted = min(round(config.held_out_edges * num_edges), len(free))
    held_E = np.zeros(num_edges, bool)
    held_E[rng.choice(free, wanted, replace=False)] = True
    return held_E


def draw_splits(num_groups: int, config: PairsConfig, rng: np.random.Generator) -> npt.NDArray[np.int8]:
    """A split code for each group: 0 train, 1 valid, 2 test, in the configured shares."""
    codes = np.zeros(num_groups, np.int8)
    order = rng.permutation(num_groups)
    num_valid, num_test = round(config.valid_share * num_groups), round(config.test_share * num_groups)
    codes[order[:num_valid]] = 1
    codes[order[num_valid : num_valid + num_test]] = 2
    return codes


def separate(splits: Splits, order: Sequence[str] = SPLITS) -> Splits:
    """Drop repeats inside a split, and pairs that an earlier split in `order` has, in either direction."""
    seen = np.zeros(0, np.int64)  # ascending
    separated: Splits = {}
    for name in order:
        pairs_N2 = splits[name].astype(np.int64)
        _, first = np.unique(_keys(pairs_N2), return_index=True)
        pairs_N2 = pairs_N2[np.sort(first)]
        either_way = _keys(np.stack([pairs_N2.min(axis=1), pairs_N2.max(axis=1)], axis=1))
        separated[name] = pairs_N2[~_among(either_way, seen)].astype(np.int32)
        seen = np.sort(np.concatenate([seen, either_way]))
    return {name: separated[name] for name in SPLITS}


def limit_pairs(splits: Splits, max_pairs: int, rng: np.random.Generator) -> Splits:
    """At most so many pairs in all, each split cut by the same share, at random."""
    total = sum(map(len, splits.values()))
    if total <= max_pairs:
        return splits
    kept = {name: int(len(pairs) * max_pairs / total) for name, pairs in splits.items()}
    return {name: pairs[np.sort(rng.permutation(len(pairs))[: kept[name]])] for name, pairs in splits.items()}


def _among(keys_N: npt.NDArray[np.int64], ascending: npt.NDArray[np.int64]) -> Bools:
    """Which keys are there; np.isin would sort both, ten million of them in the better part of a minute."""
    if not len(ascending):
        return np.zeros(len(keys_N), bool)
    places_N = np.minimum(np.searchsorted(ascending, keys_N), len(ascending) - 1)
    found_N: Bools = ascending[places_N] == keys_N
    return found_N


def _keys(pairs_N2: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """One number for each pair; rows are below 2^31."""
    return (pairs_N2[:, 0] << 32) | pairs_N2[:, 1]
