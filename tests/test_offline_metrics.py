"""Measures of a ranking, against numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from offline.evaluation.metrics import (
    bootstrap_intervals,
    differences,
    hit_rate,
    kurtosis,
    mean_reciprocal_rank,
    ndcg_at,
    pair_values,
    recall_at,
    scaled_mrr,
    summarise,
    verdict,
)

RANKS = np.array([1, 10, 11, 100, 101, 500, 501])


@pytest.mark.parametrize(("k", "expected"), [(1, 1 / 7), (10, 2 / 7), (100, 4 / 7), (500, 6 / 7), (1000, 1)])
def test_hit_rate_counts_ranks_up_to_k(k: int, expected: float) -> None:
    assert hit_rate(RANKS, k) == pytest.approx(expected)


def test_mean_reciprocal_rank_takes_tied_ranks() -> None:
    assert mean_reciprocal_rank(np.array([1, 2.5, 5, 4.5])) == pytest.approx((1 + 0.4 + 0.2 + 2 / 9) / 4)


def test_scaled_mrr_is_equation_2() -> None:
    assert scaled_mrr(RANKS) == pytest.approx((1 + 1 + 1 + 1 + 1 / 2 + 1 / 5 + 1 / 6) / 7)


def test_pair_values_average_to_the_measures() -> None:
    means = {name: values.mean() for name, values in pair_values(RANKS).items()}
    assert means == pytest.approx(
        {
            "HR@10": hit_rate(RANKS, 10),
            "HR@100": hit_rate(RANKS, 100),
            "HR@500": hit_rate(RANKS, 500),
            "MRR": mean_reciprocal_rank(RANKS),
            "MRR_scaled100": scaled_mrr(RANKS),
        }
    )


def test_recall_divides_by_all_relevant_pins() -> None:
    assert recall_at(np.array([1, 0, 1, 0, 0]), 8) == 0.25


def test_ndcg_of_hits_in_first_and_fourth_place() -> None:
    gained, ideal = 1 + 1 / math.log2(5), 1 + 1 / math.log2(3)
    assert ndcg_at(np.array([1, 0, 0, 1]), 2) == pytest.approx(gained / ideal)


def test_ndcg_is_one_where_more_is_relevant_than_places_are() -> None:
    assert ndcg_at(np.ones(20), 50) == pytest.approx(1)


def test_kurtosis_of_two_values_is_one() -> None:
    assert kurtosis(np.array([-1.0, 1.0, -1.0, 1.0])) == pytest.approx(1)


def test_kurtosis_of_a_rare_spike() -> None:
    # One 1 among n-1 zeros: p = 1/n, kurtosis = (1 - 3p(1-p)) / (p(1-p)).
    p = 0.1
    assert kurtosis(np.array([1.0] + [0.0] * 9)) == pytest.approx((1 - 3 * p * (1 - p)) / (p * (1 - p)))


def test_kurtosis_of_normal_numbers_is_three() -> None:
    assert kurtosis(np.random.default_rng(0).normal(size=200_000)) == pytest.approx(3, abs=0.05)


def test_kurtosis_of_a_constant_is_not_a_number() -> None:
    assert math.isnan(kurtosis(np.ones(10)))


def test_bootstrap_of_independent_pairs_is_the_textbook_interval() -> None:
    values = (np.random.default_rng(1).random(4000) < 0.3).astype(np.float64)
    low, high = bootstrap_intervals({"HR": values}, np.arange(4000), seed=2)["HR"]
    error = 1.96 * values.std() / math.sqrt(4000)
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.002)


def test_bootstrap_draws_whole_queries() -> None:
    """Ten copies of each pair tell nothing new: the interval is as wide as without them."""
    values = (np.random.default_rng(1).random(400) < 0.3).astype(np.float64)
    once = bootstrap_intervals({"HR": values}, np.arange(400), seed=2)["HR"]
    copied = bootstrap_intervals({"HR": np.repeat(values, 10)}, np.repeat(np.arange(400), 10), seed=2)["HR"]
    assert copied == pytest.approx(once)


def test_bootstrap_weighs_queries_by_their_pairs() -> None:
    values, queries = np.array([1.0, 1.0, 1.0, 0.0]), np.array([5, 5, 5, 9])
    low, high = bootstrap_intervals({"HR": values}, queries, seed=0)["HR"]
    assert (low, high) == (0, 1)  # two queries: a resample may hold just one of them


def test_bootstrap_is_repeatable_and_depends_on_the_seed() -> None:
    values = np.random.default_rng(1).random(50)
    first, again, other = (bootstrap_intervals({"x": values}, np.arange(50), seed=seed)["x"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_summary_of_no_pairs_says_so() -> None:
    assert summarise(pair_values(np.zeros(0)), np.zeros(0), seed=1) == {"n": 0}


def test_summary_holds_means_and_intervals_around_them() -> None:
    row = summarise(pair_values(RANKS), np.arange(7), seed=1)
    assert row["n"] == 7
    assert row["HR@10"] == round(2 / 7, 5)
    low, high = row["intervals"]["HR@10"]
    assert low <= row["HR@10"] <= high


def test_a_paired_difference_is_sure_where_two_intervals_overlap() -> None:
    """One method finds what the other finds and 2 % more: sure on the same queries, lost between two intervals."""
    ours = (np.random.default_rng(3).random(1000) < 0.3).astype(np.float64)
    better = ours.copy()
    better[np.flatnonzero(ours == 0)[:20]] = 1
    apart = [bootstrap_intervals({"HR": values}, np.arange(1000), seed=1)["HR"] for values in (ours, better)]
    assert apart[0].high > apart[1].low
    found = differences({"HR": better}, {"HR": ours}, np.arange(1000), seed=1)["HR"]
    assert found["mean"] == 0.02
    # The textbook interval of a share of 20 in 1,000.
    error = 1.96 * math.sqrt(0.02 * 0.98 / 1000)
    assert (found["low"], found["high"]) == pytest.approx((0.02 - error, 0.02 + error), abs=0.002)
    assert verdict(found) == "above"


def test_differences_have_a_sign_and_a_verdict() -> None:
    ours, queries = np.tile([1.0, 0.0], 200), np.arange(400)
    found = differences({"worse": ours * 0.5, "same": ours, "mixed": 1 - ours},
                        dict.fromkeys(("worse", "same", "mixed"), ours), queries, seed=4)  # fmt: skip
    assert {name: verdict(row) for name, row in found.items()} == {"worse": "below", "same": "even", "mixed": "even"}
    assert found["worse"]["mean"] == -0.25
    assert found["same"] == {"mean": 0, "low": 0, "high": 0}
    assert verdict(None) == verdict({}) == ""


def test_few_queries_allow_no_difference() -> None:
    """However many pairs they have: a single query would give an interval without width."""
    ones, zeros = np.ones(90), np.zeros(90)
    assert differences({"HR": ones}, {"HR": zeros}, np.arange(90) % 9, seed=1) == {}
    assert differences({"HR": ones}, {"HR": zeros}, np.arange(90) % 10, seed=1)["HR"]["low"] == 1


def test_summary_holds_differences_where_it_is_told_of_another() -> None:
    values = pair_values(np.arange(1, 21))
    assert "differences" not in summarise(values, np.arange(20), seed=1)
    row = summarise(values, np.arange(20), seed=1, ours=pair_values(np.ones(20)))
    assert row["differences"]["HR@10"]["mean"] == -0.5
