"""Spark sessions, and what comes out of Spark's jobs into arrays that the later stages map.

Executors write Parquet into the run folder; the driver reads it part by part. Nothing that grows with the data is
collected on the driver.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import PinsageError, UserError
from offline.embedding.partial_arrays import Column

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Array = npt.NDArray[Any]
BATCH_ROWS = 4096


def fill_rows(array_PW: Array, folder: Path, name: str) -> None:
    """Fill an array from Parquet files of records (row, name), in any order, a batch of them in memory at a time.

    Raises PinsageError where a row is missing or comes twice.
    """
    filled, column = 0, Column(array_PW.shape[1], array_PW.dtype)
    for part in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(part).iter_batches(BATCH_ROWS, columns=["row", name]):
            array_PW[batch["row"].to_numpy()] = from_binary(batch[name], column)
            filled += len(batch)
    if filled != len(array_PW):
        raise PinsageError(f"{folder}: {filled} rows, should be {len(array_PW)}; remove the folder, try again")


def to_binary(x_BW: Array) -> pa.Array:
    """Rows of numbers as an Arrow array of bytes, without a copy where they lie one after the other."""
    x_BW = np.ascontiguousarray(x_BW)
    offsets = np.arange(len(x_BW) + 1, dtype=np.int32) * np.int32(x_BW.itemsize * x_BW.shape[1])
    return pa.Array.from_buffers(pa.binary(), len(x_BW), [None, pa.py_buffer(offsets), pa.py_buffer(x_BW)])


def from_binary(rows: pa.Array, column: Column) -> Array:
    """(B, W) numbers of an Arrow array of bytes, none of them null, without a copy."""
    if len(rows) == 0:
        return np.zeros((0, column.width), column.dtype)
    _, offsets, data = rows.buffers()
    start = np.frombuffer(offsets, np.int32)[rows.offset]
    return np.frombuffer(data, column.dtype, len(rows) * column.width, start).reshape(len(rows), column.width)


@contextmanager
def open_session(master: str | None) -> Iterator[SparkSession]:
    """A Spark session, stopped at the end.

    Raises UserError where pyspark or Java are missing, PinsageError with Spark's reason when Spark fails.
    """
    java = Path(os.environ["JAVA_HOME"], "bin", "java") if os.environ.get("JAVA_HOME") else shutil.which("java")
    if java is None or not Path(java).exists():
        raise UserError("no Java found, which Spark runs on: install Java 17 or newer, or set JAVA_HOME")
    for name in ("pyspark", "pandas"):  # pandas is Spark's own need
        if importlib.util.find_spec(name) is None:
            raise UserError(f"{name} is not installed; this engine needs: pip install 'pinsage[spark]'")
    from pyspark.errors import PySparkException

    try:
        spark = _start(master)
        try:
            yield spark
        finally:
            spark.stop()
    except PySparkException as error:
        raise PinsageError(f"Spark: {_reason(str(error))}") from error


def _start(master: str | None) -> SparkSession:
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    # Broadcast joins would collect messages on the driver.
    builder = SparkSession.builder.appName("pinsage").config("spark.sql.autoBroadcastJoinThreshold", -1)
    builder = builder.config("spark.ui.showConsoleProgress", False)  # progress is shown our way
    if master is not None:
        builder = builder.master(master)
    if (master or "").startswith("local"):
        builder = builder.config("spark.ui.enabled", False).config("spark.driver.host", "localhost")
        builder = builder.config("spark.driver.bindAddress", "127.0.0.1")
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _reason(message: str) -> str:
    """The line that says what happened: of a Python traceback the last, of anything else the first."""
    lines = message.strip().splitlines() or ["failed without a reason; see its log"]
    return lines[-1] if "Traceback" in message else lines[0]
