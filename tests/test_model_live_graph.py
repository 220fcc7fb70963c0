"""The live graph against a plain dict of sets, against a graph built anew, and under readers that never stop."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import model.live_graph
from model.config import WalkConfig
from model.graph import BipartiteGraph
from model.live_graph import LiveGraph
from model.walks import Neighborhoods, importance_neighbors

NUM_PINS, NUM_BOARDS = 12, 6
CONFIG = WalkConfig(num_walks=40, num_hops=3, num_neighbors=8)
BASE_EDGES = [(pin, board) for pin in range(NUM_PINS - 1) for board in range(NUM_BOARDS - 1) if (pin * 7 + board) % 3]


@pytest.fixture(autouse=True)
def _small_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays that fill up at once, so that every test meets new generations."""
    monkeypatch.setattr(model.live_graph, "_MIN_NEW_NODES", 1)
    monkeypatch.setattr(model.live_graph, "_MIN_POOL", 8)


def graph_of(edges: list[tuple[int, int]], num_pins: int, num_boards: int) -> BipartiteGraph:
    pins, boards = zip(*edges, strict=True) if edges else ((), ())
    return BipartiteGraph.from_edges(pins, boards, num_pins=num_pins, num_boards=num_boards)


def assert_same(found: Neighborhoods, expected: Neighborhoods) -> None:
    np.testing.assert_array_equal(found.ids_BT, expected.ids_BT)
    np.testing.assert_array_equal(found.weights_BT, expected.weights_BT)


