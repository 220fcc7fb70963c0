"""The paper's tables on a planted world: what is trained, linked, ranked, compared, written and printed."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from planted import SMALL, write_planted
from rich.console import Console

from model.errors import UserError
from model.graph import BipartiteGraph
from offline.config import RunConfig, load_config
from offline.data.dataset import open_dataset
from offline.evaluation import paper_tables
from offline.evaluation.metric_tables import print_paper_table
from offline.evaluation.paper_tables import measure_table
from offline.evaluation.table_files import read_tables, table_path
from offline.evaluation.variant_runs import link_prepared, training_facts, variant_folder
from offline.evaluation.variants import Rows, Variant
from offline.progress import Report, silent
from offline.run_folder import RunFolder
from offline.stages import run_stages

MINUTES = 0.005  # one epoch or two of so small a world
CONFIG = load_config(assignments=[*SMALL, "train.epochs=3"])
TRAINED = ["combined", "max-pooling", "mean-pooling", "mean-pooling-xent", "mean-pooling-hard", "pinsage", "mlp"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("tables")
    run = RunFolder(folder / "run")
    run_stages(write_planted(folder / "data"), run, CONFIG, stages=["prepare", "train", "embed"])
    return run


def data(run: RunFolder) -> Path:
    return run.path.parent / "data"


@pytest.fixture(scope="module")
def table(run: RunFolder) -> dict[str, Any]:
    return measure_table(run, open_dataset(data(run)), 1, minutes=MINUTES)


def test_a_table_is_written_as_it_is_returned(run: RunFolder, table: dict[str, Any]) -> None:
    assert json.loads(table_path(run, 1).read_text()) == table
    assert read_tables(run)[1] == table


def test_rows_of_table_1(table: dict[str, Any]) -> None:
    names = ["annotation", *TRAINED, "default", "popularity", "text", "boards", "boards+text", "pixie", "pixie-exact"]
    assert [name for name in table["rows"] if name != "als"] == names
    assert table["skipped"]["visual"] == "no pin has a visual vector"
    assert ("als" in table["rows"]) != ("als" in table["skipped"])
    for name, row in table["rows"].items():
        assert row["n"] == 60, name
        assert set(row["intervals"]) == {"HR@10", "HR@100", "HR@500", "MRR", "MRR_scaled100"}


def test_every_difference_is_to_the_run_itself(table: dict[str, Any]) -> None:
    rows = table["rows"]
    assert rows["default"]["differences"] == {}
    for name, row in rows.items():
        for measure, gap in row["differences"].items():
            assert gap["mean"] == pytest.approx(row[measure] - rows["default"][measure], abs=2e-5), name
            assert gap["low"] <= gap["mean"] <= gap["high"]


def test_the_papers_comparisons_are_paired(table: dict[str, Any]) -> None:
    rows, contrasts = table["rows"], table["contrasts"]
    assert set(contrasts["pinsage"]) == {"mean-pooling-hard", "combined"}
    assert set(contrasts["mean-pooling"]) == {"mean-pooling-xent", "max-pooling"}
    gap = contrasts["mean-pooling"]["max-pooling"]["MRR"]
    assert gap["mean"] == pytest.approx(rows["mean-pooling"]["MRR"] - rows["max-pooling"]["MRR"], abs=2e-5)


def test_how_unequal_weights_are() -> None:
    weights_PT = np.array([[0.25, 0.25, 0.25, 0.25], [1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0, 0]], np.float32)
    # 4, 1 and 2 equal neighbours; the pin without any does not count. Of (0.6, 0.2, 0.2): 1 / 0.44.
    assert paper_tables._describe_weights(weights_PT) == {"num": 2.33, "equal": 2.33}
    uneven_PT = np.array([[0.6, 0.2, 0.2]], np.float32)
    assert paper_tables._describe_weights(uneven_PT) == {"num": 3.0, "equal": 2.27}


def test_what_is_trained_says_how_it_went(run: RunFolder, table: dict[str, Any]) -> None:
    for name in [*TRAINED, "default"]:
        row = table["rows"][name]
        assert row["seconds"] > 0, name
        assert 0 <= row["best_epoch"] <= row["epochs"]  # 0 is the linear start
        batches = -(-200 // row["batch_size"])
        assert row["iterations"] == row["best_epoch"] * batches
        assert row["minutes"] == pytest.approx(row["iterations"] * row["ms_per_iteration"] / 60_000, abs=1e-3)
    assert table["rows"]["pinsage"]["batch_size"] == 512
    assert table["rows"]["boards"]["seconds"] == 0


def test_planted_clusters_are_found_by_those_that_can(table: dict[str, Any]) -> None:
    """By chance 10 of 119 candidates are hits; text and boards tell the clusters apart without learning."""
    for name in ("text", "boards", "pixie", "pixie-exact", "mlp"):
        assert table["rows"][name]["HR@10"] > 0.3, name
    assert table["rows"]["popularity"]["HR@10"] < 0.3


def test_prepared_arrays_are_linked_and_messages_not_kept(run: RunFolder, table: dict[str, Any]) -> None:
    for name in TRAINED:
        folder = variant_folder(run, name)
        assert all(path.is_symlink() for path in folder.prepare.iterdir())
        assert folder.features.samefile(run.features)
        assert not folder.messages(0).parent.exists()


def test_what_is_trained_is_not_trained_again(run: RunFolder, table: dict[str, Any]) -> None:
    """Not even after the command was stopped in the middle: then only what is missing is trained."""
    shutil.rmtree(variant_folder(run, "mlp").path)
    stages: list[str] = []

    @contextmanager
    def noted(stage: str) -> Iterator[Report]:
        stages.append(stage)
        yield silent

    again = measure_table(run, open_dataset(data(run)), 1, minutes=MINUTES, progress=noted)
    assert stages == ["mlp: train", "mlp: embed", "evaluate"]
    same = [name for name in table["rows"] if name != "mlp"]
    assert {name: again["rows"][name] for name in same} == {name: table["rows"][name] for name in same}


def test_a_row_that_fails_is_left_out_with_the_reason(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    wild = CONFIG.model_copy(update={"train": CONFIG.train.model_copy(update={"learning_rate": 1e38, "decay": 1.0})})
    monkeypatch.setattr(paper_tables, "table_3", lambda config, minutes: Rows([Variant("wild", wild)], {}))
    found = measure_table(run, open_dataset(data(run)), 3, minutes=MINUTES)
    assert list(found["rows"]) == ["default"]
    assert "the loss of epoch" in found["skipped"]["wild"]


def test_table_3_has_a_row_for_each_batch_size(run: RunFolder) -> None:
    found = measure_table(run, open_dataset(data(run)), 3, minutes=MINUTES, sample=20)
    assert list(found["rows"]) == ["512", "1024", "2048", "4096", "default"]
    assert [row["batch_size"] for row in found["rows"].values()] == [512, 1024, 2048, 4096, 64]
    assert [row["n"] for row in found["rows"].values()] == [20] * 5
    assert all(row["ms_per_iteration"] > 0 for row in found["rows"].values())
    assert found["contrasts"] == {}
    assert table_path(run, 3).exists()


def test_table_4_walks_anew_for_each_number_of_neighbours(run: RunFolder) -> None:
    found = measure_table(run, open_dataset(data(run)), 4, minutes=MINUTES)
    assert [row["num_neighbors"] for row in found["rows"].values()] == [10, 20, 50, 8]
    assert np.load(variant_folder(run, "50").neighbor_ids).shape == (120, 50)
    assert np.load(run.neighbor_ids).shape == (120, 8)


def test_fewer_neighbours_are_the_first_of_more(run: RunFolder, tmp_path: Path) -> None:
    """Lists are sorted by visits, so T = 3 is what T = 8 begins with, and weights are shares of what is kept."""
    few = RunFolder(tmp_path / "few")
    changed = CONFIG.walks.model_copy(update={"num_neighbors": 3})
    link_prepared(run, few, data(run), CONFIG.model_copy(update={"walks": changed}))
    ids_PT, weights_PT = np.load(run.neighbor_ids)[:, :3], np.load(run.neighbor_weights)[:, :3]
    np.testing.assert_array_equal(np.load(few.neighbor_ids), ids_PT)
    shares_PT = weights_PT / np.maximum(weights_PT.sum(1, keepdims=True), 1e-9)
    np.testing.assert_allclose(np.load(few.neighbor_weights), shares_PT, atol=1e-6)
    assert few.features.is_symlink()


def test_a_run_without_a_log_has_no_facts(tmp_path: Path) -> None:
    assert training_facts(RunFolder(tmp_path)) == {}


def test_a_table_is_printed_with_reasons(table: dict[str, Any]) -> None:
    out = io.StringIO()
    print_paper_table(table, Console(file=out, width=110))
    text = out.getvalue()
    assert text.count("mean-pooling-hard") == 3  # values, differences, training
    assert f"{table['rows']['pixie']['MRR']:.4f}" in text
    assert f"{table['rows']['pixie']['differences']['MRR']['mean']:+.4f}" in text
    assert "no row visual: no pin has a visual vector" in text


def with_config(run: RunFolder, folder: Path, config: RunConfig) -> RunFolder:
    """A copy of the run, as if it had been made with this configuration."""
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns("tables", "table*.json"))
    copy = RunFolder(folder)
    copy.config.write_text(json.dumps(config.model_dump()))
    return copy


def test_users_mistakes(run: RunFolder, tmp_path: Path) -> None:
    dataset = open_dataset(data(run))
    with pytest.raises(UserError, match="no table 2; there are: 1, 3, 4"):
        measure_table(run, dataset, 2)
    for minutes in (0, -1, float("nan")):
        with pytest.raises(UserError, match="more than zero minutes"):
            measure_table(run, dataset, 1, minutes=minutes)
    changed = with_config(run, tmp_path / "changed", CONFIG.model_copy(update={"seed": 99}))
    with pytest.raises(UserError, match="not prepared for this data set and these settings"):
        measure_table(changed, dataset, 3, minutes=MINUTES)
    changed.embeddings.unlink()
    with pytest.raises(UserError, match="no embeddings yet"):
        measure_table(changed, dataset, 3, minutes=MINUTES)


def test_a_data_set_without_test_pairs_is_refused(run: RunFolder, tmp_path: Path) -> None:
    copy = with_config(run, tmp_path / "run", CONFIG)
    np.save(copy.pairs("test"), np.empty((0, 2), np.int32))
    with pytest.raises(UserError, match="no test pairs"):
        measure_table(copy, open_dataset(data(run)), 1, minutes=MINUTES)


def test_without_content_the_content_rows_are_left_out(tmp_path: Path) -> None:
    folder = write_planted(tmp_path / "data")
    pl.read_csv(folder / "pins.csv").select("pin_id").write_csv(folder / "pins.csv")
    run = RunFolder(tmp_path / "run")
    run_stages(folder, run, CONFIG, stages=["prepare", "train", "embed"])
    found = measure_table(run, open_dataset(folder), 1, minutes=0.0001)
    assert {"visual", "annotation", "combined", "text"} <= set(found["skipped"])
    assert not {"visual", "annotation", "combined", "text"} & set(found["rows"])
    assert {"pinsage", "mlp", "default"} <= set(found["rows"])
    assert BipartiteGraph.load(variant_folder(run, "mlp").graph).num_pins == 120
