"""The home feed's test: from what a user saved, find what the user saved later.

score(pin) = max over the last 20 saved pins of score(saved, pin); cold pins and the whole history are left out.

Letters: U users of a batch, H distinct saved pins of a batch, C candidates of a block, P candidates, K places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from offline.baselines import unit_rows
from offline.evaluation_data import NUM_RECENT, TestUser
from offline.metrics import ndcg_at, recall_at
from offline.ranking import Block, ScoreBlock, Scorer, blocks, on_threads

Array = npt.NDArray[Any]
FeedScorer = Callable[[Sequence[Array]], ScoreBlock]
"""feed(histories of U users)(candidates) -> scores (U, C)."""

PLACES = 20
USERS = 32
TIE_SEED = 7  # who stands first among equals must not depend on the order of the file


def best_of_recent(scorer: Scorer) -> FeedScorer:
    """The best score with any of the last 20 saved pins."""

    def of(histories: Sequence[Array]) -> ScoreBlock:
        recent = [history[-NUM_RECENT:] for history in histories]
        distinct_H, owner = np.unique(np.concatenate(recent), return_inverse=True)
        places = np.split(owner, np.cumsum([len(pins) for pins in recent])[:-1])
        score = scorer(distinct_H)

        def feed(block: Block) -> Array:
            scores_HC = score(block)
            return np.stack([scores_HC[rows].max(axis=0, initial=-np.inf) for rows in places])

        return feed

    return of


def popularity_feed(degrees_P: Array) -> FeedScorer:
    """The same for everybody: pins on many boards first."""
    scores_P = degrees_P.astype(np.float32)
    return lambda histories: lambda block: np.repeat(scores_P[block][None], len(histories), axis=0)


def item_knn_feed(graph_PB: sp.csr_matrix) -> FeedScorer:
    """Sum over the whole history of the cosine of sets of boards: the classic neighbour method."""
    rows = unit_rows(graph_PB)

    def of(histories: Sequence[Array]) -> ScoreBlock:
        ptr = np.cumsum([0, *map(len, histories)])
        saved = np.concatenate(histories)
        chosen = sp.csr_matrix((np.ones(len(saved), np.float32), saved, ptr), shape=(len(histories), rows.shape[0]))
        profiles_UB = chosen @ rows
        return lambda block: (profiles_UB @ rows[block].T).toarray()

    return of


def feed_values(
    feed: FeedScorer,
    users: Sequence[TestUser],
    num_candidates: int,
    *,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """Recall@20 and NDCG@20 of each user. `progress` is called with the number of users just done."""
    order_P = np.random.default_rng(TIE_SEED).permutation(num_candidates)
    recalls, gains = np.zeros(len(users)), np.zeros(len(users))

    def work(start: int) -> int:
        batch = users[start : start + USERS]
        for place, (user, best) in enumerate(zip(batch, _best(feed, batch, order_P), strict=True), start):
            hits_K = np.isin(best, user.held_out).astype(np.float64)
            hits_K = np.pad(hits_K, (0, PLACES - len(hits_K)))
            recalls[place] = recall_at(hits_K, user.num_held_out)
            gains[place] = ndcg_at(hits_K, user.num_held_out)
        return len(batch)

    for done in on_threads(work, range(0, len(users), USERS), threads):
        if progress:
            progress(done)
    return {"Recall@20": recalls, "NDCG@20": gains}


def _best(feed: FeedScorer, users: Sequence[TestUser], order_P: Array) -> list[Array]:
    """The 20 best candidates outside the history of each user, best first."""
    score = feed([user.history for user in users])
    rows = [np.zeros(0, np.int64) for _ in users]
    values = [np.zeros(0, np.float32) for _ in users]
    for block in blocks(len(order_P)):
        scores_UC = score(block)
        for u, user in enumerate(users):
            saved = user.history[(user.history >= block.start) & (user.history < block.stop)]
            scores_UC[u, saved - block.start] = -np.inf
            good = _not_below_20th(scores_UC[u])
            found = np.concatenate([rows[u], good + block.start])
            scores = np.concatenate([values[u], scores_UC[u, good]])
            best = np.lexsort((order_P[found], -scores))[:PLACES]
            rows[u], values[u] = found[best], scores[best]
    return rows


def _not_below_20th(scores_C: Array) -> Array:
    """Places whose score is finite and not below the 20th best; all ties with it are among them."""
    if len(scores_C) <= PLACES:
        return np.flatnonzero(np.isfinite(scores_C))
    cut = np.partition(scores_C, len(scores_C) - PLACES)[len(scores_C) - PLACES]
    return np.flatnonzero((scores_C >= cut) & np.isfinite(scores_C))