class LiveGraphMachine(RuleBasedStateMachine):
    """Any order of changes leaves what a set of edges would hold, and the walks of a graph built from that set."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = set(BASE_EDGES)
        self.live = LiveGraph(graph_of(BASE_EDGES, NUM_PINS, NUM_BOARDS))
        self.num_pins, self.num_boards = NUM_PINS, NUM_BOARDS

    @rule()
    def add_pin(self) -> None:
        assert self.live.add_pin() == self.num_pins
        self.num_pins += 1

    @rule()
    def add_board(self) -> None:
        assert self.live.add_board() == self.num_boards
        self.num_boards += 1

    @rule(data=st.data())
    def add_edge(self, data: st.DataObject) -> None:
        edge = self.any_pair(data)
        assert self.live.add_edge(*edge) == (edge not in self.edges)
        self.edges.add(edge)

    @rule(data=st.data())
    def remove_any_edge(self, data: st.DataObject) -> None:
        edge = self.any_pair(data)
        assert self.live.remove_edge(*edge) == (edge in self.edges)
        self.edges.discard(edge)

    @precondition(lambda self: self.edges)
    @rule(data=st.data())
    def remove_edge(self, data: st.DataObject) -> None:
        edge = data.draw(st.sampled_from(sorted(self.edges)))
        assert self.live.remove_edge(*edge)
        self.edges.remove(edge)

    @rule(data=st.data())
    def remove_pin(self, data: st.DataObject) -> None:
        dead = data.draw(st.integers(0, self.num_pins - 1))
        self.live.remove_pin(dead)
        self.edges = {edge for edge in self.edges if edge[0] != dead}

    def any_pair(self, data: st.DataObject) -> tuple[int, int]:
        pair = st.tuples(st.integers(0, self.num_pins - 1), st.integers(0, self.num_boards - 1))
        return data.draw(pair)

    @invariant()
    def rows_are_those_of_the_set(self) -> None:
        assert (self.live.num_pins, self.live.num_boards) == (self.num_pins, self.num_boards)
        for pin in range(self.num_pins):
            assert self.live.boards_of(pin).tolist() == sorted(b for p, b in self.edges if p == pin)
            assert self.live.pin_degree(pin) == len(self.live.boards_of(pin))
        for board in range(self.num_boards):
            assert self.live.pins_of(board).tolist() == sorted(p for p, b in self.edges if b == board)

    def teardown(self) -> None:
        built = graph_of(sorted(self.edges), self.num_pins, self.num_boards)
        expected = importance_neighbors(built, np.arange(self.num_pins), CONFIG, seed=5)
        for pin in range(self.num_pins):
            found = self.live.neighbors(pin, CONFIG, seed=5)
            assert_same(found, Neighborhoods(*(array[pin : pin + 1] for array in expected)))


TestLiveGraphMachine = LiveGraphMachine.TestCase
TestLiveGraphMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@given(pin=st.integers(0, NUM_PINS - 1), seed=st.integers(0, 2**64 - 1))
@settings(deadline=None)
def test_without_changes_the_walks_are_those_of_the_base(pin: int, seed: int) -> None:
    base = graph_of(BASE_EDGES, NUM_PINS, NUM_BOARDS)
    found = LiveGraph(base).neighbors(pin, CONFIG, seed=seed)
    assert_same(found, importance_neighbors(base, [pin], CONFIG, seed=seed))


def test_a_new_pin_meets_new_pins_over_new_boards() -> None:
    live = LiveGraph(graph_of([(0, 0)], 2, 1))
    board, first, second = live.add_board(), live.add_pin(), live.add_pin()
    live.add_edge(first, board)
    assert (live.neighbors(first, CONFIG, seed=1).ids_BT < 0).all()
    live.add_edge(second, board)
    live.add_edge(0, board)
    found = live.neighbors(first, CONFIG, seed=1)
    assert set(found.ids_BT[0].tolist()) == {second, 0, -1}
    assert found.weights_BT.sum() == pytest.approx(1)


def test_a_removed_pin_is_nobodys_neighbour_and_has_none() -> None:
    base = graph_of(BASE_EDGES, NUM_PINS, NUM_BOARDS)
    live = LiveGraph(base)
    dead = 4
    assert any(dead in importance_neighbors(base, [pin], CONFIG, seed=0).ids_BT for pin in range(NUM_PINS))
    live.remove_pin(dead)
    for pin in range(NUM_PINS):
        for seed in range(20):
            assert dead not in live.neighbors(pin, CONFIG, seed=seed).ids_BT
    assert live.neighbors(dead, CONFIG, seed=0).weights_BT.sum() == 0
    assert live.add_edge(dead, 0), "the row of a removed pin may be used again"
    assert live.neighbors(dead, CONFIG, seed=0).weights_BT.sum() == pytest.approx(1)


def test_a_row_that_a_reader_holds_does_not_change() -> None:
    live = LiveGraph(graph_of([(0, 0)], 1, 1))
    held, expected = [], []
    for num_pins in range(2, 60):
        live.add_edge(live.add_pin(), 0)
        held.append(live.pins_of(0))
        expected.append(list(range(num_pins)))
    assert [row.tolist() for row in held] == expected
    assert not held[-1].flags.writeable


def test_memory_follows_the_rows_in_use_and_not_the_number_of_changes() -> None:
    live = LiveGraph(graph_of(BASE_EDGES, NUM_PINS, NUM_BOARDS))
    for _ in range(2000):
        live.add_edge(0, NUM_BOARDS - 1)
        live.remove_edge(0, NUM_BOARDS - 1)
    assert live.num_overlay_bytes < 1000


@pytest.mark.parametrize(("pin", "board"), [(-1, 0), (NUM_PINS, 0), (0, -1), (0, NUM_BOARDS)])
def test_rows_outside_the_graph_are_errors(pin: int, board: int) -> None:
    live = LiveGraph(graph_of(BASE_EDGES, NUM_PINS, NUM_BOARDS))
    for change in (live.add_edge, live.remove_edge):
        with pytest.raises(IndexError, match=r"row -?\d+ outside"):
            change(pin, board)
    with pytest.raises(IndexError, match="outside"):
        live.neighbors(NUM_PINS, CONFIG, seed=0)


def walk_until(stop: threading.Event, live: LiveGraph, faults: list[str]) -> None:
    """A reader: walks from pins old and new, and checks every answer."""
    rng = np.random.default_rng(threading.get_ident() % 2**32)
    try:
        while not stop.is_set():
            num_pins = live.num_pins
            pin = int(rng.integers(num_pins))
            ids, weights = live.neighbors(pin, CONFIG, seed=int(rng.integers(1 << 30)))
            kept = ids[ids >= 0]
            if (ids < -1).any() or (kept >= live.num_pins).any() or pin in kept or len(set(kept)) != len(kept):
                faults.append(f"pin {pin}: {ids}")
            if not (weights.sum() == 0 or abs(weights.sum() - 1) < 1e-5):
                faults.append(f"pin {pin}: {weights}")
            row = live.boards_of(pin)
            if (np.diff(row) <= 0).any() or (row >= live.num_boards).any():
                faults.append(f"pin {pin}: boards {row}")
    except Exception as error:
        faults.append(repr(error))


@pytest.fixture
def readers() -> Iterator[tuple[LiveGraph, list[str]]]:
    live = LiveGraph(graph_of(BASE_EDGES, NUM_PINS, NUM_BOARDS))
    live.neighbors(0, CONFIG, seed=0)
    stop, faults = threading.Event(), list[str]()
    threads = [threading.Thread(target=walk_until, args=(stop, live, faults)) for _ in range(3)]
    for thread in threads:
        thread.start()
    yield live, faults
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []


def test_readers_never_see_half_a_change(readers: tuple[LiveGraph, list[str]]) -> None:
    live, faults = readers
    rng = np.random.default_rng(7)
    for change in range(6000):
        if change % 5 == 0:
            live.add_edge(live.add_pin(), int(rng.integers(live.num_boards)))
        if change % 50 == 0:
            live.add_board()
        pin, board = int(rng.integers(live.num_pins)), int(rng.integers(live.num_boards))
        if change % 7 == 0:
            live.remove_pin(pin)
        elif change % 3 == 0:
            live.remove_edge(pin, board)
        else:
            live.add_edge(pin, board)
        if faults:
            break
    assert live.num_pins == NUM_PINS + 1200


def test_a_walk_between_the_two_halves_of_a_removal_ends_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer has emptied the board, and the pin still names it: what a reader may meet at that instant."""
    live = LiveGraph(graph_of([(1, 0), (0, 1)], 2, 2))

    def interrupt(node: int, value: int) -> None:
        raise InterruptedError

    monkeypatch.setattr(live._pins, "delete", interrupt)
    with pytest.raises(InterruptedError):
        live.remove_edge(1, 0)
    assert live.boards_of(1).tolist() == [0]
    found = live.neighbors(1, CONFIG, seed=0)
    assert (found.ids_BT == -1).all()
    assert found.weights_BT.sum() == 0
