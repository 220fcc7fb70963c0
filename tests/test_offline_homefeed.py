"""The home feed's test and its methods, with lists worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from model.graph import BipartiteGraph
from offline.evaluation import homefeed_eval, ranking
from offline.evaluation.baselines import graph_matrix
from offline.evaluation.evaluation_data import TestUser
from offline.evaluation.homefeed_eval import Feed, best_of_recent, feed_values, item_knn_feed, popularity_feed
from offline.evaluation.ranking import cosine_scorer


def circle(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def user(history: list[int], held_out: list[int]) -> TestUser:
    return TestUser(np.array(history, np.int64), np.array(held_out, np.int64), len(held_out))


def values(feed: Feed, users: list[TestUser], num_pins: int, threads: int = 1) -> tuple[list[float], list[float]]:
    found = feed_values(feed, users, num_pins, threads=threads)
    return found["Recall@20"].tolist(), found["NDCG@20"].tolist()


def test_the_nearest_of_any_saved_pin_comes_first() -> None:
    """Saved a (0 degrees) and e (90); b (10) comes first and f (180) last of the four that are left."""
    pins = circle(0, 10, 20, 20, 90, 180)
    recall, ndcg = values(best_of_recent(cosine_scorer(pins)), [user([0, 4], [1, 5])], 6)
    assert recall == [1]
    assert ndcg == pytest.approx([(1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3))])


LINE = circle(*(np.arange(600) * 0.2))


def test_only_twenty_are_shown() -> None:
    # From pin 0 the nearest twenty are pins 1 to 20: two of the three are among them.
    recall, _ = values(best_of_recent(cosine_scorer(LINE)), [user([0], [20, 21, 1])], 600)
    assert recall == pytest.approx([2 / 3])


def test_only_the_last_twenty_saved_pins_ask_and_the_whole_history_is_left_out() -> None:
    # The history ends with pins 19 to 0, so pin 300 upwards is nearest outside it.
    saved = user(list(range(299, -1, -1)), [300, 319, 320])
    assert values(best_of_recent(cosine_scorer(LINE)), [saved], 600)[0] == pytest.approx([2 / 3])


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_blocks_and_threads_change_nothing(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    users = [user(rng.choice(600, 30, replace=False).tolist(), rng.choice(600, 9).tolist()) for _ in range(50)]
    feed = best_of_recent(cosine_scorer(LINE))
    whole = values(feed, users, 600)
    monkeypatch.setattr(ranking, "CANDIDATES", 37)
    monkeypatch.setattr(homefeed_eval, "USERS", 7)
    assert values(feed, users, 600, threads) == whole


def test_lists_and_full_scores_show_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole numbers make many ties; lists of 30 are enough for some users and too short for others."""
    rng = np.random.default_rng(4)
    pins = rng.integers(0, 5, (600, 3)).astype(np.float32) + np.float32(0.01)
    users = [user(rng.choice(600, n, replace=False).tolist(), rng.choice(600, 9).tolist()) for n in range(1, 50)]
    feed = best_of_recent(cosine_scorer(pins))
    monkeypatch.setattr(homefeed_eval, "LIST", 30)
    assert feed.of_pins is not None
    certain = homefeed_eval._best_by_lists(feed.of_pins, users, np.arange(600), 1)
    full = homefeed_eval._best(feed.score, users, np.arange(600))
    assert 5 < len(certain) < 45
    assert {place: best.tolist() for place, best in certain.items()} == {p: full[p].tolist() for p in certain}
    assert values(feed, users, 600) == values(Feed(feed.score), users, 600)


def test_a_user_without_history_is_shown_nothing() -> None:
    users = [user([], [3]), user([0], [1])]
    assert values(best_of_recent(cosine_scorer(LINE)), users, 600)[0] == [0, 1]
    assert values(best_of_recent(cosine_scorer(LINE)), users[:1], 600)[0] == [0]
    assert item_knn_feed(GRAPH).score([users[0].history])(slice(0, 5)).tolist() == [[0] * 5]


def test_equals_do_not_stand_in_the_order_of_the_file() -> None:
    """Of 600 equal pins the first twenty of the file are not the ones that are shown."""
    first = [user([599], list(range(20)))]
    assert values(popularity_feed(np.zeros(600)), first, 600)[0][0] < 0.5


EDGES = np.array([(0, 0), (1, 0), (2, 1), (3, 1), (3, 0), (4, 2)])
GRAPH = graph_matrix(
    BipartiteGraph.from_edges(EDGES[:, 0], EDGES[:, 1], num_pins=5, num_boards=3), EDGES[:0, 0], EDGES[:0, 0], 0
)


def test_popularity_shows_the_pins_on_most_boards() -> None:
    scores = popularity_feed(np.array([1, 1, 1, 2, 1])).score([np.array([0]), np.array([1])])(slice(0, 5))
    assert scores.tolist() == [[1, 1, 1, 2, 1]] * 2


def test_item_knn_sums_over_the_whole_history() -> None:
    scores = item_knn_feed(GRAPH).score([np.array([0, 2]), np.array([4])])(slice(1, 5))
    # From pins 0 and 2: pin 1 shares board 0, pin 2 is itself, pin 3 shares one of its two boards with each.
    assert scores == pytest.approx(np.array([[1, 1, 2 / math.sqrt(2), 0], [0, 0, 0, 1]]))
