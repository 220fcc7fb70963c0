"""Random walks on Apache Spark: each executor maps the graph from shared storage and walks from its share of the pins.

A walk's random numbers depend on its pin alone (model/walk_kernels.py), so the neighbourhoods are those of one machine.

Letters: B pins of a batch, P pins, T neighbours.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from model.config import WalkConfig
from model.graph import BipartiteGraph
from model.walks import importance_neighbors
from offline.embedding.partial_arrays import Column, PartialArrays
from offline.embedding.spark_session import fill_rows, open_session, to_binary
from offline.run_folder import RunFolder

WALKED = "row long, ids binary, weights binary"
PINS_OF_A_TASK = 50_000


@dataclass(frozen=True)
class WalkTask:
    """Walks from any pins of a graph; `walk` is what mapInArrow calls.

    graph    path of the graph's folder, the same on all machines
    version  time of its last change, so that a worker process that lives on does not take old for new
    """

    graph: str
    version: int
    config: WalkConfig
    seed: int

    def walk(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows (`id`) to their neighbours and weights."""
        graph = _load_graph(self.graph, self.version)
        for batch in batches:
            rows_B = batch["id"].to_numpy()
            ids_BT, weights_BT = importance_neighbors(graph, rows_B, self.config, seed=self.seed)
            columns = [pa.array(rows_B), to_binary(ids_BT), to_binary(weights_BT)]
            yield pa.RecordBatch.from_arrays(columns, ["row", "ids", "weights"])


def walk_on_spark(run: RunFolder, config: WalkConfig, *, seed: int, master: str | None) -> None:
    """Write the neighbourhoods of all pins of RUN's graph, which must lie where all executors see it.

    Raises UserError where pyspark or Java are missing, PinsageError with Spark's reason when Spark fails.
    """
    graph, folder = BipartiteGraph.load(run.graph), run.prepare.resolve() / "spark-walks"
    version = (run.graph / "pin_ptr.npy").stat().st_mtime_ns
    task = WalkTask(str(run.graph.resolve()), version, config, seed)
    with open_session(master) as spark:
        num_parts = max(2 * spark.sparkContext.defaultParallelism, -(-graph.num_pins // PINS_OF_A_TASK))
        rows = spark.range(0, graph.num_pins, 1, num_parts)
        rows.mapInArrow(task.walk, WALKED).write.mode("overwrite").parquet(folder.as_uri())
    columns = {run.neighbor_ids: np.int32, run.neighbor_weights: np.float32}
    arrays = PartialArrays(
        {path: Column(config.num_neighbors, np.dtype(kind)) for path, kind in columns.items()}, {}, graph.num_pins
    )
    fill_rows(arrays[run.neighbor_ids], folder, "ids")
    fill_rows(arrays[run.neighbor_weights], folder, "weights")
    arrays.finish()
    shutil.rmtree(folder)


@lru_cache(maxsize=1)
def _load_graph(folder: str, version: int) -> BipartiteGraph:
    return BipartiteGraph.load(Path(folder))
