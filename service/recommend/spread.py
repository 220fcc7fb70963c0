"""Choosing the next place of a list so that neighbouring places differ.

Each candidate has a value. It costs a candidate to be like what was placed before: a sum of cosines that decays from
place to place (the idea of maximal marginal relevance, over a sliding window). So topics take turns, each as often as
its values earn, and a list of one topic stays in the order of its values.

Shape letters: C candidates, D embedding width, N placed pins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

COST = 0.04  # of a pin of cosine 1 at the place before; a long row of the same costs ten times as much
DECAY = 0.9  # of the cost, from place to place
WINDOW = 200  # places after which nothing at all is left of it


class Spread:
    """Candidates that are still to be placed. rows_C are all different; vectors are of unit length."""

    def __init__(self, rows_C: Sequence[int], values_C: npt.NDArray[np.float64], vectors_CD: Floats) -> None:
        self._places = {row: c for c, row in enumerate(rows_C)}
        self._values_C, self._vectors_CD = values_C.copy(), vectors_CD
        self._costs_C = np.zeros(len(values_C))

    def best(self) -> int | None:
        """The candidate (0 … C-1) to place next; None when all are placed."""
        if not len(self._values_C):
            return None
        c = int(np.argmax(self._values_C - COST * self._costs_C))
        return None if self._values_C[c] == -np.inf else c

    def place(self, rows: Sequence[int], vectors_ND: Floats) -> None:
        """These pins, candidates or not, take the next places."""
        for row in rows:
            if row in self._places:
                self._values_C[self._places[row]] = -np.inf
        if len(self._values_C):
            recent_ND = vectors_ND[-WINDOW:]
            likeness_CN = np.maximum(self._vectors_CD @ recent_ND.T, 0)
            weights_N = DECAY ** np.arange(len(recent_ND) - 1, -1, -1)
            self._costs_C = DECAY ** len(vectors_ND) * self._costs_C + likeness_CN @ weights_N
