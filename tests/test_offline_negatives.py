"""Negatives, the curriculum and accidental hits against numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from model.graph import BipartiteGraph
from offline.training.negatives import (
    Positives,
    hard_negatives,
    hard_ranks,
    inclusion_log_chance,
    num_hard_negatives,
    target_chances,
)


def test_curriculum_adds_one_hard_negative_an_epoch() -> None:
    assert [num_hard_negatives(epoch, most=6) for epoch in range(1, 10)] == [0, 1, 2, 3, 4, 5, 6, 6, 6]


def test_accidental_hits_are_the_query_and_what_is_related_to_it() -> None:
    # 0-1, 0-2 and 3-0 are pairs. Candidates 0 (the query), 1 (the target), 2, 3 (related), 4 (free).
    positives = Positives(np.array([[0, 1], [0, 2], [3, 0]]), num_pins=5)
    mask_BC = positives.mask(np.array([0]), np.arange(5), np.array([1]))
    assert mask_BC.tolist() == [[True, False, True, True, False]]


def test_the_mask_leaves_no_trace_for_the_next_batch() -> None:
    positives = Positives(np.array([[0, 1], [0, 2]]), num_pins=5)
    positives.mask(np.array([0]), np.arange(5), np.array([1]))
    mask_BC = positives.mask(np.array([0]), np.array([3, 4]), np.array([-1]))
    assert not mask_BC.any()


def test_chance_to_be_a_candidate_by_hand() -> None:
    # Drawn as a positive with chance 1/4 in each of 2 pairs, and by 1 uniform draw of 2 pins: 1 - (3/4)^2 (1/2) = 23/32
    log_chance = inclusion_log_chance(np.array([0.25]), batch_size=2, num_shared=1, num_pins=2)
    assert np.exp(log_chance[0]) == pytest.approx(23 / 32)


def test_chance_to_be_a_candidate_agrees_with_drawing() -> None:
    # 20,000 draws: the standard error is at most 0.0036, so five of them fail one time in a million.
    rng = np.random.default_rng(5)
    targets = np.array([0, 0, 0, 1, 2, 2])
    chance_P = target_chances(targets, num_pins=4)
    drawn = np.zeros(4)
    for _ in range(20_000):
        candidates = np.concatenate([rng.choice(targets, 3), rng.integers(4, size=2)])
        drawn[np.unique(candidates)] += 1
    expected = np.exp(inclusion_log_chance(chance_P, batch_size=3, num_shared=2, num_pins=4))
    assert drawn / 20_000 == pytest.approx(expected, abs=0.018)


def test_hard_ranks_are_the_papers_where_the_catalogue_is_large() -> None:
    assert hard_ranks(10_000_000, 0.001, 0.01) == (2000, 5000)
    assert hard_ranks(20_000, 0.001, 0.01) == (20, 200)


def test_hard_negatives_come_from_the_ranks_asked_for() -> None:
    # A chain of boards: the walk from pin 0 visits near pins far more often, so late ranks are far pins.
    pins = np.repeat(np.arange(60), 2)[1:-1]
    boards = np.repeat(np.arange(59), 2)
    graph = BipartiteGraph.from_edges(pins, boards, num_pins=60, num_boards=59)
    rows_BH = hard_negatives(graph, np.zeros(50, np.int32), (3, 6), 4, seed=1, num_threads=1)
    assert set(rows_BH.ravel()) <= {3, 4, 5, 6, 7}
    assert 1 not in rows_BH


def test_a_query_whose_walks_reach_too_little_has_no_hard_negatives() -> None:
    graph = BipartiteGraph.from_edges(np.array([0, 1]), np.array([0, 0]), num_pins=5, num_boards=1)
    rows_BH = hard_negatives(graph, np.array([0, 4]), (2, 5), 3, seed=1, num_threads=1)
    assert (rows_BH == -1).all()
