"""Bulk embedding against the naive way, and against what the processor and its memory allow.

naive    algorithm 2 for one minibatch after the other, in torch, as a training step does it: neighbours of neighbours
         are computed again in every minibatch that needs them. A few minibatches are measured, the rest is multiplied.
limit    the bare matrix products of the same shapes and types, plus one pass over the rows (of half precision, as bulk
         embedding stores them) that pooling gathers

python bench/embed.py            200,000 pins, T = 50, m = 512, d = 256: a few minutes, 4 GiB of memory and 2 of disk
python bench/embed.py --small    a few seconds, to see that it works
python bench/embed.py --spark    the Spark engine on this machine as well (needs Java, and the `spark` extra)
"""

# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pyarrow as pa
import torch
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits
from walks import best_times, processor, timed

from model.config import NetworkConfig, WalkConfig
from model.graph import BipartiteGraph
from model.halves import bits_of, float_of
from model.inference import Inference, weight_shapes, write_network_config
from model.network import Block, PinSage
from model.walks import importance_neighbors
from offline.embedding.embed import BLOCK, embed_all
from offline.embedding.embed_spark import embed_on_spark
from offline.embedding.partial_arrays import Note
from offline.progress import silent
from offline.run_folder import RunFolder
from offline.training.minibatches import MinibatchBuilder

SIZES = ("pins", "neighbors", "features", "hidden", "dim", "batch", "chunk")


def main() -> None:
    """Measure, print the table, and end with the line of JSON."""
    options = arguments()
    torch.set_num_threads(options.threads)
    config = NetworkConfig(options.features, hidden_dim=options.hidden, embed_dim=options.dim, num_layers=2)
    world = World(options, config)
    sizes = ", ".join(f"{name} {getattr(options, name):,}" for name in SIZES)
    print(f"{sizes}, {options.threads} threads")
    with tempfile.TemporaryDirectory() as folder:
        bulk(world, Path(folder), noted=False)  # compiles, as the next line does
        read_rows(bits_of(world.messages_PM), world.known_PT[:1])
        ways = {
            "bulk": lambda: bulk(world, Path(folder), noted=True),
            "bulk, not resumable": lambda: bulk(world, Path(folder), noted=False),
            "limit: products": lambda: products(world),
            "limit: gathered rows": lambda: gathered_rows(world),
        }
        best = dict(zip(ways, best_times(ways, options.repeats), strict=True))
        best["naive"], difference = naive(world, np.load(Path(folder) / "vectors.npy", mmap_mode="r"))
        if options.spark:
            best["spark"] = spark(world, RunFolder(Path(folder) / "run")), math.nan
    for way, (wall, cpu) in best.items():
        print(f"{way:24s}{wall:10.2f} s{cpu:10.2f} s of processor{options.pins / wall:12,.0f} pins/s")
    print(json.dumps(result(options, best, difference)))


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=200_000, help="pins of the random graph; boards and edges follow")
    parser.add_argument("--neighbors", type=int, default=50, help="T")
    parser.add_argument("--features", type=int, default=384, help="F")
    parser.add_argument("--hidden", type=int, default=512, help="m")
    parser.add_argument("--dim", type=int, default=256, help="d")
    parser.add_argument("--batch", type=int, default=2048, help="pins of a minibatch of the naive way")
    parser.add_argument("--batches", type=int, default=3, help="minibatches of the naive way that are measured")
    parser.add_argument("--chunk", type=int, default=8192, help="pins that the bulk way computes and notes at a time")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each way, in turn; the best counts")
    parser.add_argument("--spark", action="store_true", help="Spark too, as local[threads], its start included")
    parser.add_argument("--small", action="store_true", help="5,000 pins, T = 12, F = 64, m = 64, d = 32, one repeat")
    options = parser.parse_args()
    if options.small:
        options.pins, options.neighbors, options.features, options.hidden, options.dim = 5_000, 12, 64, 64, 32
        options.batch, options.repeats = 256, 1
    return options


