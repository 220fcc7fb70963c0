"""Neighbourhoods made on Spark are those of one machine, to the last bit."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted import SMALL, write_planted
from tiny_run import NUM_PINS, make_run

from model.config import WalkConfig
from model.errors import PinsageError
from model.graph import BipartiteGraph
from model.walks import importance_neighbors
from offline.config import load_config
from offline.embedding.partial_arrays import Column
from offline.embedding.spark_session import fill_rows, from_binary, to_binary
from offline.inputs.walks_spark import WalkTask
from offline.run_folder import RunFolder
from offline.stages import run_stages

CONFIG = WalkConfig(num_walks=30, num_hops=2, restart=0.4, num_neighbors=6)


def test_executors_walk_as_this_machine_does(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    task = WalkTask(str(run.graph), 0, CONFIG, seed=9)
    rows_P = np.random.default_rng(0).permutation(NUM_PINS)
    batches = [pa.RecordBatch.from_pydict({"id": part}) for part in np.array_split(rows_P, 7)]
    walked = pa.Table.from_batches(task.walk(batches)).combine_chunks()
    expected = importance_neighbors(BipartiteGraph.load(run.graph), rows_P, CONFIG, seed=9)
    np.testing.assert_array_equal(walked["row"], rows_P)
    for name, expected_PT in (("ids", expected.ids_BT), ("weights", expected.weights_BT)):
        column = Column(CONFIG.num_neighbors, expected_PT.dtype)
        np.testing.assert_array_equal(from_binary(walked[name].combine_chunks(), column), expected_PT)


def test_a_row_that_is_missing_is_found(tmp_path: Path) -> None:
    values = to_binary(np.ones((4, 3), np.float32))
    pq.write_table(pa.table({"row": [3, 0, 2, 1], "ids": values}), tmp_path / "part.parquet")
    fill_rows(np.zeros((4, 3), np.float32), tmp_path, "ids")
    with pytest.raises(PinsageError, match="4 rows, should be 5"):
        fill_rows(np.zeros((5, 3), np.float32), tmp_path, "ids")


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or shutil.which("java") is None,
    reason="needs Java and pyspark: pip install -e '.[spark]'",
)
def test_prepare_on_spark_equals_prepare_here(tmp_path: Path) -> None:
    data, here, spark = write_planted(tmp_path / "data"), RunFolder(tmp_path / "here"), RunFolder(tmp_path / "spark")
    run_stages(data, here, load_config(assignments=SMALL), stages=["prepare"])
    settings = [word for assignment in SMALL for word in ("--set", assignment)]
    command = [sys.executable, "-c", "from offline.cli import main; main()", "prepare", str(data), *settings]
    command += ["--run", str(spark.path), "--engine", "spark", "--master", "local[2]"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path in (here.neighbor_ids, here.neighbor_weights, here.features):
        found = np.load(spark.path / path.relative_to(here.path))
        np.testing.assert_array_equal(found, np.load(path))
    assert sorted(path.name for path in spark.prepare.iterdir()) == sorted(path.name for path in here.prepare.iterdir())
