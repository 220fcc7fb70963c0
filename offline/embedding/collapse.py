"""How alike random pins are: figure 4 of the paper, and the guard against a collapsed space.

Letters: P pins, D embedding width, N random pairs of pins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import PinsageError
from model.halves import floats_of
from model.inference import unit_rows
from offline.evaluation.metrics import kurtosis

Array = npt.NDArray[Any]

NUM_PAIRS = 100_000
SEED = 7
CHUNK = 16_384
NEAR = 0.9
MAX_NEAR_SHARE = 0.5
MAX_MEAN = 0.9
MIN_KURTOSIS = 1.2  # 1 is two values and nothing between: pins that are all either the same or opposite
BINS = 80


def random_cosines(
    vectors_PD: Array | _Directions, *, num_pairs: int = NUM_PAIRS, seed: int = SEED
) -> npt.NDArray[np.float64]:
    """Cosines (N,) of random pairs of different rows, which have unit length or are zeros; empty below three rows."""
    num_pins = len(vectors_PD)
    if num_pins < 3:
        return np.zeros(0)
    rng = np.random.default_rng(seed)
    first_N = rng.integers(0, num_pins, num_pairs)
    second_N = (first_N + rng.integers(1, num_pins, num_pairs)) % num_pins
    cosines_N = np.empty(num_pairs)
    for start in range(0, num_pairs, CHUNK):
        part = slice(start, start + CHUNK)
        cosines_N[part] = np.einsum(
            "nd,nd->n", *(floats_of(vectors_PD[rows_N[part]]) for rows_N in (first_N, second_N))
        )
    return cosines_N


class _Directions:
    """Unit rows of all coordinates but the last, computed as they are asked for."""

    def __init__(self, vectors_PD: Array) -> None:
        self._vectors_PD = vectors_PD

    def __len__(self) -> int:
        return len(self._vectors_PD)

    def __getitem__(self, rows: Array) -> Array:
        return unit_rows(floats_of(self._vectors_PD[rows])[:, :-1])


def describe_similarity(cosines_N: Array) -> dict[str, Any]:
    """n, mean, std, kurtosis (Pearson, 3 for a normal distribution), share above 0.9, and a histogram over -1 to 1."""
    if not len(cosines_N):
        return {"n": 0}
    heaviness = kurtosis(cosines_N)
    counts, _ = np.histogram(cosines_N.clip(-1, 1), BINS, (-1, 1))
    return {
        "n": len(cosines_N),
        "mean": round(float(cosines_N.mean()), 5),
        "std": round(float(cosines_N.std()), 5),
        "kurtosis": None if np.isnan(heaviness) else round(heaviness, 5),
        "share_above_0.9": round(float((cosines_N > NEAR).mean()), 5),
        "histogram": counts.tolist(),
    }


def check_collapse(vectors_PD: Array, *, num_prior: int = 0, seed: int = SEED) -> None:
    """Raise PinsageError, with the reason and what to do, when nearly all pins share one embedding, or two.

    Such a space still has unit rows and a small loss, but every pin is related to every other. Where there is a prior
    of popularity, its coordinate is left out: all pins may share much of it, and the rest still tells them apart.
    """
    cosines_N = random_cosines(_Directions(vectors_PD) if num_prior else vectors_PD, seed=seed)
    if not len(cosines_N):
        return
    if not np.isfinite(cosines_N).all():
        raise PinsageError("the embeddings are not finite")
    mean, share, heaviness = float(cosines_N.mean()), float((cosines_N > NEAR).mean()), kurtosis(cosines_N)
    if mean > MAX_MEAN or share > MAX_NEAR_SHARE or not heaviness >= MIN_KURTOSIS:  # NaN: the cosines do not vary
        raise PinsageError(
            f"the embeddings have collapsed: random pins have a mean cosine of {mean:.3f}, {share:.0%} of them are "
            f"above {NEAR} (at most {MAX_NEAR_SHARE:.0%} may be), and the kurtosis is {heaviness:.2f} (at least "
            f"{MIN_KURTOSIS}); train again with a lower train.learning_rate, more train.num_negatives or "
            "--set train.loss=softmax"
        )