class World:
    """A random graph's neighbourhoods, random features and random weights, as both ways read them."""

    def __init__(self, options: argparse.Namespace, config: NetworkConfig) -> None:
        rng = np.random.default_rng(0)
        edges = [rng.integers(0, high, options.pins * 9, np.int32) for high in (options.pins, options.pins // 5)]
        graph = BipartiteGraph.from_edges(*edges, num_pins=options.pins, num_boards=options.pins // 5)
        walks = WalkConfig(num_walks=200, num_hops=2, restart=0.5, num_neighbors=options.neighbors)
        rows_P = np.arange(options.pins, dtype=np.int32)
        self.neighborhoods = importance_neighbors(graph, rows_P, walks, seed=1, num_threads=options.threads)
        self.known_PT = np.maximum(self.neighborhoods.ids_BT, 0)
        self.messages_PM = np.ones((options.pins, options.hidden), np.float16)
        self.features_PF = rng.standard_normal((options.pins, options.features), np.float32)
        self.weights = {
            name: rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[-1]))
            for name, shape in weight_shapes(config).items()
        }
        self.config, self.options = config, options

    def rows(self, size: int) -> Iterator[slice]:
        for start in range(0, self.options.pins, size):
            yield slice(start, min(start + size, self.options.pins))


def bulk(world: World, folder: Path, *, noted: bool) -> None:
    """Our way, files included."""
    embed_all(
        Inference(world.config, world.weights),
        world.features_PF,
        world.neighborhoods,
        messages_path=lambda layer: folder / f"messages_{layer}.npy",
        vectors_path=folder / "vectors.npy",
        chunk=world.options.chunk,
        num_threads=world.options.threads,
        progress=silent,
        note=Note(folder / "progress.json", "bench") if noted else None,
    )
    (folder / "progress.json").unlink(missing_ok=True)


def naive(world: World, vectors_PD: np.ndarray) -> tuple[tuple[float, float], float]:
    """(wall, processor) seconds for all pins, as a few minibatches tell, and the largest difference from bulk."""
    network = PinSage(world.config).eval()
    network.load_state_dict({name: torch.from_numpy(weight) for name, weight in world.weights.items()})
    builder, rng, times, difference = MinibatchBuilder(world.neighborhoods, 2), np.random.default_rng(1), [], 0.0
    for _ in range(world.options.batches + 1):  # the first one warms up
        rows_B, before = rng.choice(world.options.pins, world.options.batch, replace=False), time.process_time()
        seconds, vectors_BD = timed(lambda rows_B=rows_B: embed_minibatch(network, world, builder, rows_B))
        times.append((seconds, time.process_time() - before))
        difference = max(difference, float(np.abs(vectors_BD - vectors_PD[rows_B]).max()))
    wall, cpu = np.min(times[1:], axis=0) * (world.options.pins / world.options.batch)
    return (float(wall), float(cpu)), difference


def embed_minibatch(network: PinSage, world: World, builder: MinibatchBuilder, rows_B: np.ndarray) -> np.ndarray:
    minibatch = builder.build(rows_B)
    arrays = [(wiring.neighbors_UT, wiring.weights_UT) for wiring in minibatch.wirings]
    blocks = [Block(*map(torch.from_numpy, wiring)) for wiring in arrays]
    with torch.inference_mode():
        vectors_UD = network(torch.from_numpy(world.features_PF[minibatch.frontier_S]), blocks)
    return vectors_UD.numpy()[minibatch.places_B]


def spark(world: World, run: RunFolder) -> float:
    """Seconds of the Spark engine, with its start and the copy into the run folder; it runs in processes of its own."""
    run.prepare.mkdir(parents=True)
    run.train.mkdir()
    run.messages(0).parent.mkdir()
    np.save(run.features, world.features_PF)
    np.save(run.neighbor_ids, world.neighborhoods.ids_BT)
    np.save(run.neighbor_weights, world.neighborhoods.weights_BT)
    save_file(world.weights, run.weights)
    write_network_config(run.network, world.config)
    pins = pa.table({"pin_id": [f"p{row}" for row in range(world.options.pins)]})
    with pa.OSFile(str(run.pins), "wb") as file, pa.ipc.new_file(file, pins.schema) as writer:
        writer.write_table(pins)
    return timed(lambda: embed_on_spark(run, master=f"local[{world.options.threads}]", progress=silent))[0]


def products(world: World) -> None:
    """Every matrix product of the network, of blocks that stay in the processor's caches; nothing else."""
    weights = [weight for weight in world.weights.values() if weight.ndim == 2]
    width = max(weight.shape[1] for weight in weights)
    inputs_BH = np.random.default_rng(2).standard_normal((BLOCK, width), np.float32)

    def multiply(rows: slice) -> None:
        for weight in weights:
            np.matmul(inputs_BH[: rows.stop - rows.start, : weight.shape[1]], weight.T)

    side_by_side(world, multiply)


def gathered_rows(world: World) -> None:
    """One reading pass over the message rows that pooling gathers, in each of two layers."""
    for _ in range(world.config.num_layers):
        side_by_side(world, lambda rows: read_rows(bits_of(world.messages_PM), world.known_PT[rows]))


def side_by_side(world: World, work: Callable[[slice], object]) -> None:
    with ThreadPoolExecutor(world.options.threads) as threads, threadpool_limits(1, user_api="blas"):
        list(threads.map(work, world.rows(BLOCK)))


@numba.njit(nogil=True, cache=True, fastmath=True)
def read_rows(messages_PM, ids_BT):
    """The sum of all gathered rows, four at a time: as little arithmetic as makes every element be loaded."""
    total = np.float32(0)
    num_fours = ids_BT.shape[1] // 4 * 4
    for b in range(len(ids_BT)):
        for t in range(num_fours, ids_BT.shape[1]):
            for m in range(messages_PM.shape[1]):
                total += float_of(messages_PM[ids_BT[b, t], m])
        for t in range(0, num_fours, 4):
            i0, i1, i2, i3 = ids_BT[b, t], ids_BT[b, t + 1], ids_BT[b, t + 2], ids_BT[b, t + 3]
            for m in range(messages_PM.shape[1]):
                first = float_of(messages_PM[i0, m]) + float_of(messages_PM[i1, m])
                total += first + float_of(messages_PM[i2, m]) + float_of(messages_PM[i3, m])
    return total


def result(options: argparse.Namespace, best: dict[str, tuple[float, float]], difference: float) -> dict[str, object]:
    """The ratios twice: of time on the clock, and of processor time, which other load on the machine disturbs least."""
    limit_wall, limit_cpu = np.sum([best["limit: products"], best["limit: gathered rows"]], axis=0).tolist()
    wall, cpu = best["bulk"]
    return {
        "bench": "embed",
        "figure": round(options.pins / wall),
        "unit": "pins/s, files included",
        "ratio": round(best["naive"][0] / wall, 1),
        "ratio_is": "naive / bulk",
        "ratio_to_naive_processor": round(best["naive"][1] / cpu, 1),
        "ratio_of_limit": round(wall / limit_wall, 2),
        "ratio_of_limit_processor": round(cpu / limit_cpu, 2),
        "seconds": {
            way: [round(wall, 2), None if math.isnan(cpu) else round(cpu, 2)] for way, (wall, cpu) in best.items()
        },
        "largest_difference_from_naive": difference,
        "sizes": {name: getattr(options, name) for name in SIZES},
        "num_threads": options.threads,
        "hardware": f"{processor()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__},
    }


if __name__ == "__main__":
    main()
