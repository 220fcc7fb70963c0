"""Training on a part of the boards: which pins, which neighbours, which pairs, and whether it learns the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planted import PINS_EACH, SMALL, write_planted

from model.errors import UserError
from model.graph import BipartiteGraph
from model.walks import Neighborhoods
from offline.config import RunConfig, load_config
from offline.evaluation.ranking import TIE, Method, cosine_scorer, related_ranks
from offline.run_folder import RunFolder
from offline.stages import run_stages
from offline.training.subgraph import TrainingInputs, choose_boards, part_of, training_inputs

# Pins 0 to 6. Board 0: 0 1 2. Board 1: 2 3. Board 2: 4 5. Board 3: 1 5. Pin 6 is on none.
BOARDS = [[0, 1, 2], [2, 3], [4, 5], [1, 5]]
EDGES = np.array([(pin, board) for board, pins in enumerate(BOARDS) for pin in pins], np.int32)
GRAPH = BipartiteGraph.from_edges(EDGES[:, 0], EDGES[:, 1], num_pins=7, num_boards=4)
FEATURES = np.arange(14, dtype=np.float32).reshape(7, 2)
WHOLE = Neighborhoods(np.zeros((7, 1), np.int32), np.zeros((7, 1), np.float32))


def make_run(path: Path, pairs: list[tuple[int, int]]) -> RunFolder:
    run = RunFolder(path)
    run.prepare.mkdir(parents=True)
    GRAPH.save(run.graph)
    np.save(run.pairs("train"), np.array(pairs, np.int32).reshape(-1, 2))
    return run


def inputs_of(run: RunFolder, config: RunConfig) -> TrainingInputs:
    return training_inputs(run, config, FEATURES, WHOLE, num_threads=1, folder=run.train / "part")


def config_drawing(boards: set[int]) -> RunConfig:
    """Half of the boards, with the first seed that draws just these."""
    seed = next(s for s in range(100) if set(np.flatnonzero(choose_boards(4, 0.5, s)).tolist()) == boards)
    return load_config(assignments=["train.board_share=0.5", "walks.num_neighbors=3", f"seed={seed}"])


def test_a_part_has_the_pins_of_its_boards_and_their_edges_alone() -> None:
    pins_S, part = part_of(GRAPH, np.array([True, False, True, False]))
    assert pins_S.tolist() == [0, 1, 2, 4, 5]
    assert (part.num_pins, part.num_boards) == (5, 2)
    assert [part.pins_of(board).tolist() for board in range(2)] == [[0, 1, 2], [3, 4]]


def test_boards_are_drawn_by_their_share() -> None:
    assert choose_boards(1000, 0.2, seed=3).sum() == 200
    assert choose_boards(3, 0.01, seed=3).sum() == 1
    assert not np.array_equal(choose_boards(1000, 0.2, seed=3), choose_boards(1000, 0.2, seed=4))


def test_everything_is_taken_where_no_share_is_set(tmp_path: Path) -> None:
    inputs = inputs_of(make_run(tmp_path, [(0, 3), (6, 5)]), load_config())
    assert inputs.pairs_N2.tolist() == [[0, 3], [6, 5]]
    assert inputs.features_PF is FEATURES
    assert inputs.neighborhoods is WHOLE


def test_rows_are_counted_anew_and_pairs_outside_are_dropped(tmp_path: Path) -> None:
    """Boards 0 and 2 leave pins 0 1 2 4 5, as rows 0 to 4; pairs with 3 or 6 go."""
    run = make_run(tmp_path, [(0, 3), (0, 5), (6, 1), (4, 2)])
    inputs = inputs_of(run, config_drawing({0, 2}))
    assert inputs.pairs_N2.tolist() == [[0, 4], [3, 2]]
    assert len(inputs.features_PF) == 5
    assert inputs.features_PF[np.array([3, 0])].tolist() == [[8, 9], [0, 1]]  # pins 4 and 0


def test_walks_stay_on_the_part(tmp_path: Path) -> None:
    """On the whole graph pin 1 reaches pin 5 by board 3, which is not drawn; row 4 is pin 5."""
    run = make_run(tmp_path, [(0, 1)])
    ids_ST = inputs_of(run, config_drawing({0, 2})).neighborhoods.ids_BT
    assert [sorted(ids[ids >= 0].tolist()) for ids in np.asarray(ids_ST)] == [[1, 2], [0, 2], [0, 1], [4], [3]]


def test_nothing_left_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    run = make_run(tmp_path, [(0, 3), (6, 5)])
    with pytest.raises(UserError, match=r"board_share = 0\.5: none of the 2 training pairs .* take a larger share"):
        inputs_of(run, config_drawing({0, 2}))


def test_pairs_inside_a_part_are_rows_of_the_part() -> None:
    place_P = np.array([1, -1, -1, 0, 2])
    graph = BipartiteGraph.from_edges([0, 1], [0, 0], num_pins=3, num_boards=1)
    nobody = Neighborhoods(np.empty((3, 0), np.int32), np.empty((3, 0), np.float32))
    part = TrainingInputs(np.empty((0, 2), np.int32), FEATURES[[3, 0, 4]], nobody, graph, place_P)
    assert part.inside(np.array([[0, 3], [3, 1], [4, 0]])).tolist() == [[1, 0], [2, 1]]


def test_a_part_teaches_the_whole(tmp_path: Path) -> None:
    """Half of the boards, and embeddings of all pins, also of those that no board of the half touches."""
    data, run = write_planted(tmp_path / "data"), RunFolder(tmp_path / "run")
    config = load_config(assignments=[*SMALL, "train.board_share=0.5", "seed=2"])
    run_stages(data, run, config, stages=["prepare", "train", "embed"])
    vectors_PD = np.load(run.embeddings)
    seen = part_of(BipartiteGraph.load(run.graph), choose_boards(48, 0.5, config.seed))[0]
    assert len(seen) < len(vectors_PD) == 120
    query_N, related_N = np.load(run.pairs("test")).T
    ranks_N = related_ranks(Method(cosine_scorer(vectors_PD, vectors_PD), tie=TIE), query_N, related_N, 120)
    assert (ranks_N <= PINS_EACH - 1).mean() > 0.8  # 0.16 by chance
