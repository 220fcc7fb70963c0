"""Bulk embedding on Spark equals bulk embedding on one machine.

Those that start Spark need Java 17 or newer and `pip install -e '.[spark]'`.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from tiny_run import CONFIG, NUM_PINS, make_run

from model.errors import PinsageError, UserError
from model.inference import Inference
from offline.cli import main
from offline.embedding.embed import embed_run
from offline.embedding.embed_spark import embed_on_spark
from offline.embedding.embed_spark_tasks import StepTask, whole_groups
from offline.embedding.embed_step import inputs_hash
from offline.embedding.partial_arrays import Column
from offline.embedding.spark_session import from_binary, open_session, to_binary
from offline.progress import silent
from offline.run_folder import RunFolder

has_spark = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or shutil.which("java") is None,
    reason="needs Java and pyspark: pip install -e '.[spark]'",
)
VARIANTS = {
    "default": {},
    "three layers, mean": {"num_layers": 3, "pooling": "mean"},
    "one layer, max": {"num_layers": 1, "pooling": "max"},
    "no layers": {"num_layers": 0},
}
ON_SPARK = ["default", "no layers"]  # each step is some seconds; the others run without Spark
# A process of its own: Spark leaves sockets and a Java process behind until its end.
EMBED = """
import sys
from pathlib import Path
from model.errors import PinsageError
from offline.embedding import embed_spark
from offline.run_folder import RunFolder

def embed(path):
    embed_spark.embed_on_spark(RunFolder(Path(path)), master="local[2]", progress=lambda text, share: print(text))

fetch, run_step = embed_spark._fetch, embed_spark._run_step
embed_spark._fetch = lambda *run: sys.exit("stopped before the end")
try:
    embed(sys.argv[2])
except SystemExit:
    embed_spark._fetch, embed_spark._run_step = fetch, None  # no step is run again
    embed(sys.argv[2])
embed_spark._run_step = run_step
for path in sys.argv[3:]:
    embed(path)
assert "torch" not in sys.modules
try:
    embed(sys.argv[1])
except PinsageError as error:
    print(error)
