"""What making the batches costs beside the training step: the whole loop against the step alone on the same batches.

On a processor both share the cores, so the ratio cannot be one; on a GPU it can.

python bench/train.py               50,000 pins, batches of 2,048 pairs, T = 50: some minutes, 3 GiB of memory
python bench/train.py --small       a few seconds, to see that it works
python bench/train.py --profile F   which operations of a step take how long, as text into F
"""

# mypy: allow-untyped-defs
# ruff: noqa: E402

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np

from offline.training.torch_settings import set_before_torch

set_before_torch()
import torch
from walks import best_times, processor

from model.config import NetworkConfig, WalkConfig
from model.graph import BipartiteGraph
from model.network import PinSage
from model.walks import importance_neighbors
from offline.config import TrainSection
from offline.training.batches import BatchProducer, Forgettable
from offline.training.device_batches import DeviceBatch
from offline.training.team import alone
from offline.training.train_step import Stepper

SIZES = ("pins", "neighbors", "features", "hidden", "dim", "batch", "batches")
RATE = 1e-4
WANTED = 1.15


def main() -> None:
    """Measure, print the table, and end with the line of JSON."""
    options = arguments()
    torch.set_num_threads(options.threads)
    print(f"{', '.join(f'{name} {getattr(options, name):,}' for name in SIZES)}, {options.threads} threads")
    config = TrainSection(batch_size=options.batch, num_neighbors=options.neighbors)
    team = alone()
    shape = NetworkConfig(options.features, hidden_dim=options.hidden, embed_dim=options.dim)
    stepper = Stepper(PinSage(shape, dropout=config.dropout, feature_dropout=config.feature_dropout), config, team)
    stepper.trained.train()
    producer = make_producer(options, config, ahead=1 if team.device.type == "cpu" else options.threads)
    made = take(producer, stepper, options.batches)
    stepper.step(made[0], RATE)  # warms up
    ways: dict[str, Callable[[], object]] = {
        "step alone": lambda: [stepper.step(batch, RATE) for batch in made],
        "whole loop": lambda: loop(producer, stepper, options.batches),
        "batches alone": lambda: take(producer, stepper, options.batches),
    }
    best = dict(zip(ways, best_times(ways, options.repeats), strict=True))
    for way, (wall, cpu) in best.items():
        wall_step, cpu_step = wall / options.batches, cpu / options.batches
        print(
            f"{way:16s}{wall_step * 1e3:10.0f} ms a step{cpu_step * 1e3:10.0f} ms of processor"
            f"{options.batch / wall_step:10,.0f} pairs/s"
        )
    if options.profile:
        options.profile.write_text(profile(stepper, made[0]))
    print(json.dumps(result(options, best, made[0], team.device.type)))


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=50_000, help="pins of the graph; boards and edges follow")
    parser.add_argument("--neighbors", type=int, default=50, help="T")
    parser.add_argument("--features", type=int, default=384, help="F")
    parser.add_argument("--hidden", type=int, default=512, help="m")
    parser.add_argument("--dim", type=int, default=256, help="d")
    parser.add_argument("--batch", type=int, default=2048, help="pairs of a batch")
    parser.add_argument("--batches", type=int, default=6, help="batches in each measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each way, in turn; the best counts")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--profile", type=Path, help="file to write a profile of one step to")
    parser.add_argument("--small", action="store_true", help="2,000 pins, T = 10, narrow layers, batches of 128")
    options = parser.parse_args()
    if options.small:
        options.pins, options.neighbors, options.features, options.hidden, options.dim = 2_000, 10, 64, 64, 32
        options.batch, options.repeats = 128, 2
    return options


def make_producer(options: argparse.Namespace, config: TrainSection, ahead: int) -> BatchProducer:
    """A graph whose boards hold pins that are near to each other, random features, and pairs of near pins."""
    rng, num_pins = np.random.default_rng(0), options.pins
    num_boards, num_edges = num_pins // 5, num_pins * 9
    boards_E = rng.integers(0, num_boards, num_edges)
    pins_E = (boards_E * 5 + np.rint(100 * rng.standard_cauchy(num_edges)).astype(np.int64)) % num_pins
    edges = pins_E.astype(np.int32), boards_E.astype(np.int32)
    graph = BipartiteGraph.from_edges(*edges, num_pins=num_pins, num_boards=num_boards)
    walks = WalkConfig(num_walks=200, num_hops=2, restart=0.5, num_neighbors=options.neighbors)
    neighborhoods = importance_neighbors(graph, np.arange(num_pins), walks, seed=1, num_threads=options.threads)
    query_N = rng.integers(num_pins, size=(options.batches + 1) * options.batch)
    pairs_N2 = np.stack([query_N, (query_N + rng.integers(1, 50, len(query_N))) % num_pins], axis=1).astype(np.int32)
    forgotten = np.arange(options.features * 2 // 3, options.features)  # as many columns as boards decide by default
    return BatchProducer(
        pairs_N2,
        rng.standard_normal((num_pins, options.features), np.float32),
        neighborhoods,
        graph,
        config,
        num_layers=2,
        forgettable=Forgettable(forgotten, np.zeros(len(forgotten), np.float32)),
        seed=1,
        num_threads=options.threads,
        num_ahead=ahead,
    )


def take(producer: BatchProducer, stepper: Stepper, num_batches: int) -> list[DeviceBatch]:
    return list(islice(producer.epoch(1, stepper.copy), num_batches))


def loop(producer: BatchProducer, stepper: Stepper, num_batches: int) -> None:
    for batch in islice(producer.epoch(1, stepper.copy), num_batches):
        stepper.step(batch, RATE)


def profile(stepper: Stepper, batch: DeviceBatch) -> str:
    with torch.profiler.profile() as profiler:
        stepper.step(batch, RATE)
    table = profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=50)
    return str(table)


def result(
    options: argparse.Namespace, best: dict[str, tuple[float, float]], batch: DeviceBatch, device: str
) -> dict[str, object]:
    """What the line of JSON says."""
    (alone_wall, alone_cpu), (loop_wall, loop_cpu), _ = best.values()
    return {
        "bench": "train",
        "figure": round(options.batches * options.batch / loop_wall),
        "unit": "pairs/s of the whole loop",
        "ratio": round(loop_wall / alone_wall, 3),
        "ratio_is": "whole loop / step alone",
        "ratio_processor": round(loop_cpu / alone_cpu, 3),
        "ratio_wanted": WANTED,
        "pins_read": len(batch.x_SF),
        "seconds": {way: [round(wall, 3), round(cpu, 3)] for way, (wall, cpu) in best.items()},
        "sizes": {name: getattr(options, name) for name in SIZES},
        "num_threads": options.threads,
        "device": device,
        "hardware": f"{processor()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__},
    }


if __name__ == "__main__":
    main()
