"""Training pairs from the boards themselves: two pins of one board, every board as likely as any other.

Labelled pairs often come from a few heavy users, or are few. Boards say what belongs together for everybody else. How
much of either a network should see is read from the validation pairs: the mixture under which their related pins are
most likely.

Letters: P pins, B boards, E edges, N pairs, S sources of pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from model.graph import BipartiteGraph

Array = npt.NDArray[Any]

EM_STEPS = 200
LITTLE = 0.05  # of all pairs is not worth drawing


def shared_boards(graph: BipartiteGraph) -> Array:
    """Rows of the boards with at least two pins."""
    return np.flatnonzero(graph.board_degrees() >= 2)


def draw_board_pairs(graph: BipartiteGraph, boards: Array, num: int, rng: np.random.Generator) -> Array:
    """(N, 2) different pins of a board of `boards`, each drawn at random; none where there are no such boards."""
    if not len(boards):
        return np.empty((0, 2), np.int32)
    board_N = rng.choice(boards, num)
    start_N, size_N = graph.board_ptr[board_N], graph.board_degrees()[board_N]
    first_N = rng.integers(size_N)
    second_N = (first_N + rng.integers(1, size_N)) % size_N
    return np.stack([graph.board_pins_E[start_N + first_N], graph.board_pins_E[start_N + second_N]], axis=1)


def board_chances(graph: BipartiteGraph, boards: Array) -> Array:
    """(P,) how likely each pin is the second of such a pair; they sum to one."""
    share_B = np.zeros(graph.num_boards)
    share_B[boards] = 1 / (graph.board_degrees()[boards] * max(len(boards), 1))
    share_E = np.repeat(share_B, graph.board_degrees())
    chance_P: Array = np.bincount(graph.board_pins_E, share_E, minlength=graph.num_pins)
    return chance_P


def fit_share(labelled_N2: Array, valid_N2: Array, graph: BipartiteGraph) -> float:
    """The share of board pairs that makes the validation pairs' related pins most likely; 0 where it is below 0.05.

    Expectation maximisation of a mixture of three: pins as labelled pairs ask for them, as boards do, and any pin.
    """
    boards = shared_boards(graph)
    if not len(boards) or not len(valid_N2) or not len(labelled_N2):
        return 0.0
    sources_SP = np.stack([
        np.bincount(labelled_N2[:, 1], minlength=graph.num_pins) / len(labelled_N2),
        board_chances(graph, boards),
        np.full(graph.num_pins, 1 / graph.num_pins),
    ])  # fmt: skip
    chances_SN, mixture_S = sources_SP[:, valid_N2[:, 1]], np.full(3, 1 / 3)
    for _ in range(EM_STEPS):
        parts_SN = mixture_S[:, None] * chances_SN
        mixture_S = (parts_SN / parts_SN.sum(axis=0)).mean(axis=1)
    share = float(mixture_S[1] / max(mixture_S[0] + mixture_S[1], 1e-9))
    return share if share >= LITTLE else 0.0


def pairs_of_epoch(
    labelled_N2: Array, graph: BipartiteGraph, boards: Array, share: float, rng: np.random.Generator
) -> Array:
    """(N', 2) pairs of one epoch in random order, `share` of them from boards; see `count_pairs` for how many."""
    num_labelled, num_board = count_pairs(len(labelled_N2), share)
    chosen_N2 = rng.permutation(labelled_N2)[:num_labelled]
    return rng.permutation(np.concatenate([chosen_N2, draw_board_pairs(graph, boards, num_board, rng)]))


def count_pairs(num_labelled: int, share: float) -> tuple[int, int]:
    """Labelled pairs and board pairs of an epoch: all the labelled ones up to half a share, then fewer of them."""
    if share <= 0.5:
        return num_labelled, round(num_labelled * share / (1 - share))
    return round(2 * num_labelled * (1 - share)), round(2 * num_labelled * share)
