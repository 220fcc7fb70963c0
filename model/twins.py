"""Items whose vectors are the same.

hnswlib links an item to its nearest ones, so a crowd of equal vectors links only to itself and cuts the graph: 3,000
copies of one vector among 3,000 others made one query in seven fail. So the index stores one of each crowd, and
answers are filled up with the others here.

Shape letters: P items, W items that stand behind another, D width.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

GRID = 1e-4  # vectors that round to the same points of this grid count as equal
CHUNK = 65_536


def find_twins(vectors_PD: NDArray[np.float32]) -> NDArray[np.int64]:
    """(W, 2): the first row with a vector, and a later row with the same one; sorted."""
    hashes_P = np.empty(len(vectors_PD), np.uint64)
    for start in range(0, len(vectors_PD), CHUNK):
        points = np.rint(vectors_PD[start : start + CHUNK] / GRID).astype(np.int16)
        digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in points)
        hashes_P[start : start + len(points)] = np.frombuffer(b"".join(digests), np.uint64)
    _, first_U, which_P = np.unique(hashes_P, return_index=True, return_inverse=True)
    first_P = first_U[which_P]
    rows_W = np.flatnonzero(first_P != np.arange(len(first_P)))
    twins_W2 = np.stack([first_P[rows_W], rows_W], axis=1).astype(np.int64)
    return twins_W2[np.lexsort((twins_W2[:, 1], twins_W2[:, 0]))]


def with_twins(rows_K: NDArray[np.int64], twins_W2: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Rows of an answer, each followed by at most k others of its crowd."""
    starts_K = np.searchsorted(twins_W2[:, 0], rows_K, side="left")
    ends_K = np.minimum(np.searchsorted(twins_W2[:, 0], rows_K, side="right"), starts_K + k)
    crowds = [twins_W2[start:end, 1] for start, end in zip(starts_K, ends_K, strict=True) if end > start]
    return np.concatenate([rows_K, *crowds])
