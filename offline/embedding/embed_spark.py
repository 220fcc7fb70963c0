"""Bulk embedding on Apache Spark, for catalogues that one machine is too small for (paper, section 3.4).

One job projects all pins to the first messages; then, for each convolution, one job joins the messages with the
neighbour lists and pools them, pin by pin, from the same NumPy functions as on one machine. What grows with the data
stays with the executors, which write Parquet into the run folder; the driver reads it part by part into the arrays
that the later stages map.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from model.inference import Inference
from offline.embedding.embed import Progress, write_pin_ids
from offline.embedding.embed_spark_tasks import NEIGHBORS, SELF, STEPPED, StepTask
from offline.embedding.embed_step import inputs_hash, output_column, read_inputs
from offline.embedding.partial_arrays import PartialArrays
from offline.embedding.spark_session import fill_rows, open_session
from offline.run_folder import RunFolder

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

PARTITION_BYTES = 128 << 20
BLOCK_ROWS = 4096


def embed_on_spark(run: RunFolder, *, master: str | None, progress: Progress) -> None:
    """Write messages, embeddings.npy and pin_ids.txt of a run; steps that an earlier try finished are not repeated.

    master  as Spark names it: local[4], yarn, k8s://…; None leaves it to Spark's own configuration

    Raises UserError where pyspark or Java are missing, PinsageError when a value is not finite.
    """
    num_steps, inputs = Inference.load(run.train).config.num_layers + 1, inputs_hash(run)
    folder = run.path.resolve() / "embed" / f"spark-{inputs}"
    with open_session(master) as spark:
        for step in range(num_steps):
            if not _parts(folder, step).joinpath("_SUCCESS").exists():
                _run_step(spark, run, StepTask(str(run.path.resolve()), inputs, step), folder)
            progress(f"layer {step} of {num_steps - 1}", (step + 1) / (num_steps + 1))
    _fetch(run, folder)
    write_pin_ids(run)
    for left in folder.parent.glob("spark-*"):
        shutil.rmtree(left)


def _run_step(spark: SparkSession, run: RunFolder, task: StepTask, folder: Path) -> None:
    """Write a step's (row, latent, output) records as Parquet."""
    inference, features_PF, (ids_PT, _) = read_inputs(run)
    payload_bytes = 2 * inference.config.hidden_dim
    num_parts = max(2 * spark.sparkContext.defaultParallelism, -(-ids_PT.size * payload_bytes // PARTITION_BYTES))
    spark.conf.set("spark.sql.shuffle.partitions", num_parts)
    rows = spark.range(0, len(features_PF), 1, num_parts)
    if task.step == 0:
        stepped = rows.mapInArrow(task.project, STEPPED)
    else:
        before = spark.read.schema(STEPPED).parquet(_parts(folder, task.step - 1).as_uri())
        stepped = _convolve(before, rows.mapInArrow(task.neighbors, NEIGHBORS), task, num_parts)
    stepped.write.mode("overwrite").parquet(_parts(folder, task.step).as_uri())


def _convolve(before: DataFrame, neighbors: DataFrame, task: StepTask, num_parts: int) -> DataFrame:
    """Messages travel to the pins that have them as neighbours; each pin's own latents come first among its records.

    Blocks of rows stay together, so that executors read features, and the driver results, mostly in order.
    """
    messages = before.selectExpr("row AS neighbor", "output AS payload")
    lists = neighbors.join(messages, "neighbor").select("row", "rank", "weight", "payload")
    own = before.selectExpr("row", f"{SELF} AS rank", "CAST(0 AS FLOAT) AS weight", "latent AS payload")
    records = own.unionByName(lists).selectExpr("*", f"row DIV {BLOCK_ROWS} AS block")
    ordered = records.repartition(num_parts, "block").sortWithinPartitions("row", "rank").drop("block")
    return ordered.mapInArrow(task.convolve, STEPPED)


def _fetch(run: RunFolder, folder: Path) -> None:
    """Fill the run's arrays from the steps' Parquet files, one batch of rows in memory at a time."""
    inference, features_PF, _ = read_inputs(run)
    num_pins, last = len(features_PF), inference.config.num_layers
    paths = [run.messages(step) for step in range(last)] + [run.embeddings]
    arrays = PartialArrays({path: output_column(inference, step) for step, path in enumerate(paths)}, {}, num_pins)
    for step, path in enumerate(paths):
        fill_rows(arrays[path], _parts(folder, step), "output")
    arrays.finish()


def _parts(folder: Path, step: int) -> Path:
    return folder / f"step_{step}"
