"""The baselines on six pins and a cold one, with ranks worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from model.graph import BipartiteGraph
from offline.evaluation import baselines
from offline.evaluation.ranking import Method, related_ranks

# a, b, d and e are on board 0 alone, c on boards 0 to 4, f on none; z is cold and comes on board 0 and a new one.
A, B, C, D, E, F, Z = range(7)
EDGES = np.array([(A, 0), (B, 0), (D, 0), (E, 0), *((C, board) for board in range(5))])
TITLES = ["red fox", "red fox", "red dog", "cow", "cow hen", "owl", "red dog"]
GRAPH = BipartiteGraph.from_edges(EDGES[:, 0], EDGES[:, 1], num_pins=6, num_boards=5)
NONE = np.zeros(0, np.int64)
KNOWN = baselines.graph_matrix(GRAPH, NONE, NONE, 1)
WITH_COLD = baselines.graph_matrix(GRAPH, np.array([0, 0, 0]), np.array([0, 5, 0]), 1)


def ranks(method: Method | None, *pairs: tuple[int, int]) -> list[float]:
    assert method is not None
    queries, related = np.array(pairs).T
    return related_ranks(method, queries, related, 6).tolist()


def by_title() -> Method | None:
    return baselines.text((title, (), None) for title in TITLES)


def test_popularity_is_the_same_for_every_query() -> None:
    # c has five boards, f none, the others one: from a, b d e share places 2 to 4.
    assert ranks(baselines.popularity(GRAPH.pin_degrees()), (A, B), (A, C), (A, F), (E, F)) == [3, 1, 5, 5]


def test_boards_is_the_cosine_of_sets_of_boards() -> None:
    # From a: b d e have just its board (1), c has it among five (1 / sqrt 5), f has none.
    assert ranks(baselines.boards(KNOWN), (A, B), (A, C), (A, F), (E, F)) == [2, 4, 5, 5]
    scores = baselines.boards(KNOWN).scorer(np.array([A]))(slice(0, 6))
    assert scores.ravel() == pytest.approx([1, 1, 1 / math.sqrt(5), 1, 1, 0])


def test_pixie_counts_expected_visits() -> None:
    """One hop from a gives 1/5 to each pin of board 0. A second hop comes through c to boards 1 to 4, with c alone."""
    scores = baselines.pixie(KNOWN).scorer(np.array([A]))(slice(0, 6)).ravel()
    board_0 = 4 / 5 + 1 / 5 * 1 / 5  # where the second hop starts out from
    other = 1 / 5 + 0.5 * board_0 / 5
    assert scores == pytest.approx([other, other, other + 0.5 * 4 / 25, other, other, 0])
    assert ranks(baselines.pixie(KNOWN), (A, B), (A, C), (A, F), (E, F)) == [3, 1, 5, 5]


def test_text_is_the_cosine_of_tf_idf() -> None:
    # From a: b has the same words, c shares "red", the rest nothing. From e: d shares "cow".
    assert ranks(by_title(), (A, B), (A, C), (A, F), (E, F)) == [1, 2, 4, 3.5]


def test_tf_idf_weights_by_hand() -> None:
    weights = baselines.tf_idf(
        [("Red red, FOX!", ["Fox"], None), (None, (), "red"), (None, ["fox"], None), (None, (), None)]
    )
    assert weights is not None
    # Words: red on two of four pins, fox on one, #fox on two.
    assert weights.toarray() == pytest.approx(
        np.array(
            [
                [(1 + math.log(2)) * math.log(4 / 3), math.log(4 / 2), math.log(4 / 3)],
                [math.log(4 / 3), 0, 0],
                [0, 0, math.log(4 / 3)],
                [0, 0, 0],
            ]
        )
    )


def test_text_is_left_out_where_nobody_wrote_anything() -> None:
    assert baselines.text([(None, (), None)] * 3) is None


def test_the_sum_of_two_methods() -> None:
    queries = np.array([A, E])
    boards, text = baselines.boards(KNOWN), by_title()
    assert text is not None
    summed = baselines.both(boards, text).scorer(queries)(slice(0, 6))
    assert summed == pytest.approx(boards.scorer(queries)(slice(0, 6)) + text.scorer(queries)(slice(0, 6)))


def test_a_cold_pin_finds_the_pins_of_its_boards() -> None:
    # a b d e share board 0 and nothing else with z: places 1 to 4.
    assert ranks(baselines.boards(WITH_COLD), (Z, A), (Z, D), (Z, C), (Z, F)) == [2.5, 2.5, 5, 6]
    assert ranks(baselines.pixie(WITH_COLD), (Z, C), (Z, F)) == [1, 6]


def test_a_cold_pin_without_boards_finds_nothing_by_boards() -> None:
    assert ranks(baselines.boards(KNOWN), (Z, A), (Z, F)) == [3.5, 3.5]


def test_an_edge_given_twice_is_one_edge() -> None:
    assert WITH_COLD[Z].toarray().tolist() == [[1, 0, 0, 0, 0, 1]]


def test_visual_is_the_cosine_of_standardised_vectors_in_the_order_of_rows() -> None:
    file = np.array(
        [[5, 1000], [1, -1000], [5.1, 1001], [0.9, -999], [1, 1000], [np.nan, np.nan], [5, 990]], np.float32
    )
    rows = np.array([0, 2, 1, 3, 4, 5, 6])  # rows b and c stand the other way round in the file
    method = baselines.visual(file, rows)
    scores = method.scorer(np.array([A, F]))(slice(0, 6))
    known = np.delete(file, 5, axis=0).astype(np.float64)
    standard = (file[rows] - known.mean(0)) / known.std(0)
    standard /= np.linalg.norm(standard, axis=1, keepdims=True)
    assert scores[0, :5] == pytest.approx(standard[:5] @ standard[0], abs=1e-4)
    assert scores[:, 5].tolist() == [0, 0]  # a pin without a vector is like no other
    assert scores[1].tolist() == [0] * 6
    assert ranks(method, (A, B), (C, D)) == [1, 1]


@pytest.mark.parametrize("block", [slice(2, 5), np.array([4, 0])])
@pytest.mark.parametrize("name", ["popularity", "boards", "pixie", "text"])
def test_any_block_of_candidates_is_a_part_of_all(name: str, block: slice | np.ndarray) -> None:
    method = {
        "popularity": baselines.popularity(GRAPH.pin_degrees()),
        "boards": baselines.boards(KNOWN),
        "pixie": baselines.pixie(KNOWN),
        "text": by_title(),
    }[name]
    assert method is not None
    score = method.scorer(np.array([A, C, E]))
    assert score(block).tolist() == score(slice(0, 6))[:, block].tolist()
