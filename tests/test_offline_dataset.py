"""Reading data set folders: the same rows from Parquet, CSV and JSON Lines, and errors that say where."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.errors import DatasetError
from offline.data.dataset import PIN_COLUMNS, open_dataset

SHARED = Path(__file__).parents[2] / "shared"
FORMATS = ("parquet", "csv", "jsonl", "ndjson")
PINS = pl.DataFrame({"pin_id": ["p1", "p2", "p3"], "title": ["Red chair", None, ""]})
EDGES = pl.DataFrame({"pin_id": ["p1", "p2", "p1"], "board_id": ["b1", "b1", "b2"], "timestamp": [5, None, 7]})


def write(folder: Path, name: str, frame: pl.DataFrame, suffix: str = "parquet") -> Path:
    path = folder / f"{name}.{suffix}"
    if suffix == "parquet":
        frame.write_parquet(path)
    elif suffix == "csv":
        frame.with_columns(_json_cells(frame)).write_csv(path)
    else:
        frame.write_ndjson(path)
    return path


def _json_cells(frame: pl.DataFrame) -> list[pl.Series]:
    return [
        pl.Series(name, [None if row is None else json.dumps(list(row)) for row in frame[name]], dtype=pl.String)
        for name, kind in frame.schema.items()
        if isinstance(kind, pl.List)
    ]


def small(folder: Path, suffix: str = "parquet") -> Path:
    write(folder, "pins", PINS, suffix)
    write(folder, "edges", EDGES, suffix)
    return folder


@pytest.mark.parametrize("suffix", FORMATS)
def test_reads_pins_with_all_columns_and_nulls_for_missing_ones(tmp_path: Path, suffix: str) -> None:
    pins = open_dataset(small(tmp_path, suffix)).pins()
    assert tuple(pins.columns) == PIN_COLUMNS
    assert pins["pin_id"].to_list() == ["p1", "p2", "p3"]
    assert pins["title"].to_list() == ["Red chair", None, ""]
    assert pins["annotations"].to_list() == [[], [], []]
    assert pins["created_at"].to_list() == [None, None, None]
    assert pins.schema["created_at"] == pl.Int64


@pytest.mark.parametrize("suffix", FORMATS)
def test_streams_edges_in_file_order(tmp_path: Path, suffix: str) -> None:
    dataset = open_dataset(small(tmp_path, suffix))
    batches = list(dataset.edge_batches(2))
    assert [batch.height for batch in batches] == [2, 1]
    assert pl.concat(batches).rows() == [("p1", "b1", 5), ("p2", "b1", None), ("p1", "b2", 7)]
    assert dataset.num_edges() == 3


def test_boards_are_those_of_the_file_then_unseen_ones_by_first_occurrence(tmp_path: Path) -> None:
    small(tmp_path)
    edges = pl.DataFrame({"pin_id": ["p1"] * 4, "board_id": ["z", "b2", "a", "z"]})
    write(tmp_path, "edges", edges)
    write(tmp_path, "boards", pl.DataFrame({"board_id": ["b9", "b2"], "title": ["Nine", None]}))
    assert open_dataset(tmp_path).boards().rows() == [("b9", "Nine"), ("b2", None), ("z", None), ("a", None)]


def test_tables_that_are_not_there_read_as_none(tmp_path: Path) -> None:
    dataset = open_dataset(small(tmp_path))
    assert dataset.pairs("train") is None
    assert dataset.engagements() is None
    assert dataset.users_test() is None
    assert dataset.coldstart_edges() is None
    assert dataset.coldstart_pins() == []
    assert dataset.visual() is None


def test_optional_tables_read_back(tmp_path: Path) -> None:
    small(tmp_path)
    write(tmp_path, "pairs_test", pl.DataFrame({"query_pin_id": ["p1"], "related_pin_id": ["p2"]}), "csv")
    write(tmp_path, "engagements", pl.DataFrame({"user_id": ["u"], "pin_id": ["p1"], "timestamp": [9]}), "csv")
    write(tmp_path, "coldstart_pins", pl.DataFrame({"pin_id": ["p3"]}), "csv")
    (tmp_path / "users_test.csv").write_text('user_id,history,held_out\nu,p1|p2,"[""p3""]"\n')
    dataset = open_dataset(tmp_path)
    pairs, engagements, users = dataset.pairs("test"), dataset.engagements(), dataset.users_test()
    assert pairs is not None
    assert pairs.rows() == [("p1", "p2")]
    assert engagements is not None
    assert engagements.rows() == [("u", "p1", 9, None)]
    assert users is not None
    assert users.rows() == [("u", ["p1", "p2"], ["p3"])]
    assert dataset.coldstart_pins() == ["p3"]


def test_features_file_is_memory_mapped(tmp_path: Path) -> None:
    small(tmp_path)
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "features.npy", vectors)
    read = open_dataset(tmp_path).visual()
    assert isinstance(read, np.memmap)
    assert np.array_equal(read, vectors)


def test_features_of_half_precision_are_widened(tmp_path: Path) -> None:
    small(tmp_path)
    np.save(tmp_path / "features.npy", np.ones((3, 2), dtype=np.float16))
    read = open_dataset(tmp_path).visual()
    assert read is not None
    assert read.dtype == np.float32


@pytest.mark.parametrize("suffix", FORMATS)
def test_visual_column_reads_as_matrix_with_nan_for_a_pin_without(tmp_path: Path, suffix: str) -> None:
    small(tmp_path)
    (tmp_path / "pins.parquet").unlink()
    pins = pl.DataFrame({"pin_id": ["a", "b", "c"], "visual": [[1.0, 2.0], None, [0.5, -3.25]]})
    write(tmp_path, "pins", pins, suffix)
    visual = open_dataset(tmp_path).visual()
    assert visual is not None
    assert visual.dtype == np.float32
    np.testing.assert_array_equal(visual, np.array([[1, 2], [np.nan, np.nan], [0.5, -3.25]], dtype=np.float32))


def test_lists_in_csv_are_json_or_bars(tmp_path: Path) -> None:
    small(tmp_path)
    (tmp_path / "pins.parquet").unlink()
    rows = ['a,"[""red, dark"",""wool""]"', "b,red|wool", "c,", 'd,""', "e,one"]
    (tmp_path / "pins.csv").write_text("pin_id,annotations\n" + "\n".join(rows) + "\n")
    pins = open_dataset(tmp_path).pins()
    assert pins["annotations"].to_list() == [["red, dark", "wool"], ["red", "wool"], [], [], ["one"]]


def test_unknown_columns_are_passed_over(tmp_path: Path) -> None:
    small(tmp_path)
    for suffix in ("parquet", "csv", "jsonl"):
        for old in tmp_path.glob("pins.*"):
            old.unlink()
        write(tmp_path, "pins", PINS.with_columns(price=pl.lit(3), pages=pl.lit("x")), suffix)
        assert open_dataset(tmp_path).pins()["title"].to_list() == ["Red chair", None, ""]


def test_dictionary_and_large_strings_and_small_integers_fit(tmp_path: Path) -> None:
    small(tmp_path)
    table = pa.table(
        {
            "pin_id": pa.array(["p1", "p2"]).dictionary_encode(),
            "board_id": pa.array(["b", "b"], type=pa.large_string()),
            "timestamp": pa.array([1, 2], type=pa.int32()),
        }
    )
    pq.write_table(table, tmp_path / "edges.parquet")
    assert pl.concat(open_dataset(tmp_path).edge_batches()).rows() == [("p1", "b", 1), ("p2", "b", 2)]


def error_of(folder: Path, read: str = "pins") -> str:
    with pytest.raises(DatasetError) as caught:
        getattr(open_dataset(folder), read)()
    return str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="wanted the folder of a data set, found nothing"):
        open_dataset(tmp_path / "none")


def test_a_missing_table_names_what_was_wanted_and_found(tmp_path: Path) -> None:
    write(tmp_path, "pins", PINS)
    with pytest.raises(DatasetError, match=r"wanted edges\.parquet or edges\.csv .* found pins\.parquet in"):
        open_dataset(tmp_path)


def test_a_table_in_two_formats(tmp_path: Path) -> None:
    write(small(tmp_path), "pins", PINS, "csv")
    with pytest.raises(DatasetError, match=r"there twice, as pins\.parquet and pins\.csv"):
        open_dataset(tmp_path)


def test_a_missing_column_names_the_columns_found(tmp_path: Path) -> None:
    write(small(tmp_path), "pins", pl.DataFrame({"id": ["a"], "title": ["b"]}))
    expected = "pins.parquet, column pin_id: missing column: wanted a string, found the columns id, title"
    assert error_of(tmp_path) == expected


def test_a_column_of_the_wrong_type_names_both_types(tmp_path: Path) -> None:
    write(small(tmp_path), "pins", pl.DataFrame({"pin_id": [1, 2]}))
    assert error_of(tmp_path) == "pins.parquet, column pin_id: wanted a string, found int64"


def test_a_repeated_id_names_the_row(tmp_path: Path) -> None:
    write(small(tmp_path), "pins", pl.DataFrame({"pin_id": ["a", "b", "a"]}))
    assert error_of(tmp_path) == 'pins.parquet, row 3, column pin_id: "a" is there twice'


def test_a_bad_cell_names_row_and_column(tmp_path: Path) -> None:
    small(tmp_path)
    (tmp_path / "edges.parquet").unlink()
    (tmp_path / "edges.csv").write_text("pin_id,board_id,timestamp\np1,b1,1\np2,b1,noon\n")
    expected = 'edges.csv, row 2, column timestamp: wanted a whole number, found "noon"'
    with pytest.raises(DatasetError) as caught:
        list(open_dataset(tmp_path).edge_batches())
    assert str(caught.value) == expected


def test_features_with_the_wrong_number_of_rows(tmp_path: Path) -> None:
    np.save(small(tmp_path) / "features.npy", np.zeros((2, 4), dtype=np.float32))
    assert "features.npy: wanted real numbers of shape (3, V), found float32 of shape (2, 4)" in error_of(
        tmp_path, "visual"
    )


def test_ragged_visual_vectors_name_the_row(tmp_path: Path) -> None:
    pins = pl.DataFrame({"pin_id": ["a", "b", "c"], "visual": [[1.0, 2.0], [1.0], [3.0, 4.0]]})
    write(small(tmp_path), "pins", pins)
    expected = "pins.parquet, row 2, column visual: wanted 2 numbers as in other rows, found 1"
    assert error_of(tmp_path, "visual") == expected


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
pin_rows = st.fixed_dictionaries(
    {
        "title": st.none() | texts,
        "annotations": st.lists(texts, max_size=3),
        "description": st.none() | texts,
        "created_at": st.none() | st.integers(-(2**63), 2**63 - 1),
        "visual": st.none() | st.lists(st.floats(-(2.0**40), 2.0**40, width=32), min_size=2, max_size=2),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(pin_rows, min_size=1, max_size=6))
def test_every_format_reads_back_the_same_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    schema = {
        "pin_id": pl.String,
        "title": pl.String,
        "annotations": pl.List(pl.String),
        "description": pl.String,
        "created_at": pl.Int64,
        "visual": pl.List(pl.Float32),
    }
    frame = pl.DataFrame([{"pin_id": f"p{n}", **row} for n, row in enumerate(rows)], schema=schema)
    expected = frame.select(schema.keys() - {"visual"})
    for suffix in FORMATS:
        folder = tmp_path_factory.mktemp(suffix)
        write(folder, "pins", frame, suffix)
        write(folder, "edges", EDGES)
        dataset = open_dataset(folder)
        assert dataset.pins().select(expected.columns).equals(expected), suffix
        visual = dataset.visual()
        present = [row for row in frame["visual"].to_list() if row is not None]
        if present:
            assert visual is not None
            assert visual[~np.isnan(visual[:, 0])].tolist() == present
        else:
            assert visual is None


def test_the_real_sets_read(tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("the real data sets are not here")
    dataset = open_dataset(SHARED / "data" / "tiktok-micro")
    visual = dataset.visual()
    assert dataset.pins().height == 6710
    assert visual is not None
    assert visual.shape == (6710, 256)
    assert dataset.num_edges() == 43_283
    assert dataset.boards().height == 9308
