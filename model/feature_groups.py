"""The groups of a feature row: what turns tokens, boards, a visual vector or a degree into numbers.

Letters: B batch rows, E entries (one token or board of one batch row), R rows of a table, D width of a group,
V width of a raw visual vector.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from model.halves import Halves, to_floats
from model.inference import unit_rows

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]

CLIP = 5.0  # standardised numbers further out than this many deviations are cut
BLOCK = 65_536  # entries whose table rows are in memory at a time


@dataclass(frozen=True)
class PooledTable:
    """Vectors of tokens or boards. The table may be memory-mapped; weights_R says how much a row counts."""

    weights_R: Floats
    table_RD: Halves

    @property
    def dim(self) -> int:
        """D, the width of the group."""
        return int(self.table_RD.shape[1])

    def pool(self, owners_E: Ints, rows_E: Ints, factors_E: Floats | float, num_owners: int) -> Floats:
        """(B, D): for each owner the sum of factor * weight * row over its entries, scaled to length one.

        Entries of one owner stand together. In blocks, so that memory does not grow with the entries.
        """
        sums_BD = np.zeros((num_owners, self.dim), np.float32)
        scale_E = self.weights_R[rows_E] * factors_E
        for start in range(0, len(rows_E), BLOCK):
            block = slice(start, start + BLOCK)
            vectors_ED = to_floats(self.table_RD[rows_E[block]])
            vectors_ED *= scale_E[block, None]
            owners = owners_E[block]
            first = np.concatenate(([0], np.flatnonzero(owners[1:] != owners[:-1]) + 1))
            sums_BD[owners[first]] += np.add.reduceat(vectors_ED, first, axis=0)
        return unit_rows(sums_BD)


@dataclass(frozen=True)
class VisualScale:
    """Standardises visual vectors, keeps their principal components where they are wide, and scales to length one."""

    mean_V: Floats
    deviation_V: Floats
    components_VD: Floats | None = None

    @property
    def dim(self) -> int:
        """D, the width of the group."""
        return len(self.mean_V) if self.components_VD is None else int(self.components_VD.shape[1])

    def standardise(self, visual_BV: Floats) -> Floats:
        """(B, V): mean 0 and deviation 1 on the pins it was fitted on, clipped."""
        with np.errstate(over="ignore"):  # a huge number becomes infinite and is clipped
            scaled: Floats = ((visual_BV - self.mean_V) / self.deviation_V).clip(-CLIP, CLIP)
        return scaled

    def __call__(self, visual_BV: Floats) -> Floats:
        """(B, D) unit rows."""
        scaled = self.standardise(visual_BV)
        return unit_rows(scaled if self.components_VD is None else scaled @ self.components_VD)


@dataclass(frozen=True)
class DegreeScale:
    """Standardises log(1 + degree)."""

    mean: float
    deviation: float
    dim: int = field(default=1, init=False)

    def __call__(self, degrees_B: Ints) -> Floats:
        """(B,) numbers."""
        scaled = (np.log1p(degrees_B.astype(np.float32)) - self.mean) / self.deviation
        return scaled.clip(-CLIP, CLIP).astype(np.float32)


@dataclass(frozen=True)
class PopularityScale:
    """log(1 + degree) and log(1 + times asked for) as shares of the largest there were: what the prior reads.

    A pin is asked for when it is the related pin of a labelled training pair. These numbers are no input of the
    network: in training they would give the answer away.
    """

    most_degree: float
    most_asked: float
    mean_share: float = 0.0  # of degree, over all pins: what stands for a degree that is not known yet
    dim: int = field(default=2, init=False)

    def of_degree(self, degrees_B: Ints) -> Floats:
        """(B,) shares."""
        return _log_share(degrees_B, self.most_degree)

    def of_asked(self, counts_B: Ints) -> Floats:
        """(B,) shares."""
        return _log_share(counts_B, self.most_asked)


def _log_share(counts_B: Ints, most: float) -> Floats:
    shares: Floats = (np.log1p(counts_B.astype(np.float32)) / np.log1p(max(most, 1.0))).clip(0, 1).astype(np.float32)
    return shares


Group = PooledTable | VisualScale | DegreeScale | PopularityScale
