"""The popularity prior against planted popularity, and its ranks against the vectors it makes."""

from __future__ import annotations

import numpy as np
import pytest

from model.inference import add_prior, unit_rows
from offline.evaluation.ranking import Method, cosine_scorer, related_ranks
from offline.training.prior import choose_prior, ranks_with, validation_score

NUM_PINS = 200


def random_vectors(rng: np.random.Generator) -> np.ndarray:
    return unit_rows(rng.normal(size=(NUM_PINS, 16)).astype(np.float32))


def test_validation_score_by_hand() -> None:
    # Ranks 1, 10, 1000 and 5000: 1, 2/3, 0 and 0
    assert validation_score(np.array([1.0, 10.0, 1000.0, 5000.0])) == pytest.approx(5 / 12)


def test_where_everybody_asks_for_what_is_popular_the_prior_says_so() -> None:
    rng = np.random.default_rng(1)
    prior_P2 = np.zeros((NUM_PINS, 2), np.float32)
    prior_P2[:20, 0] = 1.0  # twenty pins are on many boards
    pairs_N2 = np.stack([rng.integers(NUM_PINS, size=300), rng.integers(20, size=300)], axis=1)
    bias, weights = choose_prior(random_vectors(rng), prior_P2, pairs_N2, rng)
    assert bias > 0
    assert weights[0] >= 0.3


def test_of_the_two_popularities_the_one_that_tells_is_taken() -> None:
    rng = np.random.default_rng(2)
    prior_P2 = rng.random((NUM_PINS, 2)).astype(np.float32)
    often = np.argsort(-prior_P2[:, 1])[:20]
    pairs_N2 = np.stack([rng.integers(NUM_PINS, size=300), rng.choice(often, 300)], axis=1)
    _, weights = choose_prior(random_vectors(rng), prior_P2, pairs_N2, rng)
    assert weights[1] > weights[0]


def test_where_vectors_know_the_answer_the_prior_stays_out() -> None:
    rng = np.random.default_rng(3)
    z_PD = random_vectors(rng)
    z_PD[1::2] = z_PD[::2]  # pin 2k + 1 is the twin of pin 2k
    queries = np.arange(0, NUM_PINS, 2)
    prior_P2 = rng.random((NUM_PINS, 2)).astype(np.float32)
    bias, weights = choose_prior(z_PD, prior_P2, np.stack([queries, queries + 1], axis=1), rng)
    assert bias == 0
    assert not weights.any()


def test_ranks_are_those_of_the_vectors_with_the_prior_in() -> None:
    rng = np.random.default_rng(4)
    z_PD, p_P = random_vectors(rng), (0.9 * rng.random(NUM_PINS)).astype(np.float32)
    query_N, related_N = rng.integers(NUM_PINS, size=50), rng.integers(NUM_PINS, size=50)
    kept = query_N != related_N
    pairs_N2 = np.stack([query_N[kept], related_N[kept]], axis=1)
    vectors_PD = add_prior(z_PD, p_P)
    expected_N = related_ranks(Method(cosine_scorer(vectors_PD, vectors_PD)), *pairs_N2.T, NUM_PINS)
    np.testing.assert_array_equal(ranks_with(z_PD, p_P[None], pairs_N2)[0], expected_N)


def test_pins_with_the_same_vector_share_their_rank() -> None:
    z_PD = np.tile(unit_rows(np.ones((1, 4), np.float32)), (5, 1))
    ranks_GN = ranks_with(z_PD, np.zeros((1, 5), np.float32), np.array([[0, 3]]))
    assert ranks_GN[0, 0] == 2.5  # four candidates stand on places 1 to 4


def test_the_search_goes_between_the_points_of_the_grid() -> None:
    rng = np.random.default_rng(6)
    z_PD = random_vectors(rng)
    prior_P2 = rng.random((NUM_PINS, 2)).astype(np.float32)
    exact_P = np.array([0.7 + 0.2 * share for share in prior_P2[:, 0]], np.float32)
    scores_PP = add_prior(z_PD, exact_P) @ add_prior(z_PD, exact_P).T
    np.fill_diagonal(scores_PP, -1)
    pairs_N2 = np.stack([np.arange(NUM_PINS), scores_PP.argmax(axis=1)], axis=1)
    bias, weights = choose_prior(z_PD, prior_P2, pairs_N2, rng)
    assert bias not in (0.0, 0.5, 0.8) or weights[0] not in (0.0, 0.1, 0.3)
