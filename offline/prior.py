"""The popularity prior: how much being popular counts, chosen on validation pairs.

Training pairs say what goes together, but rarely in the proportions in which people will ask: they come from heavy
users, or from another time. So an embedding ends in one coordinate p that the network does not learn,

    [sqrt(1 - p^2) z, p],   p = b + w . (share of log degree, share of log times asked),

and the few numbers b and w are those, of a small grid, with the best validation score; zero is among them. A pin
posted a second ago has a p too: its boards are known, and it was never asked for.

Letters: P pins, N pairs, Q pairs of a block, G settings of the grid, D dimensions that the network decides.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from model.inference import MOST_POPULAR

Array = npt.NDArray[Any]

FLOOR = 0.4  # of p where the prior is on, so that it also counts for queries that are not popular
STEPS = (0.0, 0.15, 0.3, 0.5)
MOST_PAIRS = 1000
MOST_PINS = 50_000
BLOCK = 256


def validation_score(ranks_N: Array) -> float:
    """The area under the hit-rate over log K from K = 1 to 1000: mean of max(0, 1 - log(rank) / log(1000)).

    One number that moves with every rank, so less noisy than a hit-rate at one K.
    """
    return float(np.maximum(0, 1 - np.log(ranks_N) / math.log(1000)).mean())


def choose_prior(z_PD: Array, prior_P2: Array, pairs_N2: Array, rng: np.random.Generator) -> tuple[float, Array]:
    """Bias and weights of the prior that rank the related pins of these pairs best; zeros where none helps.

    Looks at no more than MOST_PAIRS pairs among no more than MOST_PINS pins, drawn at random.
    """
    pairs_N2 = pairs_N2[rng.permutation(len(pairs_N2))[:MOST_PAIRS]]
    others = rng.permutation(len(z_PD))[:MOST_PINS]
    pins, places = np.unique(np.concatenate([pairs_N2.ravel(), others]), return_inverse=True)
    places_N2 = places[: pairs_N2.size].reshape(pairs_N2.shape)
    grid = [(FLOOR * (weights != (0.0, 0.0)), np.array(weights)) for weights in product(STEPS, STEPS)]
    priors_GP = np.stack([(bias + prior_P2[pins] @ w).clip(0, MOST_POPULAR) for bias, w in grid]).astype(np.float32)
    ranks_GN = _ranks(np.asarray(z_PD[pins], np.float32), priors_GP, places_N2)
    return grid[int(np.argmax([validation_score(ranks_N) for ranks_N in ranks_GN]))]


def _ranks(z_PD: Array, priors_GP: Array, pairs_N2: Array) -> Array:
    """(G, N) rank of each pair's related pin under each prior."""
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
            ranks_GN[g, start : start + BLOCK] = 1 + (scores_QP > wanted_Q1).sum(axis=1)
    return ranks_GN
