"""What bench/walks.py --dgl runs in an environment that has DGL 2.1.0, NumPy 1 and torch: DGL's PinSAGESampler.

    python -m venv dgl && dgl/bin/pip install dgl==2.1.0 torch 'numpy<2' 'setuptools<70' pandas psutil pyyaml pydantic

Reads edges.npy (pins, boards) and seeds.npy from a folder; prints JSON: seconds and processor seconds of each repeat.
"""

from __future__ import annotations

import json
import os
import sys
import time
import types
from pathlib import Path

import numpy as np

os.environ["DGLBACKEND"] = "pytorch"


class Absent(types.ModuleType):
    """Stands for DGL's graphbolt, whose native part knows no torch as new as ours and which walks do not need."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def main(folder: Path, sizes: list[int], walks: list[float], num_threads: int, repeats: int) -> list[list[float]]:
    """sizes: pins, boards; walks: number, hops, restart, neighbours."""
    sys.modules["dgl.graphbolt"] = Absent("dgl.graphbolt")
    import dgl
    import torch

    torch.set_num_threads(num_threads)
    pins, boards = (torch.from_numpy(part.astype(np.int64)) for part in np.load(folder / "edges.npy"))
    edges = {("pin", "on", "board"): (pins, boards), ("board", "holds", "pin"): (boards, pins)}
    graph = dgl.heterograph(edges, num_nodes_dict={"pin": sizes[0], "board": sizes[1]})
    num_walks, num_hops, restart, num_neighbors = walks
    sampler = dgl.sampling.PinSAGESampler(
        graph, "pin", "board", int(num_hops), restart, int(num_walks), int(num_neighbors)
    )
    seeds = torch.from_numpy(np.load(folder / "seeds.npy").astype(np.int64))
    sampler(seeds[:100])  # makes the graph's formats
    times = []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        sampler(seeds)
        times.append([time.perf_counter() - wall, time.process_time() - processor])
    return times


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *json.loads(sys.argv[2]))))
