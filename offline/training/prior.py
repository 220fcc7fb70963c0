"""The popularity prior: how much being popular counts, chosen on validation pairs.

Training pairs say what goes together, but rarely in the proportions in which people will ask: they come from heavy
users, or from another time. So an embedding ends in one coordinate p that gradients do not change,

    [sqrt(1 - p^2) z, p],   p = b + w . (share of log degree, share of log times asked),

and the few numbers b and w are those with the best validation score; zero is among them. With a large b the product of
two such coordinates is nearly b^2 + b w . (both shares): being popular is added to the cosine of z, whoever asks. A pin
posted a second ago has a p too: its boards are known, and it was never asked for.

Letters: P pins, N pairs, Q pairs of a block, G settings that are compared, D dimensions that the network decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from model.inference import MOST_POPULAR
from offline.evaluation.ranking import TIE

Array = npt.NDArray[Any]
Setting = tuple[float, float, float]

NONE: Setting = (0.0, 0.0, 0.0)
BIASES = (0.0, 0.5, 0.8)
WEIGHTS = (0.0, 0.1, 0.3)
MOST_BIAS, MOST_WEIGHT = 0.8, 0.6  # beyond, popular pins would be alike whatever they are
FINER = (0.1, 0.05)
MOST_PAIRS = 1000
MOST_PINS = 20_000
BLOCK = 128


def validation_score(ranks_N: Array) -> float:
    """The area under the hit-rate over log K from K = 1 to 1000: mean of max(0, 1 - log(rank) / log(1000)).

    One number that moves with every rank, so less noisy than a hit-rate at one K.
    """
    return float(np.maximum(0, 1 - np.log(ranks_N) / math.log(1000)).mean())


def choose_prior(z_PD: Array, prior_P2: Array, pairs_N2: Array, rng: np.random.Generator) -> tuple[float, Array]:
    """Bias and weights of the prior that rank the related pins of these pairs best; zeros where none helps.

    A coarse grid first, then ever finer steps from its best. Looks at no more than MOST_PAIRS pairs among no more than
    MOST_PINS pins, drawn at random.
    """
    pairs_N2 = pairs_N2[rng.permutation(len(pairs_N2))[:MOST_PAIRS]]
    others = rng.permutation(len(z_PD))[:MOST_PINS]
    pins, places = np.unique(np.concatenate([pairs_N2.ravel(), others]), return_inverse=True)
    places_N2 = places[: pairs_N2.size].reshape(pairs_N2.shape)
    z_PD, prior_P2 = np.asarray(z_PD[pins], np.float32), prior_P2[pins]

    def scores(settings: Sequence[Setting]) -> list[float]:
        priors_GP = np.stack([popularity(prior_P2, setting) for setting in settings])
        return [validation_score(ranks_N) for ranks_N in ranks_with(z_PD, priors_GP, places_N2)]

    grid = [NONE, *((b, u, v) for b, u, v in product(BIASES, WEIGHTS, WEIGHTS) if u or v)]
    score, best = _best(scores(grid), grid)
    for step in FINER if best != NONE else ():
        near = list(_neighbors(best, step))
        found, setting = _best(scores(near), near)
        if found > score:
            score, best = found, setting
    return best[0], np.array(best[1:])


def popularity(prior_P2: Array, setting: Setting) -> Array:
    """(P,) the coordinate p of these pins."""
    p_P: Array = (setting[0] + prior_P2 @ np.array(setting[1:])).clip(0, MOST_POPULAR).astype(np.float32)
    return p_P


def ranks_with(z_PD: Array, priors_GP: Array, pairs_N2: Array) -> Array:
    """(G, N) rank of each pair's related pin under each prior, ties at their mean."""
    ranks_GN = np.empty((len(priors_GP), len(pairs_N2)))
    rests_GP = np.sqrt(1 - priors_GP * priors_GP)
    for start in range(0, len(pairs_N2), BLOCK):
        query_Q, related_Q = pairs_N2[start : start + BLOCK].T
        rows = np.arange(len(query_Q))
        cosines_QP = z_PD[query_Q] @ z_PD.T
        for g, (p_P, rest_P) in enumerate(zip(priors_GP, rests_GP, strict=True)):
            scores_QP = cosines_QP * rest_P
            scores_QP += (p_P[query_Q] / rest_P[query_Q])[:, None] * p_P
            wanted_Q1 = scores_QP[rows, related_Q][:, None]
            scores_QP[rows, query_Q] = -np.inf  # a query is no candidate of its own
            above_Q = (scores_QP > wanted_Q1 + TIE).sum(axis=1)
            equal_Q = (scores_QP >= wanted_Q1 - TIE).sum(axis=1) - above_Q
            ranks_GN[g, start : start + BLOCK] = 1 + above_Q + (equal_Q - 1) / 2
    return ranks_GN


def _best(scores: Sequence[float], settings: Sequence[Setting]) -> tuple[float, Setting]:
    best = int(np.argmax(scores))
    return scores[best], settings[best]


def _neighbors(setting: Setting, step: float) -> Iterator[Setting]:
    """Settings a step away in up to three numbers."""
    for by in product((-step, 0, step), repeat=3):
        b, u, v = (value + d for value, d in zip(setting, by, strict=True))
        yield min(max(b, 0.0), MOST_BIAS), min(max(u, 0.0), MOST_WEIGHT), min(max(v, 0.0), MOST_WEIGHT)
