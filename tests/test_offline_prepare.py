"""The prepare stage on small data sets: what lands in RUN/prepare, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from model.config import WalkConfig
from model.errors import DatasetError
from model.features import FeatureEncoder, PinContent
from model.graph import BipartiteGraph
from model.halves import floats_of, to_halves
from offline.data.dataset import open_dataset
from offline.inputs.encoder_config import EncoderConfig, PairsConfig
from offline.inputs.prepare import prepare
from offline.run_folder import RunFolder

ENCODER = EncoderConfig(text_dim=4, annotation_dim=4, board_dim=4, min_token_count=1)
WALKS = WalkConfig(num_walks=50, num_neighbors=3)


@dataclass
class Tables:
    """A data set of five pins. Pin c is cold, pin e has no edge, board x is in no boards file."""

    pins: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"pin_id": "a", "title": "red chair", "annotations": ["seat"], "created_at": 5},
            {"pin_id": "b", "title": "red table", "annotations": []},
            {"pin_id": "c", "title": "cold pin"},
            {"pin_id": "d", "title": None, "annotations": ["seat", "blue"]},
            {"pin_id": "e", "title": "blue chair"},
        ]
    )
    boards: list[dict[str, Any]] = field(default_factory=lambda: [{"board_id": "z", "title": "Empty"}])
    edges: list[tuple[str, str]] = field(
        default_factory=lambda: [("a", "x"), ("b", "x"), ("b", "y"), ("d", "y"), ("a", "x"), ("d", "x")]
    )
    more: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {
            "coldstart_pins": [{"pin_id": "c"}],
            "pairs_train": [
                {"query_pin_id": "a", "related_pin_id": "b"},
                {"query_pin_id": "c", "related_pin_id": "b"},
                {"query_pin_id": "b", "related_pin_id": "b"},
                {"query_pin_id": "nobody", "related_pin_id": "b"},
            ],
            "pairs_valid": [{"query_pin_id": "d", "related_pin_id": "e"}],
        }
    )

    def write(self, folder: Path) -> Path:
        folder.mkdir()
        edges = [{"pin_id": pin, "board_id": board} for pin, board in self.edges]
        for name, rows in {"pins": self.pins, "boards": self.boards, "edges": edges, **self.more}.items():
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder


def run_prepare(tables: Tables, tmp_path: Path, **changes: Any) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    settings: dict[str, Any] = {"seed": 1, "walks": WALKS, "encoder": ENCODER, "pairs": PairsConfig(), "num_threads": 1}
    folder = tmp_path / "data"
    prepare(open_dataset(folder if folder.exists() else tables.write(folder)), run, **settings | changes)
    return run


def read_arrow(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def read_summary(run: RunFolder) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run.prepare / "summary.json").read_text())
    return summary


def test_pins_are_rows_in_file_order_without_the_cold_ones(tmp_path: Path) -> None:
    run = run_prepare(Tables(), tmp_path)
    pins = read_arrow(run.pins)
    assert pins["pin_id"].to_pylist() == ["a", "b", "d", "e"]
    assert pins["title"].to_pylist() == ["red chair", "red table", None, "blue chair"]
    assert pins["annotations"].to_pylist() == [["seat"], [], ["seat", "blue"], []]
    assert pins["created_at"].to_pylist() == [5, None, None, None]
    assert pins["image_url"].null_count == 4
    assert pins.schema.field("annotations").type == pa.list_(pa.string())


def test_boards_are_those_of_the_file_then_those_of_the_edges(tmp_path: Path) -> None:
    boards = read_arrow(run_prepare(Tables(), tmp_path).boards)
    assert boards.to_pydict() == {"board_id": ["z", "x", "y"], "title": ["Empty", None, None]}


def test_arrow_files_are_memory_mapped_without_a_copy(tmp_path: Path) -> None:
    run = run_prepare(Tables(), tmp_path)
    before = pa.total_allocated_bytes()
    with pa.memory_map(str(run.pins)) as source:
        pins = pa.ipc.open_file(source).read_all()
        assert pins.num_rows == 4
        assert pa.total_allocated_bytes() == before


def test_the_graph_joins_rows_and_drops_repeats(tmp_path: Path) -> None:
    graph = BipartiteGraph.load(run_prepare(Tables(), tmp_path).graph)
    assert [graph.boards_of(pin).tolist() for pin in range(4)] == [[1], [1, 2], [1, 2], []]
    assert graph.num_boards == 3


def test_neighbours_and_features_have_a_row_for_every_pin(tmp_path: Path) -> None:
    run = run_prepare(Tables(), tmp_path)
    ids, weights = np.load(run.neighbor_ids), np.load(run.neighbor_weights)
    assert ids.shape == weights.shape == (4, 3)
    assert set(ids[0]) == {1, 2, -1}
    assert (ids[3] == -1).all()
    x, encoder = np.load(run.features), FeatureEncoder.load(run.encoder)
    contents = [
        PinContent("red chair", ["seat"], None, None, [1]),
        PinContent("red table", [], None, None, [1, 2]),
        PinContent(None, ["seat", "blue"], None, None, [1, 2]),
        PinContent("blue chair"),
    ]
    expected = encoder.encode(contents)
    expected[3] = encoder.with_graph(expected[3], [])  # on no board although people could have put it on one
    encoder.fill_asked(expected, np.bincount(np.load(run.pairs("train"))[:, 1], minlength=4))
    assert np.array_equal(x, to_halves(expected))
    assert not run.visual.exists()


def test_given_pairs_are_used_as_they_are_but_for_cold_and_unknown_pins(tmp_path: Path) -> None:
    run = run_prepare(Tables(), tmp_path)
    assert np.load(run.pairs("train")).tolist() == [[0, 1]]
    assert np.load(run.pairs("valid")).tolist() == [[2, 3]]
    assert np.load(run.pairs("test")).shape == (0, 2)
    about = read_summary(run)["pairs"]
    assert about["from"] == "pairs"
    assert about["dropped"] == {"train": 3, "valid": 0}


def test_without_pairs_they_come_from_engagements(tmp_path: Path) -> None:
    tables = Tables()
    tables.more = {
        "coldstart_pins": [{"pin_id": "c"}],
        "engagements": [
            {"user_id": "u", "pin_id": "b", "timestamp": 20, "action": "save"},
            {"user_id": "u", "pin_id": "a", "timestamp": 10},
            {"user_id": "u", "pin_id": "e", "timestamp": 15, "action": "hide"},
            {"user_id": "u", "pin_id": "c", "timestamp": 30},
            {"user_id": "u", "pin_id": "d", "timestamp": 40},
            {"user_id": "v", "pin_id": "e", "timestamp": 41},
        ],
    }
    run = run_prepare(tables, tmp_path)
    assert read_summary(run)["pairs"]["from"] == "engagements"
    # Two users round to no validation or test user. The cold pin stands between b and d; e was hidden.
    assert np.load(run.pairs("train")).tolist() == [[0, 1]]
    assert BipartiteGraph.load(run.graph).num_edges == 5


def test_without_engagements_they_come_from_edges_that_leave_the_graph(tmp_path: Path) -> None:
    tables = Tables(more={})
    tables.pins = [{"pin_id": f"p{n}"} for n in range(40)]
    tables.edges = [(f"p{n}", f"b{(n * k) % 7}") for n in range(40) for k in (1, 2, 3)]
    run = run_prepare(tables, tmp_path, pairs=PairsConfig(held_out_edges=0.2))
    whole = len(set(tables.edges))
    graph = BipartiteGraph.load(run.graph)
    assert graph.num_edges == whole - round(0.2 * whole)
    assert graph.pin_degrees().min() >= 1
    about = read_summary(run)
    assert about["pairs"]["from"] == "graph"
    assert about["edges"] == graph.num_edges
    assert all(about["pairs"][split] > 0 for split in ("train", "valid", "test"))


def test_given_test_pairs_are_kept_out_of_pairs_made_for_training(tmp_path: Path) -> None:
    tables = Tables()
    tables.more = {
        "pairs_test": [{"query_pin_id": "b", "related_pin_id": "a"}],
        "engagements": [
            {"user_id": "u", "pin_id": pin, "timestamp": time} for time, pin in enumerate(["a", "b", "d", "e"])
        ],
    }
    run = run_prepare(tables, tmp_path)
    assert np.load(run.pairs("test")).tolist() == [[1, 0]]
    assert np.load(run.pairs("train")).tolist() == [[1, 3], [3, 4]]


def test_visual_vectors_follow_the_rows(tmp_path: Path) -> None:
    tables = Tables()
    for n, pin in enumerate(tables.pins):
        pin["visual"] = None if pin["pin_id"] == "b" else [n, 1, 2]
    run = run_prepare(tables, tmp_path)
    visual = np.load(run.visual)
    assert visual[:, 0].tolist()[:1] + visual[2:, 0].tolist() == [0, 3, 4]
    assert np.isnan(visual[1]).all()
    encoder = FeatureEncoder.load(run.encoder)
    x = np.load(run.features)[:, encoder.slices["visual"]]
    assert np.isfinite(x).all()
    assert not x[1].any()


def test_an_encoder_of_an_earlier_release_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    first = run_prepare(Tables(), tmp_path / "one")
    tables = Tables()
    tables.pins.append({"pin_id": "new", "title": "red unheard"})
    tables.edges += [("new", "x"), ("new", "fresh")]
    (tmp_path / "two").mkdir()
    second = run_prepare(tables, tmp_path / "two", reuse_encoder=first.encoder)
    old, new = np.load(first.features), np.load(second.features)
    assert np.array_equal(new[1:4], old[1:4])
    expected = FeatureEncoder.load(first.encoder).encode([PinContent("red", boards=[1, 99])])
    assert np.array_equal(new[4:], to_halves(expected))


def test_preparing_twice_gives_the_same_files(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    for folder in (first, second):
        folder.mkdir()
        run_prepare(Tables(), folder)
    for path in sorted((first / "run" / "prepare").rglob("*")):
        if path.is_file():
            twin = second / path.relative_to(first)
            assert path.read_bytes() == twin.read_bytes(), path.name


def test_what_an_earlier_try_left_is_replaced(tmp_path: Path) -> None:
    run = run_prepare(Tables(), tmp_path)
    np.save(run.visual, np.zeros((9, 9)))
    run_prepare(Tables(), tmp_path)
    assert not run.visual.exists()


def test_progress_goes_from_0_to_1(tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    run_prepare(Tables(), tmp_path, progress=lambda text, share: seen.append((text, share)))
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)


def test_an_unknown_pin_in_the_edges_is_named_with_its_row(tmp_path: Path) -> None:
    tables = Tables()
    tables.edges.insert(3, ("ghost", "x"))
    with pytest.raises(DatasetError, match=r'edges\.jsonl, row 4, column pin_id: no pin is called "ghost".*validate'):
        run_prepare(tables, tmp_path)


@pytest.mark.parametrize("edges", [[], [("c", "x")]])
def test_a_graph_without_edges_is_refused(tmp_path: Path, edges: list[tuple[str, str]]) -> None:
    with pytest.raises(DatasetError, match="edges"):
        run_prepare(Tables(edges=edges), tmp_path)


def test_edges_are_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole = BipartiteGraph.load(run_prepare(Tables(), tmp_path / "one").graph)
    monkeypatch.setattr("offline.inputs.row_maps.CHUNK", 2)
    parts = BipartiteGraph.load(run_prepare(Tables(), tmp_path / "two").graph)
    assert np.array_equal(whole.pin_boards_E, parts.pin_boards_E)
    assert np.array_equal(whole.board_ptr, parts.board_ptr)


@pytest.mark.slow
def test_features_of_a_real_set_find_cited_articles(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "shared" / "data" / "citeulike-a"
    if not folder.exists():
        pytest.skip("needs the real data sets beside the checkout")
    run = RunFolder(tmp_path / "run")
    prepare(open_dataset(folder), run, seed=1, walks=WALKS, encoder=EncoderConfig(), pairs=PairsConfig(), num_threads=1)
    x, pairs = floats_of(np.load(run.features)), np.load(run.pairs("valid"))  # float16 products take minutes
    slices = FeatureEncoder.load(run.encoder).slices
    # Plain cosines of all tokens and of all boards reach 0.135 and 0.108 on the test pairs.
    for group, least in (("text", 0.13), ("annotations", 0.12), ("boards", 0.11)):
        part = x[:, slices[group]]
        scores = part[pairs[:, 0]] @ part.T
        scores[np.arange(len(pairs)), pairs[:, 0]] = -2
        better = (scores > np.take_along_axis(scores, pairs[:, 1:], axis=1)).sum(axis=1)
        assert (better < 10).mean() > least


def test_pins_of_an_own_schema_keep_only_the_known_columns(tmp_path: Path) -> None:
    tables = Tables()
    tables.pins[0]["price"] = 12
    assert "price" not in read_arrow(run_prepare(tables, tmp_path).pins).column_names


def test_a_large_table_is_written_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offline.inputs.prepare.TABLE_BATCH", 3)
    pins = read_arrow(run_prepare(Tables(), tmp_path).pins)
    assert pins["pin_id"].num_chunks == 2
    assert pl.from_arrow(pins)["pin_id"].to_list() == ["a", "b", "d", "e"]
