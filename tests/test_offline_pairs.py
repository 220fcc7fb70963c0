"""Labelled pairs: worked by hand, and what must never cross from one split to another."""

from __future__ import annotations

import numpy as np
import pytest

from model.graph import BipartiteGraph
from offline.inputs.encoder_config import PairsConfig
from offline.inputs.pairs import (
    SPLITS,
    Splits,
    choose_held_out,
    draw_splits,
    engagement_pairs,
    graph_pairs,
    limit_pairs,
    separate,
)

DAY = 86_400


def as_set(pairs_N2: np.ndarray) -> set[tuple[int, int]]:
    return {(int(query), int(related)) for query, related in pairs_N2}


def all_pairs(splits: Splits) -> set[tuple[int, int]]:
    return set().union(*map(as_set, splits.values()))


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def two_cliques(num_boards: int = 40, pins_of_a_board: int = 12, num_pins: int = 100) -> BipartiteGraph:
    """Random boards over the even pins and over the odd pins."""
    draw = rng(7)
    pins, boards = [], []
    for board in range(num_boards):
        chosen = draw.choice(num_pins // 2, pins_of_a_board, replace=False) * 2 + board % 2
        pins.extend(chosen)
        boards.extend([board] * pins_of_a_board)
    return BipartiteGraph.from_edges(pins, boards, num_pins=num_pins, num_boards=num_boards)


class TestEngagements:
    def test_consecutive_engagements_of_one_user_are_pairs(self) -> None:
        # User 0 in order of time: pins 1, 2, 3. User 1: 4, 5. Nothing joins 3 and 4.
        users = np.array([0, 1, 0, 0, 1])
        pins = np.array([3, 4, 1, 2, 5])
        times = np.array([30, 10, 10, 20, 20])
        found = engagement_pairs(users, pins, times, PairsConfig(), rng())
        assert all_pairs(found) == {(1, 2), (2, 3), (4, 5)}

    def test_a_longer_gap_than_a_session_makes_no_pair(self) -> None:
        times = np.array([0, DAY, 2 * DAY + 1])
        found = engagement_pairs(np.zeros(3, int), np.array([1, 2, 3]), times, PairsConfig(session_gap=DAY), rng())
        assert all_pairs(found) == {(1, 2)}

    def test_a_pin_outside_the_run_and_the_same_pin_again_make_no_pair(self) -> None:
        pins = np.array([1, -1, 2, 2, 3])
        found = engagement_pairs(np.zeros(5, int), pins, np.arange(5), PairsConfig(), rng())
        assert all_pairs(found) == {(2, 3)}

    def test_equal_times_keep_the_order_of_the_file(self) -> None:
        found = engagement_pairs(np.zeros(3, int), np.array([7, 5, 6]), np.zeros(3, int), PairsConfig(), rng())
        assert all_pairs(found) == {(7, 5), (5, 6)}

    def test_no_user_feeds_two_splits_in_shares_of_70_10_20(self) -> None:
        # User u engages with pins 10 u to 10 u + 9 only, so a pair tells its user.
        users = np.repeat(np.arange(100), 10)
        found = engagement_pairs(users, np.arange(1000), np.tile(np.arange(10), 100), PairsConfig(), rng())
        owners = {name: set(pairs[:, 0] // 10) for name, pairs in found.items()}
        assert [len(owners[name]) for name in SPLITS] == [70, 10, 20]
        assert not owners["train"] & owners["valid"]
        assert not owners["train"] & owners["test"]
        assert not owners["valid"] & owners["test"]
        assert sum(map(len, found.values())) == 900

    def test_no_pair_is_in_two_splits_in_either_direction(self) -> None:
        draw = rng(3)
        users, pins = np.repeat(np.arange(200), 20), draw.integers(0, 12, 4000)
        found = engagement_pairs(users, pins, np.tile(np.arange(20), 200), PairsConfig(), rng())
        assert len(found["train"]) == len(as_set(found["train"])) > 0
        either = {name: {frozenset(pair) for pair in as_set(pairs)} for name, pairs in found.items()}
        assert not either["train"] & (either["valid"] | either["test"])
        assert not either["valid"] & either["test"]

    def test_nobody_engaged_gives_three_empty_splits(self) -> None:
        none = np.zeros(0, np.int64)
        found = engagement_pairs(none, none, none, PairsConfig(), rng())
        assert {name: pairs.shape for name, pairs in found.items()} == dict.fromkeys(SPLITS, (0, 2))


class TestGraph:
    def test_the_related_pins_edge_has_left_the_graph_and_the_querys_has_stayed(self) -> None:
        graph = two_cliques()
        found, held_E = graph_pairs(graph, PairsConfig(), rng())
        boards_E = np.repeat(np.arange(graph.num_boards), graph.board_degrees())
        held = set(zip(boards_E[held_E], graph.board_pins_E[held_E], strict=True))
        kept = set(zip(boards_E[~held_E], graph.board_pins_E[~held_E], strict=True))
        assert sum(map(len, found.values())) > 0
        for query, related in all_pairs(found):
            assert any((board, related) in held and (board, query) in kept for board in range(graph.num_boards))
            assert query % 2 == related % 2  # only boards join pins

    def test_no_held_out_edge_feeds_two_splits(self) -> None:
        # One board only: a held-out edge is its pin, and that is the related pin of all its pairs.
        graph = BipartiteGraph.from_edges(
            np.concatenate([np.arange(60), np.arange(60)]), np.repeat([0, 1], 60), num_pins=60, num_boards=2
        )
        config = PairsConfig(held_out_edges=0.4, max_per_board=60)
        boards_E = np.repeat([0, 1], 60)
        found, held_E = graph_pairs(graph, config, rng())
        twice = np.bincount(graph.board_pins_E[held_E], minlength=60)
        assert twice.max() == 1  # both edges of a pin never leave
        assert 30 < held_E.sum() == round(0.4 * len(boards_E))
        related = {name: set(pairs[:, 1]) for name, pairs in found.items()}
        assert all(related.values())
        assert not related["train"] & related["valid"]
        assert not related["train"] & related["test"]
        assert not related["valid"] & related["test"]

    def test_pins_keep_an_edge_and_boards_keep_two(self) -> None:
        graph = two_cliques()
        held_E = choose_held_out(graph, PairsConfig(held_out_edges=0.49), rng())
        boards_E = np.repeat(np.arange(graph.num_boards), graph.board_degrees())
        pins_left = np.bincount(graph.board_pins_E[~held_E], minlength=graph.num_pins)
        assert (pins_left[graph.pin_degrees() > 0] >= 1).all()
        assert (np.bincount(boards_E[~held_E], minlength=graph.num_boards) >= 2).all()
        assert held_E.sum() == round(0.49 * graph.num_edges)

    def test_a_big_board_does_not_dominate(self) -> None:
        # 900 of 1000 edges are on board 0; its cap of 20 leaves the rest to the boards of ten.
        pins = np.concatenate([np.arange(900), np.arange(100), np.arange(1000)])
        boards = np.concatenate([np.zeros(900, int), 1 + np.arange(100) // 10, 20 + np.arange(1000) // 10])
        graph = BipartiteGraph.from_edges(pins, boards, num_pins=1000, num_boards=120)
        held_E = choose_held_out(graph, PairsConfig(held_out_edges=0.4, max_per_board=20), rng())
        boards_E = np.repeat(np.arange(120), graph.board_degrees())
        assert (held_E & (boards_E == 0)).sum() <= 20
        assert held_E.sum() > 400

    def test_a_graph_of_single_pins_gives_no_pairs(self) -> None:
        graph = BipartiteGraph.from_edges(np.arange(5), np.arange(5), num_pins=5, num_boards=5)
        found, held_E = graph_pairs(graph, PairsConfig(), rng())
        assert not held_E.any()
        assert not all_pairs(found)

    def test_the_same_seed_draws_the_same_pairs(self) -> None:
        graph = two_cliques()
        one, held_one = graph_pairs(graph, PairsConfig(), rng(5))
        two, held_two = graph_pairs(graph, PairsConfig(), rng(5))
        other, _ = graph_pairs(graph, PairsConfig(), rng(6))
        assert np.array_equal(held_one, held_two)
        assert all(np.array_equal(one[name], two[name]) for name in SPLITS)
        assert all_pairs(one) != all_pairs(other)


def test_separate_drops_repeats_and_what_an_earlier_split_has() -> None:
    splits = {
        "train": np.array([[1, 2], [3, 4], [1, 2], [2, 1]]),
        "valid": np.array([[4, 3], [5, 6]]),
        "test": np.array([[6, 5], [1, 2], [7, 8], [7, 8]]),
    }
    found = separate(splits)
    assert [found[name].tolist() for name in SPLITS] == [[[1, 2], [3, 4], [2, 1]], [[5, 6]], [[7, 8]]]
    found = separate(splits, ["test", "valid", "train"])
    assert [found[name].tolist() for name in SPLITS] == [[], [[4, 3]], [[6, 5], [1, 2], [7, 8]]]


def test_limit_pairs_cuts_all_splits_by_the_same_share() -> None:
    splits = {name: np.arange(2 * n).reshape(n, 2) for name, n in zip(SPLITS, (700, 100, 200), strict=True)}
    cut = limit_pairs(splits, 500, rng())
    assert [len(cut[name]) for name in SPLITS] == [350, 50, 100]
    assert all(as_set(cut[name]) <= as_set(splits[name]) for name in SPLITS)
    assert limit_pairs(splits, 1000, rng()) is splits


@pytest.mark.parametrize("num_groups", [0, 1, 2, 1000])
def test_draw_splits_gives_every_group_one_split(num_groups: int) -> None:
    codes = draw_splits(num_groups, PairsConfig(), rng())
    assert len(codes) == num_groups
    assert (codes == 1).sum() == round(0.1 * num_groups)
    assert (codes == 2).sum() == round(0.2 * num_groups)
