"""The home feed's test: from what a user saved, find what the user saved later.

score(pin) = max over the last 20 saved pins of score(saved, pin); cold pins and the whole history are left out.

Letters: U users of a batch, H distinct saved pins, L candidates of a list, C candidates of a block, P candidates,
K places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from model.exact import Neighbors, top_k
from offline.evaluation.baselines import Columns, unit_rows
from offline.evaluation.evaluation_data import NUM_RECENT, TestUser
from offline.evaluation.metrics import ndcg_at, recall_at
from offline.evaluation.ranking import Block, ScoreBlock, Scorer, blocks, on_threads

Array = npt.NDArray[Any]
FeedScorer = Callable[[Sequence[Array]], ScoreBlock]
"""feed(histories of U users)(candidates) -> scores (U, C)."""

PLACES = 20
LIST = 128  # candidates that are remembered of each saved pin
USERS = 32
PINS = 256
TIE_SEED = 7  # who stands first among equals must not depend on the order of the file


@dataclass(frozen=True)
class Feed:
    """How candidates are scored for users.

    of_pins  where a user's score is the best of single pins' scores, those
    is_dear  whether each user costs a walk over the graph
    """

    score: FeedScorer
    of_pins: Scorer | None = None
    is_dear: bool = False


def best_of_recent(scorer: Scorer) -> Feed:
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

    return Feed(of, scorer)


def popularity_feed(degrees_P: Array) -> Feed:
    """The same for everybody: pins on many boards first."""
    scores_P = degrees_P.astype(np.float32)
    return Feed(lambda histories: lambda block: np.repeat(scores_P[block][None], len(histories), axis=0))


def item_knn_feed(graph_PB: sp.csr_matrix) -> Feed:
    """Sum over the whole history of the cosine of sets of boards: the classic neighbour method."""
    rows = unit_rows(graph_PB)
    columns = Columns(rows)

    def of(histories: Sequence[Array]) -> ScoreBlock:
        ptr = np.cumsum([0, *map(len, histories)])
        saved = np.concatenate(histories)
        chosen = sp.csr_matrix((np.ones(len(saved), np.float32), saved, ptr), shape=(len(histories), rows.shape[0]))
        profiles_UB = chosen @ rows
        return lambda block: (profiles_UB @ columns(block)).toarray()

    return Feed(of)


def feed_values(
    feed: Feed,
    users: Sequence[TestUser],
    num_candidates: int,
    *,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """Recall@20 and NDCG@20 of each user. `progress` is called with the number of users just done."""
    order_P = np.random.default_rng(TIE_SEED).permutation(num_candidates)
    shown = _best_by_lists(feed.of_pins, users, order_P, threads) if feed.of_pins else {}
    left = [place for place in range(len(users)) if place not in shown]
    if progress:
        progress(len(shown))

    def work(start: int) -> int:
        places = left[start : start + USERS]
        shown.update(zip(places, _best(feed.score, [users[p] for p in places], order_P), strict=True))
        return len(places)

    for done in on_threads(work, range(0, len(left), USERS), threads):
        if progress:
            progress(done)
    values = np.zeros((len(users), 2))
    for place, user in enumerate(users):
        hits = np.isin(shown[place], user.held_out)
        hits_K = np.pad(hits, (0, PLACES - len(hits)))
        values[place] = recall_at(hits_K, user.num_held_out), ndcg_at(hits_K, user.num_held_out)
    return {"Recall@20": values[:, 0], "NDCG@20": values[:, 1]}


def _best_by_lists(
    scorer: Scorer, users: Sequence[TestUser], order_P: Array, threads: int
) -> dict[int, npt.NDArray[np.int64]]:
    """The 20 best candidates of those users for whom a list of the best of each saved pin is enough.

    Users share saved pins, so this is far less work than scoring for each user. A candidate that is in none of a user's
    lists scores at most the highest of their last scores; a 20th place above that is certain.
    """
    saved_H = np.unique(np.concatenate([user.history[-NUM_RECENT:] for user in users]))
    if not len(saved_H):
        return {}
    parts = on_threads(
        lambda start: _lists(scorer, saved_H[start : start + PINS], len(order_P)), range(0, len(saved_H), PINS), threads
    )
    rows_HL, scores_HL = (np.concatenate(each) for each in zip(*parts, strict=True))
    certain = {}
    for place, user in enumerate(users):
        lists = np.searchsorted(saved_H, user.history[-NUM_RECENT:])
        rows, scores = rows_HL[lists].ravel(), scores_HL[lists].ravel()
        fresh = ~np.isin(rows, user.history)
        best, values = _first_places(rows[fresh], scores[fresh], order_P)
        if len(best) == PLACES and values[-1] > scores_HL[lists, -1].max():
            certain[place] = best
    return certain


def _lists(scorer: Scorer, saved_H: Array, num_candidates: int) -> Neighbors:
    """The best candidates of each of these pins, best first."""
    score = scorer(saved_H)
    rows_HL, scores_HL = np.empty((len(saved_H), 0), np.int64), np.empty((len(saved_H), 0), np.float32)
    for block in blocks(num_candidates):
        scores_HC = score(block)
        found_HL = _highest(scores_HC, min(LIST, scores_HC.shape[1]))
        rows_HL = np.concatenate([rows_HL, found_HL + block.start], axis=1)
        scores_HL = np.concatenate([scores_HL, np.take_along_axis(scores_HC, found_HL, axis=1)], axis=1)
        rows_HL, scores_HL = top_k(rows_HL, scores_HL, LIST)
    return Neighbors(rows_HL, scores_HL)


def _highest(scores_HC: Array, num: int) -> npt.NDArray[np.int64]:
    """Places of the `num` highest scores of each row; finding the lowest of them first is faster than argpartition."""
    # From below: many equal scores (no board in common: 0) make NumPy's partition from above twenty times slower.
    cuts_H = -np.partition(-scores_HC, num - 1, axis=1)[:, num - 1]
    places_HL = np.empty((len(scores_HC), num), np.int64)
    for scores_C, cut, places_L in zip(scores_HC, cuts_H, places_HL, strict=True):
        above = np.flatnonzero(scores_C > cut)
        places_L[: len(above)] = above
        places_L[len(above) :] = np.flatnonzero(scores_C == cut)[: num - len(above)]
    return places_HL


def _first_places(rows: Array, scores: Array, order_P: Array) -> tuple[npt.NDArray[np.int64], Array]:
    """The 20 best distinct rows by their best score, ties by order_P, and those scores."""
    order = np.lexsort((order_P[rows], -scores))
    rows, scores = rows[order], scores[order]
    _, first = np.unique(rows, return_index=True)
    places = np.sort(first)[:PLACES]
    return rows[places].astype(np.int64), scores[places]


def _best(feed: FeedScorer, users: Sequence[TestUser], order_P: Array) -> list[Array]:
    """The 20 best candidates outside the history of each user, best first, from the scores of all candidates."""
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
    cut = -np.partition(-scores_C, PLACES - 1)[PLACES - 1]
    return np.flatnonzero((scores_C >= cut) & np.isfinite(scores_C))
