"""Measures of a ranking, as pure functions.

Letters: N labelled pairs (or users), Q distinct queries, K places of a list, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Array = npt.NDArray[Any]

HIT_PLACES = (10, 100, 500)
SCALE = 100
NUM_RESAMPLES = 1000
LEVEL = 0.95
MIN_QUERIES = 10  # resamples of fewer queries say too little: one query alone would give an interval without width


class Interval(NamedTuple):
    """The two ends of a confidence interval."""

    low: float
    high: float


def hit_rate(ranks_N: Array, k: int) -> float:
    """HR@k = |{n : R_n <= k}| / N, the share of pairs whose related pin is among the k best (paper 4.2)."""
    return float(hits(ranks_N, k).mean())


def mean_reciprocal_rank(ranks_N: Array) -> float:
    """MRR = 1/N sum_n 1 / R_n."""
    return float(reciprocal_ranks(ranks_N).mean())


def scaled_mrr(ranks_N: Array, scale: int = SCALE) -> float:
    """MRR = 1/N sum_n 1 / ceil(R_n / 100), so that places far down still tell methods apart (paper, equation 2)."""
    return float(reciprocal_ranks(ranks_N, scale).mean())


def hits(ranks_N: Array, k: int) -> Floats:
    """1 for each pair whose related pin is among the k best, else 0."""
    return (ranks_N <= k).astype(np.float64)


def reciprocal_ranks(ranks_N: Array, scale: int | None = None) -> Floats:
    """1 / R, or 1 / ceil(R / scale), of each pair."""
    reciprocal: Floats = 1 / (ranks_N if scale is None else np.ceil(ranks_N / scale))
    return reciprocal


def pair_values(ranks_N: Array) -> dict[str, Floats]:
    """What each pair adds to each measure; the measure is the mean."""
    values = {f"HR@{k}": hits(ranks_N, k) for k in HIT_PLACES}
    return values | {"MRR": reciprocal_ranks(ranks_N), f"MRR_scaled{SCALE}": reciprocal_ranks(ranks_N, SCALE)}


def recall_at(hits_K: Array, num_relevant: int) -> float:
    """Recall@K = (relevant pins among the K shown) / (all relevant pins). hits_K: 1 where a relevant pin stands."""
    return float(hits_K.sum() / num_relevant)


def ndcg_at(hits_K: Array, num_relevant: int) -> float:
    """NDCG@K = DCG / IDCG, DCG = sum_k hit_k / log2(k + 1) k from 1; IDCG has min(K, relevant) hits first."""
    discounts_K = 1 / np.log2(np.arange(2, len(hits_K) + 2))
    ideal = discounts_K[:num_relevant].sum()
    return float((hits_K * discounts_K).sum() / ideal) if ideal else 0.0


def kurtosis(values_N: Floats) -> float:
    """Pearson's kurtosis m4 / m2^2 (3 for a normal distribution); NaN where the values do not vary.

    The paper's figure 4 states it for the cosines of random pairs, and takes a low one, a wide spread, for the better.
    """
    centred_N = values_N.astype(np.float64) - values_N.mean(dtype=np.float64)
    variance = (centred_N**2).mean()
    return float((centred_N**4).mean() / variance**2) if variance > 1e-12 else float("nan")


def bootstrap_intervals(
    values: Mapping[str, Floats],
    queries_N: Array,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> dict[str, Interval]:
    """Percentile bootstrap of means, drawing whole queries with replacement.

    Pairs of one query rise and fall together, so pairs are not drawn one by one. values: name -> one number per pair;
    queries_N: the query of each pair. All names share their resamples.
    """
    _, owner_N = np.unique(queries_N, return_inverse=True)
    num_queries = int(owner_N.max()) + 1
    sums_QM = np.stack([np.bincount(owner_N, v, num_queries) for v in values.values()], axis=1)
    sizes_Q = np.bincount(owner_N, minlength=num_queries)
    rng = np.random.default_rng(seed)
    means_RM = np.empty((num_resamples, len(values)))
    for resample in range(num_resamples):
        drawn_Q = np.bincount(rng.integers(0, num_queries, num_queries), minlength=num_queries)
        means_RM[resample] = drawn_Q @ sums_QM / (drawn_Q @ sizes_Q)
    tail = (1 - level) / 2
    low_M, high_M = np.quantile(means_RM, [tail, 1 - tail], axis=0)
    return {name: Interval(float(low_M[m]), float(high_M[m])) for m, name in enumerate(values)}


def summarise(
    values: Mapping[str, Floats],
    queries_N: Array,
    *,
    seed: int | None = None,
    ours: Mapping[str, Floats] | None = None,
) -> dict[str, Any]:
    """{"n": pairs, name: mean, …}, rounded to five digits; with a seed also "intervals": {name: [low, high]}.

    ours: what the method that this one is compared with has on the same pairs; adds "differences" (see there).
    Only {"n": 0} where there is no pair.
    """
    if not len(queries_N):
        return {"n": 0}
    row: dict[str, Any] = {"n": len(queries_N)}
    row |= {name: round(float(v.mean()), 5) for name, v in values.items()}
    if seed is None:
        return row
    # Values and differences share their resamples: drawing is what takes the time.
    gaps = {} if ours is None else _gaps(values, ours, queries_N)
    found = bootstrap_intervals({**values, **{f"less {name}": gap for name, gap in gaps.items()}}, queries_N, seed=seed)
    row["intervals"] = {name: [round(end, 5) for end in found[name]] for name in values}
    if ours is not None:
        row["differences"] = {name: _difference(gap, found[f"less {name}"]) for name, gap in gaps.items()}
    return row


def differences(
    values: Mapping[str, Floats], ours: Mapping[str, Floats], queries_N: Array, *, seed: int
) -> dict[str, dict[str, float]]:
    """{name: {"mean", "low", "high"}} of values less ours on the same pairs: a paired bootstrap over queries.

    Paired, because what makes a query hard makes it hard for both: two methods whose own intervals overlap may still
    differ for sure. Empty below MIN_QUERIES queries.
    """
    gaps = _gaps(values, ours, queries_N)
    found = bootstrap_intervals(gaps, queries_N, seed=seed) if gaps else {}
    return {name: _difference(gap, found[name]) for name, gap in gaps.items()}


def _gaps(values: Mapping[str, Floats], ours: Mapping[str, Floats], queries_N: Array) -> dict[str, Floats]:
    """What each pair adds to each difference; none where the queries are too few to say anything."""
    if len(np.unique(queries_N)) < MIN_QUERIES:
        return {}
    return {name: values[name] - ours[name] for name in values}


def _difference(gap_N: Floats, interval: Interval) -> dict[str, float]:
    return {"mean": round(float(gap_N.mean()), 5), "low": round(interval.low, 5), "high": round(interval.high, 5)}


def verdict(difference: Mapping[str, float] | None) -> str:
    """What a difference allows to say: "above", "below", "even" (the interval holds 0), "" where there is none."""
    if not difference:
        return ""
    if difference["low"] > 0:
        return "above"
    return "below" if difference["high"] < 0 else "even"
