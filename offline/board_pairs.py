"""Training pairs from the boards themselves: two pins of one board, every board as likely as any other.

Labelled pairs often come from a few heavy users, or are few. Boards say what belongs together for everybody else, and
teach a network that embeds a pin without boards what its content has to do with them.

Letters: P pins, B boards, E edges, N pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from model.graph import BipartiteGraph

Array = npt.NDArray[Any]


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
