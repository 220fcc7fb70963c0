"""Gates of a reindex beyond those of publishing: what was related before must still be related.

Hit rate: the share of labelled pairs whose related pin is among the K nearest of the query pin. It is measured on the
same pairs before and after, so most of the noise cancels: what counts are pairs that were found and are no more,
against those that are found only now (McNemar's test). The pairs are those of the test split: nothing was fitted to it.

Shape letters: P pins before, N pins now, L pairs, K results, D embedding width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import IndexDamaged, PinsageError
from model.index import AnnIndex
from offline.release.overlay import Overlay

MAX_PAIRS = 2_000
MAX_DEPTH, MIN_DEPTH, DEPTH_SHARE = 100, 10, 50  # K is a fiftieth of the pins, within these
MAX_DROP = 0.1  # of the hits there were
CERTAIN = 3.0  # standard deviations of what chance alone would do
SEED = 11

Array = NDArray[Any]


def check_hit_rate(overlay: Overlay, index: AnnIndex, vectors_ND: Array) -> dict[str, float]:
    """The hit rates of the new vectors and of the release that they are to replace; nothing where there are no pairs.

    Raises PinsageError when the hit rate has fallen by more than a tenth and it is no accident.
    """
    pairs_L2 = _sample(overlay)
    release = overlay.release
    if not len(pairs_L2):
        return {}
    depth = max(MIN_DEPTH, min(MAX_DEPTH, overlay.num_pins // DEPTH_SHARE))
    now_L = _hits(index, vectors_ND, pairs_L2, depth)
    try:
        old_index = AnnIndex.load(release.folder / "index", release.embeddings_PD)
    except IndexDamaged:
        return {"hit_rate": _share(now_L)}  # whoever serves it builds it anew; that takes too long only to compare
    before_L = _hits(old_index, release.embeddings_PD, overlay.old_N[pairs_L2], depth)
    lost, won = int((before_L & ~now_L).sum()), int((now_L & ~before_L).sum())
    if lost - won > MAX_DROP * before_L.sum() and lost - won > CERTAIN * np.sqrt(lost + won):
        raise PinsageError(
            f"the new vectors find {now_L.mean():.1%} of {len(pairs_L2):,} related pins among the {depth} nearest; "
            f"those of release {release.id} find {before_L.mean():.1%}"
        )
    return {"hit_rate": _share(now_L), "hit_rate_before": _share(before_L)}


def _sample(overlay: Overlay) -> Array:
    """(L, 2) labelled pairs of pins that are in the release, as rows now."""
    for split in ("test", "valid"):
        pairs_L2 = overlay.pairs(split)
        pairs_L2 = pairs_L2[pairs_L2[:, 0] != pairs_L2[:, 1]]
        if len(pairs_L2):
            chosen = np.random.default_rng(SEED).permutation(len(pairs_L2))[:MAX_PAIRS]
            return np.asarray(pairs_L2[chosen])
    return np.empty((0, 2), np.int32)


def _hits(index: AnnIndex, vectors_PD: Array, pairs_L2: Array, depth: int) -> NDArray[np.bool_]:
    """Of each pair, whether the related pin is among the nearest of the query pin, which is no answer to itself."""
    queries_L, related_L = pairs_L2.T
    found = index.query(np.asarray(vectors_PD[queries_L], np.float32), depth + 1).rows_QK
    others = np.where(found == queries_L[:, None], -1, found)
    # The query pin comes first where it is found at all; else the last of the results is one too many.
    others[~(others < 0).any(axis=1), -1] = -1
    hits_L: NDArray[np.bool_] = (others == related_L[:, None]).any(axis=1)
    return hits_L


def _share(hits_L: NDArray[np.bool_]) -> float:
    return round(float(hits_L.mean()), 4)
