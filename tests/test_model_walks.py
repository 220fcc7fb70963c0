"""Random walks: hand-worked neighbourhoods, exact visit probabilities, and independence of threads and chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import WalkConfig
from model.errors import UserError
from model.graph import BipartiteGraph
from model.walks import Neighborhoods, build_neighborhoods, importance_neighbors, warm_up


def graph_of(edges: list[tuple[int, int]], num_pins: int, num_boards: int) -> BipartiteGraph:
    pins, boards = zip(*edges, strict=True) if edges else ((), ())
    return BipartiteGraph.from_edges(pins, boards, num_pins=num_pins, num_boards=num_boards)


def random_graph(num_pins: int = 40, num_boards: int = 15, num_edges: int = 200) -> BipartiteGraph:
    """Uneven degrees; the last pin has no board and the one before it a board of its own."""
    rng = np.random.default_rng(11)
    pins = (rng.random(num_edges) ** 2 * (num_pins - 2)).astype(int)
    boards = (rng.random(num_edges) ** 2 * (num_boards - 1)).astype(int)
    return BipartiteGraph.from_edges(
        np.append(pins, num_pins - 2), np.append(boards, num_boards - 1), num_pins=num_pins, num_boards=num_boards
    )


def visits_of(graph: BipartiteGraph, pin: int, config: WalkConfig, seed: int = 0) -> tuple[list[int], list[float]]:
    ids_BT, weights_BT = importance_neighbors(graph, [pin], config, seed=seed)
    return ids_BT[0].tolist(), weights_BT[0].tolist()


def expected_visits(graph: BipartiteGraph, config: WalkConfig) -> np.ndarray:
    """The oracle: mean visits of one walk by seed and pin, (P, P), from products of the exact transition matrix."""
    adjacency = np.zeros((graph.num_pins, graph.num_boards))
    for pin in range(graph.num_pins):
        adjacency[pin, graph.boards_of(pin)] = 1
    to_board = adjacency / np.maximum(adjacency.sum(1, keepdims=True), 1)
    to_pin = adjacency.T / np.maximum(adjacency.T.sum(1, keepdims=True), 1)
    hop = to_board @ to_pin
    alive, visits = np.eye(graph.num_pins), np.zeros((graph.num_pins, graph.num_pins))
    for _ in range(config.num_hops):
        alive = alive @ hop
        visits += alive
        alive = alive * (1 - config.restart)
    return visits


def test_two_pins_of_one_board_are_each_others_only_neighbour() -> None:
    graph = graph_of([(0, 0), (1, 0)], 2, 1)
    assert visits_of(graph, 0, WalkConfig(num_neighbors=3)) == ([1, -1, -1], [1, 0, 0])
    assert visits_of(graph, 1, WalkConfig(num_neighbors=3)) == ([0, -1, -1], [1, 0, 0])


def test_a_pin_without_boards_has_no_neighbours() -> None:
    graph = graph_of([(0, 0), (1, 0)], 3, 2)
    assert visits_of(graph, 2, WalkConfig(num_neighbors=2)) == ([-1, -1], [0, 0])


def test_a_board_with_one_pin_leads_back_to_the_seed_which_does_not_count() -> None:
    graph = graph_of([(0, 0), (0, 1), (1, 2)], 2, 3)
    assert visits_of(graph, 0, WalkConfig(num_neighbors=2, num_hops=4, restart=0)) == ([-1, -1], [0, 0])


def test_a_duplicate_edge_counts_once() -> None:
    once = graph_of([(0, 0), (1, 0), (2, 0)], 3, 1)
    thrice = graph_of([(0, 0), (1, 0), (1, 0), (1, 0), (2, 0)], 3, 1)
    assert visits_of(once, 0, WalkConfig()) == visits_of(thrice, 0, WalkConfig())


def test_ties_go_to_the_smaller_row() -> None:
    """On a board of 5,000 pins 300 walks visit nearly all pins once and some twice."""
    graph = graph_of([(pin, 0) for pin in range(5000)], 5000, 1)
    config = WalkConfig(num_walks=300, num_hops=1, num_neighbors=300)
    ids_BT, weights_BT = importance_neighbors(graph, np.arange(20), config, seed=2)
    for ids, weights in zip(ids_BT, weights_BT, strict=True):
        num_found = int((ids >= 0).sum())
        order = [(-weight, id) for id, weight in zip(ids[:num_found], weights[:num_found], strict=True)]
        assert order == sorted(order)
        assert len(set(weights[:num_found].tolist())) > 1, "the test needs pins that are visited more than once"


def test_fewer_neighbours_are_the_first_of_more() -> None:
    graph = random_graph()
    many = importance_neighbors(graph, np.arange(40), WalkConfig(num_neighbors=40), seed=4)
    for kept in range(1, 12):
        few = importance_neighbors(graph, np.arange(40), WalkConfig(num_neighbors=kept), seed=4)
        np.testing.assert_array_equal(few.ids_BT, many.ids_BT[:, :kept])
        share = many.weights_BT[:, :kept]
        totals = np.maximum(share.sum(1, keepdims=True), 1e-9)
        np.testing.assert_allclose(few.weights_BT, share / totals, atol=1e-6)


def test_one_hop_walks_stay_on_the_seeds_boards_and_restart_one_makes_all_walks_so() -> None:
    chain = graph_of([(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 2)], 4, 3)
    assert set(visits_of(chain, 0, WalkConfig(num_hops=1))[0]) == {1, -1}
    assert set(visits_of(chain, 0, WalkConfig(num_hops=5, restart=1))[0]) == {1, -1}
    assert set(visits_of(chain, 0, WalkConfig(num_hops=2, restart=0))[0]) == {1, 2, -1}
    assert set(visits_of(chain, 0, WalkConfig(num_hops=3, restart=0))[0]) == {1, 2, 3, -1}


@pytest.mark.parametrize(("num_hops", "restart"), [(1, 0.5), (2, 0.5), (3, 0.25), (4, 0.0)])
def test_visits_follow_the_exact_distribution(num_hops: int, restart: float) -> None:
    """Each share of visits is within 5.5 standard errors of the oracle.

    Visits of one walk are bounded by num_hops, so the error of a mean over n walks is at most
    sqrt(num_hops * mean / n). Over some 1,500 shares a seed drawn at random would fail less than once in
    10,000 runs; the seed is fixed.
    """
    graph = random_graph()
    num_walks = 400_000
    config = WalkConfig(num_walks=num_walks, num_hops=num_hops, restart=restart, num_neighbors=graph.num_pins)
    expected = expected_visits(graph, config)
    np.fill_diagonal(expected, 0)
    ids_BT, weights_BT = importance_neighbors(graph, np.arange(graph.num_pins), config, seed=8)
    found = np.zeros_like(expected)
    for pin, (ids, weights) in enumerate(zip(ids_BT, weights_BT, strict=True)):
        found[pin, ids[ids >= 0]] = weights[ids >= 0]
    totals = np.maximum(expected.sum(1, keepdims=True), 1e-12)
    errors = np.sqrt(num_hops * expected / num_walks) / totals
    # The share is a ratio: its total moves too, by as little again.
    slack = errors + expected / totals * np.sqrt(num_hops / (num_walks * totals))
    assert (np.abs(found - expected / totals) <= 5.5 * slack).all()
    assert ((found > 0) <= (expected > 0)).all(), "a pin that no walk can reach was visited"


def test_seeds_give_independent_draws() -> None:
    """Over 2,000 seeds, one walk on a board of 8 pins: chi-squared of 7 degrees, above 32 once in 20,000 tries."""
    graph = graph_of([(pin, 0) for pin in range(8)], 8, 1)
    config = WalkConfig(num_walks=1, num_hops=1, num_neighbors=1)
    counts = np.zeros(8)
    for seed in range(2000):
        found = visits_of(graph, 3, config, seed)[0][0]
        counts[3 if found < 0 else found] += 1
    assert ((counts - 250) ** 2 / 250).sum() < 32


def test_draws_of_one_walk_are_independent_from_hop_to_hop() -> None:
    """Two hops on one board of two pins, from pin 0 with one walk: of the four paths each has probability 1/4.

    Visits of pin 1 are 0, 1 or 2. Over 4,000 seeds the share without a visit is 1/4 within 5 standard errors
    (a false alarm once in two million), which fails when hops repeat or mirror each other.
    """
    graph = graph_of([(0, 0), (1, 0)], 2, 1)
    config = WalkConfig(num_walks=1, num_hops=2, restart=0, num_neighbors=1)
    unvisited = sum(visits_of(graph, 0, config, seed)[0] == [-1] for seed in range(4000))
    assert abs(unvisited / 4000 - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)


def assert_same(found: Neighborhoods, expected: Neighborhoods) -> None:
    np.testing.assert_array_equal(found.ids_BT, expected.ids_BT)
    np.testing.assert_array_equal(found.weights_BT, expected.weights_BT)


@given(
    pins=st.lists(st.integers(0, 39), max_size=30),
    num_threads=st.integers(1, 4),
    seed=st.integers(-(2**63), 2**64 - 1),
)
@settings(deadline=None, max_examples=40)
def test_a_neighbourhood_depends_on_the_seed_and_the_pin_alone(pins: list[int], num_threads: int, seed: int) -> None:
    graph = random_graph()
    config = WalkConfig(num_walks=30, num_neighbors=5)
    whole = importance_neighbors(graph, np.arange(40), config, seed=seed)
    found = importance_neighbors(graph, pins, config, seed=seed, num_threads=num_threads)
    assert_same(found, Neighborhoods(*(array[np.array(pins, int)] for array in whole)))


@pytest.mark.parametrize(("num_threads", "chunk"), [(1, 100), (1, 7), (3, 7), (2, 1)])
def test_all_neighbourhoods_in_files_are_those_of_one_call(tmp_path: Path, num_threads: int, chunk: int) -> None:
    graph = random_graph()
    config = WalkConfig(num_neighbors=6)
    steps: list[int] = []
    built = build_neighborhoods(
        graph,
        config,
        seed=9,
        ids_path=tmp_path / "ids.npy",
        weights_path=tmp_path / "weights.npy",
        num_threads=num_threads,
        chunk=chunk,
        progress=steps.append,
    )
    assert isinstance(built.ids_BT, np.memmap)
    assert_same(built, importance_neighbors(graph, np.arange(40), config, seed=9))
    assert sum(steps) == 40
    np.testing.assert_array_equal(np.load(tmp_path / "ids.npy"), built.ids_BT)


def test_rows_are_rows_of_the_graph_and_weights_sum_to_one_or_none() -> None:
    graph = random_graph()
    ids_BT, weights_BT = importance_neighbors(graph, np.arange(40), WalkConfig(num_walks=1000), seed=1)
    assert (ids_BT.dtype, weights_BT.dtype) == (np.int32, np.float32)
    assert ((weights_BT > 0) == (ids_BT >= 0)).all()
    for pin, (ids, weights) in enumerate(zip(ids_BT, weights_BT, strict=True)):
        kept = ids[ids >= 0].tolist()
        assert len(set(kept)) == len(kept)
        assert pin not in kept
        assert weights.sum() == pytest.approx(1 if kept else 0)


def test_a_saved_graph_gives_the_walks_of_the_graph_in_memory(tmp_path: Path) -> None:
    graph = random_graph()
    graph.save(tmp_path)
    config = WalkConfig(num_neighbors=7)
    expected = importance_neighbors(graph, np.arange(40), config, seed=3)
    assert_same(importance_neighbors(BipartiteGraph.load(tmp_path), np.arange(40), config, seed=3), expected)


@pytest.mark.parametrize("pins", [[-1], [40], [0, 40], [-1, 40]])
def test_pins_outside_the_graph_are_errors(pins: list[int]) -> None:
    with pytest.raises(IndexError, match="outside the graph of 40 pins"):
        importance_neighbors(random_graph(), pins, WalkConfig(), seed=0)


@pytest.mark.parametrize(
    "config",
    [
        WalkConfig(num_walks=0),
        WalkConfig(num_hops=0),
        WalkConfig(num_neighbors=0),
        WalkConfig(restart=-0.1),
        WalkConfig(restart=1.1),
        WalkConfig(restart=float("nan")),
    ],
)
def test_settings_that_make_no_sense_are_errors(config: WalkConfig) -> None:
    with pytest.raises(UserError, match="walks need"):
        importance_neighbors(random_graph(), [0], config, seed=0)


def test_no_pins_give_no_rows() -> None:
    found = importance_neighbors(random_graph(), [], WalkConfig(num_neighbors=3), seed=0, num_threads=2)
    assert (found.ids_BT.shape, found.weights_BT.shape) == ((0, 3), (0, 3))


def test_warm_up_compiles_what_a_service_walks_with() -> None:
    from model.live_graph import LiveGraph
    from model.walk_kernels import fill_neighborhoods

    warm_up()
    compiled = len(fill_neighborhoods.signatures)
    LiveGraph(random_graph()).neighbors(0, WalkConfig(), seed=0)
    importance_neighbors(random_graph(), [0], WalkConfig(), seed=0)
    assert len(fill_neighborhoods.signatures) == compiled
