"""Cold pins on a small world: the same as known pins, apart from each other, and with stand-ins for neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from topic_world import CONFIG, embedded_run, write_world

from model.cold_neighbors import nearest_as_neighbors
from model.exact import Neighbors
from model.features import FeatureEncoder, PinContent
from model.inference import Inference, unit_rows
from model.walks import importance_neighbors
from offline.data.dataset import open_dataset
from offline.evaluation.coldstart import ColdEmbedder, cold_contents, write_cold_embeddings
from offline.evaluation.evaluation_data import EvaluationData, Limits, load_evaluation_data
from offline.run_folder import RunFolder

Vectors = np.ndarray
WALKS = CONFIG.walks.to_walk_config()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("coldstart")
    return embedded_run(write_world(folder / "world"), folder / "run")


@pytest.fixture(scope="module")
def data(run: RunFolder) -> EvaluationData:
    return load_evaluation_data(run, open_dataset(run.path.parent / "world"), Limits(None, 10**9, 10), seed=7)


@pytest.fixture
def embedder(run: RunFolder, data: EvaluationData) -> ColdEmbedder:
    return ColdEmbedder(run, data.graph, data.vectors_PD, WALKS, seed=1)


def gather(run: RunFolder) -> Callable[[int, Vectors], Vectors]:
    return lambda layer, rows: np.load(run.messages(layer))[rows]


def known_content(data: EvaluationData, row: int) -> PinContent:
    title, tags, description = data.pins_A.select("title", "annotations", "description").row(row)
    return PinContent(title, tags, description, None, data.graph.boards_of(row))


def test_contents_are_what_a_client_would_post(run: RunFolder, data: EvaluationData) -> None:
    contents = list(cold_contents(data, with_boards=True))
    assert data.cold.ids == ["cats20", "cats21", "ships20", "ships21", "bread20", "bread21"]
    assert [content.title.split()[-1] for content in contents if content.title] == data.cold.ids
    assert [list(content.annotations) for content in contents[:3]] == [["cats"], ["cats"], ["ships"]]
    edges = open_dataset(run.path.parent / "world").coldstart_edges()
    assert edges is not None
    assert sum(len(content.boards) for content in contents) == edges.height
    assert [len(content.boards) for content in cold_contents(data, with_boards=False)] == [0] * 6


def test_the_path_of_a_cold_pin_by_hand(run: RunFolder, data: EvaluationData, embedder: ColdEmbedder) -> None:
    """Encode, walk in a graph that has the pin, gather the neighbours' messages, embed."""
    content = next(cold_contents(data, with_boards=True))
    row, graph = data.num_pins, data.graph
    pins = np.concatenate([np.repeat(np.arange(row), graph.pin_degrees()), np.full(len(content.boards), row)])
    boards = np.concatenate([graph.pin_boards_E, content.boards])
    grown = type(graph).from_edges(pins, boards, num_pins=row + 1, num_boards=graph.num_boards)
    found = importance_neighbors(grown, [row], WALKS, seed=1)
    x_BF = FeatureEncoder.load(run.encoder).encode([content])
    expected = Inference.load(run.train).embed(x_BF, *found, gather(run)).vectors_BD
    assert embedder.embed([content]) == pytest.approx(expected, abs=1e-6)


def test_a_copy_of_a_known_pin_lands_beside_it(data: EvaluationData, embedder: ColdEmbedder) -> None:
    copies = embedder.embed(known_content(data, row) for row in range(data.num_pins))
    # Without the last coordinate: nobody has asked for a copy yet, so it is less popular.
    learned, known = unit_rows(copies[:, :-1]), unit_rows(data.vectors_PD[:, :-1])
    assert np.einsum("pd,pd->p", learned, known).min() > 0.95


def test_cold_pins_do_not_meet_each_other(data: EvaluationData, embedder: ColdEmbedder) -> None:
    contents = list(cold_contents(data, with_boards=True))
    together = embedder.embed(contents)
    apart = np.concatenate([embedder.embed([content]) for content in reversed(contents)])[::-1]
    assert together == pytest.approx(apart, abs=1e-6)


def test_boards_that_the_run_does_not_know_add_no_neighbours(data: EvaluationData, embedder: ColdEmbedder) -> None:
    content = next(cold_contents(data, with_boards=False))
    new_board = data.graph.num_boards + 3
    alone = embedder.embed([PinContent(content.title, content.annotations, boards=[new_board])])
    assert np.isfinite(alone).all()
    assert np.linalg.norm(alone) == pytest.approx(1, abs=1e-5)


def test_a_pin_without_boards_has_its_nearest_pins_as_neighbours(
    run: RunFolder, data: EvaluationData, embedder: ColdEmbedder
) -> None:
    content = next(cold_contents(data, with_boards=False))
    inference, x_BF = Inference.load(run.train), FeatureEncoder.load(run.encoder).encode([content])
    nobody = np.full((1, WALKS.num_neighbors), -1)
    first = inference.embed(x_BF, nobody, np.zeros(nobody.shape, np.float32), gather(run)).vectors_BD
    cosines = data.vectors_PD @ first[0]
    nearest = np.argsort(-cosines)[: WALKS.num_neighbors]
    weights = (cosines[nearest] / cosines[nearest].sum())[None]
    expected = inference.embed(x_BF, nearest[None], weights, gather(run)).vectors_BD
    assert embedder.embed([content]) == pytest.approx(expected, abs=1e-5)


def test_no_cold_pins_make_an_empty_matrix(embedder: ColdEmbedder) -> None:
    assert embedder.embed([]).shape == (0, 12)


def test_written_for_others_to_judge(run: RunFolder, data: EvaluationData, embedder: ColdEmbedder) -> None:
    vectors = embedder.embed(cold_contents(data, with_boards=True))
    write_cold_embeddings(run, data.cold.ids, vectors)
    assert np.load(run.path / "coldstart_embeddings.npy").tolist() == vectors.tolist()
    assert (run.path / "coldstart_pin_ids.txt").read_text().split("\n") == [*data.cold.ids, ""]


def answers(rows: list[list[int]], scores: list[list[float]]) -> Callable[[Vectors, int], Neighbors]:
    return lambda vectors, k: Neighbors(np.array(rows, np.int64), np.array(scores, np.float32))


def test_weights_are_the_shares_of_positive_cosines() -> None:
    found = nearest_as_neighbors(np.zeros((1, 2), np.float32), answers([[7, 3, 5]], [[0.6, 0.2, -0.1]]), 3)
    assert found.ids_BT.tolist() == [[7, 3, -1]]
    assert found.weights_BT == pytest.approx(np.array([[0.75, 0.25, 0]]))


def test_a_pin_near_nothing_has_no_neighbours() -> None:
    found = nearest_as_neighbors(np.zeros((1, 2), np.float32), answers([[7, 3]], [[-0.2, -0.3]]), 2)
    assert found.ids_BT.tolist() == [[-1, -1]]
    assert found.weights_BT.tolist() == [[0, 0]]


def test_fewer_pins_than_neighbours_leave_places_empty() -> None:
    found = nearest_as_neighbors(np.zeros((2, 2), np.float32), answers([[1], [0]], [[0.5], [0.25]]), 4)
    assert found.ids_BT.tolist() == [[1, -1, -1, -1], [0, -1, -1, -1]]
    assert found.weights_BT.sum(axis=1).tolist() == [1, 1]
    assert found.ids_BT.dtype == np.int32
    assert found.weights_BT.dtype == np.float32
