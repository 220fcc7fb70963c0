"""The evaluation of a run on a small world: what is measured, what is written, what is refused."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from topic_world import PINS_EACH, TOPICS, embedded_run, write_world

from model.errors import PinsageError, UserError
from offline.data.dataset import open_dataset
from offline.evaluation import evaluate as stage
from offline.evaluation.evaluate import evaluate, print_tables
from offline.evaluation.evaluation_data import EvaluationData, Limits, load_evaluation_data
from offline.evaluation.evaluation_methods import AllMethods
from offline.evaluation.metric_tables import print_rows
from offline.run_folder import RunFolder

NUM_PINS = PINS_EACH * len(TOPICS)
ALS = ["als"] if find_spec("implicit") else []  # an optional extra
ALL = Limits(None, 10**9, 60)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("evaluate")
    return embedded_run(write_world(folder / "world"), folder / "run")


def world(run: RunFolder) -> Path:
    return run.path.parent / "world"


@pytest.fixture(scope="module")
def metrics(run: RunFolder) -> dict[str, Any]:
    return evaluate(run, open_dataset(world(run)), report=False)


def test_metrics_are_written_as_they_are_returned(run: RunFolder, metrics: dict[str, Any]) -> None:
    assert json.loads(run.metrics.read_text()) == metrics


def test_names_of_the_metrics(metrics: dict[str, Any]) -> None:
    """Others read these names: a change here is a change of a contract."""
    assert list(metrics) == [
        "format", "dataset", "candidates", "sample", "seed", "available", "skipped", "related", "hit_rate_curve",
        "by_degree", "by_query_degree", "coldstart", "homefeed", "similarity", "similarity_methods", "seconds",
    ]  # fmt: skip
    assert list(metrics["related"]) == ["pinsage", "popularity", "text", "boards", "boards+text", "pixie", *ALS]
    assert list(metrics["skipped"]) == ([] if ALS else ["als"])
    measures = ["HR@10", "HR@100", "HR@500", "MRR", "MRR_scaled100"]
    assert list(metrics["related"]["pinsage"]) == ["n", *measures, "intervals"]
    assert list(metrics["related"]["text"]) == ["n", *measures, "intervals", "differences"]
    assert list(metrics["related"]["text"]["differences"]) == measures
    assert list(metrics["related"]["text"]["differences"]["MRR"]) == ["mean", "low", "high"]
    assert list(metrics["by_degree"]) == list(metrics["by_query_degree"]) == ["0", "1-4", "5-19", "20+"]
    assert list(metrics["coldstart"]["with_boards"]) == ["pinsage", "boards", "boards+text", "pixie"]
    assert list(metrics["coldstart"]["without_boards"]) == ["pinsage", "popularity", "text"]
    feeds = ["pinsage", "popularity", "text", "boards", "boards+text", *ALS, "pixie", "item_knn"]
    assert list(metrics["homefeed"]) == feeds
    assert list(metrics["homefeed"]["pinsage"]) == ["n", "Recall@20", "NDCG@20", "intervals"]
    assert list(metrics["similarity"]) == ["pinsage", "text", "boards"]
    assert list(metrics["similarity_methods"]) == ["pinsage", "text", "boards", *ALS]


def test_counts(run: RunFolder, metrics: dict[str, Any]) -> None:
    assert metrics["candidates"] == NUM_PINS
    assert metrics["available"] == {"pairs": 2 * NUM_PINS, "coldstart_pairs": 12, "users": 3}
    assert metrics["related"]["pinsage"]["n"] == 2 * NUM_PINS
    assert metrics["coldstart"]["with_boards"]["pinsage"]["n"] == 12
    for buckets in (metrics["by_degree"], metrics["by_query_degree"]):
        assert sum(rows["pinsage"]["n"] for rows in buckets.values()) == 2 * NUM_PINS


def test_a_planted_topic_is_found(metrics: dict[str, Any]) -> None:
    """Related pins share the topic with 18 others; a random order of 59 pins has HR@10 of 0.17."""
    for name in ("pinsage", "text", "boards", "pixie"):
        assert metrics["related"][name]["HR@10"] > 0.3, name
    assert metrics["related"]["popularity"]["HR@10"] < 0.25
    assert metrics["coldstart"]["with_boards"]["pinsage"]["HR@10"] > 0.3
    assert metrics["coldstart"]["without_boards"]["pinsage"]["HR@10"] > 0.3
    # Twelve pins of the topic are left, twenty are shown.
    assert metrics["homefeed"]["text"]["Recall@20"] == 1
    assert metrics["homefeed"]["pinsage"]["Recall@20"] > 0.7


def test_the_curve_rises_through_the_measures(metrics: dict[str, Any]) -> None:
    curve, row = metrics["hit_rate_curve"], metrics["related"]["pinsage"]
    assert curve["pinsage"] == sorted(curve["pinsage"])
    assert curve["pinsage"][curve["k"].index(10)] == row["HR@10"]


def test_cold_embeddings_are_left_for_the_judge(run: RunFolder, metrics: dict[str, Any]) -> None:
    vectors = np.load(run.path / "coldstart_embeddings.npy")
    ids = (run.path / "coldstart_pin_ids.txt").read_text().split()
    assert len(vectors) == len(ids) == 6
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_the_same_run_gives_the_same_numbers(run: RunFolder, metrics: dict[str, Any]) -> None:
    again = evaluate(run, open_dataset(world(run)), report=False)
    assert {**again, "seconds": {}} == {**metrics, "seconds": {}}


def test_a_sample_is_drawn_and_stated(run: RunFolder) -> None:
    sampled = evaluate(run, open_dataset(world(run)), sample=10, report=False)
    assert sampled["sample"] == 10
    assert sampled["related"]["pinsage"]["n"] == 10
    assert sampled["coldstart"]["with_boards"]["pinsage"]["n"] == 10
    assert sampled["available"]["pairs"] == 2 * NUM_PINS


def test_too_many_scores_are_sampled(run: RunFolder) -> None:
    data = load_evaluation_data(run, open_dataset(world(run)), Limits(None, 50 * NUM_PINS, 10), seed=7)
    assert len(data.pairs_N2) == 50
    assert len(data.users) == 2  # a user asks with 20 pins
    assert data.num_tests["users"] == 3
    data = load_evaluation_data(run, open_dataset(world(run)), Limits(None, 1, 60), seed=7)
    assert len(data.pairs_N2) == 60
    assert len(data.users) == 3


def test_a_sample_is_the_judges(run: RunFolder) -> None:
    every = load_evaluation_data(run, open_dataset(world(run)), ALL, seed=7).pairs_N2
    few = load_evaluation_data(run, open_dataset(world(run)), Limits(10, 10**9, 10), seed=7).pairs_N2
    assert few.tolist() == every[np.random.default_rng(7).permutation(len(every))[:10]].tolist()


def test_a_dear_method_looks_at_fewer_pairs(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MIN_DEAR_QUERIES", 9)
    monkeypatch.setattr(stage, "MAX_DEAR_STEPS", 1000)
    rows = evaluate(run, open_dataset(world(run)), report=False)["related"]
    assert rows["pixie"]["n"] == 9
    assert rows["boards"]["n"] == 2 * NUM_PINS


def test_differences_are_taken_on_the_pairs_that_both_looked_at(
    run: RunFolder, metrics: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that is PinSage once more, on a part of the pairs, differs from it in nothing."""
    build = stage.build_methods

    def with_twin(data: EvaluationData, *, threads: int) -> AllMethods:
        found = build(data, threads=threads)
        return replace(found, related={**found.related, "twin": replace(found.related["pinsage"], is_dear=True)})

    monkeypatch.setattr(stage, "build_methods", with_twin)
    monkeypatch.setattr(stage, "MIN_DEAR_QUERIES", 40)
    monkeypatch.setattr(stage, "MAX_DEAR_STEPS", 1000)
    rows = evaluate(run, open_dataset(world(run)), report=False)["related"]
    assert rows["twin"]["n"] == 40
    assert rows["twin"]["MRR"] != rows["pinsage"]["MRR"]
    assert rows["twin"]["differences"]["MRR"] == {"mean": 0, "low": 0, "high": 0}
    text = metrics["related"]["text"]
    assert text["differences"]["MRR"]["mean"] == pytest.approx(text["MRR"] - rows["pinsage"]["MRR"], abs=2e-5)


