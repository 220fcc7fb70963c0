"""The nearest pins of every pin of a release, found beforehand: most requests for related pins need no search then.

Beside each of them stands whether random walks from the pin visit it much, which is why a list says that people save
the two together.

Shape letters: P pins, K pins of a list, D embedding width, C pins of a chunk, T neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.config import WalkConfig
from model.errors import ReleaseError
from model.exact import Neighbors, Vectors
from model.files import create_array
from model.graph import BipartiteGraph
from model.index import AnnIndex
from model.walks import importance_neighbors

LENGTH = 64  # three pages of twenty, and room for pins that change or go
EF = 128  # twice the length, for these lists are made once and read often
CHUNK = 2_048
TYPES = {"rows": np.int32, "scores": np.float32, "together": np.bool_}

Progress = Callable[[int], None]


class RelatedLists(NamedTuple):
    """Row p lists the pins nearest to pin p, best first, p itself left out; -1 fills up where there are fewer.

    rows_PK      int32    pins
    scores_PK    float32  their cosines
    together_PK  bool     whether they are among the pins that walks from p visit most
    """

    rows_PK: NDArray[np.int32]
    scores_PK: NDArray[np.float32]
    together_PK: NDArray[np.bool_]

    def of(self, row: int) -> Listed:
        """The list of one pin."""
        rows_K = self.rows_PK[row]
        return Listed(Neighbors(rows_K[None], self.scores_PK[row][None]), rows_K[self.together_PK[row]])


class Listed(NamedTuple):
    """The list of one pin: the pins of the release that are nearest to it, and those of them saved together with it."""

    nearest: Neighbors
    together: NDArray[np.int32]


def write_related_lists(
    folder: Path,
    index: AnnIndex,
    vectors_PD: Vectors,
    graph: BipartiteGraph,
    walks: WalkConfig,
    *,
    seed: int,
    num_threads: int,
    progress: Progress | None = None,
) -> None:
    """Write the lists of all pins into a new folder; `progress` is told the number of pins just done.

    The index's `ef` is raised, so it must not be in use; give it its own again with `with_ef`.
    """
    folder.mkdir(parents=True)
    num_pins = len(vectors_PD)
    arrays = {name: create_array(_file(folder, name), dtype, (num_pins, LENGTH)) for name, dtype in TYPES.items()}
    index = index.with_ef(max(EF, index.params.ef))
    for start in range(0, num_pins, CHUNK):
        rows_C = np.arange(start, min(start + CHUNK, num_pins))
        part = slice(start, start + len(rows_C))
        nearest = _others(index.query(vectors_PD[part], LENGTH + 1, num_threads=num_threads), rows_C)
        visited_CT = importance_neighbors(graph, rows_C, walks, seed=seed, num_threads=num_threads).ids_BT
        arrays["rows"][part], arrays["scores"][part] = nearest
        arrays["together"][part] = _among(nearest.rows_QK, visited_CT)
        if progress is not None:
            progress(len(rows_C))
    for array in arrays.values():
        array.flush()


def open_related_lists(folder: Path, num_pins: int) -> RelatedLists:
    """Memory-map the lists of a release. Raises ReleaseError naming the file that does not fit."""
    return RelatedLists(*(_open(_file(folder, name), np.dtype(dtype), num_pins) for name, dtype in TYPES.items()))


def _others(found: Neighbors, rows_C: NDArray[np.int64]) -> Neighbors:
    """(C, LENGTH): each pin's answers without itself, filled up with -1."""
    itself_CK = found.rows_QK == rows_C[:, None]
    order = np.argsort(itself_CK, axis=1, kind="stable")[:, :LENGTH]
    rows_CK, scores_CK = (np.take_along_axis(each, order, axis=1) for each in found)
    rows_CK = np.where(np.take_along_axis(itself_CK, order, axis=1), -1, rows_CK)
    missing = ((0, 0), (0, LENGTH - rows_CK.shape[1]))
    return Neighbors(np.pad(rows_CK, missing, constant_values=-1), np.pad(scores_CK, missing))


def _among(rows_CK: NDArray[Any], visited_CT: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which pins of each list are among those visited from the same pin."""
    among_CK: NDArray[np.bool_] = (rows_CK[:, :, None] == visited_CT[:, None, :]).any(axis=2) & (rows_CK >= 0)
    return among_CK


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _open(path: Path, dtype: np.dtype[Any], num_pins: int) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{path}: {error}") from error
    if array.dtype != dtype or array.shape != (num_pins, LENGTH):
        raise ReleaseError(f"{path}: {array.dtype} {array.shape}, not {dtype} {(num_pins, LENGTH)}")
    return array
