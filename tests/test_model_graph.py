"""The graph in both directions: against plain sets, built in files and in memory, and with damaged files."""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ReleaseError, UserError
from model.graph import BipartiteGraph, build_graph

Chunks = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
FILES = ("pin_ptr", "pin_boards", "board_ptr", "board_pins")
NUM_PINS, NUM_BOARDS = 9, 5
EDGES = st.lists(st.tuples(st.integers(0, NUM_PINS - 1), st.integers(0, NUM_BOARDS - 1)), max_size=80)


def columns(edges: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array(edges, dtype=np.int32).reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def in_chunks(edges: list[tuple[int, int]], size: int) -> Chunks:
    return lambda: (columns(edges[start : start + size]) for start in range(0, len(edges), size))


def assert_equal(one: BipartiteGraph, other: BipartiteGraph) -> None:
    for name in ("pin_ptr", "pin_boards_E", "board_ptr", "board_pins_E"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype


@given(edges=EDGES)
@settings(deadline=None)
def test_rows_are_sorted_sets_in_both_directions(edges: list[tuple[int, int]]) -> None:
    boards_of, pins_of = defaultdict(set), defaultdict(set)
    for pin, board in edges:
        boards_of[pin].add(board)
        pins_of[board].add(pin)
    graph = BipartiteGraph.from_edges(*columns(edges), num_pins=NUM_PINS, num_boards=NUM_BOARDS)
    for pin in range(NUM_PINS):
        assert graph.boards_of(pin).tolist() == sorted(boards_of[pin])
    for board in range(NUM_BOARDS):
        assert graph.pins_of(board).tolist() == sorted(pins_of[board])
    assert (graph.num_pins, graph.num_boards, graph.num_edges) == (NUM_PINS, NUM_BOARDS, len(set(edges)))
    assert graph.pin_degrees().tolist() == [len(boards_of[pin]) for pin in range(NUM_PINS)]
    assert graph.board_degrees().tolist() == [len(pins_of[board]) for board in range(NUM_BOARDS)]


@given(edges=EDGES, size=st.integers(1, 100))
@settings(deadline=None, max_examples=50)
def test_building_in_files_gives_the_graph_in_memory(tmp_path_factory, edges, size: int) -> None:
    folder = tmp_path_factory.mktemp("graph")
    built = build_graph(folder, in_chunks(edges, size), num_pins=NUM_PINS, num_boards=NUM_BOARDS)
    assert_equal(built, BipartiteGraph.from_edges(*columns(edges), num_pins=NUM_PINS, num_boards=NUM_BOARDS))
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.npy" for name in FILES)


def test_rows_longer_than_any_shortcut_of_sorting() -> None:
    rng = np.random.default_rng(3)
    pins, boards = rng.integers(0, 3, 20_000), rng.integers(0, 4_000, 20_000)
    graph = BipartiteGraph.from_edges(pins, boards, num_pins=3, num_boards=4_000)
    for pin in range(3):
        np.testing.assert_array_equal(graph.boards_of(pin), np.unique(boards[pins == pin]))


def test_a_saved_graph_loads_memory_mapped_and_cannot_be_written(tmp_path: Path) -> None:
    graph = BipartiteGraph.from_edges([0, 1, 1], [0, 0, 1], num_pins=3, num_boards=2)
    graph.save(tmp_path)
    loaded = BipartiteGraph.load(tmp_path)
    assert_equal(loaded, graph)
    owner: object = loaded.pin_boards_E
    while isinstance(owner, np.ndarray):
        owner = owner.base
    assert isinstance(owner, mmap.mmap)
    with pytest.raises(ValueError, match="read-only"):
        loaded.pin_boards_E[0] = 1


def test_a_graph_without_edges_saves_and_loads(tmp_path: Path) -> None:
    built = build_graph(tmp_path, lambda: iter(()), num_pins=2, num_boards=0)
    assert (built.num_pins, built.num_boards, built.num_edges) == (2, 0, 0)
    assert built.boards_of(1).tolist() == []


@pytest.mark.parametrize(("pin", "board"), [(-1, 0), (3, 0), (0, -1), (0, 2)])
def test_an_edge_outside_the_graph_is_named(tmp_path: Path, pin: int, board: int) -> None:
    edges = [(0, 0), (1, 1), (pin, board), (2, 1)]
    with pytest.raises(UserError, match=f"edge 2: pin row {pin}, board row {board}"):
        build_graph(tmp_path, in_chunks(edges, 2), num_pins=3, num_boards=2)


@pytest.mark.parametrize("second", [[(0, 0)], [(0, 0), (0, 0)], [(0, 0), (1, 0), (1, 0)]])
def test_a_second_pass_that_differs_is_refused(tmp_path: Path, second: list[tuple[int, int]]) -> None:
    passes = iter([[(0, 0), (1, 0)], second])
    with pytest.raises(UserError, match="second pass"):
        build_graph(tmp_path, lambda: in_chunks(next(passes), 10)(), num_pins=2, num_boards=1)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    BipartiteGraph.from_edges([0, 1], [0, 1], num_pins=2, num_boards=2).save(tmp_path)
    (tmp_path / f"{name}.npy").unlink()
    with pytest.raises(ReleaseError, match=f"{name}.npy"):
        BipartiteGraph.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("pin_ptr", np.array([0, 1, 2], np.int32)),
        ("pin_ptr", np.array([[0, 1, 2]], np.int64)),
        ("pin_ptr", np.array([], np.int64)),
        ("pin_ptr", np.array([1, 1, 2], np.int64)),
        ("pin_ptr", np.array([0, 1, 3], np.int64)),
        ("board_ptr", np.array([0, 3, 2], np.int64)),
        ("board_ptr", np.array([0, 1], np.int64)),
        ("board_pins", np.array([0, 1], np.int64)),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, name: str, array: np.ndarray) -> None:
    BipartiteGraph.from_edges([0, 1], [0, 1], num_pins=2, num_boards=2).save(tmp_path)
    np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(ReleaseError, match=f"{name}.npy"):
        BipartiteGraph.load(tmp_path)


def test_directions_of_different_size_are_refused(tmp_path: Path) -> None:
    BipartiteGraph.from_edges([0, 1], [0, 1], num_pins=2, num_boards=2).save(tmp_path)
    np.save(tmp_path / "board_pins.npy", np.array([0], np.int32))
    np.save(tmp_path / "board_ptr.npy", np.array([0, 1, 1], np.int64))
    with pytest.raises(ReleaseError, match=r"board_pins.npy: 1 edges"):
        BipartiteGraph.load(tmp_path)