def test_the_degree_is_that_of_the_query_or_of_the_related_pin() -> None:
    pairs, degrees = np.array([[0, 1], [0, 2], [1, 2], [2, 2]]), np.array([0, 4, 20])
    found = {"pinsage": (pairs, np.array([1, 2, 4, 5]))}
    asked = stage._by_degree(found, degrees, side=0)
    assert [rows["pinsage"]["n"] for rows in asked.values()] == [2, 1, 0, 1]
    assert asked["0"]["pinsage"]["MRR"] == 0.75
    related = stage._by_degree(found, degrees, side=1)
    assert [rows["pinsage"].get("MRR") for rows in related.values()] == [
        None,
        1,
        None,
        round((1 / 2 + 1 / 4 + 1 / 5) / 3, 5),
    ]


def test_progress_only_grows(run: RunFolder) -> None:
    seen: list[float] = []
    evaluate(run, open_dataset(world(run)), report=False, progress=lambda text, share: seen.append(share))
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert 0.9 < seen[-1] <= 1


def test_rows_of_unknown_and_cold_pins(run: RunFolder, tmp_path: Path) -> None:
    """Unknown and cold pins of a history ask nothing; among what was saved later they are pins that nobody finds."""
    folder = tmp_path / "world"
    shutil.copytree(world(run), folder)
    users = {"user_id": ["u"], "history": [["cats3", "nobody", "cats20", "cats1"]], "held_out": [["cats2", "cats21"]]}
    pl.DataFrame(users).write_parquet(folder / "users_test.parquet")
    pairs = {"query_pin_id": ["cats20", "nobody", "cats1"], "related_pin_id": ["cats4", "cats1", "cats2"]}
    pl.DataFrame(pairs).write_parquet(folder / "pairs_coldstart.parquet")
    data = load_evaluation_data(run, open_dataset(folder), ALL, seed=7)
    (user,) = data.users
    assert (user.history.tolist(), user.held_out.tolist(), user.num_held_out) == ([3, 1], [2, NUM_PINS + 1], 2)
    assert data.cold.pairs_N2.tolist() == [[NUM_PINS, 4]]


