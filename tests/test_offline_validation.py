"""Validation: every kind of fault, planted, is found with its file, row and column; sound sets are clean."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from offline.data import jsonl, table_readers
from offline.data.faults import Fault
from offline.data.validation import validate_dataset

PINS = ["p1", "p2", "p3", "p4", "p5", "p6"]
SHARED = Path(__file__).parents[2] / "shared"


def sound(folder: Path) -> Path:
    """Six pins, p5 and p6 cold, on two boards; every optional table."""
    write(folder, "pins", {"pin_id": PINS, "annotations": [["a"]] * 6})
    write(folder, "boards", {"board_id": ["b1", "b2"]})
    edges = {"pin_id": ["p1", "p2", "p3"], "board_id": ["b1", "b1", "b2"], "timestamp": [1, 2, None]}
    write(folder, "edges", edges)
    write(folder, "engagements", {"user_id": ["u1", "u1"], "pin_id": ["p1", "p4"], "timestamp": [5, 6]})
    write(folder, "pairs_train", {"query_pin_id": ["p1"], "related_pin_id": ["p2"]})
    write(folder, "pairs_valid", {"query_pin_id": ["p1"], "related_pin_id": ["p3"]})
    write(folder, "pairs_test", {"query_pin_id": ["p2"], "related_pin_id": ["p3"]})
    write(folder, "users_test", {"user_id": ["u1"], "history": [["p1"]], "held_out": [["p4"]]})
    write(folder, "coldstart_pins", {"pin_id": ["p5", "p6"]})
    write(folder, "coldstart_edges", {"pin_id": ["p5"], "board_id": ["b1"], "timestamp": [9]})
    write(folder, "pairs_coldstart", {"query_pin_id": ["p5"], "related_pin_id": ["p1"]})
    return folder


def write(folder: Path, name: str, columns: dict[str, list]) -> None:
    pl.DataFrame(columns, strict=False).write_parquet(folder / f"{name}.parquet")


def replace(folder: Path, name: str, suffix: str, content: bytes) -> None:
    (folder / f"{name}.parquet").unlink()
    (folder / f"{name}.{suffix}").write_bytes(content)


def places(faults: list[Fault]) -> list[tuple[str, int | None, str | None]]:
    return [(fault.file, fault.row, fault.column) for fault in faults]


def test_a_sound_set_has_no_fault(tmp_path: Path) -> None:
    np.save(sound(tmp_path) / "features.npy", np.zeros((6, 3), dtype=np.float32))
    assert validate_dataset(tmp_path) == []


@pytest.mark.parametrize("name", ["amazon-sports", "citeulike-a", "gowalla", "movietweetings-100k", "tiktok-micro"])
def test_the_real_sets_are_sound(name: str) -> None:
    if not SHARED.is_dir():
        pytest.skip("the real data sets are not here")
    assert validate_dataset(SHARED / "data" / name) == []


@pytest.mark.parametrize(
    ("table", "columns", "place", "message"),
    [
        ("pins", {"pin_id": ["p1", "p2", "p3", "p4", None, "p5", "p6"]}, (5, "pin_id"), "missing id"),
        ("pins", {"pin_id": ["p1", "", "p2", "p3", "p4", "p5", "p6"]}, (2, "pin_id"), "missing id"),
        ("pins", {"pin_id": [*PINS, "a b"]}, (7, "pin_id"), '"a b" is no id'),
        ("pins", {"pin_id": [*PINS, "x\n"]}, (7, "pin_id"), "is no id"),
        ("pins", {"pin_id": [*PINS, "x" * 129]}, (7, "pin_id"), "is no id"),
        ("pins", {"pin_id": [*PINS, "p2"]}, (7, "pin_id"), "already, in row 2"),
        ("boards", {"board_id": ["b1", "b1"]}, (2, "board_id"), '"b1" is there already, in row 1'),
        ("boards", {"board_id": ["b1", "b/1"]}, (2, "board_id"), '"b/1" is no id'),
        ("edges", {"pin_id": ["p1", "q"], "board_id": ["b1", "b1"]}, (2, "pin_id"), '"q" is not in the pins'),
        ("edges", {"pin_id": ["p1", None], "board_id": ["b1", "b1"]}, (2, "pin_id"), "missing id"),
        ("edges", {"pin_id": ["p1"], "board_id": ["b"], "timestamp": [-1]}, (1, "timestamp"), "negative time -1"),
        (
            "edges",
            {"pin_id": ["p1"], "board_id": ["b"], "timestamp": [1_700_000_000_000]},
            (1, "timestamp"),
            "are these milliseconds?",
        ),
        ("edges", {"pin_id": ["p1", "p5"], "board_id": ["b1", "b1"]}, (2, "pin_id"), "coldstart pin"),
        ("engagements", {"user_id": ["u"], "pin_id": ["q"], "timestamp": [1]}, (1, "pin_id"), "not in the pins"),
        ("engagements", {"user_id": [""], "pin_id": ["p1"], "timestamp": [1]}, (1, "user_id"), "missing id"),
        (
            "engagements",
            {"user_id": ["u", "u"], "pin_id": ["p1", "p1"], "timestamp": [1, None]},
            (2, "timestamp"),
            "missing time",
        ),
        ("pairs_train", {"query_pin_id": ["q"], "related_pin_id": ["p1"]}, (1, "query_pin_id"), "not in the"),
        ("pairs_valid", {"query_pin_id": ["p1"], "related_pin_id": ["q"]}, (1, "related_pin_id"), "not in the"),
        ("pairs_test", {"query_pin_id": ["p1"], "related_pin_id": ["p1"]}, (1, "related_pin_id"), "itself"),
        ("pairs_test", {"query_pin_id": ["p6"], "related_pin_id": ["p1"]}, (1, "query_pin_id"), "coldstart pin"),
        (
            "pairs_test",
            {"query_pin_id": ["p3", "p2"], "related_pin_id": ["p4", "p1"]},
            (2, "related_pin_id"),
            "also in pairs_train.parquet",
        ),
        (
            "users_test",
            {"user_id": ["u1"], "history": [["p1", "q"]], "held_out": [["p4"]]},
            (1, "history"),
            '"q" is not in the pins',
        ),
        (
            "users_test",
            {"user_id": ["u1", "u2"], "history": [["p1"], ["p2"]], "held_out": [["p4"], ["p3", "p2"]]},
            (2, "held_out"),
            "also in the history",
        ),
        (
            "users_test",
            {"user_id": ["u1", "u1"], "history": [["p1"], ["p2"]], "held_out": [["p4"], ["p3"]]},
            (2, "user_id"),
            "already, in row 1",
        ),
        ("coldstart_pins", {"pin_id": ["p5", "p6", "q"]}, (3, "pin_id"), "not in the pins"),
        ("coldstart_edges", {"pin_id": ["p1"], "board_id": ["b1"]}, (1, "pin_id"), "not in coldstart_pins"),
        ("pairs_coldstart", {"query_pin_id": ["p5"], "related_pin_id": ["q"]}, (1, "related_pin_id"), "not in"),
    ],
)
def test_a_planted_fault_is_found(
    tmp_path: Path, table: str, columns: dict[str, list], place: tuple[int, str], message: str
) -> None:
    write(sound(tmp_path), table, columns)
    faults = validate_dataset(tmp_path)
    assert places(faults) == [(f"{table}.parquet", *place)], faults
    assert message in faults[0].message


def test_faults_of_all_files_come_at_once(tmp_path: Path) -> None:
    sound(tmp_path)
    write(tmp_path, "boards", {"board_id": ["b1", "b1", "no good"]})
    write(tmp_path, "edges", {"pin_id": ["p1", "x", "y"], "board_id": ["b1", None, "b1"], "timestamp": [1, 1, -5]})
    assert sorted(places(validate_dataset(tmp_path)), key=str) == [
        ("boards.parquet", 2, "board_id"),
        ("boards.parquet", 3, "board_id"),
        ("edges.parquet", 2, "board_id"),
        ("edges.parquet", 2, "pin_id"),
        ("edges.parquet", 3, "pin_id"),
        ("edges.parquet", 3, "timestamp"),
    ]


def test_of_one_kind_a_hundred_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    edges = {"pin_id": ["p1"] + ["nope"] * 1234, "board_id": ["b1"] * 1235}
    write(sound(tmp_path), "edges", edges)
    faults = validate_dataset(tmp_path)
    assert len(faults) == 101
    assert faults[0].row == 2
    assert faults[-1] == Fault("edges.parquet", None, "pin_id", "and 1,134 more faults like this")


@pytest.mark.parametrize("name", ["pins", "edges"])
def test_an_empty_graph(tmp_path: Path, name: str) -> None:
    sound(tmp_path)
    empty = pl.read_parquet(tmp_path / f"{name}.parquet").clear()
    empty.write_parquet(tmp_path / f"{name}.parquet")
    faults = [fault for fault in validate_dataset(tmp_path) if fault.file == f"{name}.parquet"]
    assert faults == [Fault(f"{name}.parquet", None, None, f"empty graph: wanted {name}, found no row")]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    faults = validate_dataset(tmp_path / "none")
    assert [fault.message for fault in faults] == ["wanted the folder of a data set, found no folder"]


def test_missing_tables_and_tables_in_two_formats(tmp_path: Path) -> None:
    sound(tmp_path)
    (tmp_path / "edges.parquet").unlink()
    (tmp_path / "boards.csv").write_text("board_id\nb1\n")
    messages = [str(fault) for fault in validate_dataset(tmp_path)]
    assert messages[0].startswith("boards.parquet: the table is there twice, as boards.parquet and boards.csv")
    assert messages[1].startswith("edges.parquet: missing: wanted edges.parquet or edges.csv")


def test_a_missing_column_and_a_wrong_type(tmp_path: Path) -> None:
    sound(tmp_path)
    write(tmp_path, "edges", {"pin_id": ["p1"], "board": ["b1"]})
    write(tmp_path, "coldstart_pins", {"pin_id": [5, 6]})
    write(tmp_path, "boards", {"board_id": ["b1"], "title": [1.5]})
    faults = {str(fault) for fault in validate_dataset(tmp_path)}
    assert "edges.parquet, column board_id: missing column: wanted a string, found the columns pin_id, board" in faults
    assert "coldstart_pins.parquet, column pin_id: wanted a string, found int64" in faults
    assert "boards.parquet, column title: wanted a string, found double" in faults
    assert len(faults) == 3


def test_a_null_inside_a_list(tmp_path: Path) -> None:
    pins = {"pin_id": PINS, "annotations": [["a"], ["b", None], [], None, ["c"], []]}
    write(sound(tmp_path), "pins", pins)
    assert places(validate_dataset(tmp_path)) == [("pins.parquet", 2, "annotations")]


def test_visual_vectors_ragged_or_not_finite(tmp_path: Path) -> None:
    visual = [[1.0, 2.0], None, [1.0], [float("nan"), 0.0], [0.0, float("inf")], [None, 1.0]]
    write(sound(tmp_path), "pins", {"pin_id": PINS, "visual": visual})
    assert places(validate_dataset(tmp_path)) == [("pins.parquet", row, "visual") for row in (3, 4, 5, 6)]


def test_features_not_finite(tmp_path: Path) -> None:
    vectors = np.zeros((6, 3), dtype=np.float32)
    vectors[1, 2], vectors[4, 0] = np.nan, np.inf
    np.save(sound(tmp_path) / "features.npy", vectors)
    assert places(validate_dataset(tmp_path)) == [("features.npy", 2, "2"), ("features.npy", 5, "0")]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((5, 3)), "wanted a row for each of 6 pins, found 5 rows"),
        (np.zeros(6), "found float64 of shape (6,)"),
        (np.zeros((6, 2), dtype=np.int64), "found int64 of shape (6, 2)"),
        (np.zeros((6, 0)), "found float64 of shape (6, 0)"),
    ],
)
def test_features_of_the_wrong_shape(tmp_path: Path, vectors: np.ndarray, message: str) -> None:
    np.save(sound(tmp_path) / "features.npy", vectors)
    faults = validate_dataset(tmp_path)
    assert places(faults) == [("features.npy", None, None)]
    assert message in faults[0].message


def test_features_that_are_no_array_and_given_twice(tmp_path: Path) -> None:
    (sound(tmp_path) / "features.npy").write_bytes(b"\x93NUMPY garbage")
    write(tmp_path, "pins", {"pin_id": PINS, "visual": [[1.0]] * 6})
    faults = validate_dataset(tmp_path)
    assert places(faults) == [("pins.parquet", None, "visual"), ("features.npy", None, None)]
    assert "there twice" in faults[0].message
    assert "not a readable array" in faults[1].message


def test_malformed_csv_lines_keep_the_row_numbers_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_readers, "CSV_BLOCK_BYTES", 64)  # several blocks
    lines = [b"p1,b1,%d" % n for n in range(1, 61)]
    for row in (3, 4, 30, 59):
        lines[row - 1] = b"p1,b1"
    lines[40 - 1] = b"p9,b1,x"
    replace(sound(tmp_path), "edges", "csv", b"pin_id,board_id,timestamp\n" + b"\n".join(lines) + b"\n")
    faults = validate_dataset(tmp_path)
    malformed = [fault.row for fault in faults if "malformed line: wanted 3 cells, found 2" in fault.message]
    assert malformed == [3, 4, 30, 59]
    others = [fault for fault in faults if "malformed" not in fault.message]
    assert sorted(places(others), key=str) == [("edges.csv", 40, "pin_id"), ("edges.csv", 40, "timestamp")]


def test_csv_cells_of_the_wrong_type_and_invalid_utf8(tmp_path: Path) -> None:
    pins = b'pin_id,annotations,title\np1,"[1]",a\np2,a|b,\xff\np3,"[""x""",c\np4,,\np5,,\np6,,\n'
    replace(sound(tmp_path), "pins", "csv", pins)
    faults = validate_dataset(tmp_path)
    assert sorted(places(faults), key=str) == [
        ("pins.csv", 1, "annotations"),
        ("pins.csv", 2, "title"),
        ("pins.csv", 3, "annotations"),
    ]


