from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.config import WalkConfig
from model.errors import ReleaseError
from model.exact import exact_neighbors
from model.graph import BipartiteGraph
from model.index import AnnIndex, IndexParams
from model.related_lists import LENGTH, RelatedLists, open_related_lists, write_related_lists
from model.walks import importance_neighbors

WALKS = WalkConfig(num_walks=50, num_neighbors=5)


def unit_vectors(num_pins: int, *, seed: int) -> np.ndarray:
    vectors_PD = np.random.default_rng(seed).normal(size=(num_pins, 8)).astype(np.float32)
    return vectors_PD / np.linalg.norm(vectors_PD, axis=1, keepdims=True)


def some_graph(num_pins: int) -> BipartiteGraph:
    pins_E = np.repeat(np.arange(num_pins), 2)
    boards_E = np.random.default_rng(5).integers(0, 20, len(pins_E))
    return BipartiteGraph.from_edges(pins_E, boards_E, num_pins=num_pins, num_boards=20)


def lists_of(folder: Path, vectors_PD: np.ndarray, graph: BipartiteGraph, num_threads: int = 1) -> RelatedLists:
    index = AnnIndex.build(vectors_PD, IndexParams(vectors_PD.shape[1], len(vectors_PD)))
    write_related_lists(folder, index, vectors_PD, graph, WALKS, seed=7, num_threads=num_threads)
    return open_related_lists(folder, len(vectors_PD))


def test_a_list_holds_the_nearest_others_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.related_lists.CHUNK", 70)
    vectors_PD = unit_vectors(200, seed=1)
    vectors_PD[150] = vectors_PD[3]  # a twin must not be taken for the pin itself
    found = lists_of(tmp_path / "related", vectors_PD, some_graph(200), num_threads=2)
    exact = exact_neighbors(vectors_PD, vectors_PD, LENGTH + 1)
    for row in range(200):
        others = exact.scores_QK[row][exact.rows_QK[row] != row][:LENGTH]
        assert row not in found.rows_PK[row]
        assert np.allclose(found.scores_PK[row], others, atol=1e-5)
        assert np.allclose(vectors_PD[found.rows_PK[row]] @ vectors_PD[row], found.scores_PK[row], atol=1e-5)
    assert found.rows_PK[3, 0] == 150
    assert found.rows_PK[150, 0] == 3


def test_those_that_walks_visit_are_marked(tmp_path: Path) -> None:
    graph = some_graph(200)
    found = lists_of(tmp_path / "related", unit_vectors(200, seed=2), graph)
    visited = importance_neighbors(graph, np.arange(200), WALKS, seed=7).ids_BT
    for row in range(200):
        assert set(found.of(row).together) == set(found.rows_PK[row]) & set(visited[row])
    assert 0 < found.together_PK.mean() < 0.2


def test_where_there_are_few_pins_a_list_ends_early(tmp_path: Path) -> None:
    found = lists_of(tmp_path / "related", unit_vectors(5, seed=3), some_graph(5))
    assert sorted(found.rows_PK[2, :4].tolist()) == [0, 1, 3, 4]
    assert (found.rows_PK[2, 4:] == -1).all()
    assert not found.together_PK[2, 4:].any()
    assert found.of(2).nearest.rows_QK.shape == (1, LENGTH)


@pytest.mark.parametrize("name", ["rows", "scores", "together"])
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, name: str) -> None:
    lists_of(tmp_path / "related", unit_vectors(30, seed=4), some_graph(30))
    path = tmp_path / "related" / f"{name}.npy"
    with pytest.raises(ReleaseError, match=r"rows\.npy"):
        open_related_lists(tmp_path / "related", 31)
    np.save(path, np.load(path).astype(np.float64))
    with pytest.raises(ReleaseError, match=rf"{name}\.npy: float64"):
        open_related_lists(tmp_path / "related", 30)
    path.unlink()
    with pytest.raises(ReleaseError, match=rf"{name}\.npy"):
        open_related_lists(tmp_path / "related", 30)
