"""Pairs of one board, against a graph small enough to know all of them."""

from __future__ import annotations

import numpy as np
import pytest

from model.graph import BipartiteGraph
from offline.training.board_pairs import (
    board_chances,
    count_pairs,
    draw_board_pairs,
    fit_share,
    pairs_of_epoch,
    shared_boards,
)

# Board 0: pins 0, 1. Board 1: pins 2, 3, 4, 5. Board 2: pin 6 alone.
PINS = np.array([0, 1, 2, 3, 4, 5, 6], np.int32)
BOARDS = np.array([0, 0, 1, 1, 1, 1, 2], np.int32)
NUM = 20_000


@pytest.fixture
def graph() -> BipartiteGraph:
    return BipartiteGraph.from_edges(PINS, BOARDS, num_pins=8, num_boards=3)


def test_a_board_of_one_pin_gives_no_pair(graph: BipartiteGraph) -> None:
    assert shared_boards(graph).tolist() == [0, 1]


def test_both_pins_are_of_one_board_and_differ(graph: BipartiteGraph) -> None:
    pairs_N2 = draw_board_pairs(graph, shared_boards(graph), NUM, np.random.default_rng(1))
    assert pairs_N2.shape == (NUM, 2)
    assert (pairs_N2[:, 0] != pairs_N2[:, 1]).all()
    small_N2 = pairs_N2 <= 1
    assert (small_N2[:, 0] == small_N2[:, 1]).all()
    assert pairs_N2.max() <= 5


def test_every_board_is_as_likely_and_every_pin_of_it(graph: BipartiteGraph) -> None:
    pairs_N2 = draw_board_pairs(graph, shared_boards(graph), NUM, np.random.default_rng(2))
    shares = np.bincount(pairs_N2[:, 1], minlength=8) / NUM
    np.testing.assert_allclose(shares, [1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 8, 0, 0], atol=0.015)


def test_chances_are_those_of_the_draw(graph: BipartiteGraph) -> None:
    chances_P = board_chances(graph, shared_boards(graph))
    np.testing.assert_allclose(chances_P, [1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 8, 0, 0])


def test_the_same_seed_draws_the_same_pairs(graph: BipartiteGraph) -> None:
    first, second = (draw_board_pairs(graph, shared_boards(graph), 50, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_without_shared_boards_there_are_no_pairs() -> None:
    lonely = BipartiteGraph.from_edges(PINS, PINS, num_pins=7, num_boards=7)
    assert not shared_boards(lonely).size
    assert draw_board_pairs(lonely, shared_boards(lonely), 10, np.random.default_rng(4)).shape == (0, 2)
    assert not board_chances(lonely, shared_boards(lonely)).any()


def test_where_validation_asks_as_labelled_pairs_do_boards_give_nothing(graph: BipartiteGraph) -> None:
    labelled_N2 = np.array([[0, 6], [1, 6], [2, 7]])
    assert fit_share(labelled_N2, np.repeat(labelled_N2, 20, axis=0), graph) == 0


def test_where_validation_asks_as_boards_do_they_give_all(graph: BipartiteGraph) -> None:
    labelled_N2 = np.array([[0, 6], [1, 6], [2, 7]])
    valid_N2 = draw_board_pairs(graph, shared_boards(graph), 3000, np.random.default_rng(5))
    assert fit_share(labelled_N2, valid_N2, graph) > 0.95


def test_a_mixture_is_found_again(graph: BipartiteGraph) -> None:
    rng = np.random.default_rng(6)
    labelled_N2 = np.array([[0, 6], [1, 6], [2, 7]])
    board_N2 = draw_board_pairs(graph, shared_boards(graph), 3000, rng)
    valid_N2 = np.concatenate([board_N2, labelled_N2[rng.integers(3, size=7000)]])
    assert fit_share(labelled_N2, valid_N2, graph) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(
    ("share", "counts"), [(0.0, (100, 0)), (0.2, (100, 25)), (0.5, (100, 100)), (0.75, (50, 150)), (1.0, (0, 200))]
)
def test_an_epoch_has_all_labelled_pairs_up_to_half_a_share(share: float, counts: tuple[int, int]) -> None:
    assert count_pairs(100, share) == counts


def test_pairs_of_an_epoch_are_of_both_kinds_and_shuffled(graph: BipartiteGraph) -> None:
    labelled_N2 = np.full((100, 2), [6, 7], np.int32)
    pairs_N2 = pairs_of_epoch(labelled_N2, graph, shared_boards(graph), 0.5, np.random.default_rng(7))
    is_labelled_N = pairs_N2[:, 0] == 6
    assert is_labelled_N.sum() == 100
    assert len(pairs_N2) == 200
    assert 20 < is_labelled_N[:100].sum() < 80
