"""How many neighbourhoods a second, against walks that go one after the other; and how long one takes on a live graph.

The ratio to the baseline is one of processor time, which other load on the machine disturbs least.

python bench/walks.py                 1 M pins, 200,000 boards, 9 M edges: about a minute, 1 GiB of memory
python bench/walks.py --small         a few seconds, to see that it works
python bench/walks.py --dgl PYTHON    DGL's sampler too, by the Python of an environment that has it (bench/other)
"""

# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numba
import numpy as np
from numba import njit

from model.config import WalkConfig
from model.graph import BipartiteGraph
from model.live_graph import LiveGraph
from model.walk_kernels import count_visits, keep_most_visited, splitmix
from model.walks import importance_neighbors, warm_up

Result = TypeVar("Result")
GAMMA = np.uint64(0x9E3779B97F4A7C15)


def main() -> None:
    options = arguments()
    config = WalkConfig(num_walks=200, num_hops=2, restart=0.5, num_neighbors=50)
    rng = np.random.default_rng(0)
    num_pins, num_boards, num_edges = options.pins, options.pins // 5, options.pins * 9
    edges = rng.integers(0, num_pins, num_edges), rng.integers(0, num_boards, num_edges)
    seconds, graph = timed(lambda: BipartiteGraph.from_edges(*edges, num_pins=num_pins, num_boards=num_boards))
    print(f"{num_pins:,} pins, {num_boards:,} boards, {graph.num_edges:,} edges; built in {seconds:.1f} s")
    warm_up()
    pins_B = rng.integers(0, num_pins, options.seeds)
    ways: dict[str, Callable[[], object]] = {
        "one after the other": lambda: one_after_the_other(graph, pins_B, config),
        "stage by stage": lambda: importance_neighbors(graph, pins_B, config, seed=1),
        f"the same, {options.threads} threads": lambda: importance_neighbors(
            graph, pins_B, config, seed=1, num_threads=options.threads
        ),
    }
    times = best_times(ways, options.repeats)
    for way, (wall, cpu) in zip(ways, times, strict=True):
        micros, ratio = cpu / len(pins_B) * 1e6, times[0][1] / cpu
        print(f"{way:24s}{len(pins_B) / wall:12,.0f} pins/s{micros:8.1f} us of processor a pin{ratio:8.2f} x less")
    dgl_rate = None
    if options.dgl:
        dgl_rate = pins_per_second_of_dgl(options, edges, pins_B, config)
        ours = len(pins_B) / times[2][0]
        print(f"{'DGL, as many threads':24s}{dgl_rate:12,.0f} pins/s; ours is {ours / dgl_rate:.1f} times as fast")
    live = live_latencies(graph, config, rng)
    print(f"{'one pin, live graph':24s}{live[0]:12.3f} ms median{live[1]:8.3f} ms 99th percentile")
    print(json.dumps(result(options, graph, config, times, live, dgl_rate)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=1_000_000, help="pins of the graph; boards and edges follow")
    parser.add_argument("--seeds", type=int, default=50_000, help="pins to walk from, in each measurement")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each way, in turn; the best counts")
    parser.add_argument("--dgl", help="Python that has DGL")
    parser.add_argument("--small", action="store_true", help="20,000 pins, 2,000 seeds, 2 repeats")
    options = parser.parse_args()
    if options.small:
        options.pins, options.seeds, options.repeats = 20_000, 2_000, 2
    return options


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    start = time.perf_counter()
    value = work()
    return time.perf_counter() - start, value


def best_times(ways: dict[str, Callable[[], object]], repeats: int) -> list[tuple[float, float]]:
    """Least seconds and processor seconds of each way; they take turns, so that other load falls on all of them."""
    rounds: list[list[tuple[float, float]]] = []
    for _ in range(repeats):
        rounds.append([])
        for way in ways.values():
            before = time.process_time()
            seconds, _ = timed(way)
            rounds[-1].append((seconds, time.process_time() - before))
    return [(min(wall), min(cpu)) for wall, cpu in (zip(*turns, strict=True) for turns in zip(*rounds, strict=True))]


def pins_per_second_of_dgl(
    options: argparse.Namespace, edges: tuple[np.ndarray, np.ndarray], pins_B: np.ndarray, config: WalkConfig
) -> float:
    """DGL's best rate with as many threads, on the same graph and the first tenth of the same seeds."""
    some_B = pins_B[: max(1, len(pins_B) // 10)]
    walks = [config.num_walks, config.num_hops, config.restart, config.num_neighbors]
    sizes = [options.pins, options.pins // 5]
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "edges.npy", np.stack(edges))
        np.save(Path(folder) / "seeds.npy", some_B)
        script = Path(__file__).parent / "other" / "dgl_walks.py"
        arguments = json.dumps([sizes, walks, options.threads, options.repeats])
        command = [options.dgl, str(script), folder, arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return len(some_B) / min(wall for wall, _ in json.loads(done.stdout.splitlines()[-1]))


def live_latencies(graph: BipartiteGraph, config: WalkConfig, rng: np.random.Generator) -> tuple[float, float]:
    """Milliseconds of `neighbors`, median and 99th percentile, after a thousand new pins with four boards each."""
    live = LiveGraph(graph)
    for _ in range(1000):
        pin = live.add_pin()
        for board in rng.integers(0, live.num_boards, 4).tolist():
            live.add_edge(pin, board)
    pins = np.append(rng.integers(0, live.num_pins, 1000), np.arange(graph.num_pins, live.num_pins))
    times = [timed(partial(live.neighbors, pin, config, seed=1))[0] for pin in pins.tolist()]
    median, tail = np.quantile(times, [0.5, 0.99]) * 1e3
    return float(median), float(tail)


def result(
    options: argparse.Namespace,
    graph: BipartiteGraph,
    config: WalkConfig,
    times: list[tuple[float, float]],
    live: tuple[float, float],
    dgl_rate: float | None,
) -> dict[str, object]:
    rates = [options.seeds / wall for wall, _ in times]
    return {
        "bench": "walks",
        "figure": round(rates[1]),
        "unit": "pins/s on one thread",
        "ratio": round(times[0][1] / times[1][1], 2),
        "ratio_is": "processor time of walks one after the other / ours",
        "ratio_to_dgl": dgl_rate and round(rates[2] / dgl_rate, 1),
        "dgl_pins_per_second": dgl_rate and round(dgl_rate),
        "ratio_of_threads": round(rates[2] / rates[1], 2),
        "processor_us_per_pin": round(times[1][1] / options.seeds * 1e6, 2),
        "num_threads": options.threads,
        "live_median_ms": round(live[0], 4),
        "live_p99_ms": round(live[1], 4),
        "num_pins": graph.num_pins,
        "num_edges": graph.num_edges,
        "walks": [config.num_walks, config.num_hops, config.restart, config.num_neighbors],
        "hardware": f"{processor()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "numba": numba.__version__, "numpy": np.__version__},
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def one_after_the_other(graph: BipartiteGraph, pins_B: np.ndarray, config: WalkConfig) -> np.ndarray:
    """The baseline: the plain loop that one would write first, with our counting and ranking."""
    ids_BT = np.empty((len(pins_B), config.num_neighbors), np.int32)
    weights_BT = np.empty(ids_BT.shape, np.float32)
    csr = (graph.pin_ptr, graph.pin_boards_E, graph.board_ptr, graph.board_pins_E)
    walk_in_turn(*csr, pins_B, config.num_walks, config.num_hops, config.restart, ids_BT, weights_BT)
    return ids_BT


@njit(nogil=True, cache=True, error_model="numpy")
def walk_in_turn(
    pin_ptr, pin_boards_E, board_ptr, board_pins_E, pins_B, num_walks, num_hops, restart, ids_BT, weights_BT
):
    visits_V = np.empty(num_walks * num_hops, np.int32)
    size = 2
    while size < 2 * len(visits_V):
        size *= 2
    table_S, slots_V = np.zeros(size, np.int64), np.empty(len(visits_V), np.uint64)
    keys_V = np.empty(len(visits_V), np.int64)
    for i in range(len(pins_B)):
        counter = splitmix(np.uint64(pins_B[i]))
        num_visits = 0
        if pin_ptr[pins_B[i]] < pin_ptr[pins_B[i] + 1]:
            for _ in range(num_walks):
                pin = pins_B[i]
                for _ in range(num_hops):
                    board, counter = random_neighbor(pin_ptr, pin_boards_E, pin, counter)
                    pin, counter = random_neighbor(board_ptr, board_pins_E, board, counter)
                    visits_V[num_visits] = pin
                    num_visits += 1
                    counter += GAMMA
                    if (splitmix(counter) >> np.uint64(11)) * (1.0 / (1 << 53)) < restart:
                        break
        num_distinct = count_visits(visits_V[:num_visits], pins_B[i], table_S, slots_V, keys_V)
        keep_most_visited(keys_V[:num_distinct], ids_BT[i], weights_BT[i])


@njit(nogil=True, cache=True, error_model="numpy")
def random_neighbor(ptr, values, node, counter):
    counter += GAMMA
    degree = np.uint64(ptr[node + 1] - ptr[node])
    choice = ((splitmix(counter) >> np.uint64(32)) * degree) >> np.uint64(32)
    return values[np.uint64(ptr[node]) + choice], counter


if __name__ == "__main__":
    main()