def test_a_csv_without_a_header_or_with_a_repeated_name(tmp_path: Path) -> None:
    replace(sound(tmp_path), "boards", "csv", b"")
    replace(tmp_path, "coldstart_pins", "csv", b"pin_id,pin_id\np5,p5\n")
    messages = [str(fault) for fault in validate_dataset(tmp_path)]
    assert "boards.csv: empty: wanted a first line with the names of the columns" in messages
    assert "coldstart_pins.csv, column pin_id: wanted one column of this name, found 2" in messages


def test_malformed_json_lines_are_named_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "BLOCK_BYTES", 100)  # several blocks
    good = b'{"pin_id":"p1","board_id":"b1"}'
    bad = {4: b'{"pin_id":', 5: b"[1]", 7: good + good, 12: b'{"pin_id":"\xff","board_id":"b"}'}
    typed = {9: b'{"pin_id":7,"board_id":"b1"}', 10: b'{"pin_id":"p1","board_id":"b1","timestamp":1.5}'}
    lines = [{**bad, **typed}.get(n, good) for n in range(1, 15)]
    lines[1] = b"  "
    replace(sound(tmp_path), "edges", "jsonl", b"\n".join(lines))
    faults = validate_dataset(tmp_path)
    assert [fault.row for fault in faults if "malformed line" in fault.message] == [4, 5, 7, 12]
    others = [fault for fault in faults if "malformed" not in fault.message]
    assert [(fault.row, fault.column, fault.message) for fault in others] == [
        (9, "pin_id", "wanted a string, found 7"),
        (9, "pin_id", "missing id"),
        (10, "timestamp", "wanted a whole number, found 1.5"),
    ]


def test_a_json_field_that_no_line_has(tmp_path: Path) -> None:
    replace(sound(tmp_path), "edges", "jsonl", b'{"pin_id":"p1"}\n')
    faults = validate_dataset(tmp_path)
    assert "edges.jsonl, column board_id: missing: no line has this field" in map(str, faults)


def test_a_parquet_file_that_is_none_or_cut_or_damaged(tmp_path: Path) -> None:
    sound(tmp_path)
    (tmp_path / "boards.parquet").write_bytes(b"not parquet at all")
    cut = (tmp_path / "coldstart_pins.parquet").read_bytes()
    (tmp_path / "coldstart_pins.parquet").write_bytes(cut[:-20])
    damaged = bytearray((tmp_path / "edges.parquet").read_bytes())
    damaged[4:40] = bytes(36)
    (tmp_path / "edges.parquet").write_bytes(damaged)
    faults = {fault.file: fault.message for fault in validate_dataset(tmp_path)}
    assert "not a readable Parquet file" in faults["boards.parquet"]
    assert "not a readable Parquet file" in faults["coldstart_pins.parquet"]
    assert "damaged somewhere after row 0" in faults["edges.parquet"]
