"""The index stage, its answers against exact search, and how fast vectors get into Redis.

python bench/index.py                       100,000 vectors of 256 numbers: about two minutes
python bench/index.py --items 1000000       a catalogue: about half an hour, 6 GiB of memory
python bench/index.py --small               a few seconds, to see that it works
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from walks import processor, timed

from model.exact import exact_neighbors
from model.index import AnnIndex, recall
from model.redis_clients import sync_client
from model.redis_server import open_redis
from offline.config import IndexSection
from offline.release.index_stage import build_index
from offline.release.vectors_to_redis import write_vectors
from offline.run_folder import RunFolder

K = 50
RELEASE = "r20260101-000000-0000"
WANTED_SECONDS = 120  # for a million vectors into Redis


def main() -> None:
    """Measure, print the table, and end with the line of JSON."""
    options = arguments()
    print(f"{options.items:,} unit vectors of {options.dim}, {options.threads} threads")
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        np.save(run.embeddings, clustered(options.items, options.dim))
        vectors_PD = np.load(run.embeddings, mmap_mode="r")
        settings = IndexSection(target_recall=options.recall)
        seconds, index = timed(lambda: build_index(run, settings, seed=1, num_threads=options.threads))
        found = recall(index, vectors_PD, sample=1000, k=K, seed=7)  # another sample than the one that ef was chosen on
        query_ms, exact_ms = latencies(index, vectors_PD, options.queries)
        rate = into_redis(Path(folder), vectors_PD)
    params = index.params
    print(f"{'build':24s}{seconds:10.1f} s{options.items / seconds:14,.0f} vectors/s, choosing ef included")
    print(f"{'recall@50':24s}{found:10.4f}   M {params.m}, ef_construction {params.ef_construction}, ef {params.ef}")
    print(f"{'a query':24s}{query_ms:10.3f} ms{exact_ms:14.3f} ms exactly, one thread")
    print(f"{'into Redis':24s}{rate:10,.0f} vectors/s{1e6 / rate:11.0f} s a million")
    print(json.dumps(result(options, index, seconds, found, (query_ms, exact_ms), rate)))


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--recall", type=float, default=0.98, help="recall@50 that the stage is asked for")
    parser.add_argument("--queries", type=int, default=200, help="single queries that are measured; the median counts")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--small", action="store_true", help="5,000 vectors of 32, 50 queries")
    options = parser.parse_args()
    if options.small:
        options.items, options.dim, options.queries = 5_000, 32, 50
    return options


def clustered(num_items: int, dim: int) -> np.ndarray:
    """Unit vectors around one centre for every hundred of them, loosely: the cosine to the centre is about 0.55."""
    rng = np.random.default_rng(0)
    centers_CD = unit(rng.standard_normal((max(2, num_items // 100), dim), np.float32))
    vectors_PD = np.empty((num_items, dim), np.float32)
    for start in range(0, num_items, 1 << 16):
        part_BD = vectors_PD[start : start + (1 << 16)]
        noise_BD = unit(rng.standard_normal(part_BD.shape, np.float32))
        part_BD[:] = unit(centers_CD[rng.integers(len(centers_CD), size=len(part_BD))] + 1.5 * noise_BD)
    return vectors_PD


def unit(x_BD: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = x_BD / np.linalg.norm(x_BD, axis=1, keepdims=True)
    return scaled


def latencies(index: AnnIndex, vectors_PD: np.ndarray, num_queries: int) -> tuple[float, float]:
    """Median milliseconds of a single query, by the index and by exact search."""
    queries_QD = vectors_PD[np.linspace(0, len(vectors_PD) - 1, num_queries).astype(int)]
    found = [timed(lambda query=query: index.query(query[None], K))[0] for query in queries_QD]
    exact = [timed(lambda query=query: exact_neighbors(vectors_PD, query[None], K))[0] for query in queries_QD[:10]]
    return float(np.median(found)) * 1e3, float(np.median(exact)) * 1e3


def into_redis(folder: Path, vectors_PD: np.ndarray) -> float:
    """Vectors a second into a Redis of our own, with its append-only file, counted and sampled afterwards."""
    ids = [f"pin-{row}" for row in range(len(vectors_PD))]
    with open_redis(folder) as source, sync_client(source) as client:
        return len(ids) / timed(lambda: write_vectors(client, RELEASE, ids, vectors_PD))[0]


def result(
    options: argparse.Namespace,
    index: AnnIndex,
    seconds: float,
    found: float,
    query_ms: tuple[float, float],
    rate: float,
) -> dict[str, object]:
    """What the line of JSON says."""
    return {
        "bench": "index",
        "figure": round(options.items / seconds),
        "unit": "vectors/s into the index",
        "ratio": round(query_ms[1] / query_ms[0], 1),
        "ratio_is": "exact search / query of the index",
        "build_seconds": round(seconds, 1),
        "recall_at_50": round(found, 4),
        "query_ms": round(query_ms[0], 3),
        "exact_ms": round(query_ms[1], 3),
        "m": index.params.m,
        "ef_construction": index.params.ef_construction,
        "ef": index.params.ef,
        "redis_vectors_per_second": round(rate),
        "redis_seconds_a_million": round(1e6 / rate, 1),
        "redis_seconds_wanted": WANTED_SECONDS,
        "items": options.items,
        "dim": options.dim,
        "num_threads": options.threads,
        "hardware": f"{processor()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "hnswlib": version("hnswlib"), "numpy": np.__version__},
    }


if __name__ == "__main__":
    main()
