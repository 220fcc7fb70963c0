"""How alike random pins are, by each method and by each part of the network's input (paper, figure 4).

Letters: P pins, F features, Q queries and C candidates of a block of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from model.features import FeatureEncoder
from offline.embedding.collapse import NUM_PAIRS, SEED, describe_similarity, random_cosines
from offline.evaluation.evaluation_data import EvaluationData
from offline.evaluation.evaluation_methods import PINSAGE
from offline.evaluation.ranking import Method
from offline.run_folder import RunFolder

Array = npt.NDArray[Any]
Row = dict[str, Any]

COSINES = (PINSAGE, "text", "visual", "boards", "als")  # methods whose score of a pair is a cosine
SIZES = ("degree", "popularity")  # groups of features that point nowhere
BLOCK = 32  # queries, and candidates, that are drawn at a time: 1,000 pairs


def similarity_table(run: RunFolder, data: EvaluationData) -> dict[str, Row]:
    """By the embeddings, and by each group of the network's input that has a direction."""
    table = {PINSAGE: describe_similarity(random_cosines(data.vectors_PD))}
    if run.features.exists():
        features_PF = np.load(run.features, mmap_mode="r")
        for name, columns in FeatureEncoder.load(run.encoder).slices.items():
            if name not in SIZES:
                table[name] = describe_similarity(random_cosines(features_PF[:, columns]))
    return table


def method_similarity(methods: Mapping[str, Method], num_pins: int) -> dict[str, Row]:
    """By each method that scores with a cosine; the others have none."""
    return {name: describe_similarity(method_cosines(methods[name], num_pins)) for name in COSINES if name in methods}


def method_cosines(method: Method, num_pins: int, *, num_pairs: int = NUM_PAIRS, seed: int = SEED) -> Array:
    """Scores (N,) of random pairs of different pins: all pairs where they are no more than num_pairs.

    Otherwise in blocks of some queries by some candidates, which any method can answer; empty below three pins.
    """
    if num_pins < 3:
        return np.zeros(0)
    if num_pins**2 <= num_pairs:
        every_P = np.arange(num_pins)
        return _scores(method, every_P, every_P)
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(-(-num_pairs // BLOCK**2)):
        queries_Q, candidates_C = (rng.choice(num_pins, BLOCK, replace=False) for _ in range(2))
        parts.append(_scores(method, queries_Q, candidates_C))
    return np.concatenate(parts)[:num_pairs]


def _scores(method: Method, queries_Q: Array, candidates_C: Array) -> Array:
    scores_QC = method.scorer(queries_Q)(candidates_C)
    scores: Array = scores_QC[queries_Q[:, None] != candidates_C]
    return scores
