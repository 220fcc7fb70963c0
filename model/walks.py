"""Random walks and the importance neighbourhoods N(u) that they give (paper 3.1).

A walk starts at its seed pin and hops pin -> random board -> random pin. A visit is counted at every pin reached;
after each hop the walk ends with probability `restart`. N(u) is the T pins most visited.

The kernels, and why they are as they are: model/walk_kernels.py.

Letters: B seed pins, P pins, T neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.config import WalkConfig
from model.errors import UserError
from model.files import create_array
from model.graph import BipartiteGraph
from model.walk_kernels import Side, fill_neighborhoods


class Neighborhoods(NamedTuple):
    """Neighbours and their weights.

    ids_BT      int32    rows, most visited first, ties by smaller row; -1 where there are fewer
    weights_BT  float32  visits / visits of the kept; each row sums to 1, or to 0 for a pin without neighbours
    """

    ids_BT: npt.NDArray[np.int32]
    weights_BT: npt.NDArray[np.float32]


def importance_neighbors(
    graph: BipartiteGraph,
    pins_B: npt.ArrayLike,
    config: WalkConfig,
    *,
    seed: int,
    num_threads: int = 1,
) -> Neighborhoods:
    """The neighbourhoods of some pins (paper 3.1); the same for any number of threads.

    Raises IndexError when a pin is outside the graph, UserError when the configuration makes no sense.
    """
    seeds_B = np.asarray(pins_B, dtype=np.int64)
    if len(seeds_B) and not 0 <= seeds_B.min() <= seeds_B.max() < graph.num_pins:
        raise IndexError(f"pin rows {seeds_B.min()}..{seeds_B.max()} outside the graph of {graph.num_pins} pins")
    found = _empty(len(seeds_B), config)
    bounds = np.linspace(0, len(seeds_B), num_threads + 1).astype(int)
    parts = [slice(start, stop) for start, stop in pairwise(bounds)]
    pins, boards = _sides(graph)

    def walk(part: slice) -> None:
        walk_seeds(pins, boards, seeds_B[part], config, seed, found.ids_BT[part], found.weights_BT[part])

    if num_threads == 1:
        walk(parts[0])
    else:
        with ThreadPoolExecutor(num_threads) as threads:
            list(threads.map(walk, parts))
    return found


def build_neighborhoods(
    graph: BipartiteGraph,
    config: WalkConfig,
    *,
    seed: int,
    ids_path: Path,
    weights_path: Path,
    num_threads: int,
    chunk: int = 8192,
    progress: Callable[[int], None] | None = None,
) -> Neighborhoods:
    """The neighbourhoods of all pins, written to two .npy files and returned memory-mapped (P rows).

    `progress` is called from the caller's thread with the number of pins finished since the last call.
    """
    shape = (graph.num_pins, config.num_neighbors)
    ids_PT = create_array(ids_path, np.int32, shape)
    weights_PT = create_array(weights_path, np.float32, shape)
    pins, boards = _sides(graph)
    found = Neighborhoods(ids_PT.view(np.ndarray), weights_PT.view(np.ndarray))

    def walk(start: int) -> int:
        part = slice(start, min(start + chunk, graph.num_pins))
        seeds_B = np.arange(part.start, part.stop)
        walk_seeds(pins, boards, seeds_B, config, seed, found.ids_BT[part], found.weights_BT[part])
        return len(seeds_B)

    with ThreadPoolExecutor(num_threads) as threads:
        for num_done in threads.map(walk, range(0, graph.num_pins, chunk)):
            if progress is not None:
                progress(num_done)
    ids_PT.flush()
    weights_PT.flush()
    return Neighborhoods(np.load(ids_path, mmap_mode="r"), np.load(weights_path, mmap_mode="r"))


def walk_one(pins: Side, boards: Side, pin: int, config: WalkConfig, seed: int) -> Neighborhoods:
    """The neighbourhood of one pin, B = 1; the caller has checked the row."""
    found = _empty(1, config)
    walk_seeds(pins, boards, np.array([pin], np.int64), config, seed, found.ids_BT, found.weights_BT)
    return found


def walk_seeds(
    pins: Side,
    boards: Side,
    seeds_B: npt.NDArray[np.int64],
    config: WalkConfig,
    seed: int,
    ids_BT: npt.NDArray[np.int32],
    weights_BT: npt.NDArray[np.float32],
) -> None:
    """Walk from every seed pin and fill its neighbourhood; runs without the GIL, scratch is bounded by the walks."""
    if config.num_walks < 1 or config.num_hops < 1 or config.num_neighbors < 1 or not 0 <= config.restart <= 1:
        raise UserError(f"walks need num_walks, num_hops, num_neighbors >= 1 and 0 <= restart <= 1: {config}")
    key = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
    ends_below = np.uint64(round(config.restart * 2**32))
    fill_neighborhoods(pins, boards, seeds_B, key, config.num_walks, config.num_hops, ends_below, ids_BT, weights_BT)


def warm_up() -> None:
    """Compile the kernels (or read them from the cache), so that the first request does not wait."""
    graph = BipartiteGraph.from_edges([0, 1], [0, 0], num_pins=2, num_boards=1)
    importance_neighbors(graph, [0], WalkConfig(num_walks=1), seed=0)
    no_rows = np.zeros(2, np.int32)
    pins, boards = (side._replace(where=no_rows, pool=no_rows) for side in _sides(graph))
    walk_one(pins, boards, 0, WalkConfig(num_walks=1), 0)


def _sides(graph: BipartiteGraph) -> tuple[Side, Side]:
    return Side(graph.pin_ptr, graph.pin_boards_E), Side(graph.board_ptr, graph.board_pins_E)


def _empty(num_seeds: int, config: WalkConfig) -> Neighborhoods:
    shape = (num_seeds, config.num_neighbors)
    return Neighborhoods(np.empty(shape, np.int32), np.empty(shape, np.float32))
