"""What the evaluation looks at, by rows: 0 to P-1 are the run's pins, cold pins follow.

Letters: A all pins (run, then cold), P pins of the run, F pins in file order, C cold pins, N labelled pairs, E edges of
cold pins, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from model.errors import PinsageError, UserError
from model.graph import BipartiteGraph
from offline.data.dataset import Dataset
from offline.inputs.row_maps import RowMap
from offline.run_folder import RunFolder

Array = npt.NDArray[Any]
CHUNK = 65_536
NUM_RECENT = 20  # saved pins of a user that the home feed looks at
NORM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ColdPins:
    """Pins that the run has never seen.

    ids       in the order of their rows P, P+1, ...
    pairs_N2  query (cold) and related (run) rows
    pins_E    counted from 0
    boards_E  rows of boards; those that the run does not know follow the known ones
    """

    ids: list[str]
    pairs_N2: Array
    pins_E: Array
    boards_E: Array


@dataclass(frozen=True)
class TestUser:
    """A user of the home feed's test: rows saved so far in order, rows saved later, and how many those are."""

    __test__ = False  # no test class for pytest

    history: Array
    held_out: Array
    num_held_out: int


@dataclass(frozen=True)
class EvaluationData:
    """One run and the tests of its data set.

    pins_A       as Dataset.pins(), in the order of rows; file_rows_A: where those pins stand in the file
    num_tests    how many pairs, cold pairs and users there are, of which those here may be a sample
    """

    folder: Path
    vectors_PD: Array
    graph: BipartiteGraph
    pins_A: pl.DataFrame
    file_rows_A: Array
    visual_FV: Array | None
    pairs_N2: Array
    cold: ColdPins
    users: list[TestUser]
    num_tests: dict[str, int]

    @property
    def num_pins(self) -> int:
        return len(self.vectors_PD)


