"""Pixie's walks against exact visit distributions, and that they stop when enough was seen."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from model.graph import BipartiteGraph
from offline.evaluation.pixie import Pixie, PixieConfig, labels_of
from offline.evaluation.ranking import related_ranks

# Board 0: 0 1 2. Board 1: 2 3. Board 2: 3 4. Pin 5 is on none. Board 3: 0 4.
BOARDS = [[0, 1, 2], [2, 3], [3, 4], [0, 4]]
EDGES = np.array([(pin, board) for board, pins in enumerate(BOARDS) for pin in pins], np.int32)
GRAPH = BipartiteGraph.from_edges(EDGES[:, 0], EDGES[:, 1], num_pins=6, num_boards=4)
ENDLESS = PixieConfig(num_steps=200_000, restart=0.4, enough_pins=100, bias=0.0)


def star(num_pins: int) -> BipartiteGraph:
    """All pins on one board."""
    return BipartiteGraph.from_edges(np.arange(num_pins), np.zeros(num_pins), num_pins=num_pins, num_boards=1)


def exact_shares(restart: float) -> np.ndarray:
    """(6, 6) shares of all visits, by a query, of a walk that ends after each hop with this chance."""
    on = np.zeros((6, 4))
    on[tuple(EDGES.T)] = 1
    hop = (on / np.maximum(on.sum(1, keepdims=True), 1)) @ (on / on.sum(0)).T
    shares: np.ndarray = restart * hop @ np.linalg.inv(np.eye(6) - (1 - restart) * hop)
    return shares


def shares_of(pixie: Pixie, query: int) -> np.ndarray:
    found = pixie.visits(query)
    shares = np.zeros(6)
    shares[found.rows_V] = found.counts_V / found.num_steps
    return shares


@pytest.mark.parametrize("query", range(5))
def test_visits_are_those_of_the_exact_distribution(query: int) -> None:
    """200,000 hops: visits of a pin vary by less than 0.003 of all, even as hops of one walk hang together."""
    found, wanted = shares_of(Pixie(GRAPH, config=ENDLESS, seed=3), query), exact_shares(ENDLESS.restart)[query]
    wanted[query] = 0  # a query is not among what it finds
    assert found == pytest.approx(wanted, abs=0.01)


def test_a_pin_on_no_board_reaches_nothing() -> None:
    found = Pixie(GRAPH).visits(5)
    assert (len(found.rows_V), found.num_steps) == (0, 0)


def test_walks_end_when_their_steps_are_used_up() -> None:
    assert Pixie(GRAPH, config=replace(ENDLESS, num_steps=123)).visits(0).num_steps == 123


def test_walks_stop_when_more_than_enough_pins_were_visited_enough() -> None:
    """Stopped at the very visit with which the third of 50 pins has been there for the fourth time."""
    config = PixieConfig(num_steps=1_000_000, enough_pins=2, enough_visits=4)
    found = Pixie(star(51), config=config).visits(0)
    counts = np.append(found.counts_V, found.num_steps - found.counts_V.sum())  # the query's own visits count too
    assert counts.max() == 4
    assert (counts == 4).sum() == 3
    assert found.num_steps < 4 * 51


def test_without_enough_the_walks_go_on() -> None:
    config = PixieConfig(num_steps=10_000, enough_pins=51, enough_visits=4)
    assert Pixie(star(51), config=config).visits(0).num_steps == 10_000


def test_a_bias_keeps_to_the_label_of_the_query() -> None:
    """20 of 40 pins have the label: a hop keeps to them with chance 3/4 and is free else: 7/8 of visits."""
    labels = np.repeat([0, 1], 20)
    config = PixieConfig(num_steps=40_000, restart=1.0, enough_pins=100, bias=0.75)
    for query, own in ((3, slice(0, 20)), (30, slice(20, 40))):
        found = Pixie(star(40), labels, config).visits(query)
        counts = np.zeros(40)
        counts[found.rows_V] = found.counts_V
        counts[query] = found.num_steps - found.counts_V.sum()
        assert counts[own].sum() / 40_000 == pytest.approx(7 / 8, abs=0.01)


def test_a_query_without_a_label_is_not_biased() -> None:
    labels = np.array([-1] * 10 + [1] * 30)
    found = Pixie(star(40), labels, PixieConfig(num_steps=40_000, enough_pins=100, bias=1.0)).visits(0)
    assert found.counts_V[found.rows_V >= 10].sum() / found.num_steps == pytest.approx(3 / 4, abs=0.02)


def test_hops_are_shared_out_by_degree() -> None:
    """Degrees 2, 1, 2, 2, 2, 0; C = 2: s = 2 (2 - log 2) and 1 (2 - log 1)."""
    two, one = 2 * (2 - math.log(2)), 2.0
    shares = Pixie(GRAPH).shares(np.array([0, 1, 5]))
    assert shares == pytest.approx([two / (two + one), one / (two + one), 0])


def test_a_pin_that_two_queries_reach_is_boosted() -> None:
    """Both queries reach the shared pin, each reaches four of its own as often: (2 sqrt(v))^2 = 4 v against v."""
    edges = [(0, 0), (1, 1), *((pin, 0) for pin in (2, 3, 4, 5, 6)), *((pin, 1) for pin in (2, 7, 8, 9, 10))]
    pins, boards = np.array(edges).T
    graph = BipartiteGraph.from_edges(pins, boards, num_pins=11, num_boards=2)
    pixie = Pixie(graph, config=PixieConfig(num_steps=200_000, restart=1.0, enough_pins=100))
    rows, scores = pixie.boosted(np.array([0, 1]))
    score = dict(zip(rows.tolist(), scores.tolist(), strict=True))
    own = np.mean([score[pin] for pin in (3, 4, 5, 6, 7, 8, 9, 10)])
    assert score[2] / own == pytest.approx(4, rel=0.05)


def test_ranks_follow_the_visits() -> None:
    method = Pixie(GRAPH, config=ENDLESS).method()
    order = np.argsort(-exact_shares(ENDLESS.restart)[2])
    order = order[order != 2][:4]  # pin 5 is never reached
    ranks = related_ranks(method, np.full(4, 2), order, 6, threads=2)
    assert ranks.tolist() == [1, 2, 3, 4]


def test_any_block_of_candidates_is_a_part_of_all() -> None:
    score = Pixie(GRAPH, config=ENDLESS).method().scorer(np.array([0, 3, 5]))
    whole = score(slice(0, 6))
    assert score(np.array([4, 0])).tolist() == whole[:, [4, 0]].tolist()
    assert score(slice(2, 5)).tolist() == whole[:, 2:5].tolist()
    feed = Pixie(GRAPH, config=ENDLESS).feed().score([np.array([0, 3, 0]), np.array([], np.int64)])
    assert feed(slice(0, 6)).shape == (2, 6)
    assert feed(slice(0, 6))[1].tolist() == [0] * 6


def test_labels_are_of_the_first_column_that_tells_pins_apart() -> None:
    assert labels_of([[None, None], ["en", "en"]]) is None
    labels = labels_of([["en", "en", None], ["b", None, "a"]])
    assert labels is not None
    assert labels.tolist() == [1, -1, 0]
