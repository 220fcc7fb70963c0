"""The groups of a feature row: what turns tokens, boards, a visual vector or a degree into numbers.

Letters: B batch rows, E entries (one token or board of one batch row), R rows of a table, D width of a group,
V width of a raw visual vector.
"""

# mypy: allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np
import numpy.typing as npt
from numba.core import types

from model.halves import Halves, bits_of, float_of
from model.inference import unit_rows

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]

CLIP = 5.0  # standardised numbers further out than this many deviations are cut


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
        """(B, D): for each owner the sum of factor * weight * row over its entries, scaled to length one."""
        sums_BD = np.zeros((num_owners, self.dim), np.float32)
        scale_E = np.asarray(self.weights_R[rows_E] * factors_E, np.float32)  # and no row is out of bounds
        rows_E, owners_E = (np.ascontiguousarray(each_E, np.int64) for each_E in (rows_E, owners_E))
        _add_scaled_rows(bits_of(np.ascontiguousarray(self.table_RD)), rows_E, scale_E, owners_E, sums_BD)
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


_TABLE = types.Array(types.uint16, 2, "C", readonly=True)
_ROWS = types.Array(types.int64, 1, "C", readonly=True)


@numba.njit(types.void(_TABLE, _ROWS, types.float32[::1], _ROWS, types.float32[:, ::1]), nogil=True, cache=True)
def _add_scaled_rows(
    table_RD: npt.NDArray[np.uint16], rows_E: Ints, scale_E: Floats, owners_E: Ints, sums_BD: Floats
) -> None:
    """Add every entry's row, in half precision, to its owner's sum, without a copy of the rows in between."""
    for e in range(len(rows_E)):
        row, owner, scale = rows_E[e], owners_E[e], scale_E[e]
        for d in range(sums_BD.shape[1]):
            sums_BD[owner, d] += scale * float_of(table_RD[row, d])