"""


class Embedded(NamedTuple):
    """Runs by variant, here and on Spark; a run that cannot be embedded; what was printed."""

    runs: dict[str, tuple[RunFolder, RunFolder]]
    bad: RunFolder
    printed: str


def make_variant(path: Path, network: dict[str, object]) -> RunFolder:
    """A tiny run, embedded on this machine; some of its pins have no neighbours."""
    config = CONFIG.model_copy(update={"network": CONFIG.network.model_copy(update=network)})
    run = make_run(path, config=config)
    ids_PT, weights_PT = np.load(run.neighbor_ids), np.load(run.neighbor_weights)
    ids_PT[[0, 31, NUM_PINS - 1]], weights_PT[[0, 31, NUM_PINS - 1]] = -1, 0
    np.save(run.neighbor_ids, ids_PT)
    np.save(run.neighbor_weights, weights_PT)
    embed_run(run, chunk=32, num_threads=1, progress=silent)
    return run


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    """Per variant, a run embedded on this machine and its copy embedded by Spark; and one that cannot be embedded."""
    folder, runs = tmp_path_factory.mktemp("spark"), {}
    bad = make_variant(folder / "bad", {})
    spoil(bad)
    for number, name in enumerate(ON_SPARK):
        here = make_variant(folder / f"here-{number}", VARIANTS[name])
        runs[name] = here, copy_without_embeddings(here, folder / f"spark-{number}")
    command = [sys.executable, "-c", EMBED, str(bad.path), *(str(spark.path) for _, spark in runs.values())]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Embedded(runs, bad, done.stdout)


def spoil(run: RunFolder) -> None:
    """Features of pin 17 that the network makes nothing finite of."""
    features_PF = np.load(run.features)
    features_PF[17, 0] = np.inf
    np.save(run.features, features_PF)


def copy_without_embeddings(run: RunFolder, path: Path) -> RunFolder:
    shutil.copytree(run.path, path)
    copy = RunFolder(path)
    shutil.rmtree(copy.messages(0).parent)
    copy.embeddings.unlink()
    copy.pin_ids.unlink()
    return copy


@pytest.mark.slow
@has_spark
@pytest.mark.parametrize("variant", ON_SPARK)
def test_spark_equals_this_machine(embedded: Embedded, variant: str) -> None:
    here, spark = embedded.runs[variant]
    num_layers = Inference.load(here.train).config.num_layers
    for path in [here.embeddings, *map(here.messages, range(num_layers))]:
        expected, found = np.load(path), np.load(spark.path / path.relative_to(here.path))
        assert found.dtype == expected.dtype
        one_step = 2**-10 if found.dtype == np.float16 else 0  # sums in another order may round to the next float16
        np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), rtol=one_step, atol=1e-5)
    assert spark.pin_ids.read_text() == here.pin_ids.read_text()


@pytest.mark.slow
@has_spark
def test_nothing_but_the_arrays_is_left(embedded: Embedded) -> None:
    _, spark = embedded.runs["default"]
    assert sorted(path.name for path in spark.messages(0).parent.iterdir()) == ["messages_0.npy", "messages_1.npy"]


@pytest.mark.slow
@has_spark
def test_a_failure_on_an_executor_is_one_line_that_names_the_pin(embedded: Embedded) -> None:
    assert embedded.printed.splitlines()[-1].endswith("embedding: what pin 17 gets is not finite")


@pytest.mark.parametrize("variant", VARIANTS)
def test_executors_steps_equal_this_machine_without_any_spark(tmp_path: Path, variant: str) -> None:
    run = make_variant(tmp_path / "run", VARIANTS[variant])
    inputs, rows = inputs_hash(run), pa.RecordBatch.from_pydict({"id": np.arange(NUM_PINS)})
    task = StepTask(str(run.path), inputs, 0)
    stepped = pa.Table.from_batches(task.project([rows.slice(0, 25), rows.slice(25)]))
    neighbors = pa.Table.from_batches(task.neighbors([rows]))
    for step in range(1, Inference.load(run.train).config.num_layers + 1):
        batches = join(stepped, neighbors).to_batches(max_chunksize=7)
        stepped = pa.Table.from_batches(StepTask(str(run.path), inputs, step).convolve(batches))
    column = Column(CONFIG.network.embed_dim, np.dtype(np.float32))
    vectors_PD = from_binary(stepped["output"].combine_chunks(), column)
    np.testing.assert_array_equal(stepped["row"], np.arange(NUM_PINS))
    np.testing.assert_allclose(vectors_PD, np.load(run.embeddings), rtol=0, atol=1e-5)


def join(stepped: pa.Table, neighbors: pa.Table) -> pa.Table:
    """What Spark does between two steps, in Arrow's own terms."""
    messages = stepped.select(["row", "output"]).rename_columns(["neighbor", "payload"])
    lists = neighbors.join(messages, "neighbor", join_type="inner").drop("neighbor")
    own = stepped.select(["row", "latent"]).rename_columns(["row", "payload"])
    own = own.append_column("rank", pa.array(np.full(NUM_PINS, -1, np.int32)))
    own = own.append_column("weight", pa.array(np.zeros(NUM_PINS, np.float32)))
    records = pa.concat_tables([own.select(lists.column_names), lists])
    return records.sort_by([("row", "ascending"), ("rank", "ascending")]).combine_chunks()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_a_rows_records_stay_in_one_batch(size: int) -> None:
    rows = pa.table({"row": [1, 1, 1, 1, 2, 3, 3, 7, 7, 7]})
    empty = rows.slice(0, 0).to_batches() or [pa.RecordBatch.from_pydict({"row": pa.array([], pa.int64())})]
    batches = list(whole_groups([*empty, *rows.to_batches(max_chunksize=size), *empty]))
    seen = [set(batch["row"].to_pylist()) for batch in batches]
    assert [row for batch in batches for row in batch["row"].to_pylist()] == rows["row"].to_pylist()
    assert sum(map(len, seen)) == len(set.union(*seen))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_of_numbers_survive_being_bytes_and_slices(dtype: type[np.floating]) -> None:
    x_BW = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    x_BW, column = x_BW.astype(dtype), Column(5, np.dtype(dtype))
    rows = to_binary(x_BW)
    np.testing.assert_array_equal(from_binary(rows, column), x_BW)
    np.testing.assert_array_equal(from_binary(rows.slice(3, 4), column), x_BW[3:7])
    assert from_binary(rows.slice(0, 0), column).shape == (0, 5)


def test_a_value_that_is_not_finite_is_named_by_its_row(tmp_path: Path) -> None:
    run = make_variant(tmp_path / "run", {})
    spoil(run)
    rows = pa.RecordBatch.from_pydict({"id": np.arange(10, 20)})
    with pytest.raises(PinsageError, match="pin 17 "):
        list(StepTask(str(run.path), inputs_hash(run), 0).project([rows]))


def test_no_java_and_no_pyspark_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_variant(tmp_path / "run", {})
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(UserError, match="install Java 17 or newer"):
        embed_on_spark(run, master="local[1]", progress=silent)
    (tmp_path / "java").write_text("#!/bin/sh\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(UserError, match=r"pip install 'pinsage\[spark\]'"), open_session("local[1]"):
        pass


def test_a_master_without_spark_is_a_mistake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["pinsage", "embed", "run", "--master", "local[2]"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--master is for --engine spark" in capsys.readouterr().err
