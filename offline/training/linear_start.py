"""Where training starts: the linear map of the features whose cosines rank validation pairs best.

Each group of features (text, visual, boards, ...) points somewhere by itself, and neighbours by their weighted sum are
a strong baseline. The residual path begins as that baseline: groups weighted as validation pairs like them best, the
mean taken out (what all pins share says nothing about two of them), and the principal components kept. The
convolutions start at zero (see model.network) and add what they learn; where labelled pairs have nothing to teach,
the best epoch is the one before the first.

Letters: P pins, N pairs, F features, D components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.halves import floats_of
from model.inference import unit_rows
from offline.training.prior import MOST_PAIRS, Setting, popularity, ranks_with, validation_score

Array = npt.NDArray[Any]

MOST_PINS = 20_000
STEPS = (0.0, 0.5, 1.0, 2.0)
ROUNDS = 2
PRIORS: tuple[Setting, ...] = ((0.0, 0.0, 0.0), (0.8, 0.2, 0.0), (0.8, 0.0, 0.2))
MIN_DEVIATION = 1e-4


@dataclass(frozen=True)
class LinearStart:
    """z = weight x + bias, and how much each group counts in it."""

    weight_DF: Array
    bias_D: Array
    groups: dict[str, float]


def choose_start(
    features_PF: Array,
    num_inputs: int,
    prior_P2: Array | None,
    groups: Mapping[str, slice],
    pairs_N2: Array,
    dim: int,
    rng: np.random.Generator,
) -> LinearStart | None:
    """The best map to `dim` dimensions; None where there are no groups, or all pins are alike.

    num_inputs  the columns of features that the network reads are the first ones
    groups      where each group lies in a row of features
    prior_P2    what the popularity prior reads; every weighting is looked at with and without it
    """
    pairs_N2 = pairs_N2[rng.permutation(len(pairs_N2))[:MOST_PAIRS]]
    others = rng.permutation(len(features_PF))[:MOST_PINS]
    pins, places = np.unique(np.concatenate([pairs_N2.ravel(), others]), return_inverse=True)
    places_N2 = places[: pairs_N2.size].reshape(pairs_N2.shape)
    x_PF = floats_of(features_PF[pins])[:, :num_inputs]
    mean_F = x_PF.mean(axis=0)
    x_PF -= mean_F
    settings = PRIORS if prior_P2 is not None else PRIORS[:1]
    shares_P2 = np.zeros((len(pins), 2)) if prior_P2 is None else prior_P2[pins]
    priors_GP = np.stack([popularity(shares_P2, setting) for setting in settings])

    def score(weights: Mapping[str, float]) -> float:
        parts = [weight * x_PF[:, groups[name]] for name, weight in weights.items() if weight]
        if not parts:
            return -1.0
        z_PF = unit_rows(np.concatenate(parts, axis=1))
        return max(map(validation_score, ranks_with(z_PF, priors_GP, places_N2)))

    weights = _climb(dict.fromkeys(groups, 1.0), score)
    scale_F = np.zeros(num_inputs, np.float32)
    for name, weight in weights.items():
        scale_F[groups[name]] = weight
    values_F, vectors_FF = np.linalg.eigh(np.cov((x_PF * scale_F).T.astype(np.float64)))
    kept = np.argsort(-values_F)[:dim]
    if not groups or values_F.max() < MIN_DEVIATION**2:
        return None
    weight_DF = np.zeros((dim, len(scale_F)), np.float32)
    weight_DF[: len(kept)] = vectors_FF[:, kept].T * scale_F
    return LinearStart(weight_DF, -weight_DF @ mean_F, weights)


def _climb(weights: dict[str, float], score: Any) -> dict[str, float]:
    """Change one group's weight at a time while that helps."""
    best = score(weights)
    for _ in range(ROUNDS):
        for name in weights if len(weights) > 1 else ():
            for step in STEPS:
                tried = {**weights, name: step}
                found = score(tried) if step != weights[name] else best
                if found > best:
                    best, weights = found, tried
    return weights