@dataclass(frozen=True)
class Limits:
    """How much to look at.

    sample       so many pairs, cold pairs and users at most; None takes all up to max_scores
    max_scores   most scores of a query and a candidate in one test
    min_queries  never fewer queries because of max_scores; a user asks with NUM_RECENT of them
    """

    sample: int | None
    max_scores: int
    min_queries: int

    def draw(self, num_all: int, num_pins: int, rng: np.random.Generator, *, queries_each: int = 1) -> slice | Array:
        """Which of `num_all` to take: the first of a random order where not all are wanted, else all in their order."""
        limit = self.sample or max(self.min_queries, self.max_scores // num_pins) // queries_each
        if self.sample is None and num_all <= limit:
            return slice(None)
        return rng.permutation(num_all)[:limit]


def load_evaluation_data(run: RunFolder, dataset: Dataset, limits: Limits, *, seed: int) -> EvaluationData:
    """Read a run and its tests, which are drawn with the seed where the limits do not let all of them in.

    Raises UserError where the run is not embedded or is of another data set.
    """
    vectors_PD = _read_vectors(run)
    pins_A, file_rows_A = _read_pins(run, dataset, len(vectors_PD))
    reader = _TestReader(dataset, RowMap(pins_A["pin_id"]), len(vectors_PD), limits, np.random.default_rng(seed))
    return EvaluationData(
        folder=dataset.path.resolve(),
        vectors_PD=vectors_PD,
        graph=BipartiteGraph.load(run.graph),
        pins_A=pins_A,
        file_rows_A=file_rows_A,
        visual_FV=dataset.visual(),
        pairs_N2=reader.pairs(np.load(run.pairs("test")).astype(np.int64)),
        cold=reader.cold(pins_A["pin_id"][len(vectors_PD) :], run),
        users=reader.users(),
        num_tests=reader.num_tests,
    )


def _read_vectors(run: RunFolder) -> Array:
    try:
        vectors_PD: Array = np.load(run.embeddings, mmap_mode="r")
    except OSError:
        raise UserError(f"{run.path}: no embeddings yet; make them with: pinsage embed {run.path}") from None
    for start in range(0, len(vectors_PD), CHUNK):
        part = np.asarray(vectors_PD[start : start + CHUNK])
        lengths = np.sqrt(np.einsum("pd,pd->p", part, part))
        if not (np.abs(lengths - 1) < NORM_TOLERANCE).all():
            raise PinsageError(f"{run.embeddings}: rows {start} to {start + len(part) - 1} are not all of unit length")
    return vectors_PD


def _read_pins(run: RunFolder, dataset: Dataset, num_pins: int) -> tuple[pl.DataFrame, Array]:
    """All pins, the run's first, and their rows in the file."""
    pins_F = dataset.pins()
    is_cold_F = pins_F["pin_id"].is_in(dataset.coldstart_pins()).to_numpy()
    file_rows_A = np.concatenate([np.flatnonzero(~is_cold_F), np.flatnonzero(is_cold_F)])
    pins_A = pins_F[file_rows_A]
    run_ids = pl.read_ipc(run.pins, columns=["pin_id"])["pin_id"].cast(pl.String)
    if len(run_ids) != num_pins or not pins_A["pin_id"][: int((~is_cold_F).sum())].equals(run_ids):
        raise UserError(f"{run.path}: the pins of the run are not those of {dataset.path}; run prepare again")
    return pins_A, file_rows_A


class _TestReader:
    """Reads the tests of a data set as rows; draws in the order of its calls: pairs, cold pairs, users."""

    def __init__(self, dataset: Dataset, pins: RowMap, num_pins: int, limits: Limits, rng: np.random.Generator) -> None:
        self._dataset, self._pins, self._num_pins, self._limits, self._rng = dataset, pins, num_pins, limits, rng
        self.num_tests: dict[str, int] = {}

    def pairs(self, pairs_N2: Array) -> Array:
        self.num_tests["pairs"] = len(pairs_N2)
        return pairs_N2[self._limits.draw(len(pairs_N2), self._num_pins, self._rng)]

    def cold(self, ids: pl.Series, run: RunFolder) -> ColdPins:
        none = np.zeros(0, np.int64)
        pairs, edges = self._dataset.pairs("coldstart"), self._dataset.coldstart_edges()
        pairs_N2 = np.zeros((0, 2), np.int64)
        if pairs is not None:
            pairs_N2 = np.stack([_rows(self._pins, pairs[name]) for name in ("query_pin_id", "related_pin_id")], axis=1)
            is_cold = (pairs_N2 >= self._num_pins) & (pairs_N2 >= 0)
            pairs_N2 = pairs_N2[is_cold[:, 0] & ~is_cold[:, 1] & (pairs_N2[:, 1] >= 0)]
        self.num_tests["coldstart_pairs"] = len(pairs_N2)
        pairs_N2 = pairs_N2[self._limits.draw(len(pairs_N2), self._num_pins, self._rng)]
        if edges is None:
            return ColdPins(ids.to_list(), pairs_N2, none, none)
        pins_E = _rows(self._pins, edges["pin_id"]) - self._num_pins
        boards_E = _rows(RowMap(_with_new_boards(run, edges["board_id"])), edges["board_id"])
        return ColdPins(ids.to_list(), pairs_N2, pins_E[pins_E >= 0], boards_E[pins_E >= 0])

    def users(self) -> list[TestUser]:
        users = self._dataset.users_test()
        if users is None:
            return []
        self.num_tests["users"] = users.height
        users = users[self._limits.draw(users.height, self._num_pins, self._rng, queries_each=NUM_RECENT)]
        history, held_out = (_row_lists(self._pins, users[name]) for name in ("history", "held_out"))
        num_held_out = users["held_out"].list.n_unique().to_numpy()
        return [
            TestUser(saved[(saved >= 0) & (saved < self._num_pins)], np.unique(later[later >= 0]), int(num))
            for saved, later, num in zip(history, held_out, num_held_out, strict=True)
            if num
        ]


def _with_new_boards(run: RunFolder, board_ids: pl.Series) -> pl.Series:
    """The run's boards in the order of their rows, then boards that it does not know, by first occurrence."""
    known = pl.read_ipc(run.boards, columns=["board_id"])["board_id"].cast(pl.String)
    return pl.concat([known, board_ids.cast(pl.String)]).unique(maintain_order=True)


def _rows(rows: RowMap, ids: pl.Series) -> npt.NDArray[np.int64]:
    """-1 where an id is unknown."""
    return rows.find(ids).fill_null(-1).to_numpy().astype(np.int64)


def _row_lists(rows: RowMap, lists: pl.Series) -> Sequence[Array]:
    lengths = lists.list.len().fill_null(0).to_numpy()
    return np.split(_rows(rows, lists.explode(empty_as_null=False, keep_nulls=False)), np.cumsum(lengths)[:-1])