def test_a_data_set_with_nothing_but_pins_and_edges(run: RunFolder, tmp_path: Path) -> None:
    """No text, no users, no cold pins: the tests that are left are made."""
    folder = write_world(tmp_path / "world", titles=False)
    for name in ("users_test", "coldstart_pins", "coldstart_edges", "pairs_coldstart"):
        (folder / f"{name}.parquet").unlink()
    pins = pl.read_parquet(folder / "pins.parquet").select("pin_id").filter(~pl.col("pin_id").str.contains("2[01]$"))
    pins.write_parquet(folder / "pins.parquet")
    bare = evaluate(embedded_run(folder, tmp_path / "run"), open_dataset(folder), report=False)
    assert list(bare["related"]) == ["pinsage", "popularity", "boards", "pixie", *ALS]
    assert bare["coldstart"] == {}
    assert bare["homefeed"] == {}
    print_tables(bare, Console(file=io.StringIO()))


def test_tables_show_every_method_once(metrics: dict[str, Any]) -> None:
    out = io.StringIO()
    print_tables(metrics, Console(file=out, width=100))
    text = out.getvalue()
    assert "world: related pins (60 candidates)" in text
    assert text.count("boards+text") == 3  # related, cold, home feed
    assert f"{metrics['related']['pinsage']['MRR']:.4f}" in text


def test_tables_mark_which_differences_can_be_believed() -> None:
    gap = {"mean": 0.1, "low": 0.05, "high": 0.2}
    rows = {
        "pinsage": {"n": 50, "HR@10": 0.3},
        "ahead": {"n": 50, "HR@10": 0.4, "differences": {"HR@10": gap}},
        "behind": {"n": 50, "HR@10": 0.2, "differences": {"HR@10": {"mean": -0.1, "low": -0.2, "high": -0.05}}},
        "alike": {"n": 50, "HR@10": 0.31, "differences": {"HR@10": gap | {"low": -0.1}}},
        "few": {"n": 9, "HR@10": 0.9, "differences": {}},
    }
    out = io.StringIO()
    print_rows("related", rows, ("HR@10",), Console(file=out, width=100))
    cells = [line.split("│")[3].strip() for line in out.getvalue().splitlines() if line.startswith("│")]
    assert cells == ["0.3000", "0.4000 ▲", "0.2000 ▼", "0.3100 ≈", "0.9000"]


def test_a_run_that_is_not_embedded_is_refused(run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "embeddings.npy").unlink()
    with pytest.raises(UserError, match="no embeddings yet"):
        evaluate(RunFolder(tmp_path / "run"), open_dataset(world(run)))


def test_another_data_set_is_refused(run: RunFolder, tmp_path: Path) -> None:
    folder = tmp_path / "world"
    shutil.copytree(world(run), folder)
    pins = pl.read_parquet(folder / "pins.parquet")
    pins.sort("pin_id", descending=True).write_parquet(folder / "pins.parquet")
    with pytest.raises(UserError, match="the pins of the run are not those of"):
        evaluate(run, open_dataset(folder))


@pytest.mark.parametrize("value", [np.nan, 0.5])
def test_vectors_that_are_not_of_unit_length_are_refused(run: RunFolder, tmp_path: Path, value: float) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    vectors = np.load(run.embeddings)
    vectors[3] *= value
    np.save(tmp_path / "run" / "embeddings.npy", vectors)
    with pytest.raises(PinsageError, match="rows 0 to 59 are not all of unit length"):
        evaluate(RunFolder(tmp_path / "run"), open_dataset(world(run)))
